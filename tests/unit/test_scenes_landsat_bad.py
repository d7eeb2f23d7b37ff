"""All that can be broken in a Landsat product."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from geostore.errors import GeostoreError, UnreadableSourceError
from geostore.scenes import detect, open_source
from geostore.scenes.landsat_mtl import MTL_BYTES_MAX
from geostore.scenes.landsat_products import PRODUCTS_MAX, find_products
from tests.landsat_makers import (
    c1_l1,
    opened,
    small,
)
from tests.landsat_products import (
    SIDE,
    Made,
    band_pixels,
    write_band,
)


def spoil(made: Made, key: str, text: str) -> Made:
    """The product with another text under one of its keys."""
    for keys in made.groups.values():
        if key in keys:
            keys[key] = text
            return made.write()
    made.groups["IMAGE_ATTRIBUTES"][key] = text
    return made.write()


class TestBadMetadata:
    @pytest.mark.parametrize(
        ("key", "text", "message"),
        [
            ("REFLECTANCE_MULT_BAND_4", "much", "REFLECTANCE_MULT_BAND_4 is 'much', expected a nu"),
            ("REFLECTANCE_ADD_BAND_4", "inf", "REFLECTANCE_ADD_BAND_4 is 'inf'"),
            ("REFLECTANCE_MULT_BAND_4", "0", "REFLECTANCE_MULT_BAND_4 is 0, expected a scale"),
            ("WRS_PATH", "20.5", "WRS_PATH is '20.5', expected a whole number"),
            ("DATE_ACQUIRED", "2015-13-04", "DATE_ACQUIRED is '2015-13-04', expected a date"),
            ("SCENE_CENTER_TIME", "noon", "SCENE_CENTER_TIME is 'noon'"),
            ("SCENE_CENTER_TIME", "25:00:00Z", "SCENE_CENTER_TIME is '25:00:00Z'"),
            ("SPACECRAFT_ID", "LANDSAT_3", "spacecraft 'LANDSAT_3'"),
            ("SENSOR_ID", "MSS", "sensor 'MSS': expected LANDSAT_4"),
            ("PROCESSING_LEVEL", "L3", "processing level 'L3'"),
            ("COLLECTION_NUMBER", "07", "collection 7, expected 1 or 2"),
            ("COLLECTION_NUMBER", "01", "processing level 'L2SP' of c1"),
            ("PROCESSING_LEVEL", "L1TP", "LC08_L2SP.* is no L1TP product of c2"),
            ("WRS_ROW", "040", "metadata of .* lies with the files of"),
            ("UTM_ZONE", "17", "of UTM zone 16; its metadata .* of zone 17"),
            ("CLOUD_COVER", "[]", r"CLOUD_COVER is '\[\]'"),
        ],
    )
    def test_wrong_values_are_named(
        self, key: str, text: str, message: str, tmp_path: Path
    ) -> None:
        made = spoil(small(tmp_path), key, text)
        assert detect(made.path) is not None
        with pytest.raises(UnreadableSourceError, match=message) as raised:
            open_source(made.path)
        assert f"{made.id}_MTL.txt" in str(raised.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "without END"),
            ("GROUP = LANDSAT_METADATA_FILE\n", "without END"),
            ("GROUP = LANDSAT_METADATA_FILE\nnonsense\n", "line 2 is 'nonsense', expected KEY"),
            ("GROUP = LANDSAT_METADATA_FILE\nA = 1\n", "line 2: A outside a group"),
            ("GROUP = OTHER\n", "root 'OTHER', expected one of LANDSAT_METADATA_FILE"),
            ("END\n", "no group of keys"),
            ("END_GROUP = X\n", "ends group X, which is not open"),
            ("GROUP = L1_METADATA_FILE\n" + "GROUP = A\n" * 10, "a group inside group A"),
            ("GROUP = L1_METADATA_FILE\nGROUP = A\nEND\n", "END inside group A"),
            (
                "GROUP = L1_METADATA_FILE\nGROUP = A\n"
                + "".join(f"K{number} = 1\n" for number in range(10_001))
                + "END_GROUP = A\nEND_GROUP = L1_METADATA_FILE\nEND\n",
                "more than 10000 keys",
            ),
            (
                (
                    f"GROUP = L1_METADATA_FILE\nGROUP = A\nK = {'x' * 2000}\nEND_GROUP = A\n"
                    "END_GROUP = L1_METADATA_FILE\nEND\n"
                ),
                "K has 2000 characters",
            ),
            ("{", "JSONDecodeError"),
            ("[" * 100_000, "RecursionError|expected KEY"),
            ('{"a":' * 100_000, "RecursionError"),
            ('{"LANDSAT_METADATA_FILE": []}', "expected one object"),
            ('{"LANDSAT_METADATA_FILE": {}, "b": {}}', "expected one object"),
            ('{"OTHER": {}}', "root 'OTHER'"),
            ('{"LANDSAT_METADATA_FILE": {"A": {"K": null}}}', "no object of texts and numbers"),
            ('{"LANDSAT_METADATA_FILE": {"A": {"K": {"L": 1}}}}', "no object of texts"),
            ('{"LANDSAT_METADATA_FILE": {"A": "K"}}', "no object of texts and numbers"),
            ("<LANDSAT_METADATA_FILE>", "ParseError"),
            ("<other/>", "root 'other'"),
            ("<LANDSAT_METADATA_FILE/>", "no group of keys"),
            (
                "<LANDSAT_METADATA_FILE><A><K><L>1</L></K></A></LANDSAT_METADATA_FILE>",
                "K in A holds elements",
            ),
            (
                (
                    '<!DOCTYPE x [<!ENTITY a "b">]><LANDSAT_METADATA_FILE><A><K>&a;</K></A>'
                    "</LANDSAT_METADATA_FILE>"
                ),
                "DTDForbidden",
            ),
            (
                '<!DOCTYPE x SYSTEM "file:///etc/passwd"><LANDSAT_METADATA_FILE/>',
                "DTDForbidden",
            ),
        ],
    )
    def test_what_is_no_metadata_file(self, text: str, message: str, tmp_path: Path) -> None:
        made = small(tmp_path).write_bands()
        (made.path / f"{made.id}_MTL.txt").write_text(text)
        # The files' names say what product this was meant to be.
        assert detect(made.path) is not None
        with pytest.raises(
            UnreadableSourceError, match=f"_MTL.txt: not readable as a Landsat MTL: .*({message})"
        ):
            open_source(made.path)

    def test_bytes_that_are_no_text_and_files_too_large(self, tmp_path: Path) -> None:
        made = small(tmp_path).write_bands()
        path = made.path / f"{made.id}_MTL.txt"
        path.write_bytes(b"GROUP = \xff\xfe")
        with pytest.raises(UnreadableSourceError, match="byte 8 is no text"):
            open_source(made.path)
        path.write_bytes(b" " * (MTL_BYTES_MAX + 1))
        with pytest.raises(UnreadableSourceError, match=f"expected at most {MTL_BYTES_MAX}"):
            open_source(made.path)

    def test_metadata_without_an_id_takes_the_files(self, tmp_path: Path) -> None:
        made = small(tmp_path).write()
        spoil(made, "LANDSAT_PRODUCT_ID", "../../etc/passwd")
        with opened(made.path) as scene:
            assert scene.id == made.id
        for path in list(made.path.iterdir()):
            path.rename(made.path / path.name.replace(made.id, "x"))
        with pytest.raises(
            UnreadableSourceError, match="no product id: LANDSAT_PRODUCT_ID is '../"
        ):
            open_source(made.path)

    def test_metadata_that_lost_its_collection(self, tmp_path: Path) -> None:
        """Quality bits go by the collection: a wrong one would make cloud of clear ground."""
        made = c1_l1(tmp_path)
        del made.groups["PRODUCT_METADATA"]["COLLECTION_NUMBER"]
        made.write()
        with pytest.raises(UnreadableSourceError, match="is no L1TP product of pre-collection"):
            open_source(made.path)

    def test_truncated_anywhere_it_is_refused_or_whole(self, tmp_path: Path) -> None:
        made = small(tmp_path).write()
        path = made.path / f"{made.id}_MTL.txt"
        text = path.read_text()
        for length in range(0, len(text) - 5, 97):
            path.write_text(text[:length])
            with pytest.raises(UnreadableSourceError, match="not readable as a Landsat MTL"):
                open_source(made.path)


class TestBadBands:
    def test_another_crs(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        write_band(made.file("B4"), band_pixels("B4"), crs="EPSG:32617")
        with pytest.raises(
            UnreadableSourceError, match=r"_B4\.TIF: its CRS is WGS 84 / UTM zone 17N, that of .*B1"
        ):
            open_source(made.path)

    def test_another_size_over_other_ground(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        write_band(made.file("B4"), band_pixels("B4", SIDE // 2))
        with pytest.raises(UnreadableSourceError, match=r"_B4\.TIF: its 20 x 20 pixels cover"):
            open_source(made.path)

    def test_another_size_over_the_same_ground_is_another_pixel_size(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        write_band(made.file("B10"), band_pixels("B10", SIDE // 2), 60.0)
        with opened(made.path) as scene:
            band = scene.band("B10")
            assert band is not None
            assert band.info.native_resolution_m == 60.0

    def test_metadata_of_another_place(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        for band in made.bands:
            side, pixel_m = (2 * SIDE, 15.0) if band == "B8" else (SIDE, 30.0)
            write_band(made.file(band), band_pixels(band, side), pixel_m, left=200_000)
        with pytest.raises(UnreadableSourceError, match=r"_B1\.TIF: covers 200000, .*metadata"):
            open_source(made.path)

    def test_files_that_are_no_band(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        path = made.file("B4")
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(UnreadableSourceError, match=r"_B4\.TIF"):
            open_source(made.path)
        write_band(path, np.stack([band_pixels("B4")] * 3))
        with pytest.raises(UnreadableSourceError, match=r"_B4\.TIF: 3 bands in one file"):
            open_source(made.path)
        write_band(path, band_pixels("B4"), crs=None)
        with pytest.raises(UnreadableSourceError, match=r"_B4\.TIF: .*CRS"):
            open_source(made.path)

    def test_bits_of_fractions(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        write_band(made.file("BQA"), band_pixels("BQA", dtype="float32"))
        with pytest.raises(
            UnreadableSourceError, match=r"_BQA\.TIF: dtype float32 in a band of bi"
        ):
            open_source(made.path)

    def test_two_files_of_one_band(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        shutil.copy(made.file("B4"), made.path / f"{made.id}_B4.tiff")
        with pytest.raises(UnreadableSourceError, match="are both B4"):
            open_source(made.path)

    @pytest.mark.parametrize("name", ["dem.tif", "inner/other.img"])
    def test_rasters_of_somebody_else_are_not_lost_in_silence(
        self, name: str, tmp_path: Path
    ) -> None:
        made = c1_l1(tmp_path).write()
        write_band(made.path / name, band_pixels("B4"))
        with pytest.raises(UnreadableSourceError, match=rf"{name}: no file of the product"):
            open_source(made.path)

    def test_more_products_than_one_source_may_hold(self, tmp_path: Path) -> None:
        made = [
            f"LC0{8 + number // 900}_L2SP_{number % 900:03d}039_20150804_20200908_02_T1_MTL.txt"
            for number in range(PRODUCTS_MAX + 1)
        ]

        class Listed:
            path = "somewhere"

        with pytest.raises(UnreadableSourceError, match=f"expected at most {PRODUCTS_MAX}"):
            find_products(Listed(), made)  # type: ignore[arg-type]


def test_errors_are_geostores_own(tmp_path: Path) -> None:
    """Characters changed anywhere in the metadata end in a scene or in one of our errors."""
    made = small(tmp_path).write()
    path = made.path / f"{made.id}_MTL.txt"
    content = bytearray(path.read_bytes())
    random = np.random.default_rng(5)
    refused = 0
    for _ in range(40):
        changed = bytearray(content)
        changed[random.integers(0, len(changed))] = random.integers(32, 127)
        path.write_bytes(changed)
        try:
            scenes = open_source(made.path)
        except GeostoreError:
            refused += 1
            continue
        for scene in scenes:
            scene.close()
    assert 0 < refused < 40
