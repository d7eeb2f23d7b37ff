"""Sentinel-2 products made up file by file: layouts, radiometry, and all that can be broken."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geostore.errors import UnreadableSourceError
from geostore.scenes import Scene, detect, open_source
from geostore.types import BandRole, CloudLayer
from tests.sentinel2_products import (
    L1C_BANDS,
    L2A_BANDS,
    NATIVE_M,
    Safe,
    band_pixels,
    offsets,
    write_jp2,
)


def opened(path: Path) -> Scene:
    (scene,) = open_source(path)
    return scene


class TestL1C:
    def test_a_whole_product(self, tmp_path: Path) -> None:
        safe = Safe(tmp_path).metadata().l1c()
        scene = opened(safe.path)
        assert scene.id == safe.name
        assert scene.reader == "sentinel-2-l1c"
        assert scene.platform == "sentinel-2b"
        assert scene.time_us == scene.time_end_us == 1_664_971_009_581_767
        assert (scene.missing, scene.cloud, scene.likelihood_band) == ((), None, None)
        assert [band.info.name for band in scene.bands] == L1C_BANDS
        assert [band.info.common_name for band in scene.bands] == (
            [
                "coastal",
                "blue",
                "green",
                "red",
                "rededge071",
                "rededge075",
                "rededge078",
                "nir",
                "nir08",
                "nir09",
                "cirrus",
                "swir16",
                "swir22",
            ]
        )
        for band in scene.bands:
            size = NATIVE_M[band.info.name]
            expected = band_pixels(band.info.name, 1200 // size)
            assert band.info.native_resolution_m == size
            assert (band.info.nodata, band.info.scale, band.info.offset) == (0, 1e-4, 0.0)
            pixels, valid = band.source.read(0, 0, *expected.shape)
            np.testing.assert_array_equal(pixels, expected)
            np.testing.assert_array_equal(valid, expected != 0)
        assert scene.properties["mgrs_tile"] == "29UNU"
        assert scene.properties["relative_orbit"] == 23
        assert scene.properties["cloud_cover_product_percent"] == 12.5
        assert scene.properties["sun_zenith_deg"] == 57.8
        scene.close()

    def test_a_missing_band_is_said_and_never_made_of_zeros(self, tmp_path: Path) -> None:
        listed = "<IMAGE_FILE>GRANULE/x/IMG_DATA/x_B03</IMAGE_FILE>"
        safe = Safe(tmp_path, info=listed).metadata().l1c(["B02", "B04", "B12"])
        scene = opened(safe.path)
        assert [band.info.name for band in scene.bands] == ["B02", "B04", "B12"]
        assert scene.missing == tuple(b for b in L1C_BANDS if b not in ("B02", "B04", "B12"))
        scene.close()

    def test_the_offset_of_later_baselines_is_metadata(self, tmp_path: Path) -> None:
        xml = offsets("RADIO_ADD_OFFSET").replace('"3">-1000', '"3">-500')
        safe = Safe(tmp_path, baseline="0400", characteristics=xml).metadata().l1c(["B02", "B04"])
        blue, red = opened(safe.path).bands
        # band_id 1 is B02, band_id 3 is B04.
        assert (blue.info.scale, blue.info.offset) == (1e-4, pytest.approx(-0.1))
        assert red.info.offset == pytest.approx(-0.05)
        # The pixels stay as stored.
        np.testing.assert_array_equal(blue.source.read(0, 0, 120, 120)[0], band_pixels("B02", 120))

    @pytest.mark.parametrize(
        "xml",
        [
            offsets("RADIO_ADD_OFFSET", 14),
            offsets("RADIO_ADD_OFFSET", 1, "x"),
            offsets("RADIO_ADD_OFFSET", 1, "nan"),
            offsets("RADIO_ADD_OFFSET", 1).replace('"0"', '"-1"'),
        ],
    )
    def test_offsets_that_make_no_sense(self, tmp_path: Path, xml: str) -> None:
        safe = Safe(tmp_path, characteristics=xml).metadata().l1c(["B02"])
        with pytest.raises(UnreadableSourceError, match=r"MTD_MSIL1C\.xml: RADIO_ADD_OFFSET"):
            open_source(safe.path)

    def test_zip_folder_and_renamed_folder_are_one_product(self, tmp_path: Path) -> None:
        safe = Safe(tmp_path).metadata().l1c(["B01", "B02"])
        first = opened(safe.path)
        archives = [
            Path(shutil.make_archive(str(tmp_path / "renamed"), "zip", tmp_path, safe.path.name)),
            Path(shutil.make_archive(str(tmp_path / "flat"), "zip", safe.path)),
            Path(shutil.make_archive(str(tmp_path / "packed"), "gztar", tmp_path, safe.path.name)),
        ]
        folder = shutil.copytree(safe.path, tmp_path / "renamed folder")
        for path in (*archives, folder):
            scene = opened(path)
            assert (scene.id, scene.fingerprint) == (first.id, first.fingerprint)
            np.testing.assert_array_equal(
                scene.bands[1].source.read(0, 0, 120, 120)[0], band_pixels("B02", 120)
            )
            scene.close()
        first.close()

    def test_a_preview_changes_nothing(self, tmp_path: Path) -> None:
        safe = Safe(tmp_path).metadata().l1c(["B02"])
        before = opened(safe.path).fingerprint
        write_jp2(
            safe.granule / "IMG_DATA" / "T29UNU_20221005T115411_TCI.jp2",
            np.zeros((3, 120, 120), "uint8"),
            10,
        )
        scene = opened(safe.path)
        assert scene.previews == ("TCI",)
        assert [band.info.name for band in scene.bands] == ["B02"]
        assert scene.fingerprint == before


class TestL2A:
    @pytest.fixture
    def safe(self, tmp_path: Path) -> Safe:
        xml = offsets("BOA_ADD_OFFSET")
        return Safe(tmp_path, level="L2A", baseline="0400", characteristics=xml).metadata()

    def test_a_band_of_several_sizes_is_its_finest_file(self, safe: Safe) -> None:
        for size in (60, 10, 20):
            safe.l2a("B02", size, band_pixels("B02", 1200 // size))
        safe.l2a("B11", 60, band_pixels("B11", 20)).l2a("AOT", 20, np.full((60, 60), 90, "uint16"))
        safe.l2a("AOT", 10, np.full((120, 120), 80, "uint16"))
        scene = opened(safe.path)
        assert {band.info.name: band.info.native_resolution_m for band in scene.bands} == {
            "B02": 10.0,
            "B11": 60.0,
            "AOT": 10.0,
        }
        assert scene.missing == tuple(
            band
            for band in [*L2A_BANDS, "AOT", "WVP", "SCL", "CLDPRB", "SNWPRB"]
            if band not in ("B02", "B11", "AOT")
        )
        blue, aot = scene.band("blue"), scene.band("AOT")
        assert blue is not None
        assert aot is not None
        assert blue.info.offset == pytest.approx(-0.1)
        assert (aot.info.role, aot.info.scale, aot.info.offset) == (BandRole.QUALITY, 1e-3, 0.0)
        assert (scene.cloud, scene.likelihood_band) == (None, None)

    def test_the_scene_classes_tell_cloud(self, safe: Safe) -> None:
        classes = np.tile(np.arange(12, dtype="uint8"), (60, 5))
        safe.l2a("B02", 10, band_pixels("B02", 120)).l2a("SCL", 20, classes)
        scene = opened(safe.path)
        scl = scene.band("SCL")
        assert scl is not None
        assert (scl.info.role, scl.info.nodata, scl.info.dtype) == (BandRole.CLASS, 0, "uint8")
        assert scl.info.class_names["9"] == "cloud, high probability"
        # The legend by which ESA's and others' viewers draw the classes.
        colors = scl.info.class_colors
        assert set(colors) == set(scl.info.class_names)
        assert [colors[code] for code in ("0", "3", "4", "6", "9")] == (
            ["#000000", "#643200", "#00a000", "#0000ff", "#ffffff"]
        )
        np.testing.assert_array_equal(scl.source.read(0, 0, 60, 60)[1], classes != 0)
        assert scene.cloud == CloudLayer(
            "SCL", "classes", frozenset({8, 9, 10}), nodata_values=frozenset({0})
        )
        assert scene.cloud.method == "SCL 8,9,10"

    def test_probabilities_end_where_the_classes_of_their_size_end(self, safe: Safe) -> None:
        probability = np.tile(np.arange(20, dtype="uint8") * 5, (20, 1))
        classes = np.full((20, 20), 4, "uint8")
        classes[:, :7] = 0
        safe.l2a("B02", 10, band_pixels("B02", 120))
        safe.l2a("SCL", 20, np.full((60, 60), 5, "uint8")).l2a("SCL", 60, classes)
        safe.quality("MSK_CLDPRB", 60, probability).quality("MSK_SNWPRB", 60, probability)
        scene = opened(safe.path)
        assert scene.likelihood_band == "CLDPRB"
        for name, role in (("CLDPRB", BandRole.LIKELIHOOD), ("SNWPRB", BandRole.QUALITY)):
            band = scene.band(name)
            assert band is not None
            assert (band.info.role, band.info.nodata, band.info.unit) == (role, None, "percent")
            pixels, valid = band.source.read(0, 0, 20, 20)
            np.testing.assert_array_equal(pixels, probability)
            np.testing.assert_array_equal(valid, classes != 0)

    def test_the_mask_of_a_probability_is_part_of_the_fingerprint(self, safe: Safe) -> None:
        safe.l2a("B02", 10, band_pixels("B02", 120)).l2a("SCL", 20, np.ones((60, 60), "uint8"))
        safe.quality("MSK_CLDPRB", 60, np.ones((20, 20), "uint8"))
        first = opened(safe.path).fingerprint
        safe.l2a("SCL", 60, np.ones((20, 20), "uint8"))
        assert opened(safe.path).fingerprint != first

    def test_probability_alone_tells_cloud_from_a_half_on(self, safe: Safe) -> None:
        safe.l2a("B02", 20, band_pixels("B02", 60))
        safe.quality("MSK_CLDPRB", 60, np.full((20, 20), 3, "uint8"))
        safe.quality("MSK_CLDPRB", 20, np.full((60, 60), 9, "uint8"))
        scene = opened(safe.path)
        assert scene.cloud == CloudLayer("CLDPRB", "likelihood", frozenset({50}))
        band = scene.band("CLDPRB")
        assert band is not None
        pixels, valid = band.source.read(0, 0, 60, 60)
        assert (pixels == 9).all()
        # Without classes the reflectance of that size says where there is data.
        np.testing.assert_array_equal(valid, band_pixels("B02", 60) != 0)


class TestIdentity:
    @pytest.mark.parametrize("uri", ["", "Not applicable", "../../etc/passwd", "S2A_x\x7f"])
    def test_the_folder_names_a_product_whose_xml_does_not(self, tmp_path: Path, uri: str) -> None:
        safe = Safe(tmp_path, product_uri=uri).metadata().l1c(["B01"])
        assert opened(safe.path).id == safe.name

    def test_no_name_anywhere(self, tmp_path: Path) -> None:
        safe = Safe(tmp_path, product_uri="").metadata().l1c(["B01"])
        folder = safe.path.rename(tmp_path / "product")
        with pytest.raises(UnreadableSourceError, match="no product name"):
            open_source(folder)

    @pytest.mark.parametrize("sensing", [None, "", "soon"])
    def test_without_a_sensing_time_the_product_starts_it(
        self, tmp_path: Path, sensing: str | None
    ) -> None:
        safe = Safe(tmp_path, sensing_time=sensing).metadata().l1c(["B01"])
        scene = opened(safe.path)
        assert scene.time_us == 1_664_970_851_024_000
        assert scene.properties["mgrs_tile"] == "29UNU"

    def test_an_old_product_of_two_tiles_is_two_scenes(self, tmp_path: Path) -> None:
        """The format before December 2016, several granules a product."""
        name = "S2A_OPER_PRD_MSIL1C_PDMC_20160113T023408_R097_V20160112T160642_20160112T160642"
        folder = tmp_path / f"{name}.SAFE"
        for tile, add in (("18SVG", 0), ("18SVH", 1)):
            granule = (
                folder
                / "GRANULE"
                / f"S2A_OPER_MSI_L1C_TL_SGS__20160112T212322_A002913_T{tile}_N02.01"
            )
            image = granule.name.replace("_N02.01", "_B01.jp2")
            write_jp2(granule / "IMG_DATA" / image, band_pixels("B01", 20) + np.uint16(add), 60)
            (
                granule / f"{granule.name.replace('MSI', 'MTD').replace('_N02.01', '')}.xml"
            ).write_text(
                f"<T><TILE_ID>{granule.name}</TILE_ID>"
                f"<SENSING_TIME>2016-01-12T16:06:4{add}.461Z</SENSING_TIME></T>"
            )
        (folder / f"{name.replace('PRD_MSI', 'MTD_SAF')}.xml").write_text(
            f"<P><PRODUCT_URI>{name}.SAFE</PRODUCT_URI><QUANTIFICATION_VALUE>1000"
            "</QUANTIFICATION_VALUE></P>"
        )
        first, second = open_source(folder)
        assert (first.id, second.id) == (f"{name}_T18SVG", f"{name}_T18SVH")
        assert second.time_us is not None
        assert first.time_us is not None
        assert second.time_us - first.time_us == 1_000_000
        assert first.fingerprint != second.fingerprint
        assert first.platform == "sentinel-2a"
        assert first.bands[0].info.scale == 1e-3
        np.testing.assert_array_equal(
            second.bands[0].source.read(0, 0, 20, 20)[0], band_pixels("B01", 20) + 1
        )
        first.close()
        second.close()


class TestBroken:
    def test_without_its_xml(self, tmp_path: Path) -> None:
        for level in ("L1C", "L2A"):
            safe = Safe(tmp_path, level=level).metadata()
            safe.l1c(["B01"]) if level == "L1C" else safe.l2a("B01", 60, band_pixels("B01", 20))
            (safe.path / f"MTD_MSI{level}.xml").unlink()
            archive = shutil.make_archive(str(tmp_path / level), "zip", tmp_path, safe.path.name)
            for path in (safe.path, Path(archive)):
                with pytest.raises(UnreadableSourceError, match=rf"expected MTD_MSI{level}\.xml"):
                    open_source(path)

    def test_an_empty_safe_folder(self, tmp_path: Path) -> None:
        (tmp_path / "x.SAFE").mkdir()
        with pytest.raises(UnreadableSourceError, match=r"x\.SAFE: a SAFE product without"):
            open_source(tmp_path / "x.SAFE")

    def test_without_any_image(self, tmp_path: Path) -> None:
        safe = Safe(tmp_path).metadata()
        with pytest.raises(UnreadableSourceError, match=r"MTD_MSIL1C\.xml: no image of any band"):
            open_source(safe.path)

    def test_without_any_image_the_files_are_named(self, tmp_path: Path) -> None:
        listed = "".join(
            f"<IMAGE_FILE>GRANULE/G/IMG_DATA/T29UNU_20221005T115411_{band}</IMAGE_FILE>"
            for band in [*L1C_BANDS, "TCI"]
        )
        safe = Safe(tmp_path, info=listed).metadata()
        shown = ", ".join(
            f"GRANULE/G/IMG_DATA/T29UNU_20221005T115411_{band}.jp2" for band in L1C_BANDS[:3]
        )
        with pytest.raises(UnreadableSourceError, match=f"expected {shown} and 10 more$"):
            open_source(safe.path)
        # In an archive their paths begin where its members' do.
        archive = shutil.make_archive(str(tmp_path / "p"), "zip", tmp_path, safe.path.name)
        with pytest.raises(UnreadableSourceError, match=rf"expected {safe.name}\.SAFE/GRANULE/G/"):
            open_source(archive)

    @pytest.mark.parametrize("number", ["inf", "nan", "-1e400"])
    def test_numbers_that_are_not_finite_count_as_absent(self, tmp_path: Path, number: str) -> None:
        safe = Safe(tmp_path).metadata().l1c(["B01"])
        path = safe.path / "MTD_MSIL1C.xml"
        xml = path.read_text()
        for old in (">23<", ">0<", ">10000<", ">12.5<"):
            assert old in xml
            xml = xml.replace(old, f">{number}<")
        path.write_text(xml)
        with opened(safe.path) as scene:
            (band,) = scene.bands
            assert (band.info.nodata, band.info.scale) == (0, 1e-4)
            assert "relative_orbit" not in scene.properties
            assert "cloud_cover_product_percent" not in scene.properties

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"<a><b></a>",
            b"\xff\xfe\x00",
            b"<?xml version='1.0' encoding='nonsense'?><a/>",
            b"<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
            b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",
            b"<!DOCTYPE a SYSTEM 'http://example.com/a.dtd'><a/>",
        ],
    )
    def test_xml_that_is_damaged_or_hostile(self, tmp_path: Path, content: bytes) -> None:
        safe = Safe(tmp_path).metadata().l1c(["B01"])
        for path in (safe.path / "MTD_MSIL1C.xml", safe.granule / "MTD_TL.xml"):
            before = path.read_bytes()
            path.write_bytes(content)
            with pytest.raises(
                UnreadableSourceError, match=rf"{re.escape(path.name)}: not readable as XML"
            ):
                open_source(safe.path)
            path.write_bytes(before)

    def test_a_huge_xml(self, tmp_path: Path) -> None:
        safe = Safe(tmp_path).metadata().l1c(["B01"])
        with (safe.path / "MTD_MSIL1C.xml").open("r+b") as file:
            file.truncate(1 << 26)
        with pytest.raises(UnreadableSourceError, match=r"MTD_MSIL1C\.xml: 67108864 bytes"):
            open_source(safe.path)

    def test_an_image_that_is_cut_short(self, tmp_path: Path) -> None:
        safe = Safe(tmp_path).metadata().l1c(["B01", "B02"])
        image = next((safe.granule / "IMG_DATA").glob("*B02.jp2"))
        image.write_bytes(image.read_bytes()[:-500])
        scene = opened(safe.path)
        with pytest.raises(UnreadableSourceError, match=r"_B02\.jp2: cannot read"):
            scene.bands[1].source.read(0, 0, 120, 120)
        scene.close()
        image.write_bytes(b"")
        with pytest.raises(UnreadableSourceError, match=r"_B02\.jp2: cannot open"):
            open_source(safe.path)

    def test_an_image_without_a_position(self, tmp_path: Path) -> None:
        safe = Safe(tmp_path).metadata().l1c(["B01"])
        image = next((safe.granule / "IMG_DATA").glob("*B01.jp2"))
        with (
            pytest.warns(rasterio.errors.NotGeoreferencedWarning),
            rasterio.open(
                image, "w", driver="JP2OpenJPEG", count=1, height=20, width=20, dtype="uint16"
            ) as target,
        ):
            target.write(band_pixels("B01", 20), 1)
        with pytest.raises(UnreadableSourceError, match=r"_B01\.jp2: the image states no CRS"):
            open_source(safe.path)


def test_levels_are_told_apart_by_content(tmp_path: Path) -> None:
    for level in ("L1C", "L2A"):
        safe = Safe(tmp_path, level=level).metadata()
        reader = detect(safe.path)
        assert reader is not None
        assert reader.name == f"sentinel-2-{level.lower()}"
        assert reader.defaults.resolutions_m == (10.0, 20.0, 60.0)
        assert reader.defaults.lengths == {"geohash": 5, "quadtile": 13}


def test_a_folder_of_products_is_no_product(tmp_path: Path) -> None:
    Safe(tmp_path).metadata()
    assert detect(tmp_path) is None
