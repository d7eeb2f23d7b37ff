"""The catalog's face: what a node asks of whatever remembers its tiles.

Implementations may change (the first stands on LMDB); this does not. Rows cross it in columnar
batches only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from geostore.index.entry import CatalogEntry, DatasetSummary, Record, StagedTile, TileDetails
from geostore.index.packed import PackedTiles
from geostore.query import (
    CoverageAnswer,
    CoverageRequest,
    Cursor,
    Explain,
    Query,
    Summary,
    SummaryKeys,
)
from geostore.types import RowBatch, SlotSizes, TileKey, TileRow, TileSchema

__all__ = ["BATCH_ROWS", "NO_ROWS", "Catalog", "NodesOfSlot", "RecordChange", "RowIds"]

BATCH_ROWS = 4096
"""Rows a batch unless asked otherwise."""

RowIds = npt.NDArray[np.int64]
"""Rows by what names them inside one catalog."""
NO_ROWS: RowIds = np.empty(0, dtype=np.int64)

NodesOfSlot = Callable[[int], tuple[str, ...]]
"""Slot to the names of the nodes that hold it, first replica first."""


@dataclass(frozen=True, slots=True)
class RecordChange:
    """A record's compare-and-set: `value` None deletes, `expected_revision` 0 creates."""

    name: str
    expected_revision: int
    value: bytes | None


class Catalog(Protocol):
    """One node's memory of tiles and records.

    Every method that writes is one durable transaction: when it returns, the change is on
    disk whole; when it raises, nothing changed. Methods may be called from any thread.

    Raises, from any method:
        ReadOnlyError: a write to a catalog opened read-only, or after a failed fsync.
        StorageFullError: the disk is full; what was written before is intact.
        CorruptDataError: stored bytes do not match their checksum or their format.
    """

    @property
    def directory(self) -> Path: ...
    @property
    def writable(self) -> bool: ...

    def set_nodes(self, nodes: NodesOfSlot | None) -> None:
        """Who rows say holds them, by slot; call it again when the ring changes."""

    def refresh(self) -> None:
        """Takes in what other processes published since; queries do so by themselves."""

    def query(
        self,
        q: Query,
        *,
        batch_rows: int = BATCH_ROWS,
        explain: Explain | None = None,
        after: Cursor | None = None,
        slots: frozenset[int] | None = None,
        missing_ok: bool = False,
    ) -> Iterator[RowBatch]:
        """The matching rows in the order of `geostore.query.order`, as of this call.

        The whole answer is one snapshot: what is published or removed while it is read
        changes nothing in it. `after` resumes behind a cursor of the same sort (`limit`
        then counts from there). With `slots`, only tiles that lie in one of these slots of
        the ring. With `missing_ok`, a dataset that is not here has no tiles here.

        Raises:
            NotFoundError: an unknown dataset; names the known ones. Raised by the call.
            CorruptDataError: with `slots`, a tile whose dataset has no definition here.
        """

    def count(
        self,
        q: Query,
        *,
        explain: Explain | None = None,
        slots: frozenset[int] | None = None,
        missing_ok: bool = False,
    ) -> int:
        """How many rows `query` would give, without making them."""

    def aggregate(
        self,
        q: Query,
        by: SummaryKeys,
        *,
        slots: frozenset[int] | None = None,
        missing_ok: bool = False,
    ) -> Summary:
        """The rows of `query` by groups, without making them.

        Raises:
            NotFoundError: as `query`.
            InvalidInputError: a query with a limit or an order; more groups than a summary
                may have.
        """

    def coverage(
        self,
        q: Query,
        request: CoverageRequest,
        *,
        slots: frozenset[int] | None = None,
        missing_ok: bool = False,
    ) -> CoverageAnswer:
        """What the tiles that match see together, by dataset, cell and window of time.

        Bounds, from bitmaps: no tile file is read. A query's sort and limit play no part. The
        first search reads rows' details, some 10 s for a million; later ones take a second.

        Raises:
            NotFoundError: an unknown dataset.
        """

    def tile(self, key: TileKey) -> TileRow:
        """Raises NotFoundError: no such tile is published."""

    def details(self, key: TileKey) -> TileDetails:
        """Block table, statistics and the like of a published tile.

        Raises:
            NotFoundError: no such tile is published.
        """

    def keys(
        self, dataset_id: str | None = None, scene: str | None = None, version: str | None = None
    ) -> list[TileKey]:
        """Published tiles of a dataset, a scene, or a version of one, sorted."""

    def checksum(self, key: TileKey) -> str | None:
        """The stored checksum of a tile, published or staged; None where it is neither."""

    def stage(self, entries: Sequence[CatalogEntry]) -> list[str]:
        """Makes entries durable but unseen; returns the stored checksum of each.

        A key that is there already, staged or published, is left as it is, and its stored
        checksum is returned.
        """

    def staged(
        self, dataset_id: str | None = None, scene: str | None = None, version: str | None = None
    ) -> list[StagedTile]:
        """What is staged, sorted by key; a `scene` needs a `dataset_id`, a `version` both."""

    def unstage(
        self, dataset_id: str, scene: str | None = None, version: str | None = None
    ) -> list[TileKey]:
        """Forgets staged tiles; returns their keys."""

    def publish(
        self,
        dataset_id: str,
        scene: str,
        version: str,
        replaced_version: str | None = None,
        *,
        cells: Sequence[str] | None = None,
        record: RecordChange | None = None,
    ) -> int:
        """In one transaction: the staged version becomes seen, `replaced_version` goes out.

        Done again, it changes nothing. With `cells`, exactly these must be staged or
        published already, and anything else staged for the version is forgotten. `record`
        is changed in the same transaction. Returns how many tiles of the version are
        published.

        Raises:
            NotFoundError: a cell of `cells` is neither staged nor published.
            ConflictError: `record` is not at its expected revision.
        """

    def insert(self, tiles: PackedTiles) -> int:
        """Publishes tiles that are packed already, in one change; returns how many.

        For the hundred thousand at once: no object a tile is made. About 200 bytes of memory a
        tile on the way, beside the tiles themselves; 10,000 to 100,000 a call are best.

        Raises:
            InvalidInputError: a tile that is there already or comes twice, a cell that is none.
        """

    def remove(
        self,
        dataset_id: str,
        scene: str | None = None,
        version: str | None = None,
        *,
        record: RecordChange | None = None,
    ) -> list[TileKey]:
        """In one transaction: published and staged tiles go; returns the published ones' keys.

        Raises:
            ConflictError: `record` is not at its expected revision.
        """

    def record_get(self, name: str) -> Record | None: ...

    def record_compare_and_set(self, name: str, expected_revision: int, value: bytes | None) -> int:
        """Sets (or, with None, deletes) a record; returns its new revision (0 when deleted).

        `expected_revision` 0 means that it must not exist. Of a dataset's definition its cloud
        rule is in force for all its tiles when this returns.

        Raises:
            ConflictError: the record is at another revision.
        """

    def change_definition(self, change: RecordChange) -> tuple[int, RowIds]:
        """`record_compare_and_set`, which also tells the ids of rows whose cloud cover changed.

        O(tiles of the dataset) where the rule changes, in one transaction: about 10 s and
        100 MB for a million.
        """

    def record_restore(self, name: str, record: Record) -> None:
        """Writes a record that is not there, at the revision that it had elsewhere.

        For a catalog that takes another one's place: whoever remembers revisions goes on.

        Raises:
            ConflictError: there is a record of that name.
        """

    def record_names(self, prefix: str = "") -> list[str]:
        """Names of records that begin with `prefix`, sorted."""

    def schemas(
        self, datasets: Sequence[str] | None = None, *, missing_ok: bool = False
    ) -> list[TileSchema]:
        """The distinct schemas of published tiles (of datasets by name)."""

    def summary(self, *, slots: frozenset[int] | None = None) -> list[DatasetSummary]:
        """Published tiles and bytes (in these slots of the ring) by dataset, sorted by name."""

    def count_in_slots(self, row_ids: RowIds, slots: frozenset[int]) -> int:
        """How many of these rows lie in these slots of the ring."""

    def provider_cover(self, key: TileKey) -> float | None:
        """A tile's cloud cover as its provider's mask has it, whatever the dataset's rule.

        Raises:
            NotFoundError: it is not published.
        """

    def slot_sizes(self) -> SlotSizes:
        """Published tiles and bytes by slot of the ring.

        Raises:
            CorruptDataError: a tile whose dataset has no definition here.
        """

    def rebuild(
        self, published: Iterable[CatalogEntry], staged: Iterable[CatalogEntry] = ()
    ) -> int:
        """Replaces all tiles by these, keeping every record; returns how many are published.

        Until it returns, queries see the old tiles; a crash on the way leaves those.
        """

    def check(self) -> list[str]:
        """Walks the invariants; returns what is wrong, one sentence each, [] if nothing."""

    def close(self) -> None:
        """Gives back what the catalog holds; other catalogs of the same directory go on."""
