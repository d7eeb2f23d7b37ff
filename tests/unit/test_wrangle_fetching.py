"""Blocks fetched ahead give the pixels that a tile read by itself gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from geostore.errors import InvalidInputError
from geostore.query import Query
from geostore.types import BandRole, TileRow
from geostore.wrangle import plan_bands, read_ahead, read_tile
from tests.fake_backend import FakeBackend, band

CELLS = tuple(f"dq8x{digit}" for digit in "0123456789bcdefg")


def make_backend(*, clouds: bool = True) -> Any:
    backend = FakeBackend()
    backend.make_dataset()
    random = np.random.default_rng(3)
    for cell in CELLS:
        bands = [band("B04", random.integers(1, 99, (32, 32)))]
        layer = band("SCL", random.integers(0, 12, (16, 16)), dtype="uint8", role=BandRole.CLASS)
        groups: dict[float, Any] = {160: bands, 320: [layer]} if clouds else {160: bands}
        backend.put(cell, groups, cloud_method="SCL 8,9,10" if clouds else None)
    return backend


def rows_of(backend: Any) -> list[TileRow]:
    return [row for batch in backend.query(Query()) for row in batch.rows()]


@pytest.mark.parametrize("cloud_mask", [False, True])
def test_pixels_are_those_of_tiles_read_one_by_one(cloud_mask: bool) -> None:
    backend = make_backend()
    rows = rows_of(backend)
    ahead = read_ahead(
        backend, rows, lambda row: (row, plan_bands(row.schema, ("B04",))), cloud_mask=cloud_mask
    )
    for row, (same, fetched) in zip(rows, ahead, strict=True):
        assert same is row
        found = read_tile(backend, row, "B04", cloud_mask=cloud_mask, fetched=fetched)
        alone = read_tile(backend, row, "B04", cloud_mask=cloud_mask)
        np.testing.assert_array_equal(found.data, alone.data)
        np.testing.assert_array_equal(found.mask, alone.mask)
        assert found.mask.all() != cloud_mask


def test_tiles_without_clouds_are_an_error_before_they_are_read() -> None:
    backend = make_backend(clouds=False)
    rows = rows_of(backend)
    ahead = read_ahead(
        backend, rows, lambda row: (row, plan_bands(row.schema, None)), cloud_mask=True
    )
    with pytest.raises(InvalidInputError, match="no band tells clouds"):
        next(ahead)
    assert backend.reads == []
