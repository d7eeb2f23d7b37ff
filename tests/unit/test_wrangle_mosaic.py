"""Many tiles as one array."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from geostore.errors import InvalidInputError, NotFoundError
from geostore.query import Query
from geostore.types import TileRow
from geostore.wrangle import Mosaic, Radiometry
from tests.fake_backend import WHEN, FakeBackend, band

# A square of four neighbours: x2 x3 above x0 x1.
LOWER_LEFT, LOWER_RIGHT, UPPER_LEFT, UPPER_RIGHT = "dq8x0", "dq8x1", "dq8x2", "dq8x3"


def rows_of(backend: FakeBackend) -> list[TileRow]:
    return [row for batch in backend.query(Query()) for row in batch.rows()]


@pytest.fixture
def backend() -> FakeBackend:
    made = FakeBackend()
    made.make_dataset()
    return made


def test_tiles_lie_side_by_side_and_gaps_are_nodata(backend) -> None:
    for value, code in enumerate((LOWER_LEFT, UPPER_LEFT, UPPER_RIGHT), start=1):
        backend.put(code, {160: [band("B04", value, nodata=9)]})
    mosaic = Mosaic(backend, rows_of(backend))
    assert mosaic.shape == (1, 64, 64)
    assert mosaic.nbytes == 64 * 64 * 2
    whole = mosaic.read()
    quarters = [
        [np.unique(whole.data[0, r : r + 32, c : c + 32]).tolist() for c in (0, 32)]
        for r in (0, 32)
    ]
    assert quarters == [[[2], [3]], [[1], [9]]]
    assert whole.mask.sum() == 3 * 32 * 32
    assert not whole.mask[0, 32:, 32:].any()


def test_blocks_are_whole_cells_row_by_row(backend) -> None:
    for code in (LOWER_RIGHT, UPPER_RIGHT, LOWER_LEFT):
        backend.put(code, {160: [band("B04", 1)]})
    windows = [window for window, _, _ in Mosaic(backend, rows_of(backend)).blocks()]
    assert [(w.row, w.column) for w in windows] == [(0, 32), (32, 0), (32, 32)]


def test_the_first_valid_pixel_in_the_order_given_wins(backend) -> None:
    left = np.zeros((32, 32), bool)
    left[:, :16] = True
    top = np.zeros((32, 32), bool)
    top[:8] = True
    backend.put(LOWER_LEFT, {160: [band("B04", 1, left)]}, scene="A")
    backend.put(LOWER_LEFT, {160: [band("B04", 2, top)]}, scene="B", time=WHEN + timedelta(1))
    backend.put(LOWER_LEFT, {160: [band("B04", 3)]}, scene="C", time=WHEN + timedelta(2))
    rows = rows_of(backend)
    data = Mosaic(backend, rows).read().data[0]
    assert (data[:, :16] == 1).all()
    assert (data[:8, 16:] == 2).all()
    assert (data[8:, 16:] == 3).all()
    assert (Mosaic(backend, rows[::-1]).read().data == 3).all()


def test_precedence_is_by_band_and_missing_bands_leave_room(backend) -> None:
    backend.put(LOWER_LEFT, {160: [band("B04", 1)]}, scene="A")
    backend.put(
        LOWER_LEFT,
        {160: [band("B04", 2), band("B08", 2)]},
        scene="B",
        time=WHEN + timedelta(1),
    )
    whole = Mosaic(backend, rows_of(backend), bands=("B04", "B08")).read()
    assert whole.data[:, 0, 0].tolist() == [1, 2]
    assert whole.mask.all()


def test_covered_tiles_are_not_read(backend) -> None:
    backend.put(LOWER_LEFT, {160: [band("B04", 1)]}, scene="A")
    backend.put(LOWER_LEFT, {160: [band("B04", 2)]}, scene="B", time=WHEN + timedelta(1))
    Mosaic(backend, rows_of(backend)).read()
    assert len(backend.reads) == 1


def test_groups_and_dtypes_come_together(backend) -> None:
    backend.put(LOWER_LEFT, {160: [band("B04", 700)], 320: [band("SCL", 9, dtype="uint8")]})
    mosaic = Mosaic(backend, rows_of(backend))
    assert mosaic.dtype == np.uint16
    assert mosaic.read().data[:, 5, 5].tolist() == [700, 9]
    assert Mosaic(backend, rows_of(backend), bands=("SCL",)).shape == (1, 16, 16)


def test_differing_offsets_need_to_be_told(backend) -> None:
    backend.put(LOWER_LEFT, {160: [band("B04", 2000, scale=1e-4)]}, scene="A")
    backend.put(UPPER_LEFT, {160: [band("B04", 3000, scale=1e-4, offset=-0.1)]}, scene="B")
    rows = rows_of(backend)
    with pytest.raises(InvalidInputError, match=r"'B04'.*offset -0.1.*harmonize=True"):
        Mosaic(backend, rows)
    same = Mosaic(backend, rows, radiometry=Radiometry(harmonize=True)).read()
    assert np.unique(same.data).tolist() == [2000]
    physical = Mosaic(backend, rows, radiometry=Radiometry(reflectance=True)).read()
    np.testing.assert_allclose(physical.data, 0.2, rtol=1e-6)


def test_differing_nodata_is_refused(backend) -> None:
    backend.put(LOWER_LEFT, {160: [band("B04", 1)]}, scene="A")
    backend.put(UPPER_LEFT, {160: [band("B04", 1, nodata=65535)]}, scene="B")
    with pytest.raises(InvalidInputError, match="nodata differ"):
        Mosaic(backend, rows_of(backend))


def test_lattices_are_not_mixed(backend) -> None:
    backend.make_dataset("deep", length=6, resolutions=(30,))
    backend.put(LOWER_LEFT, {160: [band("B04", 1)]})
    backend.put("dq8x01", {30: [band("B04", 1)]}, dataset="deep")
    with pytest.raises(InvalidInputError, match=r"geohash 5, geohash 6; datasets deep, s2"):
        Mosaic(backend, rows_of(backend))
    with pytest.raises(InvalidInputError, match="empty"):
        Mosaic(backend, [])


def test_datasets_of_different_groups_meet_at_the_finest(backend) -> None:
    backend.make_dataset("finer", resolutions=(100,))
    backend.put(LOWER_LEFT, {160: [band("B04", 1, common_name="red")]})
    backend.put(UPPER_LEFT, {100: [band("SR_B4", 2, common_name="red")]}, dataset="finer")
    whole = Mosaic(backend, rows_of(backend), bands=("red",)).read()
    assert whole.data.shape == (1, 128, 64)
    assert np.unique(whole.data[0, :64]).tolist() == [2]
    assert np.unique(whole.data[0, 64:]).tolist() == [1]
    coarser = Mosaic(backend, rows_of(backend), bands=("red",), resolution=320)
    assert coarser.shape == (1, 64, 32)  # at 320 m the finer one has 32 pixels a cell


def test_an_unknown_band_names_those_of_all_tiles(backend) -> None:
    backend.put(LOWER_LEFT, {160: [band("B04", 1)]}, scene="A")
    backend.put(UPPER_LEFT, {160: [band("B08", 1)]}, scene="B")
    with pytest.raises(NotFoundError, match="Known: B04, B08"):
        Mosaic(backend, rows_of(backend), bands=("B09",))


def test_invalid_pixels_hold_the_fill_whatever_was_stored_there(backend) -> None:
    valid = np.zeros((32, 32), bool)
    backend.put(LOWER_LEFT, {160: [band("B04", 5, valid), band("B08", 5)]})
    whole = Mosaic(backend, rows_of(backend)).read()
    assert (whole.data[0] == 0).all()
    assert (whole.data[1] == 5).all()
