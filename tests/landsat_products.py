"""Landsat products made up file by file, of every generation, small enough to pack anew."""

from __future__ import annotations

import json
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import rasterio

__all__ = ["Made", "band_pixels", "mtl_json", "mtl_odl", "mtl_xml", "pack", "write_band"]

LEFT, TOP, ZONE = 452_475.0, 3_408_645.0, 16
SIDE = 40
"""Pixels of 30 m a side."""

OLI_L1 = [f"B{number}" for number in range(1, 12)]
TM_L1 = [f"B{number}" for number in range(1, 8)]
ETM_L1 = [*TM_L1[:5], "B6_VCID_1", "B6_VCID_2", "B7", "B8"]
OLI_SR = [f"SR_B{number}" for number in range(1, 8)]
TM_SR = [f"SR_B{number}" for number in (1, 2, 3, 4, 5, 7)]
ST_LAYERS = ["ST_ATRAN", "ST_CDIST", "ST_DRAD", "ST_EMIS", "ST_EMSD", "ST_QA", "ST_TRAD", "ST_URAD"]

Groups = dict[str, dict[str, str]]


def write_band(
    path: Path,
    data: np.ndarray,
    pixel_m: float = 30.0,
    *,
    crs: str | None = f"EPSG:326{ZONE}",
    left: float = LEFT,
    top: float = TOP,
    nodata: float | None = None,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # GDAL takes the metadata file for a part of the band, and would delete it with the band.
    path.unlink(missing_ok=True)
    bands = data if data.ndim == 3 else data[None]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=bands.shape[0],
        height=bands.shape[1],
        width=bands.shape[2],
        dtype=data.dtype,
        crs=crs,
        transform=rasterio.Affine(pixel_m, 0, left, 0, -pixel_m, top),
        nodata=nodata,
    ) as target:
        target.write(bands)


def band_pixels(name: str, side: int = SIDE, dtype: str = "uint16") -> np.ndarray:
    """Numbers that tell bands apart; the left quarter has no data."""
    rows, columns = np.indices((side, side))
    seed = sum(map(ord, name)) % 97
    pixels = 1 + (seed + 3 * rows + columns) % 250
    empty = -9999 if dtype == "int16" else 0
    if name.startswith(("QA_PIXEL", "BQA", "SR_QA_AEROSOL")):
        pixels, empty = np.full((side, side), 64), 1
    return np.where(columns < side // 4, empty, pixels).astype(dtype)


def mtl_odl(groups: Mapping[str, Mapping[str, str]], root: str = "LANDSAT_METADATA_FILE") -> str:
    lines = [f"GROUP = {root}"]
    for group, keys in groups.items():
        lines.append(f"  GROUP = {group}")
        for key, text in keys.items():
            quoted = any(character.isalpha() for character in text) and not text[0].isdigit()
            lines.append(f'    {key} = "{text}"' if quoted else f"    {key} = {text}")
        lines.append(f"  END_GROUP = {group}")
    return "\n".join([*lines, f"END_GROUP = {root}", "END", ""])


def mtl_xml(groups: Mapping[str, Mapping[str, str]], root: str = "LANDSAT_METADATA_FILE") -> str:
    inner = "".join(
        f"<{group}>{''.join(f'<{key}>{text}</{key}>' for key, text in keys.items())}</{group}>"
        for group, keys in groups.items()
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>{inner}</{root}>\n'


def mtl_json(groups: Mapping[str, Mapping[str, str]], root: str = "LANDSAT_METADATA_FILE") -> str:
    return json.dumps({root: groups})


@lru_cache(maxsize=256)
def _band_bytes(name: str, side: int, dtype: str, pixel_m: float) -> bytes:
    """A band file that many products have."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "band.tif")
        write_band(path, band_pixels(name, side, dtype), pixel_m)
        return path.read_bytes()


@dataclass
class Made:
    """A product of 1200 m x 1200 m below `folder`; change `groups` before `write_mtl`."""

    folder: Path
    id: str = "LC08_L2SP_020039_20150804_20200908_02_T1"
    satellite: int = 8
    sensor: str = "OLI_TIRS"
    level: str = "L2SP"
    collection: str | None = "02"
    bands: list[str] = field(default_factory=lambda: [*OLI_SR, "ST_B10", "QA_PIXEL"])
    time: str | None = "16:19:21.7917421Z"
    groups: Groups = field(default_factory=dict)

    def __post_init__(self) -> None:
        is_new = self.collection == "02"
        contents = "PRODUCT_CONTENTS" if is_new else "PRODUCT_METADATA"
        about = {"LANDSAT_PRODUCT_ID": self.id}
        if self.collection is None:
            about = {"LANDSAT_SCENE_ID": self.id}
        else:
            about["COLLECTION_NUMBER"] = self.collection
            about["COLLECTION_CATEGORY"] = self.id.rpartition("_")[2]
        about["PROCESSING_LEVEL" if is_new else "DATA_TYPE"] = self.level
        about |= {
            f"FILE_NAME_{number}": f"{self.id}_{band}.TIF"
            for number, band in enumerate(self.bands, start=1)
        }
        acquired = {
            "SPACECRAFT_ID": f"LANDSAT_{self.satellite}",
            "SENSOR_ID": self.sensor,
            "WRS_PATH": "020",
            "WRS_ROW": "039",
            "DATE_ACQUIRED": "2015-08-04",
            "CLOUD_COVER": "11.08",
            "SUN_ELEVATION": "64.74360932",
        }
        if self.time is not None:
            acquired["SCENE_CENTER_TIME"] = self.time
        projection = {"UTM_ZONE": str(ZONE)}
        for corner, x in (("UL", LEFT), ("UR", LEFT + 230_000), ("LL", LEFT), ("LR", LEFT + 1200)):
            projection[f"CORNER_{corner}_PROJECTION_X_PRODUCT"] = f"{x:.3f}"
        for corner, y in (("UL", TOP), ("UR", TOP), ("LL", TOP - 230_000), ("LR", TOP - 1200)):
            projection[f"CORNER_{corner}_PROJECTION_Y_PRODUCT"] = f"{y:.3f}"
        self.groups = {
            contents: about,
            "IMAGE_ATTRIBUTES": acquired,
            "PROJECTION_ATTRIBUTES": projection,
        } | self.groups

    @property
    def path(self) -> Path:
        return self.folder / self.id

    def file(self, band: str) -> Path:
        return self.path / f"{self.id}_{band}.TIF"

    def write_bands(self, names: Iterable[str] | None = None) -> Made:
        for name in self.bands if names is None else names:
            side, pixel_m = (2 * SIDE, 15.0) if name == "B8" else (SIDE, 30.0)
            layer = name in (*ST_LAYERS, "SR_ATMOS_OPACITY", "VAA", "VZA", "SAA", "SZA")
            dtype = "int16" if layer else "uint16"
            if name in ("SR_QA_AEROSOL", "SR_CLOUD_QA") or (
                self.sensor in ("TM", "ETM") and name.startswith("B") and name != "BQA"
            ):
                dtype = "uint8"
            self.path.mkdir(parents=True, exist_ok=True)
            self.file(name).write_bytes(_band_bytes(name, side, dtype, pixel_m))
        return self

    def write_mtl(self, *forms: str) -> Made:
        self.path.mkdir(parents=True, exist_ok=True)
        root = "LANDSAT_METADATA_FILE" if self.collection == "02" else "L1_METADATA_FILE"
        writers = {"txt": mtl_odl, "xml": mtl_xml, "json": mtl_json}
        for form in forms or ("txt",):
            text = writers[form](self.groups, root)
            (self.path / f"{self.id}_MTL.{form}").write_text(text)
        return self

    def write(self, *forms: str) -> Made:
        return self.write_bands().write_mtl(*forms)


def pack(target: Path, *folders: Path, flat: bool = False) -> Path:
    """The folders in one archive whose form goes by `target`'s name; `flat`: without folders."""
    members = [
        (path, path.name if flat else f"{folder.name}/{path.name}")
        for folder in folders
        for path in sorted(folder.iterdir())
    ]
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            for path, name in members:
                archive.write(path, name)
    else:
        with tarfile.open(target, "w:gz" if target.name.endswith("gz") else "w") as tar:
            for path, name in members:
                tar.add(path, name)
    return target
