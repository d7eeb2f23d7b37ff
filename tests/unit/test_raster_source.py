"""Bands as they come from files: pixels, validity, threads, and damage that must not pass."""

from __future__ import annotations

import logging
import struct
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from geostore.errors import InternalError, InvalidInputError, UnreadableSourceError
from geostore.raster import RasterBand, RasterFile, block_cache_of, bounds
from geostore.raster.source import IDLE_HANDLES_MAX

MakeRaster = Callable[..., Path]


def numbers(dtype: str, height: int = 40, width: int = 50) -> np.ndarray:
    return np.random.default_rng(1).integers(1, 100, (1, height, width)).astype(dtype)


@pytest.mark.parametrize(
    "dtype",
    [
        "uint8",
        "int8",
        "uint16",
        "int16",
        "uint32",
        "int32",
        "uint64",
        "int64",
        "float32",
        "float64",
    ],
)
def test_every_real_dtype_reads_as_it_is(make_raster: MakeRaster, dtype: str) -> None:
    data = numbers(dtype)
    band = RasterBand(str(make_raster("a.tif", data)))
    pixels, valid = band.read(3, 5, 20, 30)
    assert band.dtype == dtype
    assert pixels.dtype == np.dtype(dtype)
    assert valid is None
    np.testing.assert_array_equal(pixels, data[0, 3:23, 5:35])
    band.close()


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_bands_are_refused_by_name(make_raster: MakeRaster, dtype: str) -> None:
    path = make_raster("sar.tif", numbers("float64").astype(dtype))
    with pytest.raises(InvalidInputError, match=rf"sar\.tif.*{dtype}"):
        RasterBand(str(path))


def test_grid_and_blocks(make_raster: MakeRaster) -> None:
    path = make_raster(
        "a.tif", numbers("uint8", 300, 200), tiled=True, blockxsize=256, blockysize=128
    )
    grid = RasterBand(str(path)).grid
    assert (grid.height, grid.width) == (300, 200)
    # Blocks never claim to be larger than the raster.
    assert (grid.block_height, grid.block_width) == (128, 200)
    assert grid.transform == (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_200_000.0)
    assert "18N" in grid.crs_wkt


@pytest.mark.parametrize(
    ("row", "column", "height", "width"),
    [(-1, 0, 5, 5), (0, -1, 5, 5), (36, 0, 5, 5), (0, 46, 5, 5), (0, 0, 0, 5), (0, 0, 5, 0)],
)
def test_windows_must_lie_inside(
    make_raster: MakeRaster, row: int, column: int, height: int, width: int
) -> None:
    band = RasterBand(str(make_raster("a.tif", numbers("uint8"))))
    with pytest.raises(InvalidInputError, match=r"a\.tif: window of"):
        band.read(row, column, height, width)


class TestValidity:
    def test_nodata_is_compared_exactly(self, make_raster: MakeRaster) -> None:
        data = np.array([[[0.1, 0.1000001, np.nan], [-9999.0, -9998.999, np.inf]]], np.float32)
        path = make_raster("a.tif", data, nodata=0.1)
        pixels, valid = RasterBand(str(path)).read(0, 0, 2, 3)
        np.testing.assert_array_equal(pixels, data[0])
        assert valid is not None
        # 0.1 is not a float32: what the band holds for it is nodata, its neighbour is not.
        np.testing.assert_array_equal(valid, [[False, True, False], [True, True, True]])

    def test_nan_pixels_are_never_valid(self, make_raster: MakeRaster) -> None:
        data = np.array([[[1.0, np.nan]]], np.float64)
        for nodata in (None, np.nan, 7.0):
            path = make_raster(f"{nodata}.tif", data, nodata=nodata)
            _, valid = RasterBand(str(path)).read(0, 0, 1, 2)
            assert valid is not None
            assert valid.tolist() == [[True, False]]

    def test_an_override_replaces_the_files_nodata(self, make_raster: MakeRaster) -> None:
        data = np.array([[[1, 2, 3]]], np.uint16)
        path = make_raster("a.tif", data, nodata=1)
        assert RasterBand(str(path)).read(0, 0, 1, 3)[1].tolist() == [[False, True, True]]
        band = RasterBand(str(path), nodata=3)
        assert band.nodata == 3
        assert band.read(0, 0, 1, 3)[1].tolist() == [[True, True, False]]

    @pytest.mark.parametrize("nodata", [-9999.0, 300.0, 1.5, float("nan"), float("-inf")])
    def test_a_nodata_that_no_pixel_can_have_counts_as_none(
        self, make_raster: MakeRaster, nodata: float
    ) -> None:
        band = RasterBand(str(make_raster("a.tif", numbers("uint8"))), nodata=nodata)
        assert band.nodata is None
        assert band.read(0, 0, 40, 50)[1] is None

    @pytest.mark.parametrize("value", [2**53 + 1, -(2**63)])
    def test_large_int64_nodata_keeps_every_digit(
        self, make_raster: MakeRaster, value: int
    ) -> None:
        data = np.array([[[value, value + 1]]], np.int64)
        band = RasterBand(str(make_raster("a.tif", data)), nodata=value)
        assert band.nodata == value
        assert band.read(0, 0, 1, 2)[1].tolist() == [[False, True]]

    def test_an_internal_mask(self, make_raster: MakeRaster) -> None:
        path = make_raster("a.tif", numbers("uint8"))
        mask = np.zeros((40, 50), bool)
        mask[10:20] = True
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as target:
            target.write_mask(mask)
        band = RasterBand(str(path))
        np.testing.assert_array_equal(band.read(5, 0, 10, 50)[1], mask[5:15])
        assert RasterBand(str(path), ignore_mask=True).read(0, 0, 40, 50)[1] is None

    @pytest.mark.parametrize("nodata", [None, 7])
    def test_an_alpha_band_masks_with_and_without_nodata(
        self, make_raster: MakeRaster, nodata: int | None
    ) -> None:
        data = np.stack([np.full((4, 4), 7), np.full((4, 4), 9)]).astype("uint8")
        data[0, :, 0] = 8
        data[1, 2:] = 0
        path = make_raster("a.tif", data, nodata=nodata)
        with rasterio.open(path, "r+") as target:
            target.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
        _, valid = RasterBand(str(path)).read(0, 0, 4, 4)
        expected = data[1] != 0
        if nodata is not None:
            expected &= data[0] != nodata
        np.testing.assert_array_equal(valid, expected)

    def test_each_band_has_its_own_nodata(self, tmp_path: Path) -> None:
        data = np.array([[[3, 20, 5]], [[3, 20, 5]]], np.uint8)
        path = tmp_path / "a.img"
        with rasterio.open(
            path,
            "w",
            driver="HFA",
            count=2,
            height=1,
            width=3,
            dtype="uint8",
            nodata=3,
            crs="EPSG:32618",
            transform=rasterio.Affine(10, 0, 5e5, 0, -10, 4.2e6),
        ) as target:
            target.write(data)
        # rasterio sets one value for all bands; the format keeps one for each.
        before, between, after = path.read_bytes().split(struct.pack("<d", 3.0))
        path.write_bytes(
            before + struct.pack("<d", 3.0) + between + struct.pack("<d", 20.0) + after
        )
        for number, nodata in ((1, 3), (2, 20)):
            band = RasterBand(str(path), number)
            assert band.nodata == nodata
            assert band.read(0, 0, 1, 3)[1].tolist() == (data[0] != nodata).tolist()

    def test_nodata_of_all_bands_together(self, make_raster: MakeRaster) -> None:
        """NODATA_VALUES: a pixel is missing where every band has its number at once."""
        data = np.array([[[0, 0, 9]], [[0, 7, 7]]], np.uint8)
        path = make_raster("a.tif", data, tags={"NODATA_VALUES": "0 7"})
        for number in (1, 2):
            assert RasterBand(str(path), number).nodata is None
            valid = RasterBand(str(path), number).read(0, 0, 1, 3)[1]
            assert valid.tolist() == [[True, False, True]]

    def test_an_internal_mask_and_nodata_both_count(self, make_raster: MakeRaster) -> None:
        path = make_raster("a.tif", np.array([[[0, 1, 2]]], np.uint8), nodata=1)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as target:
            target.write_mask(np.array([[False, True, True]]))
        assert RasterBand(str(path)).read(0, 0, 1, 3)[1].tolist() == [[False, False, True]]

    def test_a_mask_band_of_another_file(self, make_raster: MakeRaster) -> None:
        classes = np.array([[[0, 1], [2, 0]]], np.uint8)
        mask = RasterBand(str(make_raster("scl.tif", classes)), nodata=0)
        path = str(make_raster("prob.tif", np.array([[[0, 5], [0, 7]]], np.uint8)))
        band = RasterBand(path, mask_band=mask)
        assert band.read(0, 0, 2, 2)[1].tolist() == [[False, True], [True, False]]
        other = RasterBand(str(make_raster("other.tif", numbers("uint8"))))
        with pytest.raises(InvalidInputError, match=r"prob\.tif.*other\.tif.*another grid"):
            RasterBand(path, mask_band=other)


class TestThreads:
    def test_many_threads_read_one_band(self, make_raster: MakeRaster) -> None:
        data = np.random.default_rng(2).integers(0, 60_000, (1, 512, 512)).astype("uint16")
        path = make_raster(
            "a.tif", data, compress="deflate", tiled=True, blockxsize=64, blockysize=64
        )
        band = RasterBand(str(path))
        start = threading.Barrier(12)

        def read(seed: int) -> bool:
            random = np.random.default_rng(seed)
            start.wait(timeout=10)
            for _ in range(20):
                row, column = random.integers(0, 448, 2).tolist()
                pixels, _ = band.read(row, column, 64, 64)
                if not np.array_equal(pixels, data[0, row : row + 64, column : column + 64]):
                    return False
            return True

        with ThreadPoolExecutor(12) as pool:
            assert all(pool.map(read, range(12)))
        assert 1 <= len(band._file._idle) <= IDLE_HANDLES_MAX
        band.close()
        assert band._file._idle == []

    def test_reading_after_close_is_our_bug_not_a_crash(self, make_raster: MakeRaster) -> None:
        band = RasterBand(str(make_raster("a.tif", numbers("uint8"))))
        band.close()
        band.close()
        with pytest.raises(InternalError, match="after close"):
            band.read(0, 0, 1, 1)

    def test_bands_share_a_file_until_the_last_one_closes(self, make_raster: MakeRaster) -> None:
        closed: list[bool] = []
        data = np.concatenate([numbers("uint8"), numbers("uint8") + 1])
        file = RasterFile(str(make_raster("a.tif", data)), on_close=lambda: closed.append(True))
        first, second = RasterBand(file, 1), RasterBand(file, 2)
        file.close()
        first.close()
        assert closed == []
        np.testing.assert_array_equal(second.read(0, 0, 40, 50)[0], data[1])
        second.close()
        assert closed == [True]

    def test_pixels_may_come_from_another_path_than_the_header(
        self, make_raster: MakeRaster
    ) -> None:
        header = str(make_raster("header.tif", numbers("uint8")))
        pixels = str(make_raster("pixels.tif", numbers("uint8") + 1))
        asked: list[str] = []

        def localize() -> str:
            asked.append(pixels)
            return pixels

        file = RasterFile(header, localize=localize)
        band = RasterBand(file)
        assert asked == []
        for _ in range(2):
            np.testing.assert_array_equal(band.read(0, 0, 40, 50)[0], numbers("uint8")[0] + 1)
        assert asked == [pixels]
        band.close()
        file.close()


class TestDamage:
    @pytest.mark.parametrize("compress", [None, "deflate", "lzw", "zstd"])
    @pytest.mark.parametrize("tiled", [False, True])
    def test_a_truncated_tiff_never_reads_as_zeros(
        self, make_raster: MakeRaster, compress: str | None, tiled: bool
    ) -> None:
        options = {"blockxsize": 64, "blockysize": 64} if tiled else {"blockysize": 16}
        path = make_raster(
            "cut.tif", numbers("uint16", 256, 256), tiled=tiled, compress=compress, **options
        )
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(UnreadableSourceError, match=r"cut\.tif"):
            RasterBand(str(path)).read(0, 0, 256, 256)

    @pytest.mark.parametrize("share", [0.999, 0.7, 0.3])
    def test_a_truncated_jp2(self, tmp_path: Path, share: float) -> None:
        path = write_jp2(tmp_path / "cut.jp2")
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UnreadableSourceError, match=r"cut\.jp2"):
            RasterBand(str(path)).read(0, 0, 256, 256)

    def test_a_jp2_cut_between_two_tiles(self, tmp_path: Path) -> None:
        path = write_jp2(tmp_path / "cut.jp2")
        whole = path.read_bytes()
        last_tile_part = whole.rindex(b"\xff\x90\x00\x0a")
        path.write_bytes(whole[:last_tile_part] + b"\xff\xd9")
        with pytest.raises(UnreadableSourceError, match=r"cut\.jp2"):
            RasterBand(str(path)).read(0, 0, 256, 256)

    def test_lost_pixels_that_gdal_only_warns_of(
        self, make_raster: MakeRaster, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = make_raster(
            "jpeg.tif",
            np.random.default_rng(0).integers(0, 255, (1, 256, 256)).astype("uint8"),
            compress="jpeg",
            tiled=True,
            blockxsize=256,
            blockysize=256,
        )
        damaged = bytearray(path.read_bytes())
        middle = len(damaged) // 2
        damaged[middle : middle + 400] = np.random.default_rng(3).bytes(400)
        path.write_bytes(bytes(damaged))
        # Even where the application hears nothing below errors.
        caplog.set_level(logging.CRITICAL, logger="rasterio")
        with pytest.raises(UnreadableSourceError, match=r"jpeg\.tif.*[Cc]orrupt"):
            RasterBand(str(path)).read(0, 0, 256, 256)

    def test_messages_that_quote_bytes_print_nothing(
        self, make_raster: MakeRaster, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """rasterio decodes them where it cannot raise: Python would print tracebacks."""
        path = make_raster("a.tif", np.ones((1, 6, 8), "uint8"), tags={"SENSOR": "abc"})
        content = path.read_bytes()
        assert content.count(b'<Item name="SENSOR"') == 1
        path.write_bytes(content.replace(b'name="SENSOR"', b'\xa5ame "SENSOR"'))
        band = RasterBand(str(path))
        np.testing.assert_array_equal(band.read(0, 0, 6, 8)[0], np.ones((6, 8)))
        band.close()
        assert capfd.readouterr() == ("", "")

    def test_other_errors_are_still_printed(
        self, make_raster: MakeRaster, capfd: pytest.CaptureFixture[str]
    ) -> None:
        RasterBand(str(make_raster("a.tif", np.ones((1, 6, 8), "uint8")))).close()
        with pytest.raises(UnicodeDecodeError) as caught:
            b"\xa5".decode()
        sys.excepthook(caught.type, caught.value, None)
        assert "UnicodeDecodeError" in capfd.readouterr().err

    def test_messages_of_others_still_reach_the_log(
        self, tmp_path: Path, make_raster: MakeRaster, caplog: pytest.LogCaptureFixture
    ) -> None:
        RasterBand(str(make_raster("a.tif", numbers("uint8"))))
        caplog.set_level(logging.WARNING)
        logging.getLogger("rasterio._err").warning("from elsewhere")
        assert "from elsewhere" in caplog.text
        caplog.clear()
        caplog.set_level(logging.ERROR, logger="rasterio")
        logging.getLogger("rasterio._err").warning("not wanted")
        assert caplog.text == ""

    @pytest.mark.parametrize("content", [b"", b"II*\0", b"II*\0\x08\0\0\0\xff\xff", b"no raster"])
    def test_what_is_no_raster(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "x.tif"
        path.write_bytes(content)
        with pytest.raises(UnreadableSourceError, match=r"x\.tif"):
            RasterBand(str(path))

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableSourceError, match=r"gone\.tif"):
            RasterBand(str(tmp_path / "gone.tif"))

    def test_a_band_that_is_not_there(self, make_raster: MakeRaster) -> None:
        with pytest.raises(UnreadableSourceError, match=r"no band 2; the file has 1"):
            RasterBand(str(make_raster("a.tif", numbers("uint8"))), 2)

    def test_half_a_transform_is_none(self, make_raster: MakeRaster) -> None:
        """GDAL then has the pixels' size, puts them at 0, 0, and says that it has nothing."""
        path = make_raster("a.tif", numbers("uint8"))
        content = path.read_bytes()
        tiepoints = struct.pack("<HHI", 33922, 12, 6)
        path.write_bytes(content.replace(tiepoints, struct.pack("<HHI", 33923, 12, 6)))
        file = RasterFile(str(path))
        assert not file.header.has_transform
        file.close()


class TestHostileFiles:
    def test_a_vrt_is_never_opened(self, tmp_path: Path, make_raster: MakeRaster) -> None:
        secret = make_raster("secret.tif", numbers("uint8"))
        for name in ("a.vrt", "a.tif"):
            path = tmp_path / name
            path.write_text(
                '<VRTDataset rasterXSize="50" rasterYSize="40"><VRTRasterBand dataType="Byte"'
                f' band="1"><SimpleSource><SourceFilename>{secret}</SourceFilename>'
                "</SimpleSource></VRTRasterBand></VRTDataset>"
            )
            with pytest.raises(UnreadableSourceError, match="not recognized"):
                RasterBand(str(path))

    def test_files_beside_are_not_looked_at(self, make_raster: MakeRaster) -> None:
        path = make_raster("a.tif", numbers("uint8"), nodata=3)
        (path.parent / "a.tif.aux.xml").write_text(
            '<PAMDataset><PAMRasterBand band="1"><NoDataValue>50</NoDataValue>'
            "</PAMRasterBand></PAMDataset>"
        )
        make_raster("a.tif.msk", np.zeros((1, 40, 50), "uint8"))
        band = RasterBand(str(path))
        assert band.nodata == 3
        np.testing.assert_array_equal(band.read(0, 0, 40, 50)[1], numbers("uint8")[0] != 3)

    @pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
    def test_nor_is_a_world_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        with rasterio.open(
            path, "w", driver="GTiff", count=1, height=40, width=50, dtype="uint8"
        ) as target:
            target.write(numbers("uint8"))
        path.with_suffix(".tfw").write_text("10\n0\n0\n-10\n500000\n4200000\n")
        with rasterio.open(path) as bare:
            assert not bare.transform.is_identity
        file = RasterFile(str(path))
        assert not file.header.has_transform
        file.close()

    def test_paths_mean_files_only(self, tmp_path: Path, make_raster: MakeRaster) -> None:
        path = make_raster("a.tif", numbers("uint8"))
        odd = tmp_path / "a?b#c {d},zip:.tif"
        odd.write_bytes(path.read_bytes())
        np.testing.assert_array_equal(
            RasterBand(str(odd)).read(0, 0, 40, 50)[0], numbers("uint8")[0]
        )


def test_the_block_cache_is_bounded_for_a_while_and_has_a_positive_size() -> None:
    from rasterio._env import get_gdal_config

    before = get_gdal_config("GDAL_CACHEMAX")
    with block_cache_of(before // 2):
        assert get_gdal_config("GDAL_CACHEMAX") == before // 2
    assert get_gdal_config("GDAL_CACHEMAX") == before
    with pytest.raises(InvalidInputError, match="positive"), block_cache_of(0):
        pass


def write_jp2(path: Path) -> Path:
    data = np.random.default_rng(5).integers(1, 4000, (1, 256, 256)).astype("uint16")
    with rasterio.open(
        path,
        "w",
        driver="JP2OpenJPEG",
        count=1,
        height=256,
        width=256,
        dtype="uint16",
        crs="EPSG:32618",
        transform=rasterio.Affine(10, 0, 500_000, 0, -10, 4_200_000),
        blockxsize=64,
        blockysize=64,
        quality=100,
        reversible="YES",
    ) as target:
        target.write(data)
    return path


def patched(path: Path, tag: int, value: int) -> Path:
    """The TIFF with the first value of a tag, written inline as a LONG, changed."""
    data = bytearray(path.read_bytes())
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, entry)[0] == tag:
            struct.pack_into("<HII", data, entry + 2, 4, 1, value)
    path.write_bytes(data)
    return path


class TestDamagedHeaders:
    def test_a_chain_of_directories_that_leads_nowhere(self, make_raster: MakeRaster) -> None:
        path = make_raster("a.tif", numbers("uint8"))
        data = bytearray(path.read_bytes())
        (at,) = struct.unpack_from("<I", data, 4)
        (count,) = struct.unpack_from("<H", data, at)
        struct.pack_into("<I", data, at + 2 + 12 * count, len(data) + 10)
        path.write_bytes(data)
        with pytest.raises(UnreadableSourceError, match=r"a\.tif: cannot open the file: .*TIFF"):
            RasterFile(str(path))

    def test_a_block_of_gigabytes_is_refused_before_it_is_decoded(
        self, make_raster: MakeRaster
    ) -> None:
        tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
        path = make_raster("a.tif", numbers("uint8", 200, 200), **tiles)
        patched(path, 323, 2**24)  # the height of a tile
        with pytest.raises(UnreadableSourceError, match=r"a\.tif: blocks of 16777216 x 64 pixels"):
            RasterFile(str(path))

    def test_a_large_block_in_a_small_file_is_refused(self, make_raster: MakeRaster) -> None:
        tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
        path = make_raster("a.tif", numbers("uint16", 200, 200), **tiles)
        patched(path, 323, 2**20)
        assert path.stat().st_size < (2**27) // 200
        with pytest.raises(UnreadableSourceError, match=r"a\.tif: .*134217728 bytes each.*bomb"):
            RasterFile(str(path))

    def test_interleaved_bands_count_together(self, make_raster: MakeRaster) -> None:
        tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "pixel"}
        path = make_raster("a.tif", np.ones((8, 200, 200), "uint8"), **tiles)
        patched(path, 323, 2**20)
        with pytest.raises(UnreadableSourceError, match="536870912 bytes each"):
            RasterFile(str(path))

    def test_one_tile_of_a_whole_band_is_sound(
        self, make_raster: MakeRaster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bounds, "BLOCK_BYTES_FREE", 10_000)
        data = np.random.default_rng(1).integers(0, 255, (1, 256, 256)).astype("uint8")
        path = make_raster("a.tif", data, tiled=True, blockxsize=256, blockysize=256)
        band = RasterBand(str(path))
        assert band.grid.block_height * band.grid.block_width == data.size
        np.testing.assert_array_equal(band.read(200, 200, 9, 9)[0], data[0, 200:209, 200:209])
        band.close()


def test_a_mask_band_is_closed_with_its_band(make_raster: MakeRaster) -> None:
    closed: list[str] = []
    file = RasterFile(
        str(make_raster("mask.tif", numbers("uint8"))), on_close=lambda: closed.append("mask")
    )
    mask = RasterBand(file)
    band = RasterBand(str(make_raster("a.tif", numbers("uint8"))), mask_band=mask)
    file.close()
    band.read(0, 0, 5, 5)
    assert closed == []
    band.close()
    assert closed == ["mask"]


def test_tens_of_thousands_of_bands_are_refused_before_each_is_described(tmp_path: Path) -> None:
    path = tmp_path / "bands.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=1, width=1, count=5000, dtype="uint8",
        crs="EPSG:32618", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ) as target:  # fmt: skip
        target.write(np.ones((5000, 1, 1), "uint8"))
    with pytest.raises(UnreadableSourceError, match=r"bands\.tif: 5000 bands; at most 4096"):
        RasterFile(str(path))
