"""Row batches as messages: the first at once, small ones together, every row once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from geostore.rpc.row_batches import BatchDecoder
from geostore.rpc.v1 import store_pb2
from geostore.server.services_calls import GATHER_ROWS, answer_rows
from geostore.types import RowBatch
from tests.synthetic_tiles import make_batch, many_entries

ROWS = make_batch(list(many_entries(3 * GATHER_ROWS)))


def sent(batches: Iterator[RowBatch]) -> Iterator[store_pb2.QueryResponse]:
    return answer_rows(store_pb2.QueryResponse, batches, sort=None, explain=None)


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
