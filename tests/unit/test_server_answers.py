"""Row batches as messages: the first at once, small ones together, every row once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from geostore.query import Batches, Explain
from geostore.rpc.row_batches import STREAM_ROWS, BatchDecoder
from geostore.rpc.v1 import store_pb2
from geostore.server.services_calls import GATHER_ROWS, answer_rows
from geostore.types import RowBatch
from tests.synthetic_tiles import make_batch, many_entries

ROWS = make_batch(list(many_entries(3 * GATHER_ROWS)))


def sent(
    batches: Iterator[RowBatch], *, end_with_rows: bool = False, explain: Explain | None = None
) -> Iterator[store_pb2.QueryResponse]:
    return answer_rows(
        store_pb2.QueryResponse, batches, sort=None, explain=explain, end_with_rows=end_with_rows
    )


def told(batches: list[RowBatch]) -> Batches:
    """Of which the last is known for it."""
    return Batches((batch, batch is batches[-1]) for batch in batches)


@pytest.mark.parametrize(
    ("sizes", "messages"),
    [
        ([], []),
        ([5], [5]),
        ([0, 5, 0, 3, 2], [5, 5]),
        ([1, 1000, 20, 5, 2000, 7], [1, 1025, 2000, 7]),
        ([1024, 1024, 1024], [1024, 1024, 1024]),
    ],
)
def test_small_batches_behind_the_first_go_together(sizes: list[int], messages: list[int]) -> None:
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    batches = (ROWS.take(slice(end - size, end)) for size, end in zip(sizes, ends, strict=True))
    *chunks, end = sent(batches)
    assert [one.chunk.row_count for one in chunks] == messages
    assert end.end.rows_total == sum(sizes)
    decoder = BatchDecoder()
    found = [cell for one in chunks for cell in decoder.decode(one.chunk.rows).geocode]
    assert found == ROWS.geocode[: sum(sizes)].tolist()


def test_the_first_rows_do_not_wait_for_others() -> None:
    def batches() -> Iterator[RowBatch]:
        yield ROWS.take(slice(0, 2))
        raise AssertionError("asked for more before the first rows were sent")

    assert next(sent(batches())).chunk.row_count == 2


def test_rows_known_for_the_last_carry_the_end_where_that_is_taken() -> None:
    parts = [ROWS.take(slice(0, 5)), ROWS.take(slice(5, 7))]
    first, last = sent(told(parts), end_with_rows=True)
    assert not first.chunk.HasField("end")
    assert last.chunk.row_count == 2
    assert last.chunk.end.rows_total == 7
    *chunks, end = sent(told(parts))
    assert not any(one.chunk.HasField("end") for one in chunks)
    assert end.end.rows_total == 7


def test_a_long_last_batch_ends_with_its_last_message() -> None:
    whole = RowBatch.concatenate([ROWS] * 6)
    messages = list(sent(told([whole]), end_with_rows=True))
    assert [one.chunk.row_count for one in messages] == [STREAM_ROWS, len(whole) - STREAM_ROWS]
    assert [one.chunk.HasField("end") for one in messages] == [False, True]


def test_what_is_explained_is_told_behind_the_rows() -> None:
    explain = Explain()

    def made() -> Iterator[tuple[RowBatch, bool]]:
        yield ROWS, True
        explain.structure = "known when all is done"

    chunk, end = sent(Batches(made()), end_with_rows=True, explain=explain)
    assert not chunk.chunk.HasField("end")
    assert b"known when all is done" in end.end.explain_json


def test_no_rows_have_an_end_of_their_own() -> None:
    (end,) = sent(iter([]), end_with_rows=True)
    assert end.HasField("end")
