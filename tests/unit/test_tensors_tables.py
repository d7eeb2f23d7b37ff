"""Selections as tables."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from geostore.api import Selection
from geostore.errors import MissingDependencyError
from geostore.query import Query
from geostore.types import TILE_FIELDS
from tests.fake_backend import WHEN, FakeBackend, band


@pytest.fixture
def selection() -> Selection:
    backend = FakeBackend()
    backend.make_dataset()
    for code in ("dq8x0", "dq8x1"):
        backend.put(code, {160: [band("B04", 1)], 320: [band("B11", 1)]}, cloud_cover=12.5)
    backend.put("dq8x1", {160: [band("B04", 1)]}, scene="old", time=None)
    return Selection(backend, Query())


def test_pandas_has_the_fields_of_a_tile(selection) -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = selection.to_pandas()
    assert tuple(frame.columns) == TILE_FIELDS
    assert len(frame) == 3
    assert isinstance(frame.time.dtype, pd.DatetimeTZDtype)
    assert frame.time.tolist()[:2] == [WHEN, WHEN]
    assert pd.isna(frame.time[2])
    assert frame.pixel_coverage.dtype == frame.cloud_cover.dtype == np.float32
    assert frame.cloud_cover[0] == 12.5
    assert np.isnan(frame.cloud_cover[2])
    assert frame.bands.tolist() == [["B04", "B11"], ["B04", "B11"], ["B04"]]
    tile = selection.first()
    assert frame.bbox[0] == tile.bbox.as_tuple()
    assert frame.loc[0, "bytes"] == tile.bytes
    assert frame.nodes[0] == ["local"]


def test_an_empty_selection_keeps_columns_and_types(selection) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    empty = Selection(selection._backend, Query(scene="none")).to_pandas()
    assert tuple(empty.columns) == TILE_FIELDS
    assert str(empty.time.dtype) == "datetime64[us, UTC]"
    assert empty["bytes"].dtype == np.int64


def test_arrow_has_nulls_and_types(selection) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = selection.to_arrow()
    assert tuple(table.column_names) == TILE_FIELDS
    rows = table.to_pylist()
    assert rows == [
        {
            **{name: getattr(tile, name) for name in TILE_FIELDS},
            "bands": list(tile.bands),
            "nodes": list(tile.nodes),
            "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), tile.bbox.as_tuple(), strict=True)),
        }
        for tile in selection
    ]
    assert table.schema.field("time").type == pa.timestamp("us", tz="UTC")
    empty = Selection(selection._backend, Query(scene="none")).to_arrow()
    assert empty.schema == table.schema


@pytest.mark.parametrize(
    ("module", "method", "extra"),
    [("pandas", "to_pandas", "pandas"), ("pyarrow", "to_arrow", "parquet")],
)
def test_a_missing_package_says_how_to_get_it(selection, monkeypatch, module, method, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"geostore\[{extra}\]"):
        getattr(selection, method)()
