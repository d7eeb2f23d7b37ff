"""JPEG 2000 headers that would cost memory: counted, and refused before they are decoded."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geostore.errors import UnreadableSourceError
from geostore.raster import RasterBand, RasterFile
from geostore.raster.codestream import code_blocks_of_tile

SIZE = 512


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("jp2") / "a.jp2"
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", height=SIZE, width=SIZE, count=1, dtype="uint8",
        crs="EPSG:26914", transform=rasterio.Affine(0.6, 0, 500_000, 0, -0.6, 4_200_000),
        blockxsize=SIZE, blockysize=SIZE, RESOLUTIONS=1, QUALITY=100, REVERSIBLE="YES",
        PRECINCTS="{32768,32768}",
    ) as target:  # fmt: skip
        target.write(np.random.default_rng(1).integers(0, 200, (1, SIZE, SIZE)).astype("uint8"))
    return path


def resized(sound: Path, path: Path, side: int) -> Path:
    """The file with an image, and its one tile, of that many pixels a side."""
    data = bytearray(sound.read_bytes())
    at = data.index(b"\xff\x4f\xff\x51")
    for field in (8, 12, 24, 28):
        struct.pack_into(">I", data, at + field, side)
    struct.pack_into(">II", data, data.index(b"ihdr") + 4, side, side)
    path.write_bytes(data)
    return path


def counted(data: bytes, start: int = 0) -> int | None:
    return code_blocks_of_tile(io.BytesIO(data), start, len(data) - start)


class TestCounted:
    def test_blocks_of_64_pixels_in_one_resolution(self, sound: Path) -> None:
        assert counted(sound.read_bytes()) == (SIZE // 64) ** 2 + 1

    def test_within_another_file(self, sound: Path) -> None:
        data = sound.read_bytes()
        assert counted(b"x" * 77 + data, 77) == counted(data)

    def test_a_codestream_without_boxes(self, sound: Path) -> None:
        data = sound.read_bytes()
        assert counted(data[data.index(b"\xff\x4f\xff\x51") :]) == counted(data)

    def test_a_larger_tile_has_more(self, sound: Path, tmp_path: Path) -> None:
        data = resized(sound, tmp_path / "b.jp2", 64 * 1000).read_bytes()
        assert counted(data) == 1000**2 + 1

    def test_smaller_blocks_are_more(self, sound: Path) -> None:
        data = bytearray(sound.read_bytes())
        at = data.index(b"\xff\x52") + 10
        assert bytes(data[at : at + 2]) == b"\x04\x04"
        data[at : at + 2] = b"\0\0"  # 4 x 4 pixels
        assert counted(bytes(data)) == (SIZE // 4) ** 2 + 1

    def test_small_precincts_cut_blocks(self, sound: Path) -> None:
        data = bytearray(sound.read_bytes())
        at = data.index(b"\xff\x52")
        assert data[at + 4] & 1, "precincts are stated"
        data[at + 14] = 0x11  # 2 x 2 pixels
        assert counted(bytes(data)) == 2 * (SIZE // 2) ** 2

    @pytest.mark.parametrize("end", [0, 4, 12, 40, 100])
    def test_nothing_where_there_is_no_header(self, sound: Path, end: int) -> None:
        assert counted(sound.read_bytes()[:end]) is None
        assert counted(b"II*\0" + bytes(100)) is None

    def test_boxes_without_end(self, sound: Path) -> None:
        data = sound.read_bytes()
        assert counted(data[:12] + struct.pack(">I4s", 8, b"free") * 5000 + data[12:]) is None
        assert counted(data[:12] + struct.pack(">I4s", 0, b"free") + data[12:]) is None


class TestRefused:
    def test_a_tile_of_gigapixels_in_a_small_file(self, sound: Path, tmp_path: Path) -> None:
        path = resized(sound, tmp_path / "bomb.jp2", 262_144)
        with pytest.raises(UnreadableSourceError, match=r"bomb\.jp2: .*16777280 code-blocks.*bomb"):
            RasterFile(str(path))

    def test_in_an_archive_that_is_read_in_place(self, sound: Path, tmp_path: Path) -> None:
        data = resized(sound, tmp_path / "bomb.jp2", 262_144).read_bytes()
        (tmp_path / "a.tar").write_bytes(bytes(512) + data)
        with pytest.raises(UnreadableSourceError, match="code-blocks"):
            RasterFile(f"/vsisubfile/512_{len(data)},{tmp_path / 'a.tar'}", name="a.tar!bomb.jp2")

    def test_a_sound_file_is_read(self, sound: Path) -> None:
        band = RasterBand(str(sound))
        expected = np.random.default_rng(1).integers(0, 200, (1, SIZE, SIZE)).astype("uint8")
        np.testing.assert_array_equal(band.read(0, 0, SIZE, SIZE)[0], expected[0])
        band.close()


def test_a_box_without_length_is_no_circle(tmp_path: Path) -> None:
    """In a process of its own: GDAL, asked how the bands lie, would never come back."""
    path = tmp_path / "circle.jp2"
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", height=64, width=64, count=2, dtype="uint8",
        crs="EPSG:26914", transform=rasterio.Affine(1, 0, 500_000, 0, -1, 4_200_000),
    ) as target:  # fmt: skip
        target.write(np.ones((2, 64, 64), "uint8"))
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, data.index(b"lbl gml.root-instance") - 4, 0)
    path.write_bytes(data)
    read = "import sys; from geostore.raster import RasterFile as F; print(F(sys.argv[1]).header)"
    done = subprocess.run(
        [sys.executable, "-c", read, path], check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "is_pixel_interleaved=True" in done.stdout
