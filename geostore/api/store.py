"""What a user opens: scenes in, selections out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from geostore.api import keywords
from geostore.api.selection import PathLike, Selection
from geostore.api.tile import Names
from geostore.errors import InvalidInputError

if TYPE_CHECKING:
    from threading import Event

    from geostore.api.coverage import Coverage
    from geostore.api.placement import NodeShare, Placement
    from geostore.api.reclouding import RecloudReport
    from geostore.api.summary import SummaryTable
    from geostore.backends import Backend
    from geostore.node import StoreStatus, VerifyReport
    from geostore.query import Expression, SortKey
    from geostore.scenes import Remote
    from geostore.types import (
        BBox,
        Codec,
        DatasetDefinition,
        IngestProgress,
        Resampling,
        SceneResult,
        SchemeName,
    )

__all__ = ["Store"]


def _remote(cache: PathLike | None, cache_bytes: int | None) -> Remote:
    from geostore.scenes import Remote

    return Remote.of(os.environ, directory=cache, bytes_max=cache_bytes)


class Store:
    """A store of tiles. Close it, or use it as a context manager; safe to share by threads."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def name(self) -> str:
        """The target it was opened by."""
        return self._backend.name

    # ------------------------------------------------------------ datasets

    def create_dataset(
        self,
        name: str,
        *,
        scheme: SchemeName | None = None,
        length: int | None = None,
        placement: int | None = None,
        resolution: float | Sequence[float] | None = None,
        resampling: Resampling | None = None,
        codec: Codec | None = None,
        like: str | None = None,
        **unknown: object,
    ) -> DatasetDefinition:
        """Fixes a dataset's scheme, cell length, placement length and resolution groups.

        Args:
            name: letters, digits, `.`, `_`, `-`.
            scheme: `geohash` (default; EPSG:4326) or `quadtile` (EPSG:3857).
            length: characters of a cell's geocode.
            placement: leading characters that decide where tiles lie.
            resolution: pixel sizes of the groups, metres.
            resampling: how scenes are warped; `nearest` by default.
            codec: `fast` (default) or `small`.
            like: a reader whose defaults to take. Without `like` and `resolution` the first
                scene decides.

        Raises:
            ConflictError: the name is taken.
            InvalidInputError: a value that cannot be; NotFoundError: an unknown reader.
        """
        from geostore.ingest import DatasetRequest, define

        keywords.refuse(unknown, Store.create_dataset)
        request = DatasetRequest(
            scheme=keywords.choice("scheme", scheme, ("geohash", "quadtile")),
            length=keywords.whole("length", length),
            placement=keywords.whole("placement", placement),
            resolutions_m=keywords.resolutions(resolution),
            resampling=resampling,
            codec=keywords.choice("codec", codec, ("fast", "small")),
        )
        definition = define(name, request, keywords.reader(like) if like is not None else None)
        self._backend.create_dataset(definition)
        return definition

    def datasets(self) -> list[DatasetDefinition]:
        """All datasets, by name."""
        return self._backend.datasets()

    def dataset(self, name: str) -> DatasetDefinition:
        """One dataset. Raises NotFoundError, which names the known ones."""
        keywords.check_datasets_known(self._backend, (name,))
        return self._backend.dataset(name)

    def delete_dataset(self, name: str) -> int:
        """Deletes a dataset with all its tiles; returns how many it had."""
        keywords.check_datasets_known(self._backend, (name,))
        return self._backend.delete_dataset(name)

    def recloud(
        self,
        name: str,
        *,
        threshold: int | None = None,
        method: Literal["provider"] | None = None,
        **unknown: object,
    ) -> RecloudReport:
        """Changes what a dataset calls cloud; every tile's `cloud_cover` follows.

        From what was counted at ingest: neither files nor scenes are read, and the provider's
        own covers stay known, to the last bit. Queries that run meanwhile see each node's
        tiles under one rule, the old or the new.

        Args:
            name: the dataset.
            threshold: cloud is what has a likelihood of at least so many percent, 0 to 100.
                A tile without a likelihood then has no cloud cover: nothing can tell.
            method: `provider`: cloud is what the product's own mask says.

        Raises:
            NotFoundError: no such dataset. InvalidInputError: neither or both of the two.
        """
        from geostore.api.reclouding import recloud, rule_of

        keywords.refuse(unknown, Store.recloud)
        keywords.check_datasets_known(self._backend, (name,))
        return recloud(self._backend, name, rule_of(threshold, method))

    # ------------------------------------------------------------ in

    def ingest(
        self,
        paths: PathLike | Iterable[PathLike],
        *,
        progress: bool | Callable[[IngestProgress], None] = False,
        **options: Any,
    ) -> list[SceneResult]:
        """Puts scenes into the store; one result a scene, in order.

        A scene that fails says so in its result and leaves the store as it was; the others
        go on. A scene whose very source is there already is `unchanged`.

        Args:
            paths: files, directories, archives or globs.
            progress: True shows it on stderr; or a function called with each step.
            options: those of `ingest_each`.
        """
        if progress is not True:
            return list(self.ingest_each(paths, progress=progress or None, **options))
        with keywords.shown_progress() as show:
            return list(self.ingest_each(paths, progress=show, **options))

    def ingest_each(
        self,
        paths: PathLike | Iterable[PathLike],
        *,
        dataset: str | None = None,
        reader: str | None = None,
        scheme: SchemeName | None = None,
        length: int | None = None,
        resolution: float | Sequence[float] | None = None,
        max_tiles: int | None = None,
        workers: int | None = None,
        replace: bool = False,
        dry_run: bool = False,
        time: Any = None,
        memory_bytes: int | None = None,
        clouds: str | None = None,
        executor: str = "threads",
        named_outright: bool = True,
        cache: PathLike | None = None,
        cache_bytes: int | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
        **unknown: object,
    ) -> Iterator[SceneResult]:
        """`ingest`, one result at a time; several scenes are in work at once.

        Args:
            paths: files, directories, archives or globs.
            dataset: where to; by default the dataset named as the reader. Created where it
                does not exist, with the reader's defaults and `scheme`, `length`, `resolution`.
            reader: its name; found from the content by default.
            scheme, length, resolution: of a dataset that is created; an error where they
                contradict one that exists.
            max_tiles: refuse scenes that could make more (50,000).
            workers: threads; as many as processors by default.
            replace: put another version of a scene in place of the one that is there.
            dry_run: plan only; results are `planned`.
            time: the time of rasters that do not say theirs; as in `query`.
            memory_bytes: about how much to hold at once; a quarter of the machine by default.
            clouds: a detector whose cloud likelihood is added where it has the bands
                (`s2cloudless`: Sentinel-2 L1C).
            executor: `threads`, `dask` (a Dask cluster on this machine) or `dask://HOST:PORT`.
            named_outright: whether a path that no reader claims is an error, or is skipped.
            cache: where what was fetched from addresses is kept; `~/.cache/geostore` or what
                `$GEOSTORE_CACHE` or `$XDG_CACHE_HOME` say by default.
            cache_bytes: how much of it to keep; 20 GiB by default.

        Raises:
            NotFoundError: a path that is not there. InvalidInputError: a bad value.
            StorageFullError: the disk is full. StoreLockedError: another process writes.
        """
        from geostore.ingest import DatasetRequest, ingest

        keywords.refuse(unknown, Store.ingest_each)
        if reader is not None:
            keywords.reader(reader)
        optional: dict[str, Any] = {
            "cells_max": keywords.whole("max_tiles", max_tiles),
            "workers": keywords.whole("workers", workers),
            "memory_bytes": keywords.whole("memory_bytes", memory_bytes),
        }
        listed = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        return ingest(
            self._backend,
            listed,
            dataset=dataset,
            reader=reader,
            request=DatasetRequest(
                scheme=keywords.choice("scheme", scheme, ("geohash", "quadtile")),
                length=keywords.whole("length", length),
                resolutions_m=keywords.resolutions(resolution),
            ),
            replace=replace,
            dry_run=dry_run,
            time_span=keywords.time_span(time),
            clouds=clouds,
            executor=executor,
            named_outright=named_outright,
            remote=lambda: _remote(cache, keywords.whole("cache_bytes", cache_bytes)),
            progress=progress,
            **{name: value for name, value in optional.items() if value is not None},
        )

    def watch(
        self,
        directory: PathLike,
        *,
        settle_s: float = 5.0,
        poll_s: float = 1.0,
        stop: Event | None = None,
        **options: Any,
    ) -> Iterator[SceneResult]:
        """Ingests what lies in a directory and what arrives there; ends when told to.

        An entry is a file or a product's directory. It is taken when it has looked the same
        for `settle_s` seconds, and again when it changed; what no reader claims is `skipped`.
        Of what was ingested before, by this or another process, results say `unchanged`.

        Args:
            directory: watched by looking again and again, so that network file systems work.
            settle_s: how long a copy under way may pause.
            poll_s: seconds between two looks.
            stop: set by another thread or a signal; scenes under way are ended first.
            options: those of `ingest_each`.

        Raises:
            InvalidInputError: not a directory; or as `ingest_each`.
        """
        import threading
        from time import monotonic

        from geostore.ingest import Arrivals, look

        if settle_s < 0 or poll_s <= 0:
            raise InvalidInputError(
                f"watch: settle_s {settle_s}, poll_s {poll_s}: expected seconds"
            )
        stop = stop or threading.Event()
        arrivals = Arrivals(settle_s)
        while not stop.is_set():
            arrived = arrivals.take(look(Path(directory)), monotonic())
            for path in arrived:
                if stop.is_set():
                    return
                yield from self.ingest_each([path], named_outright=False, **options)
            if not arrived:
                stop.wait(poll_s)

    # ------------------------------------------------------------ out

    def query(
        self,
        *,
        dataset: Names | None = None,
        bbox: BBox | Sequence[float] | str | None = None,
        geometry: Mapping[str, Any] | PathLike | object | None = None,
        geocode: str | None = None,
        recursive: bool = True,
        time: Any = None,
        cloud_cover: Any = None,
        pixel_coverage: Any = None,
        bands: Names | None = None,
        platform: str | None = None,
        scene: str | None = None,
        where: Expression | None = None,
        filter: Mapping[str, Any] | str | None = None,  # noqa: A002 - the word of STAC's search
        sort: SortKey | None = None,
        limit: int | None = None,
        **unknown: object,
    ) -> Selection:
        """Tiles for which all predicates given hold; nothing is asked yet.

        Args:
            dataset: a name, or several.
            bbox: (west, south, east, north) in degrees; west > east crosses the antimeridian.
            geometry: a GeoJSON mapping, an object with `__geo_interface__` (shapely), or the
                path of a GeoJSON file.
            geocode: all cells under it; with `recursive=False` that cell only.
            time: `2016-01`, `2016-01-12/2016-02`, a date, a datetime (naive: UTC), or a
                pair of them, None for open; the span includes both ends.
            cloud_cover: (minimum, maximum) percent, None for open. Unknown never matches.
            pixel_coverage: the same.
            bands: the tile has all of them.
            platform: as in the tiles.
            scene: a scene's id.
            where: what else must be true, with and, or, not: see `geostore.where`.
            filter: the same as a CQL2 filter, JSON or its text.
            sort: `time`, `cloud` or `coverage`, with `-` before it descending.
            limit: at most so many tiles.

        Raises:
            NotFoundError: an unknown dataset; names the known ones.
            InvalidInputError: a value that can never match, or an unknown keyword.
        """
        keywords.refuse(unknown, Store.query)
        query = keywords.predicates(
            dataset=dataset,
            bbox=bbox,
            geometry=geometry,
            geocode=geocode,
            recursive=recursive,
            time=time,
            cloud_cover=cloud_cover,
            pixel_coverage=pixel_coverage,
            bands=bands,
            platform=platform,
            scene=scene,
        )
        query = replace(query, where=keywords.where(where, filter), sort=sort, limit=limit)
        if query.datasets is not None:
            keywords.check_datasets_known(self._backend, query.datasets)
        if query.where is not None:
            keywords.check_where_known(self._backend, query.where)
        return Selection(self._backend, query)

    def summary(self, by: str | Sequence[str] = "dataset", **predicates: Any) -> SummaryTable:
        """What tiles there are, by groups, without moving their rows.

        `store.summary("month", dataset="s2")` is `store.query(dataset="s2").summary("month")`.

        Args:
            by: what groups have in common: see `Selection.summary`.
            predicates: those of `query`; neither `sort` nor `limit`.

        Raises:
            InvalidInputError, NotFoundError: as `query` and `Selection.summary`.
        """
        return self.query(**predicates).summary(by)

    def coverage(
        self,
        *,
        target: float = 95,
        window: str | None = "16D",
        origin: Any = None,
        max_cloud: float | None = None,
        clear: bool = False,
        exact: bool = False,
        refine: bool = True,
        dataset: Names | None = None,
        bbox: BBox | Sequence[float] | str | None = None,
        geometry: Mapping[str, Any] | PathLike | object | None = None,
        geocode: str | None = None,
        recursive: bool = True,
        time: Any = None,
        cloud_cover: Any = None,
        pixel_coverage: Any = None,
        bands: Names | None = None,
        platform: str | None = None,
        scene: str | None = None,
        where: Expression | None = None,
        filter: Mapping[str, Any] | str | None = None,  # noqa: A002 - as in `query`
        **unknown: object,
    ) -> Coverage:
        """What the tiles of each cell see together, window by window, and where that is enough.

        A group is the tiles of one dataset in one cell whose start lies in one window. Bounds of
        what they see together come from bitmaps of 16 x 16 blocks that each tile has; only where
        these leave the target open masks are read, and only until it is reached.

        Args:
            target: percent of a cell's pixels.
            window: `16D`, `8D`, `12h`, `2W`, calendar months (`1M`) or years (`1Y`); None: all
                tiles of a cell together, those without time too.
            origin: where a window begins, a date or a datetime; 1970-01-01 by default. Months and
                years are counted from its month.
            max_cloud: take tiles of at most so much cloud cover, percent; unknown is left out.
            clear: only pixels count that are known to be no cloud, by the dataset's cloud rule.
            exact: read the masks of every group: `coverage` is the very number.
            refine: False reads nothing: `reached` is None where bounds leave it open.

        Which tiles: `dataset`, `bbox`, `geometry`, `geocode`, `recursive`, `time`, `cloud_cover`,
        `pixel_coverage`, `bands`, `platform`, `scene`, `where` and `filter`, as in `query`.

        Raises:
            NotFoundError: an unknown dataset, or a tile that was replaced meanwhile.
            InvalidInputError: a value that cannot be, or an unknown keyword.
        """
        from geostore.api.coverage import Coverage
        from geostore.query import CoverageRequest, Windows, with_cloud_at_most
        from geostore.wrangle import count_covered

        keywords.refuse(unknown, Store.coverage)
        selection = self.query(
            dataset=dataset,
            bbox=bbox,
            geometry=geometry,
            geocode=geocode,
            recursive=recursive,
            time=time,
            cloud_cover=cloud_cover,
            pixel_coverage=pixel_coverage,
            bands=bands,
            platform=platform,
            scene=scene,
            where=where,
            filter=filter,
        )
        query = with_cloud_at_most(selection.asked, max_cloud)
        since = None if origin is None else keywords.time_span(origin)
        origin_us = 0 if since is None or since.start_us is None else since.start_us
        request = CoverageRequest(
            target=target,
            windows=None if window is None else Windows.parse(window, origin_us),
            clear=clear,
            members="all" if exact else "unsure" if refine else "none",
        )
        answer = self._backend.coverage(query, request)
        counted = count_covered(self._backend, answer, target=target, clear=clear, exact=exact)
        return Coverage(answer.groups, counted, target)

    # ------------------------------------------------------------ care

    def status(self) -> StoreStatus:
        """Sizes and state: datasets, tiles, bytes, nodes."""
        return self._backend.status()

    def verify(
        self, *, rebuild: bool = False, progress: Callable[..., None] | None = None
    ) -> VerifyReport:
        """Reads and checks every file and record; `rebuild` makes the catalog anew from files."""
        return self._backend.verify(progress, rebuild=rebuild)

    def ring(self) -> list[NodeShare]:
        """The nodes, by name, and what each holds; an embedded store is one that owns every slot.

        `path` is an embedded store's directory, a cluster node's address.
        """
        from geostore.api.placement import EMBEDDED_NODE, NodeShare, in_order_of_names
        from geostore.ring import SLOTS_TOTAL

        state = self.status()
        if state.nodes:
            return [
                NodeShare(
                    node=node.name,
                    state=node.state,
                    path=node.address,
                    slots=node.slots,
                    slots_first=node.slots_first,
                    slots_used=node.slots_used,
                    tiles=node.tiles,
                    bytes=node.bytes,
                )
                for node in sorted(state.nodes, key=in_order_of_names)
            ]
        return [
            NodeShare(
                node=EMBEDDED_NODE,
                state="serving",
                path=state.path,
                slots=SLOTS_TOTAL,
                slots_first=SLOTS_TOTAL,
                slots_used=state.slots_used,
                tiles=state.tiles,
                bytes=state.bytes,
            )
        ]

    def slot_owners(self) -> list[str]:
        """For each of the ring's 4096 slots, the name of the node that is its first replica."""
        from geostore.ring import SLOTS_TOTAL

        return [self._backend.holders(slot)[0][0] for slot in range(SLOTS_TOTAL)]

    def locate(self, dataset: str, geocode: str) -> Placement:
        """Placement key, slot, node and directory of a geocode's tiles.

        Raises:
            NotFoundError: an unknown dataset.
            InvalidInputError: not a geocode of its cells, or too short to name one slot.
        """
        from geostore.api.placement import locate

        return locate(
            self.dataset(dataset),
            geocode,
            holders=self._backend.holders,
            count=lambda code: self.query(dataset=dataset, geocode=code).count(),
        )

    def close(self) -> None:
        """Releases files and the writer lock. Closing twice is harmless."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({self.name!r})"
