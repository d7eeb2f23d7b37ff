"""A node's own id and the newest ring it knows, in its data directory: `ring.json`."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from geostore.errors import CorruptDataError, InvalidInputError, StoreFormatError
from geostore.node import Node
from geostore.ring import Ring

__all__ = ["RING_FILE", "RingFile"]

RING_FILE: Final = "ring.json"
FORMAT_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class _Content:
    node_id: str
    ring: Ring | None


class RingFile:
    """Keeps both for as long as the data directory lives; each change is durable at once.

    The id is written before the node asks to join: one that dies in between comes back as the
    node that the ring may know already.

    Raises:
        CorruptDataError: the file is damaged.
        StoreFormatError: a newer geostore wrote it.
    """

    def __init__(self, node: Node) -> None:
        self._disk = node.disk
        self._path = node.directory.root / RING_FILE
        self._temporary = node.directory.tmp / RING_FILE
        self._content = _read(self._path)
        if self._content is None:
            self._write(_Content(uuid.uuid4().hex, None))

    @property
    def path(self) -> Path:
        return self._path

    @property
    def node_id(self) -> str:
        assert self._content is not None
        return self._content.node_id

    @property
    def ring(self) -> Ring | None:
        """None: the node belongs to no ring yet."""
        assert self._content is not None
        return self._content.ring

    def save(self, ring: Ring) -> None:
        """Makes a ring durable."""
        self._write(_Content(self.node_id, ring))

    def _write(self, content: _Content) -> None:
        ring = None if content.ring is None else content.ring.to_json()
        value = {"format_version": FORMAT_VERSION, "node_id": content.node_id, "ring": ring}
        data = json.dumps({**value, "checksum": _checksum(value)}, indent=1).encode()
        with self._disk.translated(f"writing {self._path}"):
            self._disk.replace_file(self._path, data, self._temporary, "ring")
        self._content = content


def _read(path: Path) -> _Content | None:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    damaged = f"{path}: damaged; restore it from a backup, or move the node's data away"
    try:
        value = json.loads(text)
    except ValueError:
        raise CorruptDataError(f"{damaged} (it is not JSON)") from None
    if not isinstance(value, dict) or not isinstance(value.get("node_id"), str):
        raise CorruptDataError(f"{damaged} (no node id)")
    if value.get("format_version") != FORMAT_VERSION:
        raise StoreFormatError(
            f"{path}: format version {value.get('format_version')!r}, this geostore reads"
            f" {FORMAT_VERSION}"
        )
    if value.pop("checksum", None) != _checksum(value):
        raise CorruptDataError(f"{damaged} (its checksum does not match)")
    try:
        ring = None if value["ring"] is None else Ring.from_json(value["ring"])
    except (InvalidInputError, KeyError) as error:
        raise CorruptDataError(f"{damaged} ({error})") from error
    return _Content(value["node_id"], ring)


def _checksum(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
