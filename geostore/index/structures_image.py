"""Structures as sections of a snapshot file, and back: sorted arrays, mapped when restored.

A restored structure lies on the file's map: its pages are read when they are looked at. Building
them anew takes about a second a million rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import CorruptDataError
from geostore.index.btree import BPlusTree
from geostore.index.cell_table import GROUP, POSITION, CellTable
from geostore.index.columns import Grid, Snapshot
from geostore.index.structures import (
    DATASETS_APART,
    Cells,
    Percents,
    Runs,
    Structure,
    Times,
)

__all__ = ["Renumbered", "structures_image", "structures_restored"]

Sections = dict[str, npt.NDArray[Any]]
PREFIX = "structures."


@dataclass(frozen=True, slots=True)
class Renumbered:
    """What rows, groups and datasets of a snapshot are called in its image; None: as before."""

    alive: npt.NDArray[np.bool_]
    positions: npt.NDArray[np.int64] | None
    """By the row's position."""
    groups: npt.NDArray[np.int32] | None
    """By the group's number."""
    datasets: npt.NDArray[np.int64] | None
    """By the dataset's code."""

    def kept(self, payload: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | slice:
        """Which of some rows are in the image."""
        return slice(None) if self.positions is None else self.alive[payload]

    def rows(self, payload: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Rows that are in the image, as they are called there."""
        return payload if self.positions is None else self.positions[payload]

    def count(self, upto: int) -> int:
        """How many of the first `upto` rows are in the image."""
        return upto if self.positions is None else int(np.count_nonzero(self.alive[:upto]))


def structures_image(
    snapshot: Snapshot, built: Mapping[str, Structure], new: Renumbered
) -> tuple[dict[str, Any], Sections]:
    """The structures, each with how many of the image's rows it has: others may have come since.

    Not those by dataset where datasets went and there are more than have trees of their own, and
    not the runs unless they have all rows as they are: these are made anew in a few ms.
    """
    whole: dict[str, Any] = {}
    begun: dict[str, Any] = {}
    sections: Sections = {}
    datasets_total = len(snapshot.values["dataset"])
    for name, structure in built.items():
        is_whole = structure.upto == snapshot.count
        if isinstance(structure, Cells):
            what: Any = _cells_image(name, structure, new, sections)
        elif isinstance(structure, Times | Percents):
            if new.datasets is not None and datasets_total > DATASETS_APART:
                continue
            trees = structure.classes if isinstance(structure, Times) else structure.trees
            what = _trees_image(name, trees, new, sections)
        elif is_whole and new.positions is None and new.groups is None:
            sections[f"{PREFIX}{name}.0"] = structure.first_of
            sections[f"{PREFIX}{name}.1"] = structure.starts
            sections[f"{PREFIX}{name}.2"] = structure.lengths
            what = True
        else:
            continue
        if is_whole:
            whole[name] = what
        else:
            begun[name] = [new.count(structure.upto), what]
    return {"structures": whole, "begun": begun}, sections


def _trees_image(
    name: str, trees: Mapping[Any, BPlusTree], new: Renumbered, sections: Sections
) -> list[list[int]]:
    """Writes (keys, rows) of each tree; returns what it is by: family (and bit length)."""
    found: list[list[int]] = []
    for kind, tree in trees.items():
        family, *rest = kind if isinstance(kind, tuple) else (kind,)
        slices = list(tree.slices())
        keys = np.concatenate([each for each, _ in slices]) if slices else np.empty(0, np.int64)
        payload = tree.payload()
        kept = new.kept(payload)
        keys, payload = keys[kept], new.rows(payload[kept])
        if not len(keys):
            continue
        if new.datasets is not None and family < DATASETS_APART:
            family = int(new.datasets[family])
        number = len(found)
        found.append([family, *rest])
        sections[f"{PREFIX}{name}.{number}.keys"] = keys
        sections[f"{PREFIX}{name}.{number}.rows"] = payload
    return found


def _cells_image(name: str, cells: Cells, new: Renumbered, sections: Sections) -> list[int]:
    for number, table in cells.tables.items():
        records, keys = table.records, table.keys
        if new.positions is not None or new.groups is not None:
            rows = records[:, POSITION]
            kept = new.kept(rows)
            keys, records = keys[kept], records[kept].copy()
            records[:, POSITION] = new.rows(rows[kept])
            if new.groups is not None:
                records[:, GROUP] = new.groups[records[:, GROUP]]
        sections[f"{PREFIX}{name}.{number}.keys"] = keys
        sections[f"{PREFIX}{name}.{number}.records"] = records
    return list(cells.tables)


def structures_restored(
    meta: Mapping[str, Any], sections: Mapping[str, npt.NDArray[Any]], count: int, grids: list[Grid]
) -> dict[str, Structure]:
    """The structures of an image of `count` rows, all alive.

    Raises:
        CorruptDataError: they do not fit together.
    """
    known = {name: (count, what) for name, what in meta["structures"].items()}
    known |= {name: (upto, what) for name, (upto, what) in meta.get("begun", {}).items()}
    return {
        name: _restored(f"{PREFIX}{name}.", what, upto, sections, grids)
        for name, (upto, what) in known.items()
    }


def _restored(
    part: str, what: Any, upto: int, sections: Mapping[str, npt.NDArray[Any]], grids: list[Grid]
) -> Structure:
    if part == f"{PREFIX}runs.":
        first_of, starts, lengths = (sections[f"{part}{i}"] for i in range(3))
        return Runs(upto, 0, first_of, starts, lengths)
    if part == f"{PREFIX}cells.":
        tables = {}
        for number in what:
            scheme_name, length = grids[number]
            keys = sections[f"{part}{number}.keys"]
            records = sections[f"{part}{number}.records"]
            if len(keys) != len(records):
                raise CorruptDataError(f"catalog: a snapshot's cells do not fit: grid {number}")
            tables[number] = CellTable(scheme_name, length, keys, records)
        return Cells(upto, 0, tables)
    trees = {
        tuple(kind): BPlusTree.of_sorted(
            sections[f"{part}{number}.keys"], sections[f"{part}{number}.rows"]
        )
        for number, kind in enumerate(what)
    }
    if part == f"{PREFIX}times.":
        return Times(upto, 0, {(kind[0], kind[1]): tree for kind, tree in trees.items()})
    return Percents(upto, 0, {kind[0]: tree for kind, tree in trees.items()})
