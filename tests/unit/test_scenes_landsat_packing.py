"""Landsat products packed and named in every way, and with bands missing."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from geostore.errors import UnreadableSourceError
from geostore.scenes import detect, open_source
from geostore.scenes.landsat_mtl import parse_mtl
from geostore.types import TimeSpan
from tests.landsat_makers import (
    MAKERS,
    OLI_L2SP,
    PRE,
    c1_l1,
    c2_l1,
    c2_l2,
    etm,
    names,
    opened,
    pre,
)
from tests.landsat_products import (
    OLI_L1,
    OLI_SR,
    SIDE,
    band_pixels,
    mtl_json,
    mtl_odl,
    mtl_xml,
    pack,
    write_band,
)


class TestPacking:
    @pytest.mark.parametrize("kind", ["c2-l2", "c1", "pre"])
    @pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
    @pytest.mark.parametrize("flat", [True, False])
    def test_an_archive_is_the_same_product(
        self, kind: str, suffix: str, flat: bool, tmp_path: Path
    ) -> None:
        made = MAKERS[kind](tmp_path).write()
        archive = pack(tmp_path / f"renamed{suffix}", made.path, flat=flat)
        with opened(made.path) as one, opened(archive) as other:
            assert (other.id, other.fingerprint) == (one.id, one.fingerprint)
            assert [b.info for b in other.bands] == [b.info for b in one.bands]
            band = other.bands[0]
            np.testing.assert_array_equal(
                band.source.read(0, 0, SIDE, SIDE)[0], band_pixels(band.info.name)
            )

    def test_two_products_in_one_archive(self, tmp_path: Path) -> None:
        level_2, level_1 = c2_l2(tmp_path).write(), c1_l1(tmp_path).write()
        for flat in (True, False):
            archive = pack(tmp_path / f"two-{flat}.tar", level_2.path, level_1.path, flat=flat)
            scenes = open_source(archive)
            assert {(scene.id, scene.reader) for scene in scenes} == {
                (level_2.id, "landsat-c2-l2"),
                (level_1.id, "landsat-c1-l1"),
            }
            assert [len(scene.bands) for scene in scenes] == [12, len(OLI_L2SP)]
            for scene in scenes:
                with scene:
                    pixels = scene.bands[1].source.read(0, 0, SIDE, SIDE)[0]
                    expected = band_pixels(scene.bands[1].info.name)
                    np.testing.assert_array_equal(pixels, expected)

    def test_the_three_forms_of_metadata_say_the_same(self, tmp_path: Path) -> None:
        scenes = []
        for form in ("txt", "json", "xml"):
            made = c2_l2(tmp_path / form).write(form)
            with opened(made.path) as scene:
                scenes.append(scene)
                assert [b.info for b in scene.bands] == [b.info for b in scenes[0].bands]
                assert scene.properties == scenes[0].properties
                assert (scene.id, scene.time_us, scene.missing) == (
                    scenes[0].id,
                    scenes[0].time_us,
                    (),
                )
        assert parse_mtl(mtl_odl(made.groups).encode(), "a").groups == made.groups
        assert parse_mtl(mtl_json(made.groups).encode(), "a").groups == made.groups
        assert parse_mtl(mtl_xml(made.groups).encode(), "a").groups == made.groups

    def test_the_text_is_read_where_there_are_several(self, tmp_path: Path) -> None:
        made = c2_l2(tmp_path).write("txt", "xml", "json")
        only = c2_l2(tmp_path / "only").write("txt")
        with opened(made.path) as one, opened(only.path) as other:
            assert one.fingerprint == other.fingerprint
        (only.path / f"{only.id}_MTL.txt").unlink()
        only.groups["IMAGE_ATTRIBUTES"]["STATION_ID"] = "LGN"
        only.write_mtl("xml")
        with opened(only.path) as scene:
            assert scene.properties["station"] == "LGN"

    def test_pictures_are_listed_and_never_bands(self, tmp_path: Path) -> None:
        made = c2_l2(tmp_path).write()
        (made.path / f"{made.id}_thumb_small.jpeg").write_bytes(b"\xff\xd8\xff")
        (made.path / f"{made.id}_ANG.txt").write_text("GROUP = FILE_HEADER\n")
        with opened(made.path) as scene:
            assert scene.previews == ("thumb_small",)
            assert names(scene) == OLI_L2SP

    def test_what_macos_adds_to_archives_is_not_looked_at(self, tmp_path: Path) -> None:
        made = c2_l2(tmp_path).write()
        archive = pack(tmp_path / "x.zip", made.path)
        with zipfile.ZipFile(archive, "a") as members:
            for name in (f"{made.id}_SR_B4.TIF", f"{made.id}_MTL.txt"):
                members.writestr(f"__MACOSX/{made.id}/._{name}", b"\0\x05\x16\x07")
        with opened(archive) as scene:
            assert (scene.id, names(scene)) == (made.id, made.bands)

    def test_the_gaps_of_landsat_7_are_beside_the_product(self, tmp_path: Path) -> None:
        made = etm(tmp_path).write()
        write_band(made.path / "gap_mask" / f"{made.id}_GM_B1.TIF", band_pixels("B1"))
        with opened(made.path) as scene:
            assert names(scene) == made.bands


class TestNames:
    @pytest.mark.parametrize("suffix", ["", ".tar"])
    def test_without_metadata_names_say_what_it_is(self, suffix: str, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write_bands()
        path = pack(tmp_path / f"x{suffix}", made.path) if suffix else made.path
        with opened(path) as scene:
            assert (scene.id, scene.reader, scene.platform) == (
                made.id,
                "landsat-c1-l1",
                "landsat-8",
            )
            day = TimeSpan.parse("2015-08-04")
            assert (scene.time_us, scene.time_end_us) == (day.start_us, day.end_us)
            assert scene.missing == ()
            red, thermal = scene.band("B4"), scene.band("B10")
            assert red is not None
            assert thermal is not None
            assert (red.info.scale, red.info.offset) == (2e-5, -0.1)
            assert (thermal.info.scale, thermal.info.unit) == (1.0, None)
            assert scene.properties["radiometry"] == "product definition"

    def test_short_names_take_the_folders_where_it_agrees(self, tmp_path: Path) -> None:
        """As some distributors name the files: without the processing date and collection."""
        made = c1_l1(tmp_path).write_bands()
        short = made.id[:25]
        for path in list(made.path.iterdir()):
            path.rename(made.path / path.name.replace(made.id, short))
        with opened(made.path) as scene:
            assert (scene.id, scene.properties["tier"]) == (made.id, "T1")
        other = shutil.move(made.path, tmp_path / "LC08_L1TP_020040_20150804_20170406_01_T1")
        with opened(Path(other)) as scene:
            assert (scene.id, scene.reader) == (short, "landsat-c1-l1")

    def test_short_names_tell_the_collection_by_the_quality_band(self, tmp_path: Path) -> None:
        short = "LC08_L1TP_020039_20150804"
        for band, reader in (("BQA", "landsat-c1-l1"), ("QA_PIXEL", "landsat-c2-l1")):
            folder = tmp_path / band
            for name in ("B4", band):
                write_band(folder / f"{short}_{name}.TIF", band_pixels(name))
            with opened(folder) as scene:
                assert (scene.id, scene.reader) == (short, reader)
        folder = tmp_path / "neither"
        write_band(folder / f"{short}_B4.TIF", band_pixels("B4"))
        assert detect(folder) is None

    def test_before_collections(self, tmp_path: Path) -> None:
        made = pre(tmp_path).write_bands()
        with opened(made.path) as scene:
            assert (scene.id, scene.properties["collection"]) == (PRE, "pre-collection")
            day = TimeSpan.parse("2015-08-04")
            assert (scene.time_us, scene.time_end_us) == (day.start_us, day.end_us)

    def test_levels_before_collections(self, tmp_path: Path) -> None:
        for number, level in enumerate(("L1T", "L1Gt", "L1G")):
            made = pre(tmp_path / str(number), level=level, bands=["B4", "BQA"]).write()
            with opened(made.path) as scene:
                assert scene.properties["level"] == level.upper()
                assert scene.missing == tuple(band for band in OLI_L1 if band != "B4")

    def test_renamed_files_go_with_the_only_metadata_of_their_folder(self, tmp_path: Path) -> None:
        made = pre(tmp_path).write()
        for path in list(made.path.iterdir()):
            name = path.name.replace(PRE, "test" if "MTL" in path.name else "l8")
            path.rename(made.path / name.replace(".TIF", ".tif"))
        with opened(made.path) as scene:
            assert (scene.id, names(scene), scene.missing) == (PRE, made.bands, ())
        # Two sets of renamed files: whose is the metadata?
        write_band(made.path / "other_B4.tif", band_pixels("B4"))
        with pytest.raises(UnreadableSourceError, match=rf"no band of {PRE} is there.*_B1\.TIF"):
            open_source(made.path)

    @pytest.mark.parametrize(
        "name",
        [
            "L8-B4-Elkton-VA.tiff",
            "LE70230282011250EDC00_sr_band1.tif",
            "LE70230282011250EDC00_sr_cloud_qa.tif",
            "LC80200392015400LGN00_B4.TIF",  # day 400
            "LC08_L1TP_020039_20151304_20170406_01_T1_B4.TIF",  # month 13
            "LM05_L1TP_020039_20150804_20170406_01_T1_B4.TIF",  # the multispectral scanner
            "LE08_L1TP_020039_20150804_20170406_01_T1_B4.TIF",  # no such sensor on board
            "LC08_CU_020009_20150804_20181207_C01_V01_B4.TIF",
        ],
    )
    def test_what_is_not_named_as_a_product_is_left_to_others(
        self, name: str, tmp_path: Path
    ) -> None:
        write_band(tmp_path / "x" / name, band_pixels("B4"))
        assert detect(tmp_path / "x") is None
        archive = pack(tmp_path / "x.zip", tmp_path / "x")
        reader = detect(archive)
        assert reader is not None
        assert reader.name == "geotiff"

    def test_a_name_alone_is_not_enough(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path)
        made.path.mkdir()
        for band in made.bands:
            made.file(band).write_text("not a picture")
        assert detect(made.path) is None
        (made.path / "notes_MTL.txt").write_text("GROUP = something else\n")
        assert detect(made.path) is None

    def test_a_single_band_file_is_a_raster(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        reader = detect(made.file("B4"))
        assert reader is not None
        assert reader.name == "geotiff"
        assert detect(made.path / f"{made.id}_MTL.txt") is None

    def test_another_level_named_outright(self, tmp_path: Path) -> None:
        made = c1_l1(tmp_path).write()
        with pytest.raises(
            UnreadableSourceError, match=rf"no landsat-c2-l2.*{made.id} \(landsat-c1-l1\)"
        ):
            open_source(made.path, reader="landsat-c2-l2")
        (scene,) = open_source(made.file("B4"), reader="landsat-c1-l1")
        with scene:
            assert names(scene) == ["B4"]


class TestMissing:
    def test_bands_that_are_not_there(self, tmp_path: Path) -> None:
        made = c2_l2(tmp_path).write()
        for band in ("SR_B3", "ST_QA"):
            made.file(band).unlink()
        with opened(made.path) as scene:
            assert scene.missing == ("SR_B3", "ST_QA")

    def test_what_a_kind_of_product_has_is_missed_without_a_list_too(self, tmp_path: Path) -> None:
        made = c2_l1(tmp_path, bands=["B4"]).write_bands()
        with opened(made.path) as scene:
            expected = [band for band in OLI_L1 if band != "B4"]
            assert scene.missing == (*expected, "QA_PIXEL", "QA_RADSAT")

    def test_angles_are_missed_where_the_metadata_lists_them(self, tmp_path: Path) -> None:
        made = c2_l1(tmp_path).write()
        made.file("VAA").unlink()
        with opened(made.path) as scene:
            assert scene.missing == ("VAA",)

    def test_level_2_without_temperature(self, tmp_path: Path) -> None:
        bands = [*OLI_SR, "SR_QA_AEROSOL", "QA_PIXEL", "QA_RADSAT"]
        made = c2_l2(
            tmp_path,
            id="LC08_L2SR_020039_20150804_20200908_02_T1",
            level="L2SR",
            bands=bands,
        ).write()
        with opened(made.path) as scene:
            assert (scene.reader, scene.missing) == ("landsat-c2-l2", ())
            assert names(scene) == bands

    def test_no_band_at_all(self, tmp_path: Path) -> None:
        made = c2_l2(tmp_path).write_mtl()
        assert detect(made.path) is not None
        with pytest.raises(
            UnreadableSourceError, match=rf"no band of {made.id} is there; expected .*SR_B1\.TIF"
        ):
            open_source(made.path)
