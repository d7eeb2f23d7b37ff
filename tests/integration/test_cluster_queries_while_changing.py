"""Each answer of three nodes is made of one moment of each, while scenes come, change and go.

Two writers ingest, replace and delete by the calls that users' programs make, over gRPC; three
askers go in by a node each. A node publishes a scene at a moment of its own, so of each node, and
of what each writer writes, an answer must show what brute force over plain records has of a state
that it was in during the call (`tests.plain_records` shares no code with what is tested).

`GEOSTORE_QUERIES=10000 pytest tests/integration/test_cluster_queries_while_changing.py` asks so
many questions, each run half of them; GEOSTORE_QUERIES_SEED takes others.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from geostore.backends.cluster import ClusterBackend, open_cluster
from geostore.config import parse_target
from geostore.errors import NotFoundError
from geostore.query import Cursor, Query, keys_from
from geostore.rpc.client import NodeClient
from geostore.rpc.messages import make_head
from geostore.rpc.transport import Channels
from geostore.types import CallContext, RowBatch
from tests.changing_store import SEED, History, State, Threads, queries_asked, random_of
from tests.local_clusters import PlainRing, RunningCluster, running_cluster
from tests.plain_questions import (
    GRIDS,
    Asker,
    definition_of,
    query_of,
    random_scene,
    rows_of,
    tile_of,
)
from tests.plain_records import Order, Question, Record, matching, order_of, summary
from tests.summary_model import groups_of

QUESTIONS = queries_asked(600) // 2
SCENES_LIVE = 14
"""Of each writer."""
PAGES_MAX = 4
VOLATILE = "comes-and-goes"
OF_WRITERS = (("s2", "l8"), ("S2-x", "naip", VOLATILE))


class Writer:
    """Changes the scenes of its own datasets, and tells their history."""

    def __init__(self, number: int, backend: ClusterBackend, threads: Threads) -> None:
        self._backend = backend
        self._threads = threads
        self._rng = random_of("writer", number)
        self._number = number
        self._ids = {name: f"id-{name}" for name in OF_WRITERS[number] if name != VOLATILE}
        """Of the datasets that there are."""
        self._live: dict[tuple[str, str], list[Record]] = {}
        self._versions = 0
        self.history = History()
        self.known = [frozenset(self._ids)]
        """Of each state, which datasets there are."""

    def prepare(self) -> None:
        for name, dataset_id in self._ids.items():
            self._backend.create_dataset(definition_of(name, dataset_id))
        while len(self._live) < SCENES_LIVE:
            self._change()

    def work(self) -> None:
        while self._threads.takes_change():
            self._change()

    def _begin(self) -> None:
        self.known.append(frozenset(self._ids))  # before the state, which askers look up by number
        self.history.begin(tuple(record for tiles in self._live.values() for record in tiles))

    def _end(self, what: str) -> None:
        self.history.end()
        self._threads.count(what)

    def _change(self) -> None:
        rng = self._rng
        if VOLATILE in OF_WRITERS[self._number] and rng.random() < 0.1:
            self._make_or_delete()
        elif len(self._live) < SCENES_LIVE or rng.random() < 0.3:
            dataset = rng.choice(sorted(self._ids))
            self._put(dataset, f"{dataset} {rng.randrange(SCENES_LIVE)}")
        else:
            self._put(*rng.choice(sorted(self._live)))

    def _make_or_delete(self) -> None:
        if VOLATILE in self._ids:
            del self._ids[VOLATILE]
            self._live = {name: one for name, one in self._live.items() if name[0] != VOLATILE}
            self._begin()
            self._backend.delete_dataset(VOLATILE)
            self._end("datasets deleted")
        else:
            self._versions += 1
            self._ids[VOLATILE] = f"id-{VOLATILE}-{self._versions}"
            self._begin()
            self._backend.create_dataset(definition_of(VOLATILE, self._ids[VOLATILE]))
            self._end("datasets made")

    def _put(self, dataset: str, scene: str) -> None:
        self._versions += 1
        version = f"v{self._versions:06d}"
        dataset_id = self._ids[dataset]
        records = random_scene(self._rng, dataset, dataset_id, scene, version, tiles_max=5)
        tiles = [tile_of(record) for record in records]
        cells = [record.geocode for record in records]
        definition = definition_of(dataset, dataset_id)
        if self._rng.random() < 0.1:
            self._give_up(replace(record, scene=f"given up {version}") for record in records)
        self._backend.begin_scene(definition, scene, version, cells, replace=True)
        self._backend.put_tiles(tiles)
        is_new = (dataset, scene) not in self._live
        self._live[dataset, scene] = [
            replace(record, bytes=len(tile.payload))
            for record, tile in zip(records, tiles, strict=True)
        ]
        self._begin()
        self._backend.commit_scene(dataset_id, scene, version, cells, bytes_total=1)
        self._end("published" if is_new else "replaced")

    def _give_up(self, records: Iterable[Record]) -> None:
        """Puts a scene that is never to be seen. Its nodes may keep it a while: for the first half
        minute of their lives, an ingester of before might be at it too.
        """
        tiles = [tile_of(record) for record in records]
        key, dataset = tiles[0].meta.key, tiles[0].meta.dataset
        cells = [tile.meta.key.geocode for tile in tiles]
        definition = definition_of(dataset, key.dataset_id)
        self._backend.begin_scene(definition, key.scene, key.version, cells)
        self._backend.put_tiles(tiles)
        self._backend.abort_scene(key.dataset_id, key.scene, key.version)


class Window:
    """The states that the store's parts may have been in between two moments."""

    def __init__(self, writers: Sequence[Writer], ring: PlainRing) -> None:
        self._writers = writers
        self._ring = ring
        self._first = [writer.history.first for writer in writers]
        self._last = self._first

    def close(self) -> None:
        """Now is the second moment."""
        self._last = [writer.history.last for writer in self._writers]

    @property
    def is_across_change(self) -> bool:
        return self._first != self._last

    def states(self, number: int) -> list[State]:
        first, last = self._first[number], self._last[number]
        return self._writers[number].history.states[first : last + 1]

    def known(self) -> tuple[set[str], set[str]]:
        """Datasets that there always were, and that there were at some moment."""
        always: set[str] = set()
        once: set[str] = set()
        for number, writer in enumerate(self._writers):
            names = writer.known[self._first[number] : self._last[number] + 1]
            always |= frozenset.intersection(*names)
            once |= frozenset.union(*names)
        return always, once

    def holder(self, record: Record) -> str:
        return self._ring.holders(record.geocode[: GRIDS[record.dataset].placement])[0]

    def candidates(
        self, question: Question, after: Order | None = None
    ) -> dict[tuple[str, int], list[list[Record]]]:
        """By node and writer: what of the answer, limit aside, may have come from there."""
        found: dict[tuple[str, int], list[list[Record]]] = {
            (node, number): [] for node in self._ring.names for number in range(len(self._writers))
        }
        for number in range(len(self._writers)):
            for state in self.states(number):
                rows = [
                    record
                    for record in matching(state, question)
                    if after is None or order_of(record, question.sort) > after
                ]
                for node in self._ring.names:
                    own = [record for record in rows if self.holder(record) == node]
                    if own not in found[node, number]:
                        found[node, number].append(own)
        return found


class Asking:
    """Puts questions to one node and compares."""

    def __init__(
        self,
        number: int,
        backend: ClusterBackend,
        client: NodeClient,
        writers: Sequence[Writer],
        ring: PlainRing,
        threads: Threads,
    ) -> None:
        self._rng: random.Random = random_of("asker", number)
        self._asker = Asker(self._rng, tuple(GRIDS))
        self._backend = backend
        self._client = client
        self._writers = writers
        self._ring = ring
        self._threads = threads

    def work(self) -> None:
        kinds: list[Callable[[Question, Query], None]] = [
            self._rows, self._rows, self._pages, self._count, self._summary,
        ]  # fmt: skip
        while self._threads.takes_question():
            now = [record for writer in self._writers for record in writer.history.now]
            question = self._asker.question(now)
            query = query_of(question, by_cql2=self._rng.random() < 0.5)
            window = Window(self._writers, self._ring)
            try:
                self._rng.choice(kinds)(question, query)
            except NotFoundError as error:
                window.close()
                if set(question.datasets or ()) <= window.known()[0]:
                    raise AssertionError(f"{question}: {error}") from None
                self._threads.count("datasets not found")
            self._threads.count("questions")

    def verify(self) -> list[str]:
        """What is wrong with the store's files and catalogs."""
        return list(self._backend.verify().problems)

    def _window(self) -> Window:
        return Window(self._writers, self._ring)

    def _close(self, window: Window, question: Question) -> None:
        window.close()
        self._threads.count("answers")
        self._threads.count("asked across a change", window.is_across_change)
        assert set(question.datasets or ()) <= window.known()[1], question

    def _rows(self, question: Question, query: Query) -> None:
        window = self._window()
        batches = list(self._backend.query(query))
        self._close(window, question)
        self._check_rows(window, question, None, batches)

    def _check_rows(
        self, window: Window, question: Question, after: Order | None, batches: list[RowBatch]
    ) -> list[Record]:
        """The records of an answer, which is one that could be."""
        found = rows_of(batches)
        self._threads.count("rows", len(found))
        candidates = window.candidates(question, after)
        known = {
            record.shown(): record
            for each in candidates.values()
            for records in each
            for record in records
        }
        wrong = [row for row in found if row not in known]
        assert not wrong, f"{question} after {after}: not there or not asked for: {wrong}"
        records = [known[row] for row in found]
        orders = [order_of(record, question.sort) for record in records]
        assert orders == sorted(set(orders)), f"{question}: in another order: {found}"
        limit = len(found) + 1 if question.limit is None else question.limit
        assert len(found) <= limit, question
        if limit == 0:
            return []
        upto = orders[-1] if len(found) == limit else None
        for (node, number), each in candidates.items():
            own = [one for one in records if window.holder(one) == node and _writer(one) == number]
            possible = [
                [one for one in rows if upto is None or order_of(one, question.sort) <= upto]
                for rows in each
            ]
            assert own in possible, (
                f"{question} after {after}: of {node} and writer {number} got"
                f" {_told(own)}, expected one of {list(map(_told, possible))}"
            )
        nodes = [names for batch in batches for names in batch.nodes.tolist()]
        assert nodes == [
            tuple(self._ring.holders(one.geocode[: GRIDS[one.dataset].placement]))
            for one in records
        ]
        return records

    def _pages(self, question: Question, query: Query) -> None:
        """Each page is a right answer of its time; what was there all the while comes once."""
        size = self._rng.choice([1, 2, 7, 30])
        page, asked = replace(question, limit=size), replace(query, limit=size)
        whole = self._window()
        cursor: Cursor | None = None
        after: Order | None = None
        seen: list[Record] = []
        for _ in range(PAGES_MAX):
            window = self._window()
            stream = self._client.query(CallContext.within(60), asked, after=cursor, batch_rows=3)
            with closing(stream):
                batches = list(stream)
            self._close(window, question)
            found = self._check_rows(window, page, after, batches)
            seen += found
            if len(found) < size:
                after = None
                break
            cursor = Cursor.from_text(Cursor.after(batches[-1], query.sort).to_text())
            after = order_of(found[-1], question.sort)
        whole.close()
        self._check_pages(whole, page, seen, after)

    def _check_pages(
        self, whole: Window, page: Question, seen: list[Record], upto: Order | None
    ) -> None:
        for number in range(len(self._writers)):
            states = whole.states(number)
            stayed = set.intersection(*({record.shown() for record in state} for state in states))
            expected = [
                record.shown()
                for record in matching(states[0], page)
                if record.shown() in stayed
                and (upto is None or order_of(record, page.sort) <= upto)
            ]
            assert [row for row in _told(seen) if row in stayed] == expected, page
        self._threads.count("pages read through")

    def _count(self, question: Question, query: Query) -> None:
        window = self._window()
        found = self._backend.count(query)
        self._close(window, question)
        sums = {0}
        for each in window.candidates(question).values():
            sums = {one + len(rows) for one in sums for rows in each}
        if question.limit is not None:
            sums = {min(one, question.limit) for one in sums}
        assert found in sums, f"{question}: counted {found}, expected one of {sums}"

    def _summary(self, question: Question, query: Query) -> None:
        names = self._asker.summary_keys()
        plain = replace(question, sort=None, limit=None)
        window = self._window()
        asked = replace(query, sort=None, limit=None)
        found = groups_of(self._backend.summary(asked, keys_from(names)))
        self._close(window, question)
        for parts in product(*window.candidates(plain).values()):
            if summary([record for part in parts for record in part], names) == found:
                return
        raise AssertionError(f"{plain}: by {names} got {found}")


def _writer(record: Record) -> int:
    return next(number for number, names in enumerate(OF_WRITERS) if record.dataset in names)


def _told(records: list[Record]) -> list[tuple[Any, ...]]:
    return [record.shown() for record in records]


@pytest.fixture(params=[1, 2], ids=["one copy", "two copies"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningCluster]:
    """With two copies of each tile, rows lie also where they are not asked for."""
    with running_cluster(tmp_path / "cluster", nodes=3, replicas=request.param) as running:
        yield running


def test_answers_are_of_one_moment_of_each_node_while_the_store_changes(
    cluster: RunningCluster,
) -> None:
    threads = Threads(QUESTIONS, questions_a_change=3)
    ring = cluster.ring()
    with ExitStack() as opened:
        channels = opened.enter_context(closing(Channels()))

        def backend(target: str) -> ClusterBackend:
            return opened.enter_context(open_cluster(parse_target(target)))

        writers = [Writer(number, backend(cluster.targets[number]), threads) for number in (0, 1)]
        for writer in writers:
            writer.prepare()
        askers = []
        for number, target in enumerate(cluster.targets):
            address = target.removeprefix("geostore://")
            known = NodeClient(channels.channel(address), address).get_ring(CallContext.within(20))
            head = partial(make_head, cluster_id=known.cluster_id, epoch=known.epoch)
            client = NodeClient(channels.channel(address), address, head)
            askers.append(Asking(number, backend(target), client, writers, ring, threads))
        began_s = time.monotonic()
        threads.run([each.work for each in writers], [each.work for each in askers])
        problems = askers[0].verify()
    assert problems == []
    counts = threads.counts
    asked_s = time.monotonic() - began_s
    print(f"\n{len(ring.owners[0])} copies, seed {SEED}, {asked_s:.1f} s: {dict(counts)}")
    assert counts["questions"] >= QUESTIONS
    assert counts["asked across a change"] > QUESTIONS / 50
    assert counts["rows"] > QUESTIONS
    assert counts["replaced"] > QUESTIONS / 20
