"""Cuts the scene that ships in the package from the main test scene.

    python tests/make_demo_scene.py SCENE.SAFE.zip geostore/demo_data

Run by hand when the demo's imagery changes; the same input gives the same bytes with the
same GDAL and OpenJPEG. Pixels are cut, never resampled: lossless JPEG 2000, all 13 bands,
each at its own pixel size. The metadata keeps the product's own words but for what the cut
changes: its name (`_CUT`), sizes, corner and footprint, and the preview that is left out.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import rasterio
from pyproj import Transformer
from rasterio.windows import Window

COLUMN, ROW, SIZE = 600, 504, 840
"""The cut in 10 m pixels; multiples of 6, so that 20 and 60 m pixels are cut at their edges."""
BANDS = {
    10: ("B02", "B03", "B04", "B08"),
    20: ("B05", "B06", "B07", "B8A", "B11", "B12"),
    60: ("B01", "B09", "B10"),
}
SUFFIX = "_CUT"
ZIP_TIME = (2016, 1, 12, 16, 6, 42)


def cut_band(source: str, size_m: int, target: Path) -> tuple[float, float, str]:
    """Writes the window of one band; returns its corner and CRS."""
    factor = size_m // 10
    window = Window(COLUMN // factor, ROW // factor, SIZE // factor, SIZE // factor)
    with rasterio.open(source) as band:
        pixels = band.read(1, window=window)
        transform = band.window_transform(window)
        profile = {
            "driver": "JP2OpenJPEG",
            "height": pixels.shape[0],
            "width": pixels.shape[1],
            "count": 1,
            "dtype": pixels.dtype,
            "crs": band.crs,
            "transform": transform,
            "QUALITY": "100",
            "REVERSIBLE": "YES",
            "RESOLUTIONS": "4",
            "BLOCKXSIZE": "512",
            "BLOCKYSIZE": "512",
        }
        crs = band.crs.to_string()
    with rasterio.open(target, "w", **profile) as out:
        out.write(pixels, 1)
    with rasterio.open(target) as written:
        if not np.array_equal(written.read(1), pixels) or written.transform != transform:
            raise SystemExit(f"{target}: the JPEG 2000 file does not give the pixels back")
    return transform.c, transform.f, crs


def footprint(left: float, top: float, crs: str) -> str:
    """EXT_POS_LIST of the cut: latitude longitude pairs, closed."""
    to_degrees = Transformer.from_crs(crs, 4326, always_xy=True)
    right, bottom = left + 10 * SIZE, top - 10 * SIZE
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    degrees = [to_degrees.transform(x, y) for x, y in corners]
    return " ".join(f"{latitude:.12f} {longitude:.12f}" for longitude, latitude in degrees) + " "


def replace_once(text: str, pattern: str, new: str) -> str:
    """`text` with exactly one match of `pattern` replaced."""
    replaced, count = re.subn(pattern, lambda _: new, text, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{pattern!r} matched {count} times, expected once")
    return replaced


def adjust_product(text: str, name: str, position_list: str) -> str:
    """MTD_MSIL1C.xml: the cut's name and footprint, no preview."""
    text = replace_once(text, rf"<PRODUCT_URI>{name}\.SAFE<", f"<PRODUCT_URI>{name}{SUFFIX}.SAFE<")
    text = replace_once(text, r"\n *<IMAGE_FILE>[^<]*_TCI</IMAGE_FILE>", "")
    return replace_once(
        text,
        r"<EXT_POS_LIST>[^<]*</EXT_POS_LIST>",
        f"<EXT_POS_LIST>{position_list}</EXT_POS_LIST>",
    )


def adjust_granule(text: str, left: float, top: float) -> str:
    """MTD_TL.xml: sizes and corner of the cut."""
    for size_m in BANDS:
        side = SIZE * 10 // size_m
        text = replace_once(
            text,
            rf'(?<=<Size resolution="{size_m}">).*?(?=</Size>)',
            f"<NROWS>{side}</NROWS><NCOLS>{side}</NCOLS>",
        )
        text = replace_once(
            text,
            rf'(?<=<Geoposition resolution="{size_m}">).*?(?=</Geoposition>)',
            f"<ULX>{left:.0f}</ULX><ULY>{top:.0f}</ULY><XDIM>{size_m}</XDIM><YDIM>-{size_m}</YDIM>",
        )
    return text


def add(archive: zipfile.ZipFile, name: str, content: bytes, *, compress: bool) -> None:
    """Adds a member whose header depends on nothing but its content."""
    member = zipfile.ZipInfo(name, ZIP_TIME)
    member.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    member.external_attr = 0o644 << 16
    archive.writestr(member, content, compresslevel=9 if compress else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    name = arguments.scene.name.removesuffix(".SAFE.zip")
    target = arguments.directory / f"{name}{SUFFIX}.SAFE.zip"
    with (
        zipfile.ZipFile(arguments.scene) as source,
        tempfile.TemporaryDirectory() as scratch,
        zipfile.ZipFile(target, "w") as archive,
    ):
        members = source.namelist()
        root = f"{name}{SUFFIX}.SAFE/"
        left = top = 0.0
        crs = ""
        images = {}
        for size_m, bands in BANDS.items():
            for band in bands:
                member = next(each for each in members if each.endswith(f"_{band}.jp2"))
                image = Path(scratch) / f"{band}.jp2"
                left, top, crs = cut_band(
                    f"/vsizip/{arguments.scene.resolve()}/{member}", size_m, image
                )
                images[member.partition("/")[2]] = image
        for member in members:
            inside = member.partition("/")[2]
            if inside.endswith("MTD_MSIL1C.xml"):
                text = source.read(member).decode()
                adjusted = adjust_product(text, name, footprint(left, top, crs))
                add(archive, root + inside, adjusted.encode(), compress=True)
            elif inside.endswith("MTD_TL.xml"):
                adjusted = adjust_granule(source.read(member).decode(), left, top)
                add(archive, root + inside, adjusted.encode(), compress=True)
            elif inside in images:
                add(archive, root + inside, images[inside].read_bytes(), compress=False)
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
