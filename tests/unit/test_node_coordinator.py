"""The coordinator against leaves in memory: what it asks, when, and what it says when they fail."""

from __future__ import annotations

import re
import threading

import pytest

from geostore.errors import InvalidInputError, NotFoundError, UnavailableError
from geostore.grid import GEOHASH
from geostore.node.coordinator import RINGS_MAX
from geostore.node.peer import Peer
from geostore.query import Cursor, Explain, LeafQuery, Query, keys_from
from geostore.query.order import OrderKey
from geostore.ring import SLOTS_TOTAL
from geostore.types import CallContext
from tests.fake_leaves import (
    Cluster,
    StaleRingError,
    answer_of,
    definition_of,
    keys_of,
    ring_of,
)
from tests.summary_model import groups_of, summary_of
from tests.synthetic_tiles import make_batch, make_entry

CELLS = [a + b for a in GEOHASH.alphabet for b in GEOHASH.alphabet]
ENTRIES = [make_entry(CELLS[i * 5 % 1024], time_us=i) for i in range(90)]


def cluster_of(nodes: int = 3, replicas: int = 1) -> Cluster:
    return Cluster(ring_of(nodes, replicas), ENTRIES, [definition_of()])


def taken(cluster: Cluster, query: Query, rows: int = 4096) -> list[OrderKey]:
    batches = cluster.coordinator.query(CallContext(), query, batch_rows=rows)
    return [key for batch in batches for key in keys_of(batch, query)]


def taken_with(cluster: Cluster, query: Query, explain: Explain) -> list[OrderKey]:
    batches = cluster.coordinator.query(CallContext(), query, explain, batch_rows=5)
    return [key for batch in batches for key in keys_of(batch, query)]


def expected(query: Query) -> list[OrderKey]:
    return keys_of(answer_of(ENTRIES, LeafQuery(query=query)), query)


def test_all_nodes_are_at_work_before_the_first_is_read_and_we_come_last() -> None:
    cluster = cluster_of()
    order: list[str] = []

    def watch(name: str) -> None:
        assert all(leaf.batches_read == 0 for leaf in cluster.leaves.values())
        order.append(name)

    for name, leaf in cluster.leaves.items():
        leaf.on_call = lambda name=name: watch(name)  # type: ignore[misc]
    assert taken(cluster, Query()) == expected(Query())
    assert order == ["id1", "id2", "id0"]


def test_our_own_rows_are_made_while_the_others_work() -> None:
    cluster = cluster_of()
    order: list[str] = []
    for name, leaf in cluster.leaves.items():
        leaf.on_read = lambda name=name: order.append(name)  # type: ignore[misc]
    taken(cluster, Query())
    assert order[0] == "id0"
    assert len(order) == 3


def test_first_rows_leave_before_the_last_node_is_done() -> None:
    cluster = cluster_of()
    rows = cluster.coordinator.query(CallContext(), Query(), batch_rows=4)
    assert 1 <= len(next(rows)) <= 4
    assert all(leaf.batches_read <= 2 for leaf in cluster.leaves.values())
    assert not cluster.are_all_closed()
    rows.close()  # type: ignore[attr-defined]
    assert cluster.are_all_closed()


def test_nobody_is_called_before_the_first_row_is_wanted() -> None:
    cluster = cluster_of()
    rows = cluster.coordinator.query(CallContext(), Query())
    assert cluster.called() == set()
    assert len(next(rows)) > 0


def test_batches_are_no_longer_than_asked_for() -> None:
    sizes = [len(b) for b in cluster_of().coordinator.query(CallContext(), Query(), batch_rows=7)]
    assert sum(sizes) == len(ENTRIES)
    assert max(sizes) <= 7


def test_a_limit_goes_to_the_leaves_and_ends_them_with_the_last_row() -> None:
    cluster = cluster_of()
    query = Query(limit=10)
    seen = 0
    for batch in cluster.coordinator.query(CallContext(), query, batch_rows=3):
        seen += len(batch)
        assert cluster.are_all_closed() == (seen == 10)
    assert seen == 10
    assert {leaf.calls[0].query.limit for leaf in cluster.leaves.values()} == {10}


def test_a_limit_of_nothing_asks_nobody() -> None:
    cluster = cluster_of()
    assert taken(cluster, Query(limit=0)) == []
    assert cluster.coordinator.count(CallContext(), Query(limit=0)) == 0
    assert cluster.called() == set()
    with pytest.raises(NotFoundError):
        cluster.coordinator.query(CallContext(), Query(datasets=("x",), limit=0))


def test_with_one_copy_leaves_need_not_look_at_slots() -> None:
    cluster = cluster_of()
    taken(cluster, Query())
    assert [leaf.calls[0].slots for leaf in cluster.leaves.values()] == [None] * 3


def test_with_more_copies_each_slot_is_asked_of_its_first_replica() -> None:
    cluster = cluster_of(3, 2)
    list(cluster.coordinator.query(CallContext(), Query(limit=1)))
    for leaf in cluster.leaves.values():
        firsts = frozenset(cluster.ring.first_slots_of(leaf.node.id).tolist())
        assert [call.slots for call in leaf.calls] == [firsts]


def test_unknown_datasets_are_named_with_the_known() -> None:
    with pytest.raises(NotFoundError, match="dataset 'x' does not exist; known: s2"):
        cluster_of().coordinator.query(CallContext(), Query(datasets=("s2", "x")))
    with pytest.raises(NotFoundError, match="'x'"):
        cluster_of().coordinator.count(CallContext(), Query(datasets=("x",)))


def test_a_cursor_of_another_order_is_refused() -> None:
    after = Cursor("cloud", expected(Query(sort="cloud"))[0])
    with pytest.raises(InvalidInputError, match="made for sort cloud"):
        cluster_of().coordinator.query(CallContext(), Query(), after=after)


# ---------------------------------------------------------------- failures


def test_a_lost_place_is_an_error_that_says_what_is_missing() -> None:
    cluster = cluster_of()
    cluster.leaf(1).failures = [2]
    message = (
        f"would not be whole: {len(cluster.ring.first_slots_of('id1')):,} of the 4,096 slots asked"
        " about, with places of s2, have no replica but n1 (10.0.0.1:7070), which fails: broke off"
    )
    with pytest.raises(UnavailableError, match=re.escape(message)):
        taken(cluster, Query(), rows=5)
    assert cluster.are_all_closed()


def test_a_retry_hint_comes_through() -> None:
    cluster = cluster_of(2)
    cluster.leaf(1).failures = [-1]
    cluster.leaf(1).error = lambda text: UnavailableError(text, retry_after_s=2.5)
    with pytest.raises(UnavailableError) as caught:
        taken(cluster, Query())
    assert caught.value.retry_after_s == 2.5


def test_a_failed_stream_goes_on_elsewhere_behind_its_last_row() -> None:
    cluster = cluster_of(3, 2)
    cluster.leaf(1).failures = [2]
    query = Query(limit=80)
    assert taken(cluster, query, rows=5) == expected(query)
    own = answer_of(cluster.leaf(1).own(cluster.leaf(1).calls[0]), LeafQuery(query=query))
    resumed = [leaf.calls[1] for leaf in cluster.leaves.values() if len(leaf.calls) > 1]
    assert len(resumed) == 2
    for call in resumed:
        assert call.after == Cursor.after(own, row=9)
        assert call.query.limit == 70
    slots = [call.slots or frozenset() for call in resumed]
    assert slots[0] | slots[1] == cluster.leaf(1).calls[0].slots
    assert not slots[0] & slots[1]


def test_each_replica_is_tried_once() -> None:
    cluster = cluster_of(3, 3)
    for number in range(3):
        cluster.leaf(number).failures = [-1] * 20
    with pytest.raises(UnavailableError, match="which fail: refused") as caught:
        taken(cluster, Query())
    assert all(f"n{i} (10.0.0.{i}:7070)" in str(caught.value) for i in range(3))
    for leaf in cluster.leaves.values():
        asked = [slot for call in leaf.calls for slot in call.slots or ()]
        assert len(asked) == len(set(asked))


def test_a_failed_stream_is_closed_before_others_are_asked() -> None:
    cluster = cluster_of(3, 2)
    cluster.leaf(1).failures = [2]
    seen: list[bool] = []

    def resumed() -> None:
        if len(cluster.leaf(0).calls) > 1:
            seen.append(cluster.leaf(1).streams[0].is_closed)

    cluster.leaf(0).on_call = resumed
    taken(cluster, Query(), rows=5)
    assert seen == [True]


def test_a_replica_that_failed_for_other_slots_is_still_tried() -> None:
    cluster = cluster_of(3, 2)
    cluster.leaf(1).failures = [-1]
    cluster.leaf(2).failures = [-1]
    assert taken(cluster, Query()) == expected(Query())  # each fails once and works again


def test_a_node_that_failed_is_the_last_to_be_tried_again() -> None:
    cluster = cluster_of(4, 3)
    for number in (1, 2):
        cluster.leaf(number).failures = [-1]
    assert taken(cluster, Query()) == expected(Query())
    # Both fail before anyone is asked again, in the order they are read: the second replica of
    # what the first one held is not the other that failed.
    assert len(cluster.leaf(1).calls) + len(cluster.leaf(2).calls) <= 3


def test_a_peer_that_cannot_be_had_counts_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = cluster_of(3, 2)
    peer = cluster.peer

    def without_one(node_id: str) -> Peer:
        if node_id == "id1":
            raise UnavailableError("no such node")
        return peer(node_id)

    monkeypatch.setattr(cluster, "peer", without_one)
    assert taken(cluster, Query()) == expected(Query())
    assert cluster.coordinator.count(CallContext(), Query()) == len(ENTRIES)
    cluster.coordinator.close()


def test_a_summary_counts_each_tile_once_whoever_fails() -> None:
    by = keys_from(("month", "geocode:2"))
    cluster = cluster_of(3, 2)
    whole = groups_of(summary_of(make_batch(ENTRIES), by))
    assert groups_of(cluster.coordinator.summary(CallContext(), Query(), by)) == whole
    cluster.leaf(1).failures = [-1]
    cluster.leaf(2).failures = [-1]
    assert groups_of(cluster.coordinator.summary(CallContext(), Query(), by)) == whole
    for number in range(3):
        cluster.leaf(number).failures = [-1] * 20
    with pytest.raises(UnavailableError, match="would not be whole"):
        cluster.coordinator.summary(CallContext(), Query(), by)
    asked = sum(len(leaf.calls) for leaf in cluster.leaves.values())
    with pytest.raises(InvalidInputError, match="limit 1: a summary"):
        cluster.coordinator.summary(CallContext(), Query(limit=1), by)
    with pytest.raises(NotFoundError, match="'x'"):
        cluster.coordinator.summary(CallContext(), Query(datasets=("x",)), by)
    assert sum(len(leaf.calls) for leaf in cluster.leaves.values()) == asked
    cluster.coordinator.close()


def test_other_errors_come_through_as_they_are() -> None:
    cluster = cluster_of(3, 2)

    def corrupt() -> None:
        raise InvalidInputError("corrupt")

    cluster.leaf(2).on_call = corrupt
    with pytest.raises(InvalidInputError, match="corrupt"):
        taken(cluster, Query())
    assert cluster.are_all_closed()


# ---------------------------------------------------------------- stale rings


def test_an_old_ring_is_replaced_before_the_first_row() -> None:
    cluster = cluster_of(3, 2)
    cluster.leaf(2).error = StaleRingError
    cluster.leaf(2).failures = [-1, 0]
    explain = Explain()
    rows = cluster.coordinator.query(CallContext(), Query(), explain)
    assert sum(len(batch) for batch in rows) == len(ENTRIES)
    assert cluster.rings_asked == 3
    assert explain.rows_matched == len(ENTRIES)  # of the last plan alone
    cluster.leaf(2).failures = [-1, -1]
    assert cluster.coordinator.count(CallContext(), Query()) == len(ENTRIES)
    cluster.coordinator.close()


def test_a_ring_that_stays_old_is_an_error() -> None:
    cluster = cluster_of(3)
    cluster.leaf(2).error = StaleRingError
    cluster.leaf(2).failures = [-1] * 100
    with pytest.raises(UnavailableError, match="refused"):
        taken(cluster, Query())
    assert cluster.rings_asked == RINGS_MAX
    with pytest.raises(UnavailableError, match="refused"):
        cluster.coordinator.count(CallContext(), Query())
    assert cluster.rings_asked == 2 * RINGS_MAX
    cluster.coordinator.close()


def test_an_old_ring_after_the_first_row_resumes_by_cursor() -> None:
    cluster = cluster_of(3)
    cluster.leaf(2).error = StaleRingError
    cluster.leaf(2).failures = [3]
    assert taken(cluster, Query(), rows=3) == expected(Query())
    assert cluster.rings_asked == 2
    again = cluster.leaf(2).calls[1]
    assert again.after is not None
    assert again.slots is not None  # the new ring's node may hold other slots that are read apart


# ---------------------------------------------------------------- deadlines


def test_a_passed_deadline_asks_nobody() -> None:
    cluster = cluster_of()
    call = CallContext.within(0.0)
    with pytest.raises(UnavailableError, match="deadline has passed"):
        list(cluster.coordinator.query(call, Query()))
    with pytest.raises(UnavailableError, match="deadline has passed"):
        cluster.coordinator.count(call, Query())
    assert cluster.called() == set()


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_deadline_that_passes_is_not_the_nodes_failure(
    replicas: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = cluster_of(3, replicas)
    cluster.leaf(1).failures = [-1]
    now = [0.0]
    monkeypatch.setattr("geostore.types.cluster.time.monotonic", lambda: now[0])

    def too_late() -> None:
        now[0] = 10.0

    cluster.leaf(0).on_call = too_late
    with pytest.raises(UnavailableError, match="deadline has passed"):
        list(cluster.coordinator.query(CallContext(deadline_s=5.0), Query()))
    assert [len(leaf.calls) for leaf in cluster.leaves.values()] == [1, 1, 1]
    assert cluster.are_all_closed()


# ---------------------------------------------------------------- explain


def test_explain_lists_nodes_slots_and_rows() -> None:
    cluster = cluster_of()
    query = Query(geocode=CELLS[0])
    explain = Explain()
    rows = sum(len(batch) for batch in cluster.coordinator.query(CallContext(), query, explain))
    assert (len(explain.nodes_asked), len(explain.nodes_skipped)) == (1, 2)
    assert sorted(explain.nodes_asked + explain.nodes_skipped) == ["n0", "n1", "n2"]
    assert explain.predicates == {"geocode": f"under {CELLS[0]}"}
    assert explain.slots_matched == 1
    (node,) = explain.nodes
    assert (node.slots, node.rows, node.error) == (1, rows, None)
    assert explain.rows_matched == rows == 1
    assert "slots" in explain.stages_ms


def test_explain_tells_who_failed() -> None:
    cluster = cluster_of(3, 2)
    cluster.leaf(1).failures = [1]
    explain = Explain()
    list(cluster.coordinator.query(CallContext(), Query(), explain, batch_rows=5))
    assert [node.error for node in explain.nodes] == [None, "broke off", None]
    assert sum(node.rows for node in explain.nodes) == len(ENTRIES)
    assert explain.slots_matched is not None
    assert explain.slots_matched <= SLOTS_TOTAL


# ---------------------------------------------------------------- count


def test_a_count_asks_all_nodes_at_once() -> None:
    cluster = cluster_of()
    meeting = threading.Barrier(3, timeout=20.0)
    for leaf in cluster.leaves.values():
        leaf.on_call = meeting.wait  # type: ignore[assignment]
    assert cluster.coordinator.count(CallContext(), Query()) == len(ENTRIES)
    cluster.coordinator.close()


def test_a_count_keeps_to_the_limit() -> None:
    cluster = cluster_of()
    assert cluster.coordinator.count(CallContext(), Query(limit=50)) == 50
    assert {leaf.calls[0].query.limit for leaf in cluster.leaves.values()} == {50}
    assert cluster.coordinator.count(CallContext(), Query(limit=1000)) == len(ENTRIES)
    cluster.coordinator.close()


def test_a_count_is_whole_or_an_error() -> None:
    cluster = cluster_of()
    cluster.leaf(1).failures = [-1]
    with pytest.raises(UnavailableError, match="would not be whole: .* n1 "):
        cluster.coordinator.count(CallContext(), Query())
    cluster.coordinator.close()


def test_a_count_does_not_wait_past_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = cluster_of()
    now = [0.0]
    monkeypatch.setattr("geostore.types.cluster.time.monotonic", lambda: now[0])
    go_on = threading.Event()
    cluster.leaf(1).on_call = lambda: (go_on.wait(20.0), None)[1]

    def too_late() -> None:
        now[0] = 10.0

    cluster.leaf(0).on_call = too_late
    try:
        with pytest.raises(UnavailableError, match="deadline has passed"):
            cluster.coordinator.count(CallContext(deadline_s=5.0), Query())
    finally:
        go_on.set()
        cluster.coordinator.close()


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("limit", [1, 7, 90, None])
def test_explain_hears_every_node_whatever_the_limit(replicas: int, limit: int | None) -> None:
    cluster = cluster_of(3, replicas)
    explain = Explain()
    query = Query(limit=limit)
    assert len(taken_with(cluster, query, explain)) == len(expected(query))
    assert (explain.rows_matched, explain.rows_total) == (len(ENTRIES), len(ENTRIES))
    assert cluster.are_all_closed()


def test_explain_names_a_node_that_broke_off_behind_the_limit() -> None:
    cluster = cluster_of()
    cluster.leaf(1).failures = [2]
    explain = Explain()
    query = Query(limit=12)
    assert taken_with(cluster, query, explain) == expected(query)
    assert [node.error for node in explain.nodes] == [None, "broke off", None]
    assert explain.rows_matched is not None
    assert explain.rows_matched < len(ENTRIES)
