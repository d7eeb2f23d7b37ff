"""Made Landsat products of every generation, for unit tests."""

from __future__ import annotations

from pathlib import Path

from geostore.scenes import Scene, detect, open_source
from tests.landsat_products import (
    ETM_L1,
    OLI_L1,
    OLI_SR,
    ST_LAYERS,
    TM_L1,
    TM_SR,
    Made,
)

OLI_L2SP = [*OLI_SR, "ST_B10", "SR_QA_AEROSOL", "QA_PIXEL", "QA_RADSAT", *ST_LAYERS]
TM_L2SP = [
    *TM_SR,
    "ST_B6",
    "SR_ATMOS_OPACITY",
    "SR_CLOUD_QA",
    "QA_PIXEL",
    "QA_RADSAT",
    *ST_LAYERS,
]
ANGLES = ["VAA", "VZA", "SAA", "SZA"]
PRE = "LC80200392015216LGN00"
CENTRE_US = 1_438_705_161_791_742
"""2015-08-04T16:19:21.791742Z"""

TM_COMMON = {
    "1": "blue",
    "2": "green",
    "3": "red",
    "4": "nir08",
    "5": "swir16",
    "6": "lwir",
    "7": "swir22",
}
OLI_COMMON = {
    "1": "coastal",
    "2": "blue",
    "3": "green",
    "4": "red",
    "5": "nir08",
    "6": "swir16",
    "7": "swir22",
    "8": "pan",
    "9": "cirrus",
    "10": "lwir11",
    "11": "lwir12",
}


def c2_l2(folder: Path, **more: object) -> Made:
    return Made(folder, **{"bands": OLI_L2SP, **more})  # type: ignore[arg-type]


def small(folder: Path, **more: object) -> Made:
    """Of Level-2 two bands, where only the metadata matters."""
    return c2_l2(folder, **{"bands": ["SR_B4", "QA_PIXEL"], **more})


def c2_l1(folder: Path, **more: object) -> Made:
    named = {
        "id": "LC09_L1TP_020039_20150804_20230401_02_T1",
        "satellite": 9,
        "level": "L1TP",
        "bands": [*OLI_L1, "QA_PIXEL", "QA_RADSAT", *ANGLES],
    }
    return Made(folder, **{**named, **more})  # type: ignore[arg-type]


def c1_l1(folder: Path, **more: object) -> Made:
    named = {
        "id": "LC08_L1TP_020039_20150804_20170406_01_T1",
        "level": "L1TP",
        "collection": "01",
        "bands": [*OLI_L1, "BQA"],
    }
    return Made(folder, **{**named, **more})  # type: ignore[arg-type]


def tm(folder: Path, satellite: int = 5, **more: object) -> Made:
    named = {"id": f"LT0{satellite}_L1TP_020039_20150804_20161130_01_T1", "bands": [*TM_L1, "BQA"]}
    return c1_l1(folder, **{"satellite": satellite, "sensor": "TM", **named, **more})


def etm(folder: Path, **more: object) -> Made:
    named = {"id": "LE07_L1TP_020039_20150804_20161130_01_T1", "bands": [*ETM_L1, "BQA"]}
    return c1_l1(folder, **{"satellite": 7, "sensor": "ETM", **named, **more})


def pre(folder: Path, **more: object) -> Made:
    named = {"id": PRE, "level": "L1T", "collection": None, "bands": [*OLI_L1, "BQA"]}
    return Made(folder, **{**named, **more})  # type: ignore[arg-type]


MAKERS = {"c2-l2": c2_l2, "c2-l1": c2_l1, "c1": c1_l1, "tm": tm, "etm": etm, "pre": pre}


def opened(path: Path) -> Scene:
    reader = detect(path)
    assert reader is not None
    (scene,) = open_source(path)
    assert scene.reader == reader.name
    return scene


def names(scene: Scene) -> list[str]:
    return [band.info.name for band in scene.bands]
