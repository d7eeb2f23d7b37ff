"""HDF-EOS metadata that anybody wrote: parsed, or refused by a ValueError, and nothing else."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from geostore.scenes.modis_metadata import parse_granule, parse_grids
from tests.hdf_eos import SINUSOIDAL, TestGrid, core_metadata, struct_metadata

LAYERS = {"a": (np.zeros((20, 40), np.int16), {}), "b": (np.zeros((20, 40), np.int16), {})}
WHOLE = struct_metadata(
    [
        TestGrid("A", LAYERS),
        TestGrid("B", LAYERS, projection="Projection=GCTP_UTM\nZoneCode=33\nSphereCode=12\n"),
        TestGrid(
            "C",
            LAYERS,
            projection="Projection=GCTP_GEO\n",
            corners="UpperLeftPointMtrs=(-122030036.0,45.0)\nLowerRightMtrs=(0.0,40.0)\n",
        ),
    ]
)
CORE = core_metadata({"SHORTNAME": '"X"', "DAYSPROCESSED": '("1", "2")'}, {"H": "09"})
NUMBERS = ["nan", "inf", "-1", "0", "1e308", "1e-308", "99999999999", "180000000", '"', "(", ""]


@st.composite
def damaged(draw: st.DrawFn, whole: str) -> str:
    """The text with pieces cut, doubled, or replaced by numbers that mean trouble."""
    text = whole
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(text)))
        size = draw(st.integers(0, 40))
        piece = draw(st.sampled_from([*NUMBERS, text[at : at + size], "\n", "="]))
        text = text[:at] + piece + text[at + size :]
    return text


def test_the_whole_text_is_good() -> None:
    grids, _ = parse_grids(WHOLE)
    assert [grid.name for grid in grids] == ["A", "B", "C"]


@given(damaged(WHOLE))
def test_grids_are_usable_or_refused(text: str) -> None:
    try:
        grids, _ = parse_grids(text)
    except ValueError:
        return
    for grid in grids:
        assert grid.height > 0
        assert grid.width > 0
        assert all(math.isfinite(number) for number in grid.transform)
        a, b, _, d, e, _ = grid.transform
        assert a * e != b * d
        CRS.from_wkt(grid.crs_wkt)


@given(st.lists(st.sampled_from([*NUMBERS, "6371007.181", "90000000"]), min_size=8, max_size=13))
def test_projection_parameters_are_usable_or_refused(numbers: list[str]) -> None:
    parameters = f"ProjParams=({','.join(numbers)})\n"
    projection = SINUSOIDAL.replace(
        "ProjParams=(6371007.181000,0,0,0,0,0,0,0,0,0,0,0,0)\n", parameters
    )
    for name in ("SNSOID", "LAMAZ", "PS"):
        text = struct_metadata([TestGrid("A", LAYERS, projection=projection)])
        try:
            grids, _ = parse_grids(text.replace("GCTP_SNSOID", f"GCTP_{name}"))
        except ValueError:
            continue
        CRS.from_wkt(grids[0].crs_wkt)


@given(damaged(CORE) | st.text(max_size=200))
def test_granules_have_texts_or_are_refused(text: str) -> None:
    try:
        granule = parse_granule([text])
    except ValueError:
        return
    assert all(isinstance(one, str) for values in granule.values.values() for one in values)
