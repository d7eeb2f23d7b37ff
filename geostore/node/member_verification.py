"""The check of a ring's node: its files and rows against its own shares of the scenes.

A scene's record lists cells of all nodes, at its home alone. What this node is to have of the
scene its commit file tells, written before any of the rows was shown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from geostore.errors import CorruptDataError, GeostoreError
from geostore.node.commit_files import read_commit_file
from geostore.node.directory import HOME_SUFFIX
from geostore.node.records import MARK_PREFIX
from geostore.node.scene_states import is_settled
from geostore.node.verification import Verification, walk_files
from geostore.tiles import TileFile
from geostore.types import SceneRecord, TileKey
from geostore.types.report import ProblemKind

__all__ = ["MemberVerification"]

SceneName = tuple[str, str]
"""Dataset id and scene."""
_Findings = dict[SceneName, str]


class MemberVerification(Verification):
    """See the module."""

    def _compare_records(self, records: Sequence[SceneRecord]) -> None:
        if self._differences(records):
            with self._writing():  # a scene was being shown or replaced
                self._catalog.refresh()
                records = self._scene_records()
                differences = self._differences(records)
            for (_, scene), message in sorted(differences.items()):
                self._add(ProblemKind.RECORD, scene, message)
        for share in self._shares(told=True).values():
            self._add_lost(share)

    def _differences(self, records: Sequence[SceneRecord]) -> _Findings:
        """Scenes whose rows are not what is written down of them, and how."""
        found: _Findings = {}
        shares = self._shares()
        rows: dict[SceneName, dict[str, set[str]]] = {}
        for (dataset_id, scene, version), cells in self._rows().items():
            rows.setdefault((dataset_id, scene), {})[version] = cells
        # Staged under an attempt that is decided: a start, or the home, shows or clears it.
        in_flux = {(tile.key.dataset_id, tile.key.scene) for tile in self._catalog.staged()}
        for name in sorted({*shares, *rows} - in_flux):
            share, shown = shares.get(name), rows.get(name, {})
            if share is None or share.version is None:
                found[name] = f"{sum(map(len, shown.values()))} tiles that no commit accounts for"
            elif shown != ({share.version: set(share.cells)} if share.cells else {}):
                listed, there = len(share.cells), sum(map(len, shown.values()))
                found[name] = f"its commit lists {listed} tiles here, the catalog {there}"
        for record in records:
            share = shares.get((record.dataset_id, record.scene))
            if share is not None and is_settled(record) and _contradict(record, share):
                found.setdefault(
                    (record.dataset_id, record.scene),
                    "its record, whose home is here, tells of another version than its commit",
                )
        return found

    def _shares(self, *, told: bool = False) -> dict[SceneName, SceneRecord]:
        """What is written down of each scene; with `told`, damaged files are findings."""
        shares = {}
        for path in walk_files(self._directory.commits):
            try:
                record = read_commit_file(path)
            except CorruptDataError as error:
                if told and path.exists():
                    self._add(ProblemKind.CORRUPT, path, str(error))
                continue
            if not path.name.endswith(HOME_SUFFIX):
                shares[record.dataset_id, record.scene] = record
        return shares

    def _will_be_removed(self, path: Path) -> bool:
        """A replaced version's file goes when every node shows the new one: its home says so."""
        try:
            with TileFile.open(path) as tile:
                key = tile.meta.key
            if self._path(key) != path or self._catalog.keys(*_version_of(key)):
                return False
        except (GeostoreError, OSError):
            return False
        mark = self._catalog.record_get(f"{MARK_PREFIX}{key.dataset_id}/{key.scene}")
        return mark is not None and not json.loads(mark.value)["is_cleared"]


def _version_of(key: TileKey) -> tuple[str, str, str]:
    return key.dataset_id, key.scene, key.version


def _contradict(record: SceneRecord, share: SceneRecord) -> bool:
    if share.attempt > record.attempt:
        return False  # read before it was decided
    return record.version != share.version or not {*share.cells} <= {
        *record.cells,
        *record.lost_cells,
    }
