"""Ingesters and queriers of a ring whose processes are killed meanwhile; runs as a script.

    python cluster_load.py once TARGET SCENE VERSION STEP      killed at its own step STEP
    python cluster_load.py ingest TARGET FOLDER NAME SEED      until its standard input ends
    python cluster_load.py query TARGET FOLDER NAME SEED       likewise

An ingester notes in FOLDER what it tries and what was acknowledged, before and after; it goes
on where an earlier life of its name ended. A querier compares each answer with those notes,
read before and after it, and notes what was wrong.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ring_checks import small

from geostore.backends.cluster import ClusterBackend, open_cluster
from geostore.config import parse_target
from geostore.errors import ConflictError, GeostoreError, NotFoundError, UnavailableError
from geostore.query import Query
from geostore.types import TileKey

A = small.A
CELLS = tuple(f"{prefix}{last}" for prefix in ("dq8x", "9q8y", "u33d", "gcpv") for last in "0123")
"""Over several slots."""
SCENES = 6
"""Of one ingester; it replaces them again and again."""
PAUSE_S = 0.05
"""Between two acts of a process, so that the others and the nodes have a turn."""
LOOKS_A_CLIENT = 20
VERSIONS_MAX = 4
"""That its tiles are made for: they are the same whenever a version comes again."""


# ---------------------------------------------------------------------- notes


@dataclass(slots=True)
class Noted:
    """One scene, by an ingester's notes."""

    done: tuple[str, frozenset[str]] | None = None
    """The version that was acknowledged last, and its cells."""
    tried: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    """Begun since, with an end unknown."""


def read_notes(folder: Path) -> dict[str, Noted]:
    """All ingesters' notes, as far as they have come."""
    scenes: dict[str, Noted] = {}
    for path in sorted(folder.glob("*.notes")):
        text = path.read_text()
        for line in text[: text.rfind("\n") + 1].splitlines():
            word, scene, version, cells = line.split()
            noted = scenes.setdefault(scene, Noted())
            attempt = version, frozenset(cells.split(","))
            if word == "tries":
                noted.tried.append(attempt)
            else:
                noted.done, noted.tried = attempt, []
    return scenes


def attempts_in_doubt(before: Noted, after: Noted) -> list[tuple[str, frozenset[str]]]:
    """What may have been under way at some moment between the two."""
    found = [*before.tried, *after.tried]
    if after.done != before.done and after.done is not None:
        found.append(after.done)
    return found


# ---------------------------------------------------------------------- ingesting


def ingest(target: str, folder: Path, name: str, seed: int) -> None:
    chance = random.Random(seed)  # a test's
    stopping = stop_at_end_of_input()
    notes = folder / f"{name}.notes"
    backend = None
    while backend is None and not stopping.is_set():
        with suppress(UnavailableError):  # no node is up
            backend = open_cluster(parse_target(target))
    if backend is None:
        return
    with notes.open("a") as file, closing(backend):

        def note(word: str, scene: str, version: str, cells: list[str]) -> None:
            file.write(f"{word} {scene} {version} {','.join(cells)}\n")
            file.flush()

        while not stopping.is_set():
            scene = f"{name}-{chance.randrange(SCENES)}"
            version = f"v{chance.randrange(VERSIONS_MAX)}"
            # The cells of a version are always the same, as those of a source file are.
            cells = cells_of(scene, version)
            note("tries", scene, version, cells)
            try:
                put(backend, scene, version, cells)
            except (UnavailableError, ConflictError, NotFoundError):
                pass  # what came of it is in doubt
            else:
                note("done", scene, version, cells)
            stopping.wait(PAUSE_S)


def cells_of(scene: str, version: str) -> list[str]:
    chance = random.Random(f"{scene}/{version}")  # a test's
    return sorted(chance.sample(CELLS, chance.randrange(2, len(CELLS))))


def put(backend: ClusterBackend, scene: str, version: str, cells: list[str]) -> None:
    begun = backend.begin_scene(A, scene, version, cells, replace=True, path=scene)
    if begun is None:
        return
    try:
        tiles = [small.make_tile(A, scene, version, cell) for cell in cells]
        assert backend.put_tiles(tiles) == [tile.checksum for tile in tiles]
        backend.commit_scene(A.id, scene, version, cells, bytes_total=1)
    except GeostoreError:
        backend.abort_scene(A.id, scene, version)
        raise


def put_once(target: str, scene: str, version: str, step: str) -> None:
    def reached(name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    with open_cluster(parse_target(target)) as backend:
        backend._scenes.step = reached
        small.put_scene(backend, A, scene, version, small.CELLS[:4], batch=4)


# ---------------------------------------------------------------------- querying


def query(target: str, folder: Path, name: str, seed: int) -> None:
    chance = random.Random(seed)  # a test's
    stopping = stop_at_end_of_input()
    with (folder / f"{name}.answers").open("a") as file:
        while not stopping.is_set():
            try:
                backend = open_cluster(parse_target(target))
            except UnavailableError as error:  # no node is up
                file.write(f"error {' '.join(str(error).split())}\n")
                stopping.wait(PAUSE_S)
                continue
            with closing(backend):
                for _ in range(LOOKS_A_CLIENT):
                    if stopping.is_set():
                        break
                    for line in look(backend, folder, chance):
                        file.write(line + "\n")
                    file.flush()
                    stopping.wait(PAUSE_S)


def look(backend: ClusterBackend, folder: Path, chance: random.Random) -> Iterator[str]:
    """Asks once; what to note of the answer."""
    before = read_notes(folder)
    try:
        keys = [row.key for batch in backend.query(Query()) for row in batch.rows()]
    except UnavailableError as error:
        yield f"error {' '.join(str(error).split())}"
        return
    after = read_notes(folder)
    wrong = list(compare(before, after, keys))
    if keys:
        wrong += check_tile(backend, chance.choice(keys), after, folder)
    yield from (f"WRONG {text}" for text in wrong)
    yield f"answer {len(keys)}"


def compare(
    before: dict[str, Noted], after: dict[str, Noted], keys: list[TileKey]
) -> Iterator[str]:
    """What an answer lacks or has too much, given what was known before and after it."""
    shown: dict[str, dict[str, set[str]]] = {}
    for key in keys:
        cells = shown.setdefault(key.scene, {}).setdefault(key.version, set())
        if key.geocode in cells:
            yield f"{key} twice"
        cells.add(key.geocode)
    for scene, noted_after in after.items():
        noted = before.get(scene, Noted())
        doubt = attempts_in_doubt(noted, noted_after)
        found = shown.pop(scene, {})
        if not doubt:
            whole = {} if noted.done is None else {noted.done[0]: set(noted.done[1])}
            if found != whole:
                yield f"{scene}: seen {found}, acknowledged {whole}"
            continue
        # While one is published a query may see part of it, and part of what it replaces.
        allowed = dict(doubt) | ({} if noted.done is None else dict([noted.done]))
        for version, cells in found.items():
            if not cells <= allowed.get(version, frozenset()):
                yield f"{scene}: seen {version} {cells}, possible {allowed}"
    yield from (f"{scene}: nobody put it" for scene in shown)


def check_tile(
    backend: ClusterBackend, key: TileKey, after: dict[str, Noted], folder: Path
) -> Iterator[str]:
    tile = small.make_tile(A, key.scene, key.version, key.geocode)
    try:
        stored = backend.read_blocks(key, range(len(tile.blocks)))
    except UnavailableError:
        return
    except NotFoundError:
        now = read_notes(folder)[key.scene]
        if not attempts_in_doubt(after[key.scene], now):
            yield f"{key} was shown and cannot be read"
        return
    for row, block in zip(tile.blocks, stored, strict=True):
        start = int(row["offset"])
        if bytes(block or b"") != tile.payload[start : start + int(row["length"])]:
            yield f"{key}: other bytes than acknowledged"


def stop_at_end_of_input() -> threading.Event:
    stopping = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        stopping.set()

    threading.Thread(target=watch, daemon=True).start()
    return stopping


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    if what == "once":
        put_once(where, *rest)
    else:
        act = {"ingest": ingest, "query": query}[what]
        act(where, Path(rest[0]), rest[1], int(rest[2]))
