"""Level-1C's own cloud masks: three layers of an image, or polygons in GML."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from geostore.errors import UnreadableSourceError
from geostore.raster import SourceGrid
from geostore.scenes import Scene, open_source
from geostore.scenes.sentinel2_masks import CloudPolygons
from geostore.types import BandRole, BitTest, CloudLayer
from tests.sentinel2_products import L1C_BANDS, Safe, band_pixels, write_jp2

LEFT, TOP = 499_980, 5_900_040
"""Where the products of these tests begin; they are 1200 m a side."""


def opened(safe: Safe) -> Scene:
    (scene,) = open_source(safe.path)
    return scene


def bits_of(scene: Scene) -> tuple[np.ndarray, np.ndarray | None]:
    band = scene.band("CLASSI")
    assert band is not None
    grid = band.source.grid
    return band.source.read(0, 0, grid.height, grid.width)


def ring(*corners: tuple[int, int], dimensions: int = 2) -> str:
    """A closed ring around corners given in pixels of 60 m, (column, row)."""
    points = [(LEFT + 60 * column, TOP - 60 * row) for column, row in (*corners, corners[0])]
    third = " 812.5" if dimensions == 3 else ""
    positions = " ".join(f"{x} {y}{third}" for x, y in points)
    return (
        f'<gml:LinearRing><gml:posList srsDimension="{dimensions}">{positions}</gml:posList>'
        "</gml:LinearRing>"
    )


def box(left: int, top: int, right: int, bottom: int, dimensions: int = 2) -> str:
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return ring(*corners, dimensions=dimensions)


def feature(kind: str, outer: str, *inner: str) -> str:
    holes = "".join(f"<gml:interior>{one}</gml:interior>" for one in inner)
    return (
        f'<eop:MaskFeature gml:id="{kind}.0"><eop:maskType codeSpace="urn:gs2:S2PDGS:maskType">'
        f"{kind}</eop:maskType><eop:extentOf><gml:Polygon><gml:exterior>{outer}</gml:exterior>"
        f"{holes}</gml:Polygon></eop:extentOf></eop:MaskFeature>"
    )


def gml(*features: str, crs: str = "urn:ogc:def:crs:EPSG:8.7:32629") -> str:
    members = (
        f"<eop:maskMembers>{''.join(features)}</eop:maskMembers>"
        if features
        else "<eop:maskMembers/>"
    )
    bounds = f'<gml:boundedBy><gml:Envelope srsName="{crs}"/></gml:boundedBy>' if features else ""
    return (
        '<?xml version="1.0"?><eop:Mask xmlns:eop="http://www.opengis.net/eop/2.0"'
        f' xmlns:gml="http://www.opengis.net/gml/3.2">{bounds}{members}</eop:Mask>'
    )


def with_polygons(safe: Safe, text: str, name: str = "MSK_CLOUDS_B00.gml") -> Safe:
    folder = safe.granule / "QI_DATA"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return safe


class TestLayers:
    def layers(self) -> np.ndarray:
        layers = np.zeros((3, 20, 20), "uint8")
        layers[0, 2:8, 4:15] = 1
        layers[1, 6:12, 10:18] = 1
        layers[2, 15:, :] = 1
        return layers

    def test_are_the_bits_of_one_band(self, tmp_path: Path) -> None:
        safe = Safe(tmp_path, baseline="0400").metadata().l1c()
        write_jp2(safe.granule / "QI_DATA" / "MSK_CLASSI_B00.jp2", self.layers(), 60)
        with opened(safe) as scene:
            assert scene.missing == ()
            assert [band.info.name for band in scene.bands] == [*L1C_BANDS, "CLASSI"]
            info = scene.bands[-1].info
            assert (info.role, info.dtype, info.nodata) == (BandRole.QUALITY, "uint8", None)
            assert info.native_resolution_m == 60.0
            assert [(one.name, one.offset) for one in info.bitfields] == [
                ("opaque_cloud", 0),
                ("cirrus", 1),
                ("snow", 2),
            ]
            bits, valid = bits_of(scene)
            opaque, cirrus, snow = self.layers()
            np.testing.assert_array_equal(bits, opaque + 2 * cirrus + 4 * snow)
            # Where the product has pixels of that size, they say where it has data.
            np.testing.assert_array_equal(valid, band_pixels("B01", 20) != 0)
            window, _ = scene.bands[-1].source.read(5, 9, 7, 4)
            np.testing.assert_array_equal(window, bits[5:12, 9:13])
            assert scene.cloud == CloudLayer("CLASSI", "bits", tests=(BitTest(0, 0), BitTest(1, 1)))
            assert scene.cloud.method == "CLASSI bits 0,1"
            assert scene.likelihood_band is None

    def test_win_over_polygons_and_shape_the_fingerprint(self, tmp_path: Path) -> None:
        safe = Safe(tmp_path).metadata().l1c(["B02"])
        bare = opened(safe)
        with_polygons(safe, gml(feature("OPAQUE", box(0, 0, 20, 20))))
        polygons = opened(safe)
        write_jp2(safe.granule / "QI_DATA" / "MSK_CLASSI_B00.jp2", self.layers(), 60)
        layers = opened(safe)
        assert len({scene.fingerprint for scene in (bare, polygons, layers)}) == 3
        assert bits_of(polygons)[0].all()
        assert not bits_of(layers)[0].all()
        assert bits_of(layers)[1] is None  # no band of 60 m: the footprint will limit it
        for scene in (bare, polygons, layers):
            scene.close()

    @pytest.mark.parametrize("data", [np.zeros((20, 20), "uint8"), np.zeros((3, 20, 20), "uint16")])
    def test_of_another_kind(self, tmp_path: Path, data: np.ndarray) -> None:
        safe = Safe(tmp_path).metadata().l1c(["B01"])
        write_jp2(safe.granule / "QI_DATA" / "MSK_CLASSI_B00.jp2", data, 60)
        with pytest.raises(UnreadableSourceError, match=r"MSK_CLASSI_B00\.jp2: .* expected 3 of"):
            open_source(safe.path)

    def test_l2a_tells_cloud_by_its_classes(self, tmp_path: Path) -> None:
        safe = Safe(tmp_path, level="L2A").metadata()
        safe.l2a("B02", 10, band_pixels("B02", 120)).l2a("SCL", 20, np.ones((60, 60), "uint8"))
        write_jp2(safe.granule / "QI_DATA" / "MSK_CLASSI_B00.jp2", self.layers(), 60)
        with opened(safe) as scene:
            assert scene.cloud is not None
            assert scene.cloud.method == "SCL 8,9,10"
            assert scene.band("CLASSI") is None


class TestPolygons:
    def test_give_back_the_pixels_that_they_were_traced_around(self, tmp_path: Path) -> None:
        text = gml(
            feature("OPAQUE", box(2, 3, 10, 12), box(4, 5, 6, 8), box(7, 5, 9, 8)),
            feature("CIRRUS", box(8, 10, 15, 14, dimensions=3)),
            feature("OPAQUE", ring((12, 0), (14, 0), (14, 1), (13, 1), (13, 2), (12, 2))),
        )
        safe = with_polygons(Safe(tmp_path).metadata().l1c(), text)
        expected = np.zeros((20, 20), "uint8")
        expected[3:12, 2:10] = 1
        expected[5:8, 4:6] = expected[5:8, 7:9] = 0
        expected[0, 12:14] = expected[1, 12] = 1
        expected[10:14, 8:15] += 2
        with opened(safe) as scene:
            bits, valid = bits_of(scene)
            np.testing.assert_array_equal(bits, expected)
            np.testing.assert_array_equal(valid, band_pixels("B01", 20) != 0)
            window, _ = scene.bands[-1].source.read(9, 7, 5, 6)
            np.testing.assert_array_equal(window, expected[9:14, 7:13])
            fields = scene.bands[-1].info.bitfields
            assert [one.name for one in fields] == ["opaque_cloud", "cirrus"]
            assert scene.cloud is not None
            assert scene.cloud.method == "CLASSI bits 0,1"

    def test_keep_their_60_m_where_no_band_has_them(self, tmp_path: Path) -> None:
        safe = with_polygons(
            Safe(tmp_path).metadata().l1c(["B04"]), gml(feature("CIRRUS", box(3, 4, 9, 20)))
        )
        with opened(safe) as scene:
            band = scene.bands[-1]
            assert (band.source.grid.height, band.source.grid.width) == (20, 20)
            assert band.info.native_resolution_m == 60.0
            bits, valid = bits_of(scene)
            assert valid is None
            assert (bits != 0).sum() == 6 * 16
            assert (bits[4:, 3:9] == 2).all()

    def test_none_say_that_there_is_no_cloud(self, tmp_path: Path) -> None:
        with opened(with_polygons(Safe(tmp_path).metadata().l1c(["B01"]), gml())) as scene:
            assert scene.cloud is not None
            assert not bits_of(scene)[0].any()

    def test_of_products_before_december_2016(self, tmp_path: Path) -> None:
        name = "S2A_OPER_MSK_CLOUDS_SGS__20160112T212322_A002913_T29UNU_B00_MSIL1C.gml"
        text = gml(feature("OPAQUE", box(0, 0, 3, 3)))
        with opened(with_polygons(Safe(tmp_path).metadata().l1c(["B01"]), text, name)) as scene:
            assert bits_of(scene)[0].sum() == 9

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("", "not readable as XML"),
            ("<a/>", "no maskMembers"),
            ("<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>", "not readable"),
            (gml(feature("FOG", box(0, 0, 1, 1))), "mask of type 'FOG'"),
            (gml(feature("OPAQUE", "")), "0 outer rings"),
            (gml(feature("OPAQUE", box(0, 0, 1, 1)), crs="EPSG:32630"), "CRS is 'EPSG:32630'"),
            (gml(feature("OPAQUE", box(0, 0, 1, 1)), crs=""), "CRS is ''"),
            (gml(feature("OPAQUE", ring((0, 0), (1, 1)))), "ring of 6 numbers"),
            (gml(feature("OPAQUE", box(0, 0, 1, 1).replace("500040", "x"))), "posList"),
            (gml(feature("OPAQUE", box(0, 0, 1, 1).replace("500040", "1e300"))), "in metres"),
            (gml(feature("OPAQUE", box(0, 0, 1, 1).replace("500040", "nan"))), "in metres"),
            (gml(feature("OPAQUE", box(0, 0, 1, 1).replace('"2"', '"7"'))), "7 dimensions"),
        ],
    )
    def test_that_make_no_sense(self, tmp_path: Path, text: str, what: str) -> None:
        safe = with_polygons(Safe(tmp_path).metadata().l1c(["B01"]), text)
        with pytest.raises(UnreadableSourceError, match=rf"MSK_CLOUDS_B00\.gml: .*{what}"):
            open_source(safe.path)

    def test_far_away_burn_nothing(self, tmp_path: Path) -> None:
        far = box(0, 0, 1, 1).replace("499980", "90000000").replace("500040", "90000060")
        with opened(
            with_polygons(Safe(tmp_path).metadata().l1c(["B01"]), gml(feature("OPAQUE", far)))
        ) as scene:
            assert not bits_of(scene)[0].any()


def test_images_of_an_absurd_size_have_no_mask_burnt() -> None:
    """As a damaged header may state one."""

    class Absurd:
        name = "B01.jp2"
        grid = SourceGrid("", (60.0, 0.0, 0.0, 0.0, -60.0, 0.0), 1 << 30, 1 << 30, 256, 256)

    with pytest.raises(UnreadableSourceError, match=r"B01\.jp2: 1073741824 x 1073741824 pixels"):
        CloudPolygons("MSK_CLOUDS_B00.gml", [], Absurd())


def test_masks_of_repackaged_pixels_lie_on_the_coarsest_images_grid(tmp_path: Path) -> None:
    """A product decimated to 240 m: its polygons still count 60 m."""
    safe = Safe(tmp_path).metadata()
    write_jp2(safe.band_path("B01"), np.ones((5, 5), "uint16"), 240)
    write_jp2(safe.band_path("B02"), np.ones((10, 10), "uint16"), 120)
    with opened(with_polygons(safe, gml(feature("OPAQUE", box(4, 4, 12, 8))))) as scene:
        bits, valid = bits_of(scene)
        assert valid is None
        expected = np.zeros((5, 5), "uint8")
        expected[1, 1:3] = 1
        np.testing.assert_array_equal(bits, expected)
        with rasterio.open(safe.band_path("B01")) as image:
            assert scene.bands[-1].source.grid.transform == tuple(image.transform)[:6]
