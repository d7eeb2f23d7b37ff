"""A query's lazy result, and all the ways out of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from html import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from geostore.api import keywords
from geostore.api.tile import Names, Tile
from geostore.errors import NotFoundError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import xarray as xr

    from geostore.api.summary import SummaryTable
    from geostore.backends import Backend
    from geostore.query import Explain, Query
    from geostore.tensors import Chunks, ExportFormat, GroupBy
    from geostore.types import RowBatch, TileRow
    from geostore.wrangle import BandPlan, Fetched, Mosaic, TileArray

__all__ = ["PathLike", "Selection"]

PathLike: TypeAlias = "str | os.PathLike[str]"


class Selection:
    """A query's lazy result: nothing is asked until it is counted, iterated or read.

    Every use asks the store again, and sees what is published then.
    """

    def __init__(self, backend: Backend, query: Query) -> None:
        self._backend = backend
        self._query = query

    @property
    def asked(self) -> Query:
        """The query as a value."""
        return self._query

    def _batches(self, explain: Explain | None = None) -> Iterator[RowBatch]:
        """Matching rows, in order. A query for bands that nothing has is an error."""
        empty = True
        for batch in self._backend.query(self._query, explain):
            empty = empty and not len(batch)
            yield batch
        if empty:
            keywords.check_bands_known(self._backend, self._query)

    def _arrow_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows as Arrow has them, without an object a row where nothing must look at them."""
        empty = True
        for batch in self._backend.query_arrow(self._query):
            empty = empty and not batch.num_rows
            yield batch
        if empty:
            keywords.check_bands_known(self._backend, self._query)

    def _rows(self) -> Iterator[TileRow]:
        for batch in self._batches():
            yield from batch.rows()

    def __iter__(self) -> Iterator[Tile]:
        """Tiles as the answer streams in, by default in order of time, dataset, geocode, scene."""
        for row in self._rows():
            yield Tile(self._backend, row)

    def count(self) -> int:
        """How many tiles match now (at most `limit`)."""
        total = self._backend.count(self._query)
        if not total:
            keywords.check_bands_known(self._backend, self._query)
        return total

    def summary(self, by: str | Sequence[str] = "dataset") -> SummaryTable:
        """The tiles by groups: how many, how large, how cloudy, and when. No row is moved.

        Each node adds up its own tiles, and a cluster's answer is that of one node, to the last
        bit.

        Args:
            by: `dataset`, `year`, `month`, `day`, `platform`, `scene`, `geocode:N` (the first
                N digits of the cell's geocode), or several of them. A tile counts in the month,
                year and day (UTC) in which its time begins, also where that is an interval;
                where it is unknown, in the group None.

        Raises:
            InvalidInputError: an unknown key; a selection with a limit or an order; more than
                250,000 groups.
        """
        from geostore.api.summary import SummaryTable
        from geostore.query import check_summarised, keys_from

        keys = keys_from(by)
        check_summarised(self._query)
        summary = self._backend.summary(self._query, keys)
        if not len(summary):
            keywords.check_bands_known(self._backend, self._query)
        return SummaryTable(summary)

    def first(self) -> Tile:
        """The first tile.

        Raises:
            NotFoundError: nothing matches.
        """
        for tile in self:
            return tile
        raise NotFoundError(f"no tile matches {self!r}")

    def explain(self) -> Explain:
        """How the store answers: runs the query and says what it looked at, and how long.

        `.to_text()` for people, `.to_json()` for programs.
        """
        from geostore.query import Explain

        explain = Explain()
        for _ in self._batches(explain):
            pass
        return explain

    def to_pandas(self) -> pd.DataFrame:
        """One row a tile, with the fields of a tile as columns (times UTC-aware).

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        from geostore.tensors import to_pandas

        return to_pandas(self._batches())

    def to_arrow(self) -> pa.Table:
        """The same as a pyarrow Table.

        Raises:
            MissingDependencyError: pyarrow is not installed.
        """
        from geostore.tensors import to_arrow

        return to_arrow(self._arrow_batches())

    def to_xarray(
        self,
        bands: Names | None = None,
        resolution: float | None = None,
        *,
        groupby: GroupBy = "time",
        chunks: Chunks | None = None,
        cloud_mask: bool = False,
        harmonize: bool = False,
        reflectance: bool = False,
        masks: bool = False,
        memory_limit: int | None = None,
        **unknown: object,
    ) -> xr.Dataset:
        """The selection as a cube: one variable a band, dimensions time, y, x.

        Whole cells are laid out on their common lattice, with pixel-centre coordinates and a
        `spatial_ref` that `.rio` and `.odc` read. x goes on past the antimeridian where the
        cells cross it. Pixels that no tile has hold the band's nodata (attribute `nodata`;
        NaN of floats; 0 where the band has none: then `masks=True` tells). Where several
        tiles of one time step and cell have a pixel, the first valid one in the selection's
        order is taken: sort by `cloud` for the clearest. `scale` and `offset` are attributes
        that nothing applies by itself.

        Args:
            bands: provider's or common names; all where left out.
            resolution: metres; the finest group among the bands where left out.
            groupby: what shares a time step: `time` one start time, `solar_day` one day at
                the scene's longitude, `scene` one scene, `mosaic` everything.
            chunks: read when computed (dask); sizes by dimension in time steps and pixels,
                -1 for all, left out: one time step, one cell. None reads now.
            cloud_mask, harmonize, reflectance: as in `Tile.read`.
            masks: add a boolean variable `BAND_valid` for each band.
            memory_limit: bytes that reading now may take; a quarter of the memory by default.

        Raises:
            InvalidInputError: nothing matches; over the memory limit (names chunks=); tiles
                of several lattices; numbers that differ in scale or offset.
            NotFoundError: an unknown band.
            MissingDependencyError: xarray or dask is not installed.
        """
        from geostore.tensors import to_xarray
        from geostore.wrangle import Radiometry, parse_bands

        keywords.refuse(unknown, Selection.to_xarray)
        return to_xarray(
            self._backend,
            list(self._rows()),
            bands=parse_bands(bands),
            resolution=resolution,
            groupby=groupby,
            chunks=chunks,
            radiometry=Radiometry(harmonize=harmonize, reflectance=reflectance),
            cloud_mask=cloud_mask,
            masks=masks,
            memory_limit=memory_limit,
        )

    def read(
        self,
        bands: Names | None = None,
        resolution: float | None = None,
        *,
        cloud_mask: bool = False,
        harmonize: bool = False,
        reflectance: bool = False,
        workers: int | None = None,
        **unknown: object,
    ) -> Iterator[tuple[Tile, TileArray]]:
        """Every tile with its pixels, in order, read by threads a little ahead of the caller.

        Arguments as of `Tile.read`; `workers` threads (twice the processors by default).

        Raises:
            InvalidInputError: a name that means different bands on the selection's platforms.
        """
        from geostore.wrangle import (
            BandNames,
            in_threads,
            parse_bands,
            plan_bands,
            read_ahead,
            read_tile,
        )

        keywords.refuse(unknown, Selection.read)
        names = parse_bands(bands)
        seen = BandNames(names or ())

        def read(ahead: tuple[TileRow, Fetched]) -> tuple[Tile, TileArray]:
            row, fetched = ahead
            return Tile(self._backend, row), read_tile(
                self._backend,
                row,
                names,
                resolution,
                cloud_mask=cloud_mask,
                harmonize=harmonize,
                reflectance=reflectance,
                fetched=fetched,
            )

        def plan(row: TileRow) -> tuple[TileRow, Sequence[BandPlan]]:
            seen.see(row)
            return row, plan_bands(row.schema, names)

        ahead = read_ahead(self._backend, self._rows(), plan, cloud_mask=cloud_mask)
        return in_threads(read, ahead, workers=workers)

    def mosaic(
        self,
        bands: Names | None = None,
        resolution: float | None = None,
        *,
        cloud_mask: bool = False,
        harmonize: bool = False,
        reflectance: bool = False,
        **unknown: object,
    ) -> Mosaic:
        """All tiles laid out as one raster, the first valid pixel in the selection's order.

        Nothing is read yet: `.read()` gives one array in memory, `.blocks()` cell by cell.
        """
        from geostore.wrangle import Mosaic, Radiometry, parse_bands

        keywords.refuse(unknown, Selection.mosaic)
        return Mosaic(
            self._backend,
            self._rows(),
            bands=parse_bands(bands),
            resolution=resolution,
            radiometry=Radiometry(harmonize=harmonize, reflectance=reflectance),
            cloud_mask=cloud_mask,
        )

    def export(
        self,
        out: PathLike,
        *,
        format: ExportFormat = "cog",  # noqa: A002 - the word that users know
        mosaic: bool = False,
        bands: Names | None = None,
        resolution: float | None = None,
        cloud_mask: bool = False,
        harmonize: bool = False,
        reflectance: bool = False,
        groupby: GroupBy = "time",
        overwrite: bool = False,
        progress: Callable[[int, int], None] | None = None,
        **unknown: object,
    ) -> list[Path]:
        """Writes the selection's pixels to files and returns their paths.

        `cog`: a cloud-optimized GeoTIFF a tile in the directory `out`, or with `mosaic` the
        one file `out`. `npy`: a directory with an array, its mask and a JSON of what they
        are, a tile or one for the mosaic. `zarr`: a Zarr version 2 group of the cube that
        `to_xarray(groupby=...)` gives.

        Written beside `out` and renamed when whole. What is there already is an error unless
        `overwrite`; a directory that no export made is never overwritten. `progress` is
        called with (done, total).

        Raises:
            ConflictError: `out` is there.
            InvalidInputError: nothing matches, or as in `to_xarray`.
            StorageFullError: the disk is full; nothing is left behind.
        """
        from geostore.tensors import export
        from geostore.wrangle import Radiometry, parse_bands

        keywords.refuse(unknown, Selection.export)
        return export(
            self._backend,
            list(self._rows()),
            Path(out),
            format=format,
            mosaic=mosaic,
            bands=parse_bands(bands),
            resolution=resolution,
            radiometry=Radiometry(harmonize=harmonize, reflectance=reflectance),
            cloud_mask=cloud_mask,
            groupby=groupby,
            overwrite=overwrite,
            progress=progress,
        )

    @cached_property
    def _predicates(self) -> dict[str, str]:
        found = dict(self._query.predicates())
        if self._query.sort is not None:
            found["sort"] = self._query.sort
        if self._query.limit is not None:
            found["limit"] = str(self._query.limit)
        return found

    def __repr__(self) -> str:
        # No count: a repr must not ask a store.
        parts = [f"{name} {text}" for name, text in self._predicates.items()]
        return f"Selection({'; '.join(parts) or 'all tiles'})"

    def _repr_html_(self) -> str:
        """For notebooks: the predicates and the first few tiles."""
        tiles = list(islice(self, 6))
        rows = "".join(
            f"<tr><td>{escape(keywords.time_text(tile.time) or '')}</td>"
            f"<td>{escape(tile.dataset)}</td><td>{escape(tile.geocode)}</td>"
            f"<td>{tile.pixel_coverage:.1f}</td>"
            f"<td>{'' if tile.cloud_cover is None else f'{tile.cloud_cover:.1f}'}</td></tr>"
            for tile in tiles[:5]
        )
        more = "<p>and more</p>" if len(tiles) > 5 else ""
        return (
            f"<p>{escape(repr(self))}</p><table><tr><th>time</th><th>dataset</th>"
            f"<th>geocode</th><th>coverage %</th><th>cloud %</th></tr>{rows}</table>{more}"
        )
