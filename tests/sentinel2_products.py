"""Sentinel-2 products made up file by file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio

L1C_BANDS = [
    "B01",
    "B02",
    "B03",
    "B04",
    "B05",
    "B06",
    "B07",
    "B08",
    "B8A",
    "B09",
    "B10",
    "B11",
    "B12",
]
L2A_BANDS = [band for band in L1C_BANDS if band != "B10"]
NATIVE_M = dict.fromkeys(L1C_BANDS, 20) | dict.fromkeys(["B02", "B03", "B04", "B08"], 10)
NATIVE_M |= dict.fromkeys(["B01", "B09", "B10"], 60)


def write_jp2(path: Path, data: np.ndarray, pixel_m: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = data if data.ndim == 3 else data[None]
    with rasterio.open(
        path,
        "w",
        driver="JP2OpenJPEG",
        count=bands.shape[0],
        height=bands.shape[1],
        width=bands.shape[2],
        dtype=data.dtype,
        crs="EPSG:32629",
        transform=rasterio.Affine(pixel_m, 0, 499_980, 0, -pixel_m, 5_900_040),
        quality=100,
        reversible="YES",
    ) as target:
        target.write(bands)


def band_pixels(band: str, side: int) -> np.ndarray:
    """Numbers that tell bands apart; the left third has no data."""
    rows, columns = np.indices((side, side))
    pixels = 1000 + 10 * L1C_BANDS.index(band) + rows * 7 + columns
    return np.where(columns < side // 3, 0, pixels).astype("uint16")


@dataclass
class Safe:
    """A product of 1200 m x 1200 m, written under `folder`."""

    folder: Path
    level: str = "L1C"
    baseline: str = "0206"
    tile: str = "29UNU"
    info: str = ""
    """More XML inside Product_Info."""
    characteristics: str = ""
    """More XML inside Product_Image_Characteristics."""
    product_uri: str | None = None
    sensing_time: str | None = "2022-10-05T11:56:49.581767Z"
    images: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return (
            f"S2B_MSI{self.level}_20221005T115411_N{self.baseline}_R023_T{self.tile}"
            "_20221005T164454"
        )

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.SAFE"

    @property
    def granule(self) -> Path:
        return self.path / "GRANULE" / f"{self.level}_T{self.tile}_A038058_20221005T115407"

    def metadata(self) -> Safe:
        quantification = (
            "<QUANTIFICATION_VALUE>10000</QUANTIFICATION_VALUE>"
            if self.level == "L1C"
            else "<BOA_QUANTIFICATION_VALUE>10000</BOA_QUANTIFICATION_VALUE>"
            "<AOT_QUANTIFICATION_VALUE>1000.0</AOT_QUANTIFICATION_VALUE>"
            "<WVP_QUANTIFICATION_VALUE>1000.0</WVP_QUANTIFICATION_VALUE>"
        )
        uri = f"{self.name}.SAFE" if self.product_uri is None else self.product_uri
        self.granule.mkdir(parents=True, exist_ok=True)
        (self.path / f"MTD_MSI{self.level}.xml").write_text(
            f"""<?xml version="1.0"?>
<n1:User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/X.xsd"><n1:General_Info>
<Product_Info><PRODUCT_START_TIME>2022-10-05T11:54:11.024Z</PRODUCT_START_TIME>
<PRODUCT_URI>{uri}</PRODUCT_URI><PROCESSING_BASELINE>{self.baseline}</PROCESSING_BASELINE>
<Datatake datatakeIdentifier="GS2B"><SPACECRAFT_NAME>Sentinel-2B</SPACECRAFT_NAME>
<SENSING_ORBIT_NUMBER>23</SENSING_ORBIT_NUMBER></Datatake>{self.info}</Product_Info>
<Product_Image_Characteristics><Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
<SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>{quantification}
{self.characteristics}</Product_Image_Characteristics></n1:General_Info>
<n1:Quality_Indicators_Info><Cloud_Coverage_Assessment>12.5</Cloud_Coverage_Assessment>
</n1:Quality_Indicators_Info></n1:User_Product>"""
        )
        if self.sensing_time is not None:
            (self.granule / "MTD_TL.xml").write_text(
                f"<n1:Tile xmlns:n1='x'><TILE_ID>S2B_OPER_MSI_L1C_TL_ATOS_20221005T153022_A038058_"
                f"T{self.tile}_N04.00</TILE_ID><SENSING_TIME>{self.sensing_time}</SENSING_TIME>"
                "<Tile_Angles><Mean_Sun_Angle><ZENITH_ANGLE>57.8</ZENITH_ANGLE>"
                "<AZIMUTH_ANGLE>172.8</AZIMUTH_ANGLE></Mean_Sun_Angle></Tile_Angles></n1:Tile>"
            )
        return self

    def band_path(self, band: str) -> Path:
        return self.granule / "IMG_DATA" / f"T{self.tile}_20221005T115411_{band}.jp2"

    def l1c(self, bands: Iterable[str] = L1C_BANDS) -> Safe:
        for band in bands:
            size = NATIVE_M[band]
            write_jp2(self.band_path(band), band_pixels(band, 1200 // size), size)
        return self

    def l2a(self, layer: str, size: int, data: np.ndarray) -> Safe:
        name = f"T{self.tile}_20221005T115411_{layer}_{size}m.jp2"
        write_jp2(self.granule / "IMG_DATA" / f"R{size}m" / name, data, size)
        return self

    def quality(self, name: str, size: int, data: np.ndarray) -> Safe:
        write_jp2(self.granule / "QI_DATA" / f"{name}_{size}m.jp2", data, size)
        return self


def offsets(element: str, bands: int = 13, value: str = "-1000") -> str:
    return "".join(f'<{element} band_id="{band}">{value}</{element}>' for band in range(bands))
