"""The tiles of a catalog: published rows, ready to be searched, and staged ones.

What an effect says is done here to the columns; nothing is decided. Details stay in the log: a
tile knows where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from geostore.errors import CorruptDataError, InvalidInputError
from geostore.index.columns import Positions, time_columns
from geostore.index.effects import MovedRows, MovedStaged, Shown, Tiles, ValueAt
from geostore.index.geocodes import packing_of
from geostore.index.memory import Memory
from geostore.index.packing import DIGEST_BYTES, ROW_DTYPE, Group, provider_covers
from geostore.types import TileKey, TileSchema

__all__ = ["Contents", "Staged"]

INDEXED_ROWS: Final = 4096
"""Of a scene version of more rows the cells are sorted before one is looked for."""
INDEXES_KEPT: Final = 64
GROUPS_ONE_BY_ONE: Final = 64

Version = tuple[str, str, str]
"""Dataset id, scene, version."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A tile that no query sees."""

    number: int
    key: TileKey
    row: bytes
    """One of ROW_DTYPE."""
    details: ValueAt


class Contents:
    """Rows and staged tiles. Not thread-safe: the catalog holds its lock."""

    def __init__(
        self,
        group_of: Callable[[bytes], Group],
        schema_of: Callable[[str], TileSchema],
    ) -> None:
        """`group_of` tells a scene's entry by its digest (properties may be left out), `schema_of`
        a schema by its own.
        """
        self._group_of = group_of
        self._schema_of = schema_of
        self.memory = Memory()
        self.digests: list[bytes] = []
        """Of the scene entry of each group of rows."""
        self._numbers: dict[bytes, int] = {}
        self._first_runs = np.zeros((16, 2), dtype=np.int64)
        """Of each group: the first run of its rows, from position to before position."""
        self._more_runs: dict[int, list[tuple[int, int]]] = {}
        self._sorted: dict[int, tuple[int, npt.NDArray[np.uint64], Positions]] = {}
        self.staged: dict[int, Staged] = {}
        self._staged_of: dict[Version, dict[str, int]] = {}
        self._staged_scenes: Counter[bytes] = Counter()
        """Staged tiles by the digest of their scene's entry."""
        self.next_staged = 0

    def take_over(self, memory: Memory, digests: list[bytes]) -> None:
        """Begins with these rows, whose groups are of these scenes' entries."""
        self.memory = memory
        self.digests = digests
        self._numbers = {digest: number for number, digest in enumerate(digests)}
        self._note_runs(memory.columns.snapshot().columns["group"], 0)

    # ------------------------------------------------------------ what came

    def put(self, tiles: Tiles, first_row_id: int) -> int:
        """Takes in tiles; returns how many became rows."""
        if not tiles.is_published:
            self._stage(tiles)
            return 0
        rows = tiles.rows
        self._append(
            rows,
            provider_covers(rows),
            rows["cloud_cover"],
            first_row_id,
            np.full(len(rows), tiles.details_at.segment, np.int32),
            tiles.offsets(),
            tiles.lengths,
        )
        return len(rows)

    def _stage(self, tiles: Tiles) -> None:
        offsets, lengths = tiles.offsets().tolist(), tiles.lengths.tolist()
        segment = tiles.details_at.segment
        versions: dict[bytes, Version] = {}
        for i, digest in enumerate(tiles.rows["group"].tolist()):
            version = versions.get(digest)
            if version is None:
                group = self._group_of(digest)
                version = versions[digest] = (group.dataset_id, group.scene, group.version)
            row = tiles.rows[i]
            geocode = row["geocode"].decode("ascii")
            number = self.next_staged
            self.next_staged += 1
            self.restage(
                Staged(
                    number,
                    TileKey(*version, geocode),
                    row.tobytes(),
                    ValueAt(segment, offsets[i], lengths[i]),
                )
            )

    def restage(self, tile: Staged) -> None:
        """Takes in a staged tile that has its number already."""
        key = tile.key
        self.staged[tile.number] = tile
        self._staged_scenes[tile.row[:DIGEST_BYTES]] += 1
        of_version = self._staged_of.setdefault((key.dataset_id, key.scene, key.version), {})
        of_version[key.geocode] = tile.number

    def show(self, shown: Shown, first_row_id: int) -> int:
        """Staged tiles become rows, with the covers they are served with; returns how many."""
        tiles = self.unstage(shown.ids)
        if tiles:
            rows = np.frombuffer(b"".join([tile.row for tile in tiles]), ROW_DTYPE)
            places = np.array([tile.details for tile in tiles], dtype=np.int64)
            self._append(
                rows,
                provider_covers(rows),
                shown.covers,
                first_row_id,
                places[:, 0],
                places[:, 1],
                places[:, 2],
            )
        return len(tiles)

    def move_rows(self, moved: MovedRows) -> None:
        """The details of rows lie elsewhere. Raises CorruptDataError: one is not there."""
        columns = self.memory.columns
        if not columns.move(moved.ids, moved.details_at.segment, moved.offsets(), moved.lengths):
            raise CorruptDataError("catalog: details were moved of rows that are not there")

    def move_staged(self, moved: MovedStaged) -> None:
        """The details of staged tiles do. Raises CorruptDataError: one is not staged."""
        offsets, lengths = moved.offsets().tolist(), moved.lengths.tolist()
        for number, offset, length in zip(moved.ids.tolist(), offsets, lengths, strict=True):
            tile = self.staged.get(number)
            if tile is None:
                raise CorruptDataError(f"catalog: staged tile {number} is not there")
            place = ValueAt(moved.details_at.segment, offset, length)
            self.staged[number] = replace(tile, details=place)

    def unstage(self, numbers: npt.NDArray[np.int64]) -> list[Staged]:
        """Forgets staged tiles; returns them. Raises CorruptDataError: one is not staged."""
        found = []
        for number in numbers.tolist():
            tile = self.staged.pop(number, None)
            if tile is None:
                raise CorruptDataError(f"catalog: staged tile {number} is not there")
            key, digest = tile.key, tile.row[:DIGEST_BYTES]
            self._staged_scenes[digest] -= 1
            if not self._staged_scenes[digest]:
                del self._staged_scenes[digest]
            version = (key.dataset_id, key.scene, key.version)
            of_version = self._staged_of[version]
            del of_version[key.geocode]
            if not of_version:
                del self._staged_of[version]
            found.append(tile)
        return found

    def _append(
        self,
        rows: npt.NDArray[np.void],
        provider: npt.NDArray[np.float32],
        covers: npt.NDArray[np.float32],
        first_row_id: int,
        segments: npt.NDArray[Any],
        offsets: npt.NDArray[np.int64],
        lengths: npt.NDArray[Any],
    ) -> None:
        columns = self.memory.columns
        groups = self._groups_of(rows["group"])
        first = columns.count
        columns.append(
            {
                "row_id": np.arange(first_row_id, first_row_id + len(rows), dtype=np.int64),
                "group": groups,
                "pixel_coverage": rows["pixel_coverage"],
                "cloud_cover": covers,
                "provider_cover": provider,
                "bytes": rows["bytes"],
                "details_segment": segments,
                "details_offset": offsets,
                "details_bytes": lengths,
                **time_columns(rows["time_us"], rows["time_end_us"]),
                **columns.cell_columns(groups, rows["geocode"]),
            }
        )
        self._note_runs(groups, first)

    def _groups_of(self, digests: npt.NDArray[np.void]) -> npt.NDArray[np.int32]:
        """Each row's group; rows of one come in runs, of which only the first is looked at."""
        if len(digests) == 1:
            return np.array([self._group_number(digests[0].tobytes())], np.int32)
        halves = np.ascontiguousarray(digests).view(np.uint64).reshape(-1, 2)
        is_new = (halves[1:] != halves[:-1]).any(axis=1)
        if len(digests) and not is_new.any():
            return np.full(len(digests), self._group_number(digests[0].tobytes()), np.int32)
        firsts = np.flatnonzero(np.concatenate([np.ones(1, np.bool_), is_new])[: len(digests)])
        numbers = [self._group_number(digest) for digest in digests[firsts].tolist()]
        lengths = np.diff(firsts, append=len(digests))
        return np.repeat(np.array(numbers, dtype=np.int32), lengths)

    def _group_number(self, digest: bytes) -> int:
        number = self._numbers.get(digest)
        if number is None:
            group = self._group_of(digest)
            schema = self._schema_of(group.schema)
            number = self.memory.columns.groups.add(
                {
                    "dataset_id": (group.dataset_id, group.dataset_id),
                    "dataset": (group.dataset, group.dataset),
                    "scene": (group.scene, group.scene),
                    "version": (group.version, group.version),
                    "schema": (group.schema, schema),
                    "platform": (group.platform, group.platform),
                },
                schema.scheme,
            )
            self._numbers[digest] = number
            self.digests.append(digest)
        return number

    def _note_runs(self, groups: npt.NDArray[np.int32], first: int) -> None:
        """Remembers where rows of groups lie: `groups` are those of the rows from `first` on."""
        total = self.memory.columns.groups.count
        if total > len(self._first_runs):
            grown = np.zeros((max(total, 2 * len(self._first_runs)), 2), dtype=np.int64)
            grown[: len(self._first_runs)] = self._first_runs
            self._first_runs = grown
        if len(groups) and (groups == groups[0]).all():
            self._note_run(int(groups[0]), first, first + len(groups))
            return
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        ends = np.append(starts[1:], len(groups)) + first
        starts += first
        numbers = groups[starts - first]
        new, where = np.unique(numbers, return_index=True)
        where = where[self._first_runs[new, 1] == 0]
        self._first_runs[numbers[where], 0] = starts[where]
        self._first_runs[numbers[where], 1] = ends[where]
        rest = np.ones(len(numbers), np.bool_)
        rest[where] = False
        for at in np.flatnonzero(rest).tolist():
            self._note_run(int(numbers[at]), int(starts[at]), int(ends[at]))

    def _note_run(self, group: int, start: int, end: int) -> None:
        more = self._more_runs.get(group)
        last_end = int(self._first_runs[group, 1])
        if more:
            if more[-1][1] == start:
                more[-1] = (more[-1][0], end)
            else:
                more.append((start, end))
        elif not last_end:
            self._first_runs[group] = start, end
        elif last_end == start:
            self._first_runs[group, 1] = end
        else:
            self._more_runs[group] = [(start, end)]

    # ------------------------------------------------------------ what is there

    def _groups_under(
        self, dataset_id: str | None, scene: str | None, version: str | None
    ) -> list[int]:
        """The groups of a dataset, a scene, or a version of one; all where none is named."""
        groups = self.memory.columns.groups
        if dataset_id is None:
            return list(range(groups.count))
        wanted = groups.interners["dataset_id"].codes.get(dataset_id)
        if wanted is None:
            return []
        datasets = groups.codes("dataset_id")
        if scene is None:
            found: list[int] = np.flatnonzero(datasets == wanted).tolist()
            return found
        code = groups.interners["scene"].codes.get(scene)
        of_scene = [] if code is None else groups.of_scene.get(code, [])
        of_scene = [number for number in of_scene if datasets[number] == wanted]
        if version is None:
            return of_scene
        versions = groups.codes("version")
        wanted = groups.interners["version"].codes.get(version)
        return [number for number in of_scene if versions[number] == wanted]

    def _runs(self, group: int) -> Iterator[tuple[int, int]]:
        start, end = self._first_runs[group].tolist()
        if end:
            yield start, end
        yield from self._more_runs.get(group, ())

    def rows_under(
        self, dataset_id: str | None = None, scene: str | None = None, version: str | None = None
    ) -> Positions:
        """Positions of the live rows of a dataset, a scene, or a version of one, rising."""
        snapshot = self.memory.columns.snapshot()
        groups = self._groups_under(dataset_id, scene, version)
        if dataset_id is None:
            return np.flatnonzero(snapshot.alive)
        if len(groups) > GROUPS_ONE_BY_ONE:
            is_wanted = np.zeros(len(snapshot.group_live), np.bool_)
            is_wanted[groups] = True
            return np.flatnonzero(is_wanted[snapshot.columns["group"]] & snapshot.alive)
        runs = [np.arange(*run) for group in groups for run in self._runs(group)]
        if not runs:
            return np.empty(0, dtype=np.int64)
        found = np.concatenate(runs)
        found = found[snapshot.alive[found]]
        found.sort()
        return found

    def needs(self, digest: bytes) -> bool:
        """Whether tiles, rows or staged ones, are of the scene's entry of that digest."""
        number = self._numbers.get(digest)
        is_live = number is not None and self.memory.columns.groups.live()[number] > 0
        return is_live or digest in self._staged_scenes

    def needed(self) -> set[bytes]:
        """The digests of all scenes' entries that tiles are of."""
        live = np.flatnonzero(self.memory.columns.groups.live())
        return {self.digests[at] for at in live.tolist()}.union(self._staged_scenes)

    def may_have(self, dataset_id: str, scene: str, version: str) -> bool:
        """Whether a scene version has tiles, or had some."""
        if (dataset_id, scene, version) in self._staged_of:
            return True
        codes = self.memory.columns.groups.interners["scene"].codes
        return scene in codes and bool(self._groups_under(dataset_id, scene, version))

    def find(self, key: TileKey) -> int | None:
        """The position of a published tile. O(rows of its scene version), or their logarithm."""
        columns = self.memory.columns
        for group in self._groups_under(key.dataset_id, key.scene, key.version):
            try:
                packed = packing_of(columns.groups.schemes[group]).pack(key.geocode)
            except InvalidInputError:
                continue
            for at in self._with_cell(group, packed):
                if columns.is_alive(at):
                    return at
        return None

    def _with_cell(self, group: int, packed: int) -> list[int]:
        """Positions of rows of a group, dead or alive, in a cell."""
        runs = list(self._runs(group))
        cells = self.memory.columns.cells()
        total = sum(end - start for start, end in runs)
        if total <= INDEXED_ROWS:
            return [
                start + at
                for start, end in runs
                for at in np.flatnonzero(cells[start:end] == np.uint64(packed)).tolist()
            ]
        known = self._sorted.get(group)
        if known is None or known[0] != total:
            rows = np.concatenate([np.arange(start, end) for start, end in runs])
            order = np.argsort(cells[rows], kind="stable")
            self._sorted.pop(group, None)
            while len(self._sorted) >= INDEXES_KEPT:
                del self._sorted[next(iter(self._sorted))]
            known = self._sorted[group] = (total, cells[rows][order], rows[order])
        _, keys, rows = known
        first = int(np.searchsorted(keys, np.uint64(packed), "left"))
        end = int(np.searchsorted(keys, np.uint64(packed), "right"))
        found: list[int] = rows[first:end].tolist()
        return found

    def geocodes_under(self, dataset_id: str, scene: str, version: str) -> dict[str, int]:
        """Cells of a scene version's live rows, and where these are."""
        rows = self.rows_under(dataset_id, scene, version)
        if not len(rows):
            return {}
        texts = self.memory.columns.snapshot().geocodes(rows).tolist()
        return dict(zip(texts, rows.tolist(), strict=True))

    def keys_of(self, rows: Positions) -> list[TileKey]:
        """The keys of rows, in their order."""
        snapshot = self.memory.columns.snapshot()
        texts = [snapshot.group_values(name, rows) for name in ("dataset_id", "scene", "version")]
        return list(map(TileKey, *texts, snapshot.geocodes(rows)))

    def details_of(self, rows: Positions) -> Iterator[ValueAt]:
        """Where the details of rows lie."""
        return self.memory.columns.snapshot().details_of(rows)

    def staged_at(self, key: TileKey) -> Staged | None:
        """The staged tile of a key."""
        of_version = self._staged_of.get((key.dataset_id, key.scene, key.version))
        number = None if of_version is None else of_version.get(key.geocode)
        return None if number is None else self.staged[number]

    def staged_under(
        self, dataset_id: str | None = None, scene: str | None = None, version: str | None = None
    ) -> list[Staged]:
        """Staged tiles of a dataset, a scene, or a version of one, in the order they came."""
        wanted: Iterable[Version]
        if dataset_id is not None and scene is not None and version is not None:
            wanted = [(dataset_id, scene, version)]
        else:
            wanted = [
                each
                for each in self._staged_of
                if (dataset_id is None or each[0] == dataset_id)
                and (scene is None or each[1] == scene)
            ]
        numbers = [n for each in wanted for n in self._staged_of.get(each, {}).values()]
        return [self.staged[number] for number in sorted(numbers)]
