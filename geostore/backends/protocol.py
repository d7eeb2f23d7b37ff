"""What a store must be able to do, whether it is a directory or a cluster.

The rooms above speak to nothing else. Calls may come from any thread.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from geostore.types.scene import WritingTurn

if TYPE_CHECKING:
    import pyarrow as pa

    from geostore.node import Progress, StoreStatus, VerifyReport
    from geostore.query import (
        CoverageAnswer,
        CoverageRequest,
        Explain,
        Query,
        Summary,
        SummaryKeys,
    )
    from geostore.types import (
        DatasetDefinition,
        EncodedTile,
        RowBatch,
        SceneRecord,
        TileBlocks,
        TileDetails,
        TileKey,
    )

__all__ = ["Backend"]


@runtime_checkable
class Backend(Protocol):
    """A store behind one face.

    A scene is written in three acts: `begin_scene`, any number of `put_tiles` (durable, but
    seen by no query), `commit_scene`. Until the last one returns, and after `abort_scene`,
    the store answers as if the scene's attempt had not been.
    """

    @property
    def name(self) -> str:
        """The target as a user would write it."""
        ...

    @property
    def takes_many_writers(self) -> bool:
        """Whether any number of processes may write at the same time."""
        ...

    def holders(self, slot: int) -> list[tuple[str, str]]:
        """Who holds a slot: each node's name and directory or address, first replica first."""
        ...

    def datasets(self) -> list[DatasetDefinition]:
        """All datasets, by name."""
        ...

    def dataset(self, name: str) -> DatasetDefinition:
        """Raises NotFoundError, which names the known ones."""
        ...

    def create_dataset(self, definition: DatasetDefinition) -> None:
        """Raises ConflictError if the name is taken or the id was ever used."""
        ...

    def replace_dataset(self, old: DatasetDefinition, new: DatasetDefinition) -> int:
        """Completes a definition or changes its cloud rule (its id and name stay).

        Returns how many tiles have another cloud cover by that. All tiles have the rule's when
        it returns; in a cluster, those of each node from one moment on.

        Raises:
            ConflictError: the stored definition is not `old`: read it again.
            NotFoundError: there is no such dataset.
        """
        ...

    def delete_dataset(self, name: str) -> int:
        """Removes a dataset with all its scenes and returns how many tiles it had.

        Raises NotFoundError. Interrupted, it is finished by the next writer.
        """
        ...

    def writing_turns(self) -> AbstractContextManager[WritingTurn]:
        """Entered for as long as an ingest runs; what it gives is entered for each scene.

        Ingests of several processes on one directory take turns so; in a cluster nobody has
        to wait. The function that a turn takes is called while it waits, to give up.
        """
        ...

    def begin_scene(
        self,
        definition: DatasetDefinition,
        scene: str,
        version: str,
        cells: Sequence[str],
        *,
        replace: bool = False,
        path: str = "",
        reader: str = "",
    ) -> SceneRecord | None:
        """Opens an attempt at a scene; `cells` are all that it may put.

        Returns the record, or None when that very version is published already ("unchanged").
        Beginning again with the same version goes on with what was put.

        Raises:
            ConflictError: another version is published and `replace` is false; the dataset's
                definition was changed or is not complete.
            NotFoundError: the dataset is not there (any more).
        """
        ...

    def put_tiles(self, tiles: Sequence[EncodedTile]) -> list[str]:
        """Stores a batch of tiles of begun scenes, unseen, and returns their checksums.

        Durable when it returns, all or none. A tile whose key is there already is
        acknowledged with the checksum stored with it.

        Raises:
            ConflictError: no attempt at that scene and version is under way.
            StorageFullError: nothing of the batch was kept.
        """
        ...

    def commit_scene(
        self,
        dataset_id: str,
        scene: str,
        version: str,
        cells: Sequence[str],
        *,
        bytes_total: int,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """Decides the attempt and shows it to every query; a replaced version goes.

        `cells`: exactly those whose tiles were put. When it returns, every later query sees
        the whole scene. Calling it again is harmless.

        Raises:
            ConflictError: the attempt was aborted, or tiles of `cells` were never put.
        """
        ...

    def abort_scene(self, dataset_id: str, scene: str, version: str) -> None:
        """Gives the attempt up and clears what it left; harmless where there is none.

        An attempt that is committed already is finished instead.
        """
        ...

    def scene_record(self, dataset_id: str, scene: str) -> SceneRecord | None:
        """The scene's record; None where nothing was ever begun."""
        ...

    def query(self, query: Query, explain: Explain | None = None) -> Iterator[RowBatch]:
        """Matching published tiles, in batches, in the query's order."""
        ...

    def query_arrow(self, query: Query) -> Iterator[pa.RecordBatch]:
        """The same rows, in the same order, as Arrow record batches (`Selection.to_arrow`).

        Raises:
            MissingDependencyError: pyarrow is not installed.
        """
        ...

    def count(self, query: Query) -> int:
        """How many tiles match (at most the query's limit)."""
        ...

    def summary(self, query: Query, by: SummaryKeys) -> Summary:
        """The matching tiles by groups, added up where they lie.

        Raises:
            InvalidInputError: a query with a limit or an order; more groups than a summary
                may have.
        """
        ...

    def coverage(self, query: Query, request: CoverageRequest) -> CoverageAnswer:
        """What matching tiles see together, by dataset, cell and window: bounds, from bitmaps.

        No tile file is read. The query's sort and limit play no part.
        """
        ...

    def details(self, key: TileKey) -> TileDetails:
        """A tile's block table, statistics and properties. Raises NotFoundError."""
        ...

    def details_of(self, keys: Sequence[TileKey]) -> list[TileDetails]:
        """The details of many tiles, in order, with few calls. Raises NotFoundError."""
        ...

    def read_blocks(self, key: TileKey, indices: Sequence[int]) -> list[memoryview | None]:
        """The stored (compressed) bytes of blocks of a tile's block table.

        One entry an index, in order; None for a uniform block, whose value the table gives.
        The caller owns the memory. Neighbouring blocks are fetched together. Bytes are as
        stored: whoever decodes them checks their checksums.

        Raises:
            NotFoundError: no such tile, or it was replaced or deleted since it was queried.
            CorruptDataError: its file is missing or cut short.
            InvalidInputError: an index beyond the block table.
        """
        ...

    def read_tiles(
        self, wanted: Iterable[tuple[TileKey, Sequence[int]]]
    ) -> Generator[TileBlocks, None, None]:
        """Blocks of many tiles, in the order asked: `read_blocks` for long lists.

        Reads a bounded number of tiles ahead of the caller; closing the iterator ends that.
        `wanted` is taken as it goes on. Raises as `read_blocks`, in the place of the tile.
        """
        ...

    def status(self) -> StoreStatus:
        """Sizes and state."""
        ...

    def verify(self, progress: Progress | None = None, *, rebuild: bool = False) -> VerifyReport:
        """Reads and checks everything; with `rebuild`, makes the catalog anew from the files."""
        ...

    def close(self) -> None:
        """Releases files and the writer lock; harmless when closed."""
        ...
