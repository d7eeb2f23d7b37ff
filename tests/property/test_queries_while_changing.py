"""Each answer is that of one moment of the catalog, while others insert, replace and remove.

Two threads change the catalog, three ask, one of them by a process that follows it. What they get
must be what brute force over plain records has of a state that the catalog was in during the
call: `tests.plain_records`, which shares no code with what is tested.

`GEOSTORE_QUERIES=10000 pytest tests/property/test_queries_while_changing.py` asks so many
questions, each run half of them; GEOSTORE_QUERIES_SEED takes others.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geostore.index import (
    Catalog,
    cell_table,
    cleaning,
    home,
    memory,
    open_catalog,
    ordered_walk,
    planner,
    radix,
)
from geostore.query import Cursor, Query, SummaryKeys, keys_from
from tests.changing_store import SEED, History, State, Threads, queries_asked, random_of
from tests.plain_questions import GRIDS, SCENES, Asker, entry_of, query_of, random_scene, rows_of
from tests.plain_records import Question, Record, answer, matching, order_of, summary
from tests.summary_model import groups_of

QUESTIONS = queries_asked(1600) // 2
DATASETS = ("s2", "S2-x", "l8", "naip")
SCENES_LIVE = 40
PAGES_MAX = 5

READER = """
import pickle, sys
from geostore.index import open_catalog
from tests.plain_questions import rows_of
with open_catalog(sys.argv[1], writable=False) as catalog:
    while True:
        try:
            query = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        pickle.dump(rows_of(catalog.query(query)), sys.stdout.buffer)
        sys.stdout.buffer.flush()
"""


class Reader:
    """Another process, which has the catalog open for reading and follows its writer."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", READER, str(directory)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, query: Query) -> list[tuple[Any, ...]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(query, self._process.stdin)
        self._process.stdin.flush()
        found: list[tuple[Any, ...]] = pickle.load(self._process.stdout)
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(60) == 0


class Writers:
    """Change the catalog, one at a time, and tell the history."""

    def __init__(self, catalog: Catalog, threads: Threads) -> None:
        self._catalog = catalog
        self._threads = threads
        self.history = History()
        self._turn = threading.Lock()
        self._rng = random_of("writers")
        self._live: dict[tuple[str, str], tuple[str, list[Record]]] = {}
        """Dataset and scene to version and tiles."""
        self._versions = 0

    def work(self) -> None:
        while self._threads.takes_change():
            with self._turn:
                self.change()

    def change(self) -> None:
        rng = self._rng
        chance = rng.random()
        if chance < 0.02 and self._live:
            self._rebuild()
        elif chance < 0.04 and self._live:
            self._remove_dataset(rng.choice(sorted(self._live))[0])
        elif len(self._live) > rng.uniform(0.5, 1.5) * SCENES_LIVE:
            self._remove(rng.choice(sorted(self._live)))
        elif chance < 0.4 and self._live:
            self._publish(*rng.choice(sorted(self._live)))
        else:
            self._publish(rng.choice(DATASETS), f"{rng.choice(SCENES)}-{rng.randrange(60)}")

    def _state(self) -> State:
        return tuple(record for _, tiles in self._live.values() for record in tiles)

    def _done(self, what: str) -> None:
        self.history.end()
        self._threads.count(what)

    def _publish(self, dataset: str, scene: str) -> None:
        """A new scene, or a new version in an old one's place."""
        rng = self._rng
        self._versions += 1
        version = f"v{self._versions:06d}"
        tiles = random_scene(rng, dataset, f"id-{dataset}", scene, version)
        if rng.random() < 0.1:  # an attempt that is given up: never to be seen
            self._catalog.stage([entry_of(replace(each, version="given up")) for each in tiles])
            self._catalog.unstage(f"id-{dataset}", scene, "given up")
        self._catalog.stage([entry_of(record) for record in tiles])
        before = self._live.get((dataset, scene))
        self._live[dataset, scene] = version, tiles
        self.history.begin(self._state())
        replaced = None if before is None else before[0]
        self._catalog.publish(f"id-{dataset}", scene, version, replaced)
        self._done("published" if before is None else "replaced")

    def _remove(self, name: tuple[str, str]) -> None:
        dataset, scene = name
        version, _ = self._live.pop(name)
        self.history.begin(self._state())
        self._catalog.remove(f"id-{dataset}", scene, self._rng.choice([None, version]))
        self._done("removed")

    def _remove_dataset(self, dataset: str) -> None:
        self._live = {name: one for name, one in self._live.items() if name[0] != dataset}
        self.history.begin(self._state())
        self._catalog.remove(f"id-{dataset}")
        self._done("datasets emptied")

    def _rebuild(self) -> None:
        """From what is there, and one scene more."""
        self._versions += 1
        version = f"v{self._versions:06d}"
        name = "s2", f"rebuilt {self._versions}"
        self._live[name] = version, random_scene(self._rng, "s2", "id-s2", name[1], version)
        self.history.begin(self._state())
        self._catalog.rebuild([entry_of(record) for record in self._state()])
        self._done("rebuilt")


class Asking:
    """One asker: puts questions and compares."""

    def __init__(self, number: int, catalog: Catalog, writers: Writers, threads: Threads) -> None:
        self._rng = random_of("asker", number)
        self._asker = Asker(self._rng, DATASETS)
        self._catalog = catalog
        self._history = writers.history
        self._threads = threads

    def work(self, reader: Reader | None = None) -> None:
        kinds: list[Callable[[Question, Query], None]] = [
            self._rows, self._rows, self._pages, self._count, self._summary,
        ]  # fmt: skip
        while self._threads.takes_question():
            question = self._asker.question(self._history.now)
            query = query_of(question, by_cql2=self._rng.random() < 0.5)
            if reader is not None:
                self._followed(question, query, reader)
            else:
                self._rng.choice(kinds)(question, query)

    def _check(
        self,
        question: Question,
        first: int,
        last: int,
        of: Callable[[State], object],
        got: object,
    ) -> State:
        """The state, of those from `first` to `last`, of which `got` is the answer."""
        for number in range(last, first - 1, -1):
            state = self._history.states[number]
            if of(state) == got:
                self._threads.count("questions")
                self._threads.count("asked across a change", first != last)
                return state
        expected = of(self._history.states[last])
        others = [at for at, state in enumerate(self._history.states) if of(state) == got]
        raise AssertionError(
            f"it is the answer of states {others}, expected one of {first} to {last}. {question}:"
            f" got {got}, of the last state it is {expected}"
        )

    def _rows(self, question: Question, query: Query) -> None:
        first = self._history.first
        batches = self._catalog.query(query, batch_rows=self._rng.choice([1, 3, 50, 4096]))
        last = self._history.last  # an answer is as of the call, however slowly it is read
        found = []
        for batch in batches:
            time.sleep(0)  # others may change the catalog
            found += rows_of([batch])
        self._threads.count("rows", len(found))
        self._check(question, first, last, lambda state: told(answer(state, question)), found)

    def _followed(self, question: Question, query: Query, reader: Reader) -> None:
        first = self._history.first
        found = reader.ask(query)
        last = self._history.last
        self._threads.count("asked of another process")
        self._check(question, first, last, lambda state: told(answer(state, question)), found)

    def _count(self, question: Question, query: Query) -> None:
        first = self._history.first
        found = self._catalog.count(query)
        last = self._history.last
        self._check(question, first, last, lambda state: len(answer(state, question)), found)

    def _summary(self, question: Question, query: Query) -> None:
        names = self._asker.summary_keys()
        by: SummaryKeys = keys_from(names)
        plain = replace(question, sort=None, limit=None)
        asked = replace(query, sort=None, limit=None)
        first = self._history.first
        found = groups_of(self._catalog.aggregate(asked, by))
        last = self._history.last
        self._check(plain, first, last, lambda state: summary(matching(state, plain), names), found)

    def _pages(self, question: Question, query: Query) -> None:
        """Each page is of one moment; what was there all the while comes once."""
        size = self._rng.choice([1, 2, 7, 30])
        page, asked = replace(question, limit=size), replace(query, limit=size)
        cursor: Cursor | None = None
        after = None
        began = self._history.first
        seen: list[Record] = []
        for _ in range(PAGES_MAX):
            first = self._history.first
            batches = list(self._catalog.query(asked, after=cursor))
            last = self._history.last
            found = rows_of(batches)
            behind = after
            state = self._check(
                page,
                first,
                last,
                lambda state, behind=behind: told(answer(state, page, behind)),
                found,
            )
            seen += answer(state, page, behind)
            if len(found) < size:
                break
            cursor = Cursor.from_text(Cursor.after(batches[-1], query.sort).to_text())
            after = order_of(seen[-1], question.sort)
        states = self._history.states[began : self._history.last + 1]
        stayed = set.intersection(*({record.shown() for record in state} for state in states))
        upto = None if len(found) < size else after
        all_the_while = [
            record.shown()
            for record in matching(states[0], page)
            if record.shown() in stayed and (upto is None or order_of(record, page.sort) <= upto)
        ]
        assert [one for one in told(seen) if one in stayed] == all_the_while, question
        self._threads.count("pages read through")


def told(records: list[Record]) -> list[tuple[Any, ...]]:
    return [record.shown() for record in records]


@pytest.fixture(params=["planned", "walked"])
def planning(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store so small is scanned: half of the runs walk the structures whatever that costs, and
    have them take in new rows at once.
    """
    if request.param == "walked":
        for module, name, value in (
            (planner, "SCAN_COST", math.inf),
            (planner, "ENOUGH_ROWS", 0),
            (planner, "UNASKED_ROWS", 0),
            (planner, "WALK_ROWS", 0),
            (memory, "TAIL_ROWS", 20),
            (cell_table, "ENOUGH_ROWS", 1),
            (cell_table, "BLOCKS_FINE", 8),
            (cell_table, "JOINED_MAX", 2),
            (ordered_walk, "PIECE_ROWS", 1),
            (ordered_walk, "TIES_MAX", 1),
            (radix, "BUCKET", 1),
        ):
            monkeypatch.setattr(module, name, value)
    return str(request.param)


@pytest.fixture
def upkeep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots and cleanings of the log come often, behind the writers."""
    monkeypatch.setattr(home, "REPLAY_S_MAX", 0.05)
    monkeypatch.setattr(cleaning, "LOG_BYTES_MIN", 1 << 19)
    monkeypatch.setattr(cleaning, "BATCH_BYTES", 1 << 14)


@pytest.fixture
def catalog(tmp_path: Path, upkeep: None) -> Iterator[Catalog]:
    with open_catalog(tmp_path / "catalog", writable=True) as catalog:
        for name in DATASETS:
            record = {"id": f"id-{name}", "placement": GRIDS[name].placement, "cloud_rule": {}}
            catalog.record_compare_and_set(f"dataset/{name}", 0, b"S" + json.dumps(record).encode())
        yield catalog


def test_answers_are_of_one_moment_while_the_catalog_changes(
    catalog: Catalog, planning: str
) -> None:
    threads = Threads(QUESTIONS, questions_a_change=2)
    writers = Writers(catalog, threads)
    for _ in range(SCENES_LIVE):
        writers.change()
    reader = Reader(catalog.directory)
    askers = [Asking(number, catalog, writers, threads) for number in range(3)]
    began_s = time.monotonic()
    try:
        threads.run(
            [writers.work, writers.work],
            [askers[0].work, askers[1].work, lambda: askers[2].work(reader)],
        )
    finally:
        reader.close()
    assert catalog.check() == []
    counts = threads.counts
    counts["segments dropped"] = min(catalog._home._reader.sizes()) - 1
    print(f"\n{planning}, seed {SEED}, {time.monotonic() - began_s:.1f} s: {dict(counts)}")
    assert counts["questions"] >= QUESTIONS
    assert counts["asked across a change"] > QUESTIONS / 50
    assert counts["rows"] > QUESTIONS
    assert counts["replaced"] + counts["removed"] > QUESTIONS / 20
