"""Cloud layers: what they refuse, and that their text says all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.errors import InvalidInputError
from geostore.types import BitTest, CloudLayer


@st.composite
def bit_tests(draw: st.DrawFn) -> BitTest:
    low = draw(st.integers(0, 15))
    high = draw(st.integers(low, min(low + 4, 15)))
    values = st.frozensets(st.integers(0, (1 << (high - low + 1)) - 1), min_size=1, max_size=4)
    return BitTest(low, high, draw(values))


CODES = st.frozensets(st.integers(0, 255), min_size=1, max_size=6)
LAYERS = st.one_of(
    st.builds(lambda codes: CloudLayer("SCL", "classes", codes), CODES),
    st.builds(lambda p: CloudLayer("CLD", "likelihood", frozenset({p})), st.integers(0, 100)),
    st.builds(
        lambda tests: CloudLayer("QA_PIXEL", "bits", tests=tuple(tests)),
        st.lists(bit_tests(), min_size=1, max_size=4),
    ),
)


@given(LAYERS)
def test_a_method_reads_back_as_the_layer(layer: CloudLayer) -> None:
    assert CloudLayer.parse(layer.method) == layer


@pytest.mark.parametrize("method", ["SCL 8,9,10", "QA bits 1,3,8-9=2/3", "CLDPRB >= 50"])
def test_methods_are_as_people_read_them(method: str) -> None:
    assert CloudLayer.parse(method).method == method


@pytest.mark.parametrize(
    "method", ["", "SCL", "SCL x", "QA bits", "QA bits 3-1=1", "QA bits 0-1=4", "A >= 1,2"]
)
def test_what_is_no_method_is_refused_by_name(method: str) -> None:
    with pytest.raises(InvalidInputError):
        CloudLayer.parse(method)


def test_a_layer_needs_what_its_kind_needs() -> None:
    with pytest.raises(InvalidInputError, match="QA"):
        CloudLayer("QA", "bits", frozenset({1}))
    with pytest.raises(InvalidInputError, match="QA"):
        CloudLayer("QA", "classes", tests=(BitTest(0, 0),))
    with pytest.raises(InvalidInputError, match="CLD"):
        CloudLayer("CLD", "likelihood", frozenset({1, 2}))
