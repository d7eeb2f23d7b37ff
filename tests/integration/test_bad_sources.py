"""Sources that are damaged, hostile or impossible: one clear line, exit 1, the store unharmed.

Each case is a function that makes the source in a folder and returns it with what the
message must say besides the file's name.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

import geostore
from geostore import demo
from tests.integration.stocked_store import StockedStore

Case = tuple[Path, tuple[str, ...]]
Make = Callable[..., Case]

DEMO = demo.scene_path()
PIXELS = np.random.default_rng(3).integers(1, 200, (1, 64, 64)).astype("uint8")


# ---------------------------------------------------------------- Sentinel-2 products


def members() -> dict[str, bytes]:
    with zipfile.ZipFile(DEMO) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zip_product(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def unpack_product(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (product,) = folder.glob("*.SAFE")
    return product


def changed(end: str, change: Callable[[bytes], bytes | None]) -> dict[str, bytes]:
    """The demo's product with the members whose name has `end` changed, or left out."""
    found = {}
    for name, data in members().items():
        kept = change(data) if end in name else data
        if kept is not None:
            found[name] = kept
    return found


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def nearly_all(data: bytes) -> bytes:
    return data[: len(data) - 2000]


def absent(data: bytes) -> None:
    del data


def entities(data: bytes) -> bytes:
    """An XML whose entities expand without end."""
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    head, _, rest = data.partition(b"?>")
    return head + b"?>" + bomb + rest


def product(
    end: str,
    change: Callable[[bytes], bytes | None],
    says: tuple[str, ...],
    folder: Path,
    *,
    packed: bool = True,
) -> Case:
    content = changed(end, change)
    path = zip_product(folder / "p.zip", content) if packed else unpack_product(folder, content)
    return path, says


PRODUCTS: dict[str, Make] = {
    "jp2 cut in half, zip": partial(product, "_B04.jp2", half, ("_B04.jp2",)),
    "jp2 cut in half, folder": partial(product, "_B04.jp2", half, ("_B04.jp2",), packed=False),
    "jp2 without its end, zip": partial(product, "_B02.jp2", nearly_all, ("_B02.jp2",)),
    "jp2 of nothing": partial(product, "_B11.jp2", lambda data: b"", ("_B11.jp2",)),
    "jp2 of text": partial(product, "_B11.jp2", lambda data: b"not an image", ("_B11.jp2",)),
    "no XML, zip": partial(
        product, "MTD_MSIL1C.xml", absent, ("without its metadata", "MTD_MSIL1C.xml")
    ),
    "no XML, folder": partial(
        product, "MTD_MSIL1C.xml", absent, ("without its metadata", "MTD_MSIL1C.xml"), packed=False
    ),
    "XML cut in half": partial(product, "MTD_MSIL1C.xml", half, ("MTD_MSIL1C.xml", "XML")),
    "XML with entities": partial(product, "MTD_MSIL1C.xml", entities, ("MTD_MSIL1C.xml", "XML")),
    "no band at all": partial(
        product, "/IMG_DATA/", absent, ("no image of any band", "_B03.jp2 and 10")
    ),
}


# ---------------------------------------------------------------- archives


def zip_of(names: tuple[str, ...], says: tuple[str, ...], folder: Path) -> Case:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo()
            info.filename = name  # unlike the constructor this keeps what it is given
            archive.writestr(info, b"II*\0")
    return path, says


def zip_with_link(folder: Path) -> Case:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("a.tif")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return path, ("'a.tif'", "a link or device, not a file")


def zip_bomb(folder: Path) -> Case:
    path = folder / "a.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("big.tif", "w") as member,
    ):
        for _ in range(80):
            member.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 19
    return path, ("'big.tif'", "looks like a zip bomb")


def zip_that_lies(folder: Path) -> Case:
    """8 MiB that say they were 1000 bytes."""
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.tif", b"II*\0" + bytes(8 << 20))
    data = path.read_bytes()
    said = struct.pack("<L", 4 + (8 << 20))
    assert data.count(said) == 2
    path.write_bytes(data.replace(said, struct.pack("<L", 1000)))
    return path, ("'big.tif'",)


def zip_that_overlaps(folder: Path) -> Case:
    """Every entry of the table of members shares one member's bytes."""
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.tif", b"II*\0" + bytes(1 << 20))
        first = archive.getinfo("a.tif")
        for name in ("b.tif", "c.tif"):
            info = zipfile.ZipInfo(name)
            for attribute in ("compress_type", "CRC", "compress_size", "file_size"):
                setattr(info, attribute, getattr(first, attribute))
            info.header_offset = first.header_offset
            archive.filelist.append(info)
            archive.NameToInfo[name] = info
    return path, ("overlaps another",)


def zip_cut(folder: Path) -> Case:
    path = folder / "a.zip"
    path.write_bytes(half(DEMO.read_bytes()))
    return path, ("damaged or truncated zip",)


def tar_that_climbs(folder: Path) -> Case:
    path = folder / "a.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("../../a.tif")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"II*\0"))
    return path, ("'../../a.tif'", "outside the archive")


ARCHIVES: dict[str, Make] = {
    "zip that climbs out": partial(
        zip_of, ("a.tif", "../../b.tif"), ("'../../b.tif'", "outside the archive")
    ),
    "zip that climbs out by \\": partial(zip_of, ("..\\b.tif",), ("outside the archive",)),
    "zip with an absolute path": partial(zip_of, ("/etc/b.tif",), ("an absolute path",)),
    "zip with control characters": partial(zip_of, ("a\x1b[2J.tif",), ("printable name",)),
    "zip with a name of 10,000 letters": partial(zip_of, ("n" * 10_000,), ("1..4096",)),
    "zip with a link": zip_with_link,
    "zip bomb": zip_bomb,
    "zip that lies about its size": zip_that_lies,
    "zip of overlapping members": zip_that_overlaps,
    "zip cut in half": zip_cut,
    "zip of nothing": partial(zip_of, (), ("no reader claims it",)),
    "tar that climbs out": tar_that_climbs,
}


# ---------------------------------------------------------------- rasters


@pytest.fixture
def write(tmp_path: Path, write_raster: Callable[..., Path]) -> Callable[..., Path]:
    """`write(data, **keywords)`: a GeoTIFF in a folder of its own."""

    def make(data: Any, name: str = "bad.tif", **keywords: Any) -> Path:
        return write_raster(tmp_path / "sources" / name, data, **keywords)

    return make


def sparse(path: Path, height: int, width: int, **keywords: Any) -> Path:
    """A raster of any size in few bytes: none of its blocks is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "SPARSE_OK": True}
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=height, width=width, dtype="uint8",
        **options, **keywords,
    ):  # fmt: skip
        return path


RASTERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "without CRS": ({"crs": None}, ("no CRS; expected",)),
    "CRS that PROJ cannot use": (
        {"crs": 'LOCAL_CS["shop floor",UNIT["metre",1]]'},
        ("PROJ cannot use CRS", "shop floor", "expected"),
    ),
    "off the globe": (
        {"transform": (10.0, 0.0, 1e12, 0.0, -10.0, 1e12)},
        ("places none of its pixels",),
    ),
    "without position": ({"transform": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)}, ("no geotransform",)),
    "without area": ({"transform": (10.0, 0.0, 5e5, 0.0, 0.0, 4e6)}, ("maps no area",)),
    "all nodata": ({"data": np.zeros((1, 64, 64), "uint8"), "nodata": 0}, ("no band has a valid",)),
    "all NaN": ({"data": np.full((1, 64, 64), np.nan, "float32")}, ("no band has a valid",)),
    "complex64": ({"data": PIXELS.astype("complex64")}, ("complex64", "expected integers or real")),
    "complex128": (
        {"data": PIXELS.astype("complex128")},
        ("complex128", "expected integers or real"),
    ),
    "finer than its dataset": (
        {"transform": (1.0, 0.0, 5e5, 0.0, -1.0, 4.2e6)},
        ("a band of 1 m is finer", "--resolution"),
    ),
}


class TestRefused:
    """Every way in which a source can be impossible, through `geostore ingest PATH`."""

    @pytest.mark.parametrize("make", (PRODUCTS | ARCHIVES).values(), ids=PRODUCTS | ARCHIVES)
    def test_product_or_archive(self, stocked: StockedStore, tmp_path: Path, make: Make) -> None:
        folder = tmp_path / "sources"
        folder.mkdir()
        path, says = make(folder)
        before = sorted(tmp_path.rglob("*"))
        ran = stocked.refused("ingest", path, code=1, says=(path.name, *says))
        (line,) = ran.lines
        assert line["status"] == "failed"
        assert path.name in line["error"]
        outside = [one for one in tmp_path.rglob("*") if stocked.path not in one.parents]
        assert sorted(outside) == [one for one in before if stocked.path not in one.parents]

    @pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
    @pytest.mark.parametrize(("keywords", "says"), RASTERS.values(), ids=RASTERS)
    def test_raster(
        self,
        stocked: StockedStore,
        write: Callable[..., Path],
        keywords: dict[str, Any],
        says: tuple[str, ...],
    ) -> None:
        path = write(**{"data": PIXELS, **keywords})
        ran = stocked.refused("ingest", path, code=1, says=("bad.tif", *says))
        assert ran.lines[0]["status"] == "failed"

    @pytest.mark.parametrize("keep", [8, 300, 0.5, 0.99], ids=str)
    def test_cut_geotiff(
        self, stocked: StockedStore, write: Callable[..., Path], keep: float
    ) -> None:
        whole = np.random.default_rng(1).integers(0, 255, (1, 300, 300)).astype("uint8")
        path = write(whole, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
        data = path.read_bytes()
        path.write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
        stocked.refused("ingest", path, code=1, says=("bad.tif",))

    @pytest.mark.parametrize("keep", [0.5, 0.99])
    def test_cut_jp2(self, stocked: StockedStore, tmp_path: Path, keep: float) -> None:
        (data,) = (data for name, data in members().items() if name.endswith("_B02.jp2"))
        path = tmp_path / "red.jp2"
        path.write_bytes(data[: int(keep * len(data))])
        stocked.refused("ingest", path, code=1, says=("red.jp2",))

    def test_a_damaged_version_does_not_take_the_place_of_a_good_one(
        self, stocked: StockedStore, tmp_path: Path
    ) -> None:
        (good,) = stocked.run("ingest", DEMO).lines
        rows = stocked.run("query", "--scene", good["scene"]).lines
        (tmp_path / "sources").mkdir()
        path, _ = PRODUCTS["jp2 cut in half, zip"](tmp_path / "sources")
        ran = stocked.run("ingest", path, "--replace", code=1)
        assert "_B04.jp2" in ran.stderr
        assert stocked.run("query", "--scene", good["scene"]).lines == rows
        stocked.check_unharmed(others=1)

    def test_a_million_tiles(self, stocked: StockedStore, tmp_path: Path) -> None:
        path = sparse(
            tmp_path / "globe.tif", 72_000, 144_000,
            crs="EPSG:4326", transform=Affine(0.0025, 0.0, -180.0, 0.0, -0.0025, 90.0),
        )  # fmt: skip
        says = ("globe.tif", "50,000", "--max-tiles", "--length", "--resolution")
        # 2**20 geohashes of 4 characters; 4**11 quadtiles would be four million.
        ingest = ("ingest", path, "--dataset", "globe", "--length", "4")
        (line,) = stocked.refused(*ingest, code=1, says=says).lines
        assert line["seconds"] < 10
        stocked.refused(*ingest, "--dry-run", code=1, says=says)
        stocked.refused(*ingest, "--max-tiles", "999999", code=1, says=("999,999",))

    def test_tiles_of_a_few_pixels(self, stocked: StockedStore, write: Callable[..., Path]) -> None:
        path = write(PIXELS)
        ingest = ("ingest", path, "--dataset", "small", "--length", "8")
        says = ("bad.tif", "at least 16", "--length", "--resolution")
        stocked.refused(*ingest, code=1, says=says)

    @pytest.mark.parametrize(
        ("crs", "transform"),
        [
            ("EPSG:4326", (0.01, 0.0, 10.0, 0.0, -0.01, 85.5)),
            ("EPSG:4326", (0.01, 0.0, 10.0, 0.0, -0.01, -84.5)),
            ("EPSG:3413", (1000.0, 0.0, -32_000.0, 0.0, -1000.0, 32_000.0)),
            ("EPSG:3031", (1000.0, 0.0, -32_000.0, 0.0, -1000.0, 32_000.0)),
        ],
    )
    def test_quadtiles_end_before_the_poles(
        self, stocked: StockedStore, write: Callable[..., Path], crs: str, transform: Any
    ) -> None:
        path = write(PIXELS, crs=crs, transform=transform)
        ingest = ("ingest", path, "--dataset", "quad", "--scheme", "quadtile")
        says = ("bad.tif", "85.0511", "--scheme geohash")
        stocked.refused(*ingest, code=1, says=says)

    def test_a_folder_that_is_no_product(self, stocked: StockedStore, tmp_path: Path) -> None:
        (tmp_path / "S2A_MSIL1C_x.SAFE").mkdir()
        says = ("S2A_MSIL1C_x.SAFE", "MTD_MSIL1C.xml")
        stocked.refused("ingest", tmp_path / "S2A_MSIL1C_x.SAFE", code=1, says=says)

    def test_a_device(self, stocked: StockedStore) -> None:
        stocked.refused("ingest", os.devnull, code=1, says=(os.devnull, "neither a file nor"))

    def test_no_room_to_unpack(
        self, stocked: StockedStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
        says = ("SAFE.zip", "cannot unpack to /proc/nowhere", "TMPDIR")
        stocked.refused("ingest", DEMO, code=1, says=says)


def test_a_failure_does_not_stop_the_others(
    stocked: StockedStore, write: Callable[..., Path]
) -> None:
    bad, good = write(PIXELS, crs=None), write(PIXELS, name="good.tif")
    ran = stocked.run("ingest", bad, good, code=1)
    assert [line["status"] for line in ran.lines] == ["failed", "ingested"]
    error, *rest = ran.stderr.splitlines()
    assert error.startswith("geostore: error: ")
    assert "bad.tif" in error
    assert rest[-1].startswith("geostore: 1 ingested, 1 failed; 1 tile, ")
    stocked.check_unharmed(others=1)


def test_python_reports_a_bad_source_in_its_result(
    stocked: StockedStore, write: Callable[..., Path]
) -> None:
    path = write(PIXELS, crs=None)
    with geostore.open(stocked.path) as store:
        (result,) = store.ingest(path)
        assert (result.status, result.tiles) == ("failed", 0)
        assert "bad.tif: no CRS" in str(result.error)
    stocked.check_unharmed()


def test_a_missing_band_is_reported_and_the_rest_is_stored(
    stocked: StockedStore, tmp_path: Path
) -> None:
    path = zip_product(tmp_path / "p.zip", changed("_B04.jp2", absent))
    ran = stocked.run("ingest", path)
    (line,) = ran.lines
    assert (line["status"], line["missing"], line["error"]) == ("ingested", ["B04"], None)
    assert "missing bands: B04" in ran.stderr
    assert ran.stderr.count("\n") == 1
    rows = stocked.run("query", "--scene", line["scene"]).lines
    assert len(rows) == line["tiles"] > 0
    assert all("B04" not in row["bands"] and "B03" in row["bands"] for row in rows)
    # Never zeros: asking for it is an answer without tiles, or an error that names it.
    assert (
        stocked.run("query", "--dataset", "sentinel-2-l1c", "--bands", "B04", code=1).stdout == ""
    )
    stocked.check_unharmed(others=1)
