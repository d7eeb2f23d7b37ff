"""A store's directory: what lies where, and how to tell a store from anything else.

DIR/geostore.json   magic, format version, store id, when it was made
DIR/ring.json       of a cluster's node: its id and the ring
DIR/lock            held (flock) by the one writer
DIR/catalog/        the catalog: rows, block tables, records
DIR/tiles/          <dataset id>/<slot, 3 hex digits>/<geocode>.<16 hex digits>.zarr.zip
DIR/commits/        <dataset id>/<16 hex digits>.json: which cells a committed scene has
                    (of a ring's node: has here), and .home.json: what its home decided
DIR/rules/          <dataset id>.json: the definition whose cloud rule was changed last; tile
                    files have that of when they were made
DIR/tmp/            files being written; on the same file system, so that a rename is atomic
DIR/quarantine/     damaged or unaccountable files that a rebuild moved aside
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from geostore.errors import InvalidInputError, NotFoundError, ReadOnlyError, StoreFormatError
from geostore.node.disk import Disk
from geostore.ring import placement_key, slot_of
from geostore.types import TileKey

__all__ = ["FORMAT_VERSION", "HOME_SUFFIX", "StoreDirectory", "StoreIdentity"]

MAGIC: Final = "geostore store"
FORMAT_VERSION: Final = 1
TILE_SUFFIX: Final = ".zarr.zip"
HOME_SUFFIX: Final = ".home.json"
ENTRIES: Final = frozenset({"lock", "catalog", "tiles", "commits", "tmp", "quarantine"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreIdentity:
    """What `geostore.json` says."""

    store_id: str
    format_version: int
    created_us: int


def _digest(*parts: str) -> str:
    # The parts are joined by a byte that names cannot hold, so no two lists are alike.
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class StoreDirectory:
    """The paths of one store; pure but for `identity`, `create` and `entries`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.identity_file = root / "geostore.json"
        self.lock_file = root / "lock"
        self.queue_file = root / "lock.queue"
        """Locked by who waits for the writer's turn (`geostore.node.writer_turns`)."""
        self.ring_file = root / "ring.json"
        """Of a node of a cluster: its id and ring (see `geostore.server.ring_file`)."""
        self.catalog = root / "catalog"
        self.tiles = root / "tiles"
        self.commits = root / "commits"
        self.rules = root / "rules"
        self.tmp = root / "tmp"
        self.quarantine = root / "quarantine"
        self.catalog_rebuilt = self.tmp / "catalog.rebuilt"
        """A whole new catalog that only waits to be renamed into place."""

    def dataset_tiles(self, dataset_id: str) -> Path:
        return self.tiles / dataset_id

    def slot_tiles(self, dataset_id: str, slot: int) -> Path:
        """Where a dataset's tiles of one slot lie."""
        return self.tiles / dataset_id / f"{slot:03x}"

    def tile_file(self, key: TileKey, placement: int) -> Path:
        """Where a tile lies: a pure function of its key and its dataset's placement length."""
        slot = slot_of(placement_key(key.geocode, placement))
        name = f"{key.geocode}.{_digest(key.scene, key.version)}{TILE_SUFFIX}"
        return self.slot_tiles(key.dataset_id, slot) / name

    def commit_file(self, dataset_id: str, scene: str) -> Path:
        return self.commits / dataset_id / f"{_digest(scene)}.json"

    def home_file(self, dataset_id: str, scene: str) -> Path:
        """What this node, the home of the scene's record in a ring, decided."""
        return self.commits / dataset_id / f"{_digest(scene)}{HOME_SUFFIX}"

    def rule_file(self, dataset_id: str) -> Path:
        """The dataset's definition, once its cloud rule was changed."""
        return self.rules / f"{dataset_id}.json"

    def is_member(self) -> bool:
        """Whether this is the part of a store that one node of a ring keeps."""
        return self.ring_file.exists()

    def is_shared(self) -> bool:
        """Whether other nodes keep parts of the same store: a ring of one has none."""
        try:
            ring = json.loads(self.ring_file.read_bytes())["ring"]
            return ring is not None and len(ring["nodes"]) > 1
        except FileNotFoundError:
            return False
        except (ValueError, KeyError, TypeError):
            return True  # damaged: better not written

    def state(self) -> str:
        """`store`, `new` (missing, empty, or a creation that was cut short), or `other`."""
        try:
            if self.identity_file.is_file():
                return "store"
            if not self.root.exists():
                return "new"
            if not self.root.is_dir():
                return "other"
            names = {entry.name for entry in self.root.iterdir()}
            if names <= ENTRIES and not (self.tiles.is_dir() and any(self.tiles.iterdir())):
                return "new"
        except OSError as error:
            raise ReadOnlyError(
                f"store {self.root} cannot be looked into: {error.strerror}"
            ) from error
        return "other"

    def identity(self) -> StoreIdentity:
        """Reads `geostore.json`.

        Raises:
            NotFoundError: there is nothing at all.
            StoreFormatError: something else lies here, or a newer geostore wrote it.
        """
        state = self.state()
        if state == "new":
            raise NotFoundError(
                f"no store at {self.root}: it is missing or empty; ingest something first, or"
                " name another with --store"
            )
        if state == "other":
            raise StoreFormatError(
                f"{self.root} is not a geostore store: it is not empty and has no geostore.json"
            )
        try:
            value = json.loads(self.identity_file.read_bytes())
            magic, version = value["magic"], value["format_version"]
            identity = StoreIdentity(
                store_id=str(value.get("store_id", "")),
                format_version=int(version),
                created_us=int(value.get("created_us", 0)),
            )
        except PermissionError as error:
            raise ReadOnlyError(
                f"store {self.root}: no permission to read {self.identity_file.name}"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreFormatError(f"{self.identity_file}: unreadable ({error})") from error
        if magic != MAGIC:
            raise StoreFormatError(
                f"{self.identity_file}: magic is {magic!r}, expected {MAGIC!r}:"
                " not a geostore store"
            )
        if identity.format_version > FORMAT_VERSION:
            raise StoreFormatError(
                f"store {self.root} has format version {identity.format_version}, this geostore"
                f" reads up to {FORMAT_VERSION}: upgrade geostore to open it"
            )
        return identity

    def make_root(self, disk: Disk) -> None:
        """Makes the directory itself, with its ancestors.

        Raises:
            InvalidInputError: a file stands in the way.
            ReadOnlyError, StorageFullError: the system refuses.
        """
        with disk.translated(f"creating store {self.root}"):
            try:
                self.root.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise InvalidInputError(
                    f"store {self.root}: expected a directory, a file stands in the way"
                ) from None

    def create(self, disk: Disk, now_us: int) -> StoreIdentity:
        """Completes an empty root to a store; `geostore.json` comes last and decides.

        The caller holds the writer lock and has made the catalog.
        """
        identity = StoreIdentity(
            store_id=uuid.uuid4().hex, format_version=FORMAT_VERSION, created_us=now_us
        )
        value = {
            "magic": MAGIC,
            "format_version": identity.format_version,
            "store_id": identity.store_id,
            "created_us": identity.created_us,
        }
        with disk.translated(f"creating store {self.root}"):
            for directory in (self.tiles, self.commits, self.tmp):
                directory.mkdir(exist_ok=True)
            data = json.dumps(value, indent=2).encode() + b"\n"
            disk.sync_directories([self.root.parent, self.catalog], "create")
            disk.replace_file(self.identity_file, data, self.tmp / "geostore.json", "create")
        return identity

    def free_bytes(self) -> int:
        """Bytes that a user may still write to the file system."""
        stat = os.statvfs(self.root)
        return stat.f_bavail * stat.f_frsize
