"""Commit files: which cells a committed scene has, beside the tile files.

A tile file knows its scene but not whether the scene is whole. Were the catalog lost, tiles
of a half-written scene could not be told from those of a committed one. So each commit also
leaves its record as a small checksummed file, written before any of its rows is seen, and a
rebuild shows exactly what was committed.

In a ring each node writes down the cells that it holds itself, its share of the scene; and
the home of the scene's record keeps, in a file apart, what it decided about all of them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from geostore.errors import CorruptDataError
from geostore.node.directory import StoreDirectory
from geostore.node.disk import Disk
from geostore.types import SceneRecord

__all__ = ["read_commit_file", "write_commit_file", "write_home_file"]


def write_commit_file(directory: StoreDirectory, disk: Disk, record: SceneRecord) -> None:
    """Writes (or replaces, when a scene is replaced) a scene's commit file, durably.

    The file: a line with the SHA-256 of the rest, hex; the record as JSON.
    """
    path = directory.commit_file(record.dataset_id, record.scene)
    _write(directory, disk, path, record)


def write_home_file(directory: StoreDirectory, disk: Disk, record: SceneRecord) -> None:
    """As `write_commit_file`, for what a scene's home in a ring decided."""
    _write(directory, disk, directory.home_file(record.dataset_id, record.scene), record)


def _write(directory: StoreDirectory, disk: Disk, path: Path, record: SceneRecord) -> None:
    body = json.dumps(record.to_json(), sort_keys=True).encode()
    data = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    with disk.translated(f"writing {path}"):
        changed = disk.make_directories(path.parent, directory.root)
        disk.replace_file(path, data, directory.tmp / path.name, "commit")
        disk.sync_directories(changed, "commit.directory")


def read_commit_file(path: Path) -> SceneRecord:
    """Raises CorruptDataError: unreadable, or its checksum fails."""
    try:
        checksum, _, body = path.read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != checksum:
            raise CorruptDataError(f"{path}: the commit file's bytes fail their checksum")
        return SceneRecord.from_json(json.loads(body))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptDataError(f"{path}: not a commit file: {error}") from error
