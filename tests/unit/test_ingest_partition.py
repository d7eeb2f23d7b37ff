"""Masks, footprints of layers and fills of one cell, on made-up scenes."""

from __future__ import annotations

import numpy as np
import pytest

import geostore
from geostore.errors import InvalidInputError
from geostore.ingest.partition import _limit_layers_to_footprint, _union
from geostore.types import BandInfo, BandRole


def test_union_brings_masks_of_other_groups_to_the_layers_grid() -> None:
    fine = np.zeros((8, 8), bool)
    fine[:, :4] = True
    coarse = np.zeros((2, 2), bool)
    coarse[0, 1] = True
    seen = _union([fine, coarse], (4, 4))
    expected = np.zeros((4, 4), bool)
    expected[:, :2] = True
    expected[:2, 2:] = True
    assert isinstance(seen, np.ndarray)
    assert (seen == expected).all()
    assert _union([False, True], (4, 4)) is True
    assert _union([False], (4, 4)) is False


class _Plan:
    """As much of a plan as layers and their footprint need."""

    def __init__(self, infos: list[BandInfo], shape: tuple[int, int]) -> None:
        from types import SimpleNamespace as Namespace

        self.bands = [
            Namespace(band=Namespace(info=info), group=0, position=position)
            for position, info in enumerate(infos)
        ]
        self.schema = Namespace(groups=[Namespace(height=shape[0], width=shape[1])])


def test_layers_without_nodata_end_where_every_measured_band_ends() -> None:
    seen = np.array([[True, False], [True, False]])
    infos = [
        BandInfo(name="B02", dtype="uint16", nodata=0),
        BandInfo(name="CLDPRB", dtype="uint8", role=BandRole.LIKELIHOOD),
        BandInfo(name="SCL", dtype="uint8", role=BandRole.CLASS, nodata=0),
    ]
    masks: list[list[np.ndarray | bool]] = [[seen, True, True]]
    _limit_layers_to_footprint(_Plan(infos, (2, 2)), masks)  # type: ignore[arg-type]
    assert masks[0][1] is seen
    assert masks[0][2] is True, "a layer with a nodata value says itself where it ends"


def test_an_all_nodata_scene_fails_and_leaves_no_dataset(make_raster, tmp_path) -> None:
    empty = make_raster("empty.tif", np.zeros((1, 64, 64), "uint8"), nodata=0)
    good = make_raster("good.tif", np.ones((1, 64, 64), "uint8"), nodata=0)
    with geostore.open(str(tmp_path / "store")) as store:
        (result,) = store.ingest([empty])
        assert result.status == "failed"
        assert "no band has a valid pixel" in (result.error or "")
        assert [d.name for d in store.datasets()] == []
        (result,) = store.ingest([good])
        assert result.status == "ingested"


@pytest.mark.parametrize("workers", [1, 3])
def test_invalid_pixels_are_stored_as_fill(make_raster, tmp_path, workers: int) -> None:
    data = np.full((1, 200, 200), 7.5, "float32")
    data[0, 50:150, 50:150] = np.nan
    path = make_raster("holes.tif", data, nodata=-9999.0)
    with geostore.open(str(tmp_path / "store")) as store:
        (result,) = store.ingest([path], workers=workers)
        assert result.error is None
        holes = 0
        for tile in store.query():
            array = tile.read()
            assert np.all(array.data[~array.mask] == -9999.0)
            assert np.all(array.data[array.mask] == 7.5)
            holes += int((~array.mask).sum())
        assert holes


def test_workers_below_one_are_refused(make_raster, tmp_path) -> None:
    with (
        geostore.open(str(tmp_path / "store")) as store,
        pytest.raises(InvalidInputError, match="workers"),
    ):
        store.ingest([make_raster("a.tif", np.ones((1, 8, 8), "uint8"))], workers=0)
