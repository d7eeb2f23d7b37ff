"""What an Erdas Imagine file's tree of entries says, and that a damaged one does no harm."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from geostore.errors import UnreadableSourceError
from geostore.raster import imagine
from geostore.raster.imagine import ImagineStructure, imagine_structure
from geostore.raster.source import RasterFile

PIXELS = np.arange(64 * 70, dtype="uint8").reshape(1, 64, 70) % 5


def write_image(path: Path, pixels: Any = PIXELS, **options: Any) -> Path:
    with rasterio.open(
        path, "w", driver="HFA", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2],
        dtype=pixels.dtype, crs="EPSG:5070", transform=Affine(30, 0, -1.5e6, 0, -30, 1.7e6),
        **options,
    ) as target:  # fmt: skip
        target.write(pixels)
    return path


def _entry(after: int, child: int, data: int, name: str, kind: str) -> bytes:
    raw = struct.pack("<6I64s32s", after, 0, 0, child, data, 0, name.encode(), kind.encode())
    return raw.ljust(128, b"\0")


def tree(column: str, names: list[bytes], *, width: int = 16, table: str = "Descriptor_Table"):
    """An image's tree with one layer whose table has one column of text."""
    places = {"file": 20, "root": 64, "layer": 192, "table": 320, "column": 448}
    about, text = 576, 640
    head = struct.pack("<16sI", b"EHFA_HEADER_TAG", places["file"])
    head += struct.pack("<iIIHI", 1, 0, places["root"], 128, 0)
    raw = head.ljust(64, b"\0")
    raw += _entry(0, places["layer"], 0, "root", "root")
    raw += _entry(0, places["table"], 0, "Layer_1", "Eimg_Layer")
    raw += _entry(0, places["column"], 0, table, "Edsc_Table")
    raw += _entry(0, 0, about, column, "Edsc_Column")
    raw += struct.pack("<iIHi", len(names), text, 3, width).ljust(text - about, b"\0")
    return raw + b"".join(name.ljust(width, b"\0") for name in names)


class TestClassNames:
    @pytest.mark.parametrize(
        "column", ["Class_Names", "Classification", "NLCD Land Cover Class", "Land Cover", "names"]
    )
    def test_from_the_column_that_has_them(self, tmp_path: Path, column: str) -> None:
        path = tmp_path / "a.img"
        path.write_bytes(tree(column, [b"", b"Open Water", b" Moss ", b"For\xeat"]))
        assert imagine_structure(path) == ImagineStructure(
            class_names=({1: "Open Water", 2: "Moss", 3: "Forêt"},)
        )

    @pytest.mark.parametrize(
        ("column", "table"), [("Histogram", "Descriptor_Table"), ("Class_Names", "GDAL_MetaData")]
    )
    def test_not_from_others(self, tmp_path: Path, column: str, table: str) -> None:
        path = tmp_path / "a.img"
        path.write_bytes(tree(column, [b"", b"Open Water"], table=table))
        assert imagine_structure(path) == ImagineStructure(class_names=({},))

    def test_what_gdal_writes_has_none(self, tmp_path: Path) -> None:
        two = np.concatenate([PIXELS, PIXELS])
        assert imagine_structure(write_image(tmp_path / "a.img", two)) == ImagineStructure(
            class_names=({}, {})
        )


class TestSpill:
    def test_its_name_is_found(self, tmp_path: Path) -> None:
        path = write_image(tmp_path / "large.img", USE_SPILL="YES")
        size = (tmp_path / "large.ige").stat().st_size
        assert imagine_structure(path) == ImagineStructure(("large.ige",), ({},), size)

    def test_a_raster_file_reads_no_other_file_by_itself(self, tmp_path: Path) -> None:
        path = write_image(tmp_path / "large.img", USE_SPILL="YES")
        with pytest.raises(UnreadableSourceError, match=r"large\.img.*another file, 'large\.ige'"):
            RasterFile(str(path))
        file = RasterFile(str(path), companions=[str(tmp_path / "large.ige")])
        with file.handle() as dataset:
            np.testing.assert_array_equal(dataset.read(), PIXELS)
        file.close()

    def test_not_even_where_our_own_parser_is_led_astray(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """GDAL is asked what it would open."""
        path = write_image(tmp_path / "large.img", USE_SPILL="YES")
        monkeypatch.setattr("geostore.raster.source.imagine_structure", lambda _: None)
        with pytest.raises(UnreadableSourceError, match="another file"):
            RasterFile(str(path))


class TestDamage:
    @pytest.mark.parametrize(
        "content", [b"", b"EHFA", b"II*\0" + bytes(40), b"\x89PNG\r\n\x1a\n" + bytes(40)]
    )
    def test_no_image(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.img"
        path.write_bytes(content)
        assert imagine_structure(path) is None

    def test_a_tree_that_goes_in_circles_ends(self, tmp_path: Path) -> None:
        raw = bytearray(tree("Class_Names", [b"a", b"b"]))
        struct.pack_into("<I", raw, 192, 192)  # the layer comes after itself
        struct.pack_into("<I", raw, 448 + 12, 64)  # the column leads back to the root
        path = tmp_path / "a.img"
        path.write_bytes(raw)
        assert imagine_structure(path) == ImagineStructure(class_names=({0: "a", 1: "b"},))

    def test_sizes_that_lie_are_bounded(self, tmp_path: Path) -> None:
        path = tmp_path / "a.img"
        for rows, width in ((2**31 - 1, 16), (1, 2**31 - 1), (-1, 16), (2, 0)):
            raw = bytearray(tree("Class_Names", [b"a", b"b"]))
            struct.pack_into("<iIHi", raw, 576, rows, 640, 3, width)
            path.write_bytes(raw)
            assert imagine_structure(path) == ImagineStructure(class_names=({},))

    def test_only_so_many_entries_are_looked_at(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "a.img"
        path.write_bytes(tree("Class_Names", [b"a"]))
        monkeypatch.setattr(imagine, "ENTRIES_MAX", 2)
        assert imagine_structure(path) == ImagineStructure(class_names=({},))

    @pytest.mark.parametrize("seed", range(40))
    def test_bytes_changed_anywhere_never_raise(self, tmp_path: Path, seed: int) -> None:
        dice = random.Random(seed)
        whole = tree("Class_Names", [b"Open Water", b"Moss"] * 8)
        raw = bytearray(whole[: dice.randrange(20, len(whole) + 1)])
        for _ in range(dice.randrange(1, 30)):
            raw[dice.randrange(16, len(raw))] = dice.randrange(256)
        path = tmp_path / "a.img"
        path.write_bytes(raw)
        found = imagine_structure(path)
        assert found is not None
        assert sum(map(len, found.class_names)) <= imagine.CLASSES_MAX
