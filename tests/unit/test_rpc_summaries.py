"""Summaries as messages: what is cut, damaged or too long is never an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from geostore.errors import CorruptDataError, UnavailableError
from geostore.query import keys_from
from geostore.rpc.summaries import groups_from_wire, groups_to_wire, read_summary
from geostore.rpc.v1 import common_pb2, store_pb2
from tests.summary_model import groups_of, summary_of
from tests.synthetic_tiles import make_batch, make_entry

BY = keys_from(("scene", "geocode:2"))
WHOLE = summary_of(make_batch([make_entry(scene=name) for name in ("a", "b", "\u65e5")]), BY)


class Stream(Iterator[Any]):
    """Answers as gRPC gives them."""

    def __init__(self, *answers: Any) -> None:
        self._answers = iter(answers)
        self.is_cancelled = False

    def __next__(self) -> Any:
        return next(self._answers)

    def cancel(self) -> None:
        self.is_cancelled = True


def groups(part: slice = slice(None)) -> Any:
    return store_pb2.SummarizeResponse(groups=groups_to_wire(WHOLE.take(part)))


def end(total: int) -> Any:
    return store_pb2.SummarizeResponse(end=common_pb2.SummaryEnd(groups_total=total))


def test_a_whole_stream_is_one_summary() -> None:
    stream = Stream(groups(slice(2)), groups(slice(2, 3)), end(3))
    assert groups_of(read_summary(stream, BY, "n1")) == groups_of(WHOLE)
    assert stream.is_cancelled  # over: this frees it
    assert len(read_summary(Stream(end(0)), BY, "n1")) == 0


@pytest.mark.parametrize(
    "answers",
    [
        (),
        (groups(),),
        (groups(), end(2)),
        (groups(), end(3), end(3)),
        (groups(), groups()),
        (store_pb2.SummarizeResponse(), end(0)),
    ],
)
def test_a_stream_that_is_not_whole_is_no_answer(answers: tuple[Any, ...]) -> None:
    stream = Stream(*answers)
    with pytest.raises(UnavailableError, match="node n1: its summary is broken"):
        read_summary(stream, BY, "n1")
    assert stream.is_cancelled


def _shorten(message: Any) -> None:
    message.cloud_cover_histogram = message.cloud_cover_histogram[:-1]


def _misplace(message: Any) -> None:
    message.keys[0].codes = b"\xff" * len(message.keys[0].codes)


def _recount(message: Any) -> None:
    message.group_count = 2**32 - 1


def _rename(message: Any) -> None:
    message.keys[0].name = "month"


def _drop(message: Any) -> None:
    del message.keys[1]


@pytest.mark.parametrize("damage", [_shorten, _misplace, _recount, _rename, _drop])
def test_damaged_groups_are_refused(damage: Callable[[Any], None]) -> None:
    message = groups_to_wire(WHOLE)
    damage(message)
    with pytest.raises(CorruptDataError, match="summary: "):
        groups_from_wire(message, BY)
    answer = store_pb2.SummarizeResponse(groups=message)
    with pytest.raises(UnavailableError, match="its summary is broken: summary: "):
        read_summary(Stream(answer, end(3)), BY, "n1")
