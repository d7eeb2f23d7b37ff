"""HDF-EOS metadata: blocks, grids in several projections, values of the granule."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pyproj import CRS, Transformer

from geostore.scenes.modis_metadata import parse_granule, parse_grids, parse_odl
from tests.hdf_eos import TestGrid, core_metadata, struct_metadata

LAYER = (np.zeros((20, 40), np.int16), {})


def one_grid(**options):
    grids, _ = parse_grids(struct_metadata([TestGrid("G", {"a": LAYER}, **options)]))
    (grid,) = grids
    return grid


def lonlat(grid, column: float, row: float) -> tuple[float, float]:
    a, b, c, d, e, f = grid.transform
    way = Transformer.from_crs(CRS.from_wkt(grid.crs_wkt), "EPSG:4326", always_xy=True)
    return way.transform(a * column + b * row + c, d * column + e * row + f)


class TestOdl:
    def test_blocks_values_and_lists_over_several_lines(self) -> None:
        root = parse_odl(
            'GROUP=A\n  OBJECT = B\n VALUE = ("x",\n    "y")\n END_OBJECT=B\nEND_GROUP=A\nK=1\nEND'
        )
        (a,) = root.groups
        assert [group.name for group in root.walk()] == ["", "A", "B"]
        assert a.groups[0].values == {"VALUE": '("x","y")'}
        assert root.values == {"K": "1"}

    def test_ends_without_beginnings_and_noise_are_passed_over(self) -> None:
        root = parse_odl("END_GROUP=X\n\x01\x02 noise\nGROUP=A\nv=(1,2\n")
        assert [group.name for group in root.groups] == ["A"]

    def test_nothing_behind_a_nul_is_read(self) -> None:
        assert parse_odl("GROUP=A\nEND_GROUP=A\n\0GROUP=B\nEND_GROUP=B\n").group("B") is None

    def test_depth_is_bounded(self) -> None:
        with pytest.raises(ValueError, match="deep"):
            parse_odl("GROUP=A\n" * 1000)


class TestGrids:
    def test_sinusoidal(self) -> None:
        """The corner of tile h10v05's column, known from the tile grid's definition."""
        grid = one_grid(upper_left=(-8895604.157333, 4447802.078667), pixel=463.3127165279165)
        assert (grid.height, grid.width) == (20, 40)
        assert [field.name for field in grid.fields] == ["a"]
        assert grid.fields[0].dimensions == ("YDim", "XDim")
        assert grid.transform == pytest.approx(
            (463.3127165, 0, -8895604.157333, 0, -463.3127165, 4447802.078667)
        )
        lon, lat = lonlat(grid, 0, 0)
        assert lat == pytest.approx(40.0, abs=1e-6)
        assert lon == pytest.approx(-80.0 / math.cos(math.radians(40.0)), abs=1e-6)
        crs = CRS.from_wkt(grid.crs_wkt)
        assert crs.ellipsoid.semi_major_metre == pytest.approx(6371007.181)
        assert crs.ellipsoid.semi_minor_metre == pytest.approx(6371007.181)

    @pytest.mark.parametrize(
        "corners",
        [
            "UpperLeftPointMtrs=(-180000000.0,90000000.0)\nLowerRightMtrs=(-160000000.0,80000000.0)\n",
            "UpperLeftPointMtrs=(-180.0,90.0)\nLowerRightMtrs=(-160.0,80.0)\n",
        ],
    )
    def test_geographic_packed_and_plain_degrees(self, corners: str) -> None:
        grid = one_grid(projection="Projection=GCTP_GEO\n", corners=corners)
        assert grid.transform == pytest.approx((0.5, 0, -180, 0, -0.5, 90))
        assert CRS.from_wkt(grid.crs_wkt).is_geographic

    def test_minutes_and_seconds_of_packed_degrees(self) -> None:
        corners = (
            "UpperLeftPointMtrs=(-122030036.0,45015000.0)\nLowerRightMtrs=(-121030036.0,44015000.0)"
        )
        grid = one_grid(projection="Projection=GCTP_GEO\n", corners=f"{corners}\n")
        assert grid.transform[2] == pytest.approx(-(122 + 30 / 60 + 36 / 3600))
        assert grid.transform[5] == pytest.approx(45.25)

    def test_utm_south(self) -> None:
        grid = one_grid(
            projection="Projection=GCTP_UTM\nZoneCode=-33\nSphereCode=12\nProjParams=(0,0)\n",
            upper_left=(500_000.0, 7_000_000.0),
        )
        assert CRS.from_wkt(grid.crs_wkt).equals(CRS.from_epsg(32733))
        lon, lat = lonlat(grid, 0, 0)
        assert (lon, lat) == pytest.approx((15.0, -27.12), abs=0.01)

    def test_lambert_azimuthal_and_polar_stereographic(self) -> None:
        params = "(6371228.0,0,0,0,0,90000000,0,0,0,0,0,0,0)"
        grid = one_grid(
            projection=f"Projection=GCTP_LAMAZ\nProjParams={params}\nSphereCode=-1\n",
            upper_left=(0.0, 0.0),
        )
        assert lonlat(grid, 0, 0)[1] == pytest.approx(90.0, abs=1e-6)
        params = "(6378273,-0.006693883,0,0,-45000000,70000000,0,0,0,0,0,0,0)"
        grid = one_grid(
            projection=f"Projection=GCTP_PS\nProjParams={params}\nSphereCode=-1\n",
            upper_left=(0.0, 0.0),
        )
        assert lonlat(grid, 0, 0)[1] == pytest.approx(90.0, abs=1e-6)

    @pytest.mark.parametrize(
        ("origin", "first"), [("UL", (0, 20)), ("UR", (40, 20)), ("LL", (0, 0)), ("LR", (40, 0))]
    )
    def test_origin_says_where_the_first_pixel_lies(
        self, origin: str, first: tuple[int, int]
    ) -> None:
        grid = one_grid(
            projection=f"Projection=GCTP_GEO\nGridOrigin=HDFE_GD_{origin}\n",
            corners="UpperLeftPointMtrs=(0.0,20.0)\nLowerRightMtrs=(40.0,0.0)\n",
        )
        assert (grid.transform[2], grid.transform[5]) == first
        a, _, c, _, e, f = grid.transform
        assert {c, c + 40 * a} == {0.0, 40.0}
        assert {f, f + 20 * e} == {0.0, 20.0}

    @pytest.mark.parametrize(
        ("projection", "corners", "message"),
        [
            ("Projection=GCTP_HOM\nProjParams=(1,1,0,0,0,0,0,0)\n", "", "projection 'GCTP_HOM'"),
            ("Projection=GCTP_SNSOID\nProjParams=(6371007.181)\n", "", "ProjParams.*8 numbers"),
            ("Projection=GCTP_UTM\nZoneCode=61\n", "", "ZoneCode 61"),
            ("Projection=GCTP_GEO\n", "XDim=0\n", "UpperLeftPointMtrs"),
            (
                "Projection=GCTP_GEO\n",
                "UpperLeftPointMtrs=(1,1)\nLowerRightMtrs=(1,0)\n",
                "enclose nothing",
            ),
            (
                "Projection=GCTP_GEO\n",
                "UpperLeftPointMtrs=(nan,1)\nLowerRightMtrs=(1,0)\n",
                "expected 2 numbers",
            ),
            (
                "Projection=GCTP_GEO\nGridOrigin=HDFE_GD_XY\n",
                "UpperLeftPointMtrs=(0,1)\nLowerRightMtrs=(1,0)\n",
                "GridOrigin",
            ),
            (
                "Projection=GCTP_SNSOID\nSphereCode=3\nProjParams=(0,0,0,0,0,0,0,0)\n",
                "",
                "SphereCode 3",
            ),
        ],
    )
    def test_what_cannot_be_placed_is_named(
        self, projection: str, corners: str, message: str
    ) -> None:
        with pytest.raises(ValueError, match=f"grid 'G'.*{message}"):
            one_grid(projection=projection, corners=corners)

    def test_sizes_are_bounded(self) -> None:
        text = struct_metadata([TestGrid("G", {"a": LAYER})]).replace("XDim=40", "XDim=99999999")
        with pytest.raises(ValueError, match="XDim 99999999: expected 1 to"):
            parse_grids(text)

    def test_swaths_are_told_apart(self) -> None:
        swath = 'GROUP=SWATH_1\nSwathName="mod07"\nEND_GROUP=SWATH_1\n'
        assert parse_grids(struct_metadata([], swath)) == ((), True)
        assert parse_grids("") == ((), False)


class TestGranule:
    def test_values_lists_and_additional_attributes(self) -> None:
        text = core_metadata(
            {"SHORTNAME": '"MOD09GA"', "DAYSPROCESSED": '("2016145", "2016146")', "EMPTY": '""'},
            {"HORIZONTALTILENUMBER": "09"},
        )
        granule = parse_granule([text])
        assert granule.text("SHORTNAME") == "MOD09GA"
        assert granule.texts("DAYSPROCESSED") == ("2016145", "2016146")
        assert granule.text("EMPTY", "HORIZONTALTILENUMBER") == "09"
        assert granule.text("NONE") is None

    def test_the_first_text_wins(self) -> None:
        one, other = core_metadata({"A": '"1"'}), core_metadata({"A": '"2"', "B": '"3"'})
        granule = parse_granule([one, other])
        assert (granule.text("A"), granule.text("B")) == ("1", "3")
