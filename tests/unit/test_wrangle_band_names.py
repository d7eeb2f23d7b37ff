"""A provider's band number means one band where one platform is selected, and only so."""

from __future__ import annotations

import pytest

from geostore.api.selection import Selection
from geostore.errors import InvalidInputError, NotFoundError
from geostore.query import Query
from geostore.tensors import export
from geostore.types import BandInfo, TileRow, TileSchema
from geostore.wrangle import Mosaic, Radiometry, check_band_names
from tests.fake_backend import FakeBackend, MadeBand, band

CELL = "dq8x0"
MESSAGE = r"band 'B4' is nir08 on landsat-5 and red on landsat-8: ask for common names"


def rows_of(backend: FakeBackend) -> list[TileRow]:
    return [row for batch in backend.query(Query()) for row in batch.rows()]


def landsat(backend: FakeBackend, satellite: int, **more: str) -> None:
    """A tile of `B3`, `B4` and `QA_PIXEL` with the number of the satellite in red."""
    names = {3: "red", 4: "nir08"} if satellite < 8 else {3: "green", 4: "red"}
    bands: list[MadeBand] = [
        band(
            f"B{number}",
            satellite if common == "red" else 100,
            common_name=common,
            aliases=("nir",) if common == "nir08" else (),
        )
        for number, common in names.items()
    ]
    platform = more.pop("platform", f"landsat-{satellite}")
    backend.put(
        CELL,
        {160: [*bands, band("QA_PIXEL", 1, nodata=None)]},
        scene=f"L{satellite}",
        platform=platform,
    )


@pytest.fixture
def backend() -> FakeBackend:
    made = FakeBackend()
    made.make_dataset()
    return made


@pytest.fixture
def two(backend: FakeBackend) -> FakeBackend:
    landsat(backend, 5)
    landsat(backend, 8)
    return backend


class TestTwoPlatforms:
    def test_a_number_is_refused_however_it_is_asked_for(self, two: FakeBackend, tmp_path) -> None:
        selection = Selection(two, Query())
        with pytest.raises(InvalidInputError, match=MESSAGE):
            selection.mosaic(bands="B4")
        with pytest.raises(InvalidInputError, match=MESSAGE):
            list(selection.read(bands=["B4"]))
        with pytest.raises(InvalidInputError, match=MESSAGE):
            selection.export(tmp_path / "out", format="npy", bands=["B4"])
        assert not list(tmp_path.iterdir())
        with pytest.raises(InvalidInputError, match=MESSAGE):
            selection.to_xarray(bands=["B4"])

    def test_all_bands_by_their_own_names_are_refused_as_one_array(self, two) -> None:
        with pytest.raises(InvalidInputError, match="band 'B3' is red on landsat-5 and green on"):
            Mosaic(two, rows_of(two))

    def test_each_tile_alone_reads_by_its_own_names(self, two: FakeBackend) -> None:
        read = {
            tile.platform: array.data[1, 0, 0] for tile, array in Selection(two, Query()).read()
        }
        assert read == {"landsat-5": 100, "landsat-8": 8}
        tiles = {tile.platform: tile for tile in Selection(two, Query())}
        assert tiles["landsat-5"].read(bands=["B4"]).data[0, 0, 0] == 100
        assert tiles["landsat-8"].read(bands=["B4"]).data[0, 0, 0] == 8

    def test_a_common_name_is_good_for_both(self, two: FakeBackend) -> None:
        red = [array.data[0, 0, 0] for _, array in Selection(two, Query()).read(bands=["red"])]
        assert red == [5, 8]
        rows = rows_of(two)
        assert Mosaic(two, rows, bands=("red",)).read().data[0, 0, 0] == 5
        assert Mosaic(two, rows[::-1], bands=("red",)).read().data[0, 0, 0] == 8

    def test_a_name_that_means_one_thing_is_good_for_both(self, two: FakeBackend) -> None:
        assert Mosaic(two, rows_of(two), bands=("QA_PIXEL",)).read().mask.all()


def test_one_platform_answers_to_numbers(backend: FakeBackend) -> None:
    landsat(backend, 8)
    landsat(backend, 9, platform="landsat-8")
    assert Mosaic(backend, rows_of(backend), bands=("B4",)).read().data[0, 0, 0] == 8


def test_tiles_of_no_platform_are_told_apart_from_those_of_one(backend: FakeBackend) -> None:
    landsat(backend, 8)
    backend.put(CELL, {160: [band("B4", 1)]}, scene="raster", platform=None)
    with pytest.raises(
        InvalidInputError,
        match="'B4' is red on landsat-8 and a band without a common name on tiles of no known",
    ):
        check_band_names(rows_of(backend), ("B4",))
    check_band_names(rows_of(backend), None)


def test_a_name_that_no_tile_has_is_left_to_who_looks_it_up(two: FakeBackend) -> None:
    check_band_names(rows_of(two), ("no-such",))
    with pytest.raises(NotFoundError, match="no-such"):
        Mosaic(two, rows_of(two), bands=("no-such",))


def test_export_checks_names_before_it_writes(two: FakeBackend, tmp_path) -> None:
    with pytest.raises(InvalidInputError, match=MESSAGE):
        export(
            two,
            rows_of(two),
            tmp_path / "out",
            format="cog",
            mosaic=False,
            bands=("B4",),
            resolution=None,
            radiometry=Radiometry(),
            cloud_mask=False,
            groupby="time",
            overwrite=False,
        )


class TestAliases:
    def test_an_alias_answers_after_common_names(self, two: FakeBackend) -> None:
        schema = rows_of(two)[0].schema
        assert schema.find_band("nir") == schema.find_band("nir08") == schema.find_band("B4")
        assert {"nir", "nir08", "red", "B4", "QA_PIXEL"} <= schema.names
        other = band("X", 0, common_name="nir")
        backend = FakeBackend()
        backend.make_dataset()
        wide = band("Y", 0, common_name="nir08", aliases=("nir",))
        backend.put(CELL, {160: [wide, other]})
        (row,) = rows_of(backend)
        assert row.schema.find_band("nir") == (0, 1)

    def test_schemas_keep_aliases_and_those_without_keep_their_digest(self, two) -> None:
        schema = rows_of(two)[0].schema
        assert TileSchema.from_json(schema.to_json()) == schema
        (group,) = schema.to_json()["groups"]
        assert [dict(one).get("aliases") for one in group["bands"]] == [None, ("nir",), None]
        assert BandInfo(name="B1", dtype="uint8").aliases == ()
