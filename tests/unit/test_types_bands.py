"""What a band may be: a type that is stored, a nodata value that the type has."""

from __future__ import annotations

import math

import pytest

from geostore.errors import InvalidInputError
from geostore.types import BandInfo


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", 255),
        ("uint16", 0.0),
        ("int16", -32768),
        ("uint64", 2**64 - 1),
        ("float32", -3.4e38),
        ("float32", math.nan),
        ("float64", math.inf),
        ("int8", None),
    ],
)
def test_nodata_that_the_type_has_is_taken(dtype: str, nodata: float | None) -> None:
    assert BandInfo(name="b", dtype=dtype, nodata=nodata).dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("uint8", 256), ("uint16", -9999), ("int16", 0.5), ("uint8", math.nan), ("int32", math.inf)],
)
def test_nodata_that_the_type_lacks_is_refused(dtype: str, nodata: float) -> None:
    with pytest.raises(InvalidInputError, match=f"'b': nodata {nodata} is no value of {dtype}"):
        BandInfo(name="b", dtype=dtype, nodata=nodata)


@pytest.mark.parametrize("dtype", ["float16", "complex64", "U4", "no such type"])
def test_a_type_that_is_not_stored_is_refused(dtype: str) -> None:
    with pytest.raises(InvalidInputError, match="band 'b': dtype"):
        BandInfo(name="b", dtype=dtype)
