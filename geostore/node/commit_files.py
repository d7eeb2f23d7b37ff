"""Commit files: which cells a committed scene has, beside the tile files; and rule files.

A tile file knows its scene but not whether the scene is whole. Were the catalog lost, tiles
of a half-written scene could not be told from those of a committed one. So each commit also
leaves its record as a small checksummed file, written before any of its rows is seen, and a
rebuild shows exactly what was committed.

In a ring each node writes down the cells that it holds itself, its share of the scene; and
the home of the scene's record keeps, in a file apart, what it decided about all of them.

Tile files hold their dataset's definition, as it was when they were made. A cloud rule that
was changed since is in none of them: so the definition lies in a rule file of its own, written
before the change is decided. A crash between the two leaves one that a rebuild takes for
decided, which does no harm: it holds for the dataset as a whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from geostore.errors import CorruptDataError
from geostore.node.directory import StoreDirectory
from geostore.node.disk import Disk
from geostore.types import DatasetDefinition, SceneRecord

__all__ = [
    "read_commit_file",
    "read_rule_file",
    "write_commit_file",
    "write_home_file",
    "write_rule_file",
]

_T = TypeVar("_T")


def write_commit_file(directory: StoreDirectory, disk: Disk, record: SceneRecord) -> None:
    """Writes (or replaces, when a scene is replaced) a scene's commit file, durably.

    The file: a line with the SHA-256 of the rest, hex; the record as JSON.
    """
    path = directory.commit_file(record.dataset_id, record.scene)
    _write(directory, disk, path, record)


def write_home_file(directory: StoreDirectory, disk: Disk, record: SceneRecord) -> None:
    """As `write_commit_file`, for what a scene's home in a ring decided."""
    _write(directory, disk, directory.home_file(record.dataset_id, record.scene), record)


def write_rule_file(directory: StoreDirectory, disk: Disk, definition: DatasetDefinition) -> None:
    """Writes or replaces the definition whose cloud rule is to be in force."""
    path = directory.rule_file(definition.id)
    _write_json(directory, disk, path, definition.to_json(), "rule")


def _write(directory: StoreDirectory, disk: Disk, path: Path, record: SceneRecord) -> None:
    _write_json(directory, disk, path, record.to_json(), "commit")


def _write_json(
    directory: StoreDirectory, disk: Disk, path: Path, value: dict[str, Any], what: str
) -> None:
    body = json.dumps(value, sort_keys=True).encode()
    data = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    with disk.translated(f"writing {path}"):
        changed = disk.make_directories(path.parent, directory.root)
        disk.replace_file(path, data, directory.tmp / path.name, what)
        disk.sync_directories(changed, f"{what}.directory")


def read_commit_file(path: Path) -> SceneRecord:
    """Raises CorruptDataError: unreadable, or its checksum fails."""
    return _read_json(path, "commit", SceneRecord.from_json)


def read_rule_file(path: Path) -> DatasetDefinition:
    """Raises CorruptDataError: unreadable, or its checksum fails."""
    return _read_json(path, "rule", DatasetDefinition.from_json)


def _read_json(path: Path, what: str, read: Callable[[dict[str, Any]], _T]) -> _T:
    try:
        checksum, _, body = path.read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != checksum:
            raise CorruptDataError(f"{path}: the {what} file's bytes fail their checksum")
        return read(json.loads(body))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptDataError(f"{path}: not a {what} file: {error}") from error
