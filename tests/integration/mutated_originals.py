"""What is damaged: every file and product folder of a tree, and small ones made here.

Large ones are cut before, so that a campaign spends its time on headers and decoders rather
than on pixels: rasters to `CUT_PX`, folders to a few of their rasters.
"""

from __future__ import annotations

import io
import json
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import rasterio
from pyproj import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from geostore import demo
from geostore.errors import GeostoreError
from geostore.grid import default_length, pixel_size_m
from tests.hdf_eos import TestGrid, core_metadata, write_granule
from tests.landsat_products import Made, pack

__all__ = ["Original", "Prepared", "made_here", "of_tree", "prepare"]

CUT_PX = 600
"""Width and height that rasters are cut to."""
CUT_ABOVE_PX = 1_200_000
FOLDER_BYTES_MAX = 5 << 20
FOLDER_RASTERS = 3
ZIP_MEMBERS_MAX = 12
ARCHIVE_BYTES_MAX = 5 << 20
RASTERS = (".tif", ".tiff", ".jp2", ".img")


@dataclass(frozen=True, slots=True)
class Original:
    """A file or folder as it is."""

    name: str
    """Its place in the tree, or `made/...`."""
    path: Path
    kind: str
    """Folder of the tree and suffix: kinds are drawn evenly, however many files they have."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An original, cut where it is large, and how it goes into a store so that tiles fit."""

    path: Path
    resolution_m: float | None
    length: int | None


def of_tree(root: Path) -> list[Original]:
    """Every file of a tree, and every folder that may be a product; sorted.

    The tree's own folders are providers, and no products. Archives over `ARCHIVE_BYTES_MAX`
    are left out: there are smaller ones of their kinds.
    """
    found = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        top = name.split("/")[0]
        if path.is_file():
            is_archive = path.suffix.lower() in (".zip", ".bz2")
            if not is_archive or path.stat().st_size <= ARCHIVE_BYTES_MAX:
                found.append(Original(name, path, f"{top}/{path.suffix.lower()}"))
        elif path.parent != root and _is_product(path):
            found.append(Original(name, path, f"{top}/folder"))
    return found


def _is_product(path: Path) -> bool:
    if path.name.endswith(".SAFE"):
        return True
    if any(parent.name.endswith(".SAFE") for parent in path.parents):
        return False
    return sum(child.is_file() for child in path.iterdir()) > 1


def prepare(original: Original, work: Path) -> Prepared:
    """Cut what is large into the folder `work`, and look up what its pixels measure."""
    is_file = original.path.is_file()
    cut = _cut_folder if not is_file else _cut_zip if original.path.suffix == ".zip" else _cut
    path = cut(original.path, work / original.name)
    files = [path] if is_file else sorted(one for one in path.rglob("*") if one.is_file())
    resolution_m = min((size for one in files for size in _pixel_sizes_m(one)), default=None)
    try:
        length = None if resolution_m is None else default_length("geohash", resolution_m)
    except GeostoreError:
        return Prepared(path, None, None)
    return Prepared(path, resolution_m, length)


def _pixel_sizes_m(path: Path) -> Iterator[float]:
    """Of a raster, or of those in a zip; none where it says none."""
    places = [str(path)] if path.suffix.lower() in RASTERS else []
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            inner = [one for one in archive.namelist() if one.lower().endswith(RASTERS)]
        places = [f"/vsizip/{path}/{one}" for one in inner[:30]]
    for place in places:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            try:
                with rasterio.open(place) as source:
                    if source.crs is not None:
                        yield pixel_size_m(
                            tuple(source.transform[:6]),
                            is_geographic=source.crs.is_geographic,
                            metres_per_unit=1.0,
                        )
            except RasterioError:
                continue


def _cut(path: Path, target: Path) -> Path:
    """The raster, or its upper left part where it is large; other files as they are."""
    if path.suffix.lower() not in RASTERS:
        return path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            source = rasterio.open(path)
        except RasterioError:
            return path
        with source:
            if source.height * source.width * source.count <= CUT_ABOVE_PX:
                return path
            height, width = min(source.height, CUT_PX), min(source.width, CUT_PX)
            # The middle: corners of scenes are often empty.
            row, column = (source.height - height) // 2, (source.width - width) // 2
            window = Window(column, row, width, height)
            profile = source.profile | {
                "height": height, "width": width,
                "transform": source.transform @ Affine.translation(column, row),
            }  # fmt: skip
            if source.driver == "JP2OpenJPEG":
                profile |= {"QUALITY": "100", "REVERSIBLE": "YES"}
                profile |= {"blockxsize": 256, "blockysize": 256}
            target.parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(target, "w", **profile) as made:
                made.write(source.read(window=window))
                made.update_tags(**source.tags())
    return target


def _cut_folder(path: Path, target: Path) -> Path:
    """A folder of small files as it is; else its other files and a few of its rasters, cut."""
    files = [one for one in sorted(path.rglob("*")) if one.is_file()]
    if sum(one.stat().st_size for one in files) <= FOLDER_BYTES_MAX:
        return path
    rasters = [one for one in files if one.suffix.lower() in RASTERS]
    # One of each band group and of each quality layer says more than many of one.
    kept = set(rasters[:: max(1, len(rasters) // FOLDER_RASTERS)][: FOLDER_RASTERS + 1])
    kept |= {
        one for one in rasters if any(mark in one.name for mark in ("SCL_60m", "CLDPRB", "QA"))
    }
    for one in files:
        place = target / one.relative_to(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if one in kept:
            cut = _cut(one, place)
            if cut != place:
                place.symlink_to(cut)
        elif one not in rasters:
            place.symlink_to(one)
    return target


def _cut_zip(path: Path, target: Path) -> Path:
    """A zip of few members as it is; else a few of its rasters and what is small."""
    with zipfile.ZipFile(path) as archive:
        members = [one for one in archive.infolist() if not one.is_dir()]
        rasters = [one for one in members if one.filename.lower().endswith(RASTERS)]
        if len(members) <= ZIP_MEMBERS_MAX:
            return path
        kept = set(rasters[:: len(rasters) // FOLDER_RASTERS][:FOLDER_RASTERS])
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
            for one in members:
                if one in kept or (one not in rasters and one.file_size <= FOLDER_BYTES_MAX):
                    made.writestr(one.filename, archive.read(one))
    return target


# ---------------------------------------------------------------- made here


def made_here(work: Path) -> list[Original]:
    """Small sources of the formats that can be written with what the tests install."""
    folder = work / "made"
    folder.mkdir(parents=True, exist_ok=True)
    for path, profile in _rasters(folder):
        _write(path, **profile)
    _archives(folder)
    _grids(folder)
    found = [
        Original(f"made/{path.name}", path, f"made/{path.suffix}")
        for path in sorted(folder.iterdir())
        if path.is_file()
    ]
    scene = demo.scene_path()
    packed = folder / "safe" / scene.name
    packed.parent.mkdir()
    unpacked = folder / "folders"
    # Sixty metre bands and the metadata: a product of a few kilobytes of pixels.
    with zipfile.ZipFile(scene) as archive, zipfile.ZipFile(packed, "w") as small:
        for name in archive.namelist():
            if name.endswith(("xml", "B01.jp2", "B09.jp2", "B10.jp2")):
                small.writestr(name, archive.read(name))
                archive.extract(name, unpacked)
    found.append(Original(f"made/{packed.name}", packed, "made/safe.zip"))
    Made(unpacked, bands=["SR_B4", "SR_B5", "QA_PIXEL"]).write("txt", "xml", "json")
    pack(unpacked / "landsat.tar", unpacked / Made(unpacked).id)
    found.append(Original("made/landsat.tar", unpacked / "landsat.tar", "made/landsat.tar"))
    found += [
        Original(f"made/{product.name}", product, "made/folder")
        for product in sorted(unpacked.iterdir())
        if product.is_dir()
    ]
    return found


def _rasters(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    tiled = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    yield folder / "strips.tif", {}
    yield folder / "tiles.tif", {**tiled, "compress": "deflate", "predictor": 2}
    yield folder / "lzw.tif", {"compress": "lzw", "interleave": "pixel"}
    yield folder / "zstd.tif", {**tiled, "compress": "zstd", "dtype": "float32", "nodata": np.nan}
    yield folder / "jpeg.tif", {**tiled, "compress": "jpeg", "dtype": "uint8"}
    yield folder / "lerc.tif", {**tiled, "compress": "lerc", "dtype": "float32"}
    yield folder / "big.tif", {"BIGTIFF": "YES", "compress": "packbits", "ENDIANNESS": "BIG"}
    yield folder / "palette.tif", {"dtype": "uint8", "count": 1, "photometric": "palette"}
    yield folder / "alpha.tif", {"dtype": "uint8", "count": 4, "photometric": "rgb", "alpha": "yes"}
    yield folder / "one_strip.tif", {"blockysize": 150, "compress": "deflate"}
    yield folder / "lossless.jp2", {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    yield folder / "tiled.jp2", {"driver": "JP2OpenJPEG", "blockxsize": 64, "blockysize": 64}
    yield folder / "classes.img", {"driver": "HFA", "dtype": "uint8", "count": 1}
    yield (
        folder / "packed.img",
        {"driver": "HFA", "dtype": "uint8", "count": 2, "COMPRESSED": "YES"},
    )
    yield folder / "picture.png", {"driver": "PNG", "dtype": "uint8", "count": 3}
    yield folder / "picture.jpg", {"driver": "JPEG", "dtype": "uint8", "count": 3}
    yield folder / "image.ntf", {"driver": "NITF", "dtype": "uint8", "count": 1, "ICORDS": "N"}
    yield folder / "heights.asc", {"driver": "AAIGrid", "dtype": "int32", "count": 1}


def _write(path: Path, **profile: Any) -> None:
    profile = {"driver": "GTiff", "count": 2, "dtype": "uint16", "nodata": 0} | profile
    shape = (profile["count"], 150, 170)
    pixels = np.random.default_rng(5).integers(1, 250, shape).astype(profile["dtype"])
    pixels[:, 40:100] = 7  # so that coders have something to code
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", height=150, width=170, crs="EPSG:32618",
            transform=Affine(10, 0, 500_000, 0, -10, 4_200_000), **profile,
        ) as target:  # fmt: skip
            target.write(pixels)
            if target.driver == "GTiff":
                target.update_tags(AREA="a" * 900, TIFFTAG_DATETIME="2016:01:12 16:06:42")
    for beside in (path.with_name(path.name + ".aux.xml"), path.with_suffix(".prj")):
        beside.unlink(missing_ok=True)


def _grids(folder: Path) -> None:
    """A MODIS granule of two layers and a netCDF file of two time steps."""
    pixels = np.random.default_rng(6).integers(0, 5000, (60, 70)).astype("int16")
    about = {"_FillValue": -28672, "scale_factor": 10000.0, "add_offset": 0.0}
    layers = {"sur_refl_b01": (pixels, about), "sur_refl_b02": (pixels[::-1], about)}
    core = core_metadata(
        {
            "SHORTNAME": "MOD09A1",
            "LOCALGRANULEID": "MOD09A1.A2017193.h18v04.006.2017202035302.hdf",
            "RANGEBEGINNINGDATE": "2017-07-12",
            "RANGEBEGINNINGTIME": "00:00:00",
            "RANGEENDINGDATE": "2017-07-19",
            "RANGEENDINGTIME": "23:59:59",
        }
    )
    grid = TestGrid("MOD_Grid_500m_Surface_Reflectance", layers, pixel=463.3127165279167)
    write_granule(folder / "MOD09A1.A2017193.h18v04.hdf", [grid], core=core)
    with netCDF4.Dataset(folder / "steps.nc", "w") as target:
        for name, values, units in (
            ("t", np.array([0, 30], "int32"), "days since 2020-01-01"),
            ("y", 5_000_005.0 - 10 * np.arange(60), "m"),
            ("x", 600_005.0 + 10 * np.arange(70), "m"),
        ):
            target.createDimension(name, len(values))
            target.createVariable(name, values.dtype, (name,)).units = units
            target[name][:] = values
        target["y"].standard_name = "projection_y_coordinate"
        target["x"].standard_name = "projection_x_coordinate"
        target.createVariable("crs", "int32", ()).spatial_ref = CRS.from_epsg(32631).to_wkt()
        red = target.createVariable(
            "red", "int16", ("t", "y", "x"), zlib=True, chunksizes=(1, 30, 35)
        )
        red.grid_mapping = "crs"
        red[:] = np.stack([pixels, pixels + 1])


def _archives(folder: Path) -> None:
    tiles, picture = (folder / "tiles.tif").read_bytes(), (folder / "lossless.jp2").read_bytes()
    members = {"a/20160112_tiles.tif": tiles, "a/b.jp2": picture, "a/about.json": b'{"a": [1]}'}
    with zipfile.ZipFile(folder / "rasters.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    for name, mode in (
        ("rasters.tar", "w"),
        ("rasters.tar.gz", "w:gz"),
        ("rasters.tar.xz", "w:xz"),
    ):
        with tarfile.open(folder / name, mode) as tar:  # type: ignore[call-overload]
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "item", "geometry": None, "links": [],
        "properties": {"datetime": "2016-01-12T16:06:42Z", "platform": "sentinel-2a"},
        "assets": {"red": {"href": str(folder / "strips.tif"), "roles": ["data"]}},
    }  # fmt: skip
    (folder / "item.json").write_text(json.dumps(item))
    (folder / "notes.txt").write_text("GROUP = A\n  KEY = 1\nEND_GROUP = A\nEND\n")
    (folder / "notes.xml").write_text('<?xml version="1.0"?>\n<a><b c="1">2016-01-12</b></a>\n')
