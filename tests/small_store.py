"""A store of a few tiny tiles, for tests of nodes and backends; also runs as a script.

    python small_store.py play DIRECTORY LOG       plays PLAY, logging what was acknowledged
    python small_store.py crash DIRECTORY          kills PLAY at every step; see `crash_everywhere`

Test modules load it by path (tests are not packages).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from geostore.backends import EmbeddedBackend, open_embedded
from geostore.errors import ConflictError
from geostore.node.scene_states import is_settled
from geostore.query import Query
from geostore.tiles import TilePixels, encode_tile, make_schema
from geostore.types import (
    BandInfo,
    BandStatistics,
    DatasetDefinition,
    EncodedTile,
    ResolutionGroup,
    TileKey,
    TileMeta,
)

SIDE = 32
CELLS = ("dq8x0", "dq8x1", "dq8x2", "dq8x3", "dq9q0", "9q8yy")


def make_definition(name: str = "a", dataset_id: str | None = None) -> DatasetDefinition:
    return DatasetDefinition(
        id=dataset_id or f"id-{name}",
        name=name,
        scheme="geohash",
        length=5,
        placement=3,
        groups=(ResolutionGroup(150.0, SIDE, SIDE),),
        created_us=1,
    )


@cache
def make_tile(definition: DatasetDefinition, scene: str, version: str, geocode: str) -> EncodedTile:
    """A tile of two bands; its pixels follow from its key."""
    bands = (BandInfo(name="B1", dtype="uint16", nodata=0), BandInfo(name="B2", dtype="uint8"))
    schema = make_schema("geohash", 5, "fast", [(definition.groups[0], bands)])
    random = np.random.default_rng([*f"{scene}/{version}/{geocode}".encode()])
    data = [random.integers(1, 200, (SIDE, SIDE)).astype(band.dtype) for band in bands]
    number = BandStatistics(minimum=1.0, maximum=199.0, mean=100.0, p01=2.0, p99=198.0)
    meta = TileMeta(
        key=TileKey(definition.id, scene, version, geocode),
        dataset=definition.name,
        definition=definition.to_json(),
        schema=schema,
        time_us=1_452_614_802_000_000,
        time_end_us=1_452_614_802_000_000,
        platform="sentinel-2a",
        pixel_coverage=100.0,
        cloud_cover=None,
        cloud_method=None,
        cloud_histogram=None,
        statistics=(number, number),
        properties={"made": "by a test"},
    )
    return encode_tile(meta, TilePixels(data=[data], masks=[[True, True]]))


def put_scene(
    backend: EmbeddedBackend,
    definition: DatasetDefinition,
    scene: str,
    version: str,
    cells: Sequence[str],
    *,
    replace: bool = False,
    batch: int = 2,
) -> dict[str, str] | None:
    """Stores a scene whole; cell to checksum, None when it was there."""
    record = backend.begin_scene(definition, scene, version, CELLS, replace=replace, path=scene)
    if record is None:
        return None
    checksums: dict[str, str] = {}
    tiles = [make_tile(definition, scene, version, cell) for cell in cells]
    for start in range(0, len(tiles), batch):
        part = tiles[start : start + batch]
        acknowledged = backend.put_tiles(part)
        checksums |= {t.meta.key.geocode: c for t, c in zip(part, acknowledged, strict=True)}
    backend.commit_scene(
        definition.id, scene, version, cells, bytes_total=sum(len(t.payload) for t in tiles)
    )
    return checksums


def seen(backend: EmbeddedBackend) -> dict[str, dict[str, list[str]]]:
    """What queries show: "dataset/scene" to version to cells."""
    found: dict[str, dict[str, list[str]]] = {}
    for batch in backend.query(Query()):
        for row in batch.rows():
            versions = found.setdefault(f"{row.dataset}/{row.key.scene}", {})
            versions.setdefault(row.key.version, []).append(row.key.geocode)
    return found


# ---------------------------------------------------------------- the play

A, B = make_definition("a"), make_definition("b")
FINAL = {"a/s1": {"v2": [CELLS[0], CELLS[3]]}, "a/s2": {"v1": list(CELLS[2:5])}}
POSSIBLE = {
    "a/s1": {"v1": sorted(CELLS[:3]), "v2": sorted((CELLS[0], CELLS[3]))},
    "a/s2": {"v1": sorted(CELLS[2:5])},
    "a/s3": {},
    "b/s1": {"v1": sorted(CELLS[:2])},
}


def _ensure(backend: EmbeddedBackend, definition: DatasetDefinition) -> bool:
    try:
        backend.create_dataset(definition)
    except ConflictError:  # there already, or deleted for ever
        return definition in backend.datasets()
    return True


def play(backend: EmbeddedBackend, acknowledge: Callable[[str], None]) -> None:
    """Two scenes, a replacement by fewer cells, an abort, and a dataset deleted.

    May be played again over whatever an interrupted play left.
    """
    _ensure(backend, A)
    record = backend.scene_record(A.id, "s1")
    if record is None or record.version != "v2":
        put_scene(backend, A, "s1", "v1", CELLS[:3])
        acknowledge("a/s1 v1")
    put_scene(backend, A, "s2", "v1", CELLS[2:5])
    acknowledge("a/s2 v1")
    acknowledge("a/s1 replacing")
    put_scene(backend, A, "s1", "v2", (CELLS[0], CELLS[3]), replace=True)
    acknowledge("a/s1 v2")
    backend.begin_scene(A, "s3", "v1", CELLS)
    backend.put_tiles([make_tile(A, "s3", "v1", CELLS[0])])
    backend.abort_scene(A.id, "s3", "v1")
    if _ensure(backend, B):
        put_scene(backend, B, "s1", "v1", CELLS[:2])
        acknowledge("b/s1 v1")
        acknowledge("b/s1 deleting")
        backend.delete_dataset("b")
    acknowledge("b/s1 gone")


def play_logged(directory: Path, log: Path, step: Callable[[str], None] | None = None) -> None:
    with log.open("a") as file, open_embedded(directory, step=step) as backend:

        def acknowledge(line: str) -> None:
            file.write(line + "\n")
            file.flush()

        play(backend, acknowledge)


# ---------------------------------------------------------------- checks


def _expected(log: Path) -> dict[str, set[str | None]]:
    """Scene to the versions that may be seen after what was acknowledged (None: absent)."""
    expected: dict[str, set[str | None]] = {
        "a/s1": {None, "v1"}, "a/s2": {None, "v1"}, "a/s3": {None}, "b/s1": {None, "v1"},
    }  # fmt: skip
    for line in log.read_text().splitlines() if log.exists() else ():
        name, word = line.split()
        if word == "replacing":
            expected[name] = expected[name] | {"v2"}
        elif word == "deleting":
            expected[name] = {None, "v1"}
        else:
            expected[name] = {None if word == "gone" else word}
    return expected


def check_seen(backend: EmbeddedBackend, log: Path) -> list[str]:
    """What is wrong with what queries show; every shown tile is read."""
    wrong = []
    shown, expected = seen(backend), _expected(log)
    for name, versions in expected.items():
        found = shown.pop(name, {})
        version = next(iter(found), None)
        if len(found) > 1 or version not in versions:
            wrong.append(f"{name}: seen {found}, expected one of {versions}")
        elif version is not None and sorted(found[version]) != POSSIBLE[name][version]:
            wrong.append(f"{name}: half of it is seen: {found}")
        for cell in found.get(version, ()) if version else ():
            definition = A if name.startswith("a/") else B
            tile = make_tile(definition, name[2:], version, cell)
            key = tile.meta.key
            if backend.details(key).checksum != tile.checksum:
                wrong.append(f"{key}: another checksum than acknowledged")
            stored = backend.read_blocks(key, range(len(tile.blocks)))
            for row, block in zip(tile.blocks, stored, strict=True):
                start = int(row["offset"])
                payload = tile.payload[start : start + int(row["length"])]
                if bytes(block or b"") != payload:
                    wrong.append(f"{key}: other bytes than acknowledged")
    wrong += [f"{name}: doubled or unknown" for name in shown]
    return wrong


def tile_files(directory: Path) -> list[str]:
    """Names of all files under `tiles/`."""
    return sorted(path.name for path in (directory / "tiles").rglob("*") if path.is_file())


def check_after_crash(directory: Path, log: Path) -> list[str]:
    """All that must hold after a kill: as found, after recovery, and after a re-run."""
    wrong = []
    if (directory / "geostore.json").exists():
        with open_embedded(directory, mode="r") as backend:
            wrong += [f"before recovery: {text}" for text in check_seen(backend, log)]
    with open_embedded(directory, lock_now=True) as backend:
        wrong += [f"after recovery: {text}" for text in check_seen(backend, log)]
        wrong += [f"after recovery: {problem}" for problem in backend.verify().problems]
        for scene in ("s1", "s2", "s3"):
            record = backend.scene_record(A.id, scene)
            if record is not None and not is_settled(record):
                wrong.append(f"after recovery: {scene} is still {record.state}")
        tiles = backend.count(Query())
    files = tile_files(directory)
    if len(files) != tiles:
        wrong.append(f"after recovery: {len(files)} files of {tiles} tiles: {files}")
    wrong += [f"left in tmp: {path}" for path in (directory / "tmp").iterdir()]
    play_logged(directory, log)
    with open_embedded(directory, mode="r") as backend:
        final = {name: {v: sorted(c) for v, c in vs.items()} for name, vs in seen(backend).items()}
        if final != {name: {v: sorted(c) for v, c in vs.items()} for name, vs in FINAL.items()}:
            wrong.append(f"after a re-run: {final}")
        wrong += [f"after a re-run: {problem}" for problem in backend.verify().problems]
    if len(tile_files(directory)) != sum(len(c) for vs in FINAL.values() for c in vs.values()):
        wrong.append(f"after a re-run: {tile_files(directory)}")
    return wrong


class _Child:
    """A forked process that runs `action` and tells what it returned, as JSON."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._reading, writing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                os.close(self._reading)
                os.write(writing, json.dumps(action()).encode())
                status = 0
            except BaseException as error:  # noqa: BLE001  # told to the parent
                os.write(writing, json.dumps([f"{type(error).__name__}: {error}"]).encode())
            os._exit(status)
        os.close(writing)

    def wait(self) -> tuple[int, Any]:
        """Its exit status, and what it told (None if it was killed before)."""
        with os.fdopen(self._reading, "rb") as pipe:
            text = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return status, json.loads(text) if text else None


KILLED = 77


def _kill_at(number: int) -> Callable[[str], None]:
    """A step hook that ends the process at the step of that number."""
    left = [number]

    def step(name: str) -> None:
        if left[0] == 0:
            os._exit(KILLED)
        left[0] -= 1

    return step


def _recover(directory: Path, step: Callable[[str], None]) -> None:
    with open_embedded(directory, lock_now=True, step=step):
        pass


def crash_at(top: Path, number: int, name: str) -> list[str]:
    """Kills a play at its step `number`, and one recovery in the middle; what is wrong then."""
    directory, log = top / f"{number}", top / f"{number}.log"
    status, told = _Child(lambda: play_logged(directory, log, _kill_at(number))).wait()
    wrong = [] if status == KILLED else [f"not killed there, but {status} {told}"]
    if number % 2:
        _Child(lambda: _recover(directory, _kill_at(number // 2 % 8))).wait()
    wrong += _Child(lambda: check_after_crash(directory, log)).wait()[1]
    shutil.rmtree(directory)
    return [f"step {number} ({name}): {text}" for text in wrong]


def crash_everywhere(top: Path, workers: int = 2) -> dict[str, list[str]]:
    """Plays once for every step there is, killed at that step, and checks what is left."""

    def names_of_steps() -> list[str]:
        steps: list[str] = []
        play_logged(top / "whole", top / "whole.log", steps.append)
        return steps

    def crash_some(first: int) -> list[str]:
        numbers = range(first, len(names), workers)
        return [text for number in numbers for text in crash_at(top, number, names[number])]

    for definition, version in ((A, "v1"), (A, "v2"), (B, "v1")):
        for scene in ("s1", "s2", "s3"):
            for cell in CELLS:  # encoded once here, for all children
                make_tile(definition, scene, version, cell)
    status, names = _Child(names_of_steps).wait()
    assert status == 0, names
    children = [_Child(partial(crash_some, first)) for first in range(workers)]
    return {"steps": names, "wrong": [text for child in children for text in child.wait()[1]]}


if __name__ == "__main__":
    if sys.argv[1] == "play":
        play_logged(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        print(json.dumps(crash_everywhere(Path(sys.argv[2]))))
