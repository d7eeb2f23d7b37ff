"""Many tiles as one array: the selection laid out on the lattice, read window by window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from geostore.errors import InvalidInputError, NotFoundError
from geostore.types import BandInfo, ResolutionGroup, TileRow
from geostore.wrangle.band_names import check_band_names
from geostore.wrangle.fetching import read_ahead
from geostore.wrangle.lattice import Extent, cell_group, check_resolution
from geostore.wrangle.radiometry import (
    AS_STORED,
    Radiometry,
    check_same_meaning,
    common_dtype,
)
from geostore.wrangle.reading import (
    BandPlan,
    Fetched,
    Planes,
    TileArray,
    in_threads,
    plan_bands,
    read_into,
    unknown_name,
)

if TYPE_CHECKING:
    from geostore.backends import Backend

__all__ = ["CellReader", "Layer", "Mosaic", "Window", "layers_of"]

_Array = npt.NDArray[Any]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One band over many tiles."""

    name: str
    """As asked for."""
    infos: tuple[BandInfo, ...]
    """The different definitions that tiles have of it; the first tile's first."""
    dtype: np.dtype[Any]
    """What a read gives."""
    fill: float | int
    """What pixels hold that no tile has: nodata, NaN of floats without nodata, else 0."""

    @property
    def info(self) -> BandInfo:
        return self.infos[0]

    @property
    def nodata(self) -> float | int | None:
        """The value that stands for "nothing here" in the layer's array, if one does."""
        if self.dtype.kind == "f" and self.info.nodata is None:
            return float("nan")
        return float("nan") if np.isnan(self.fill) else self.info.nodata


def layers_of(
    rows: Sequence[TileRow], names: tuple[str, ...] | None, radiometry: Radiometry
) -> tuple[Layer, ...]:
    """The bands to read, over all tiles; in stored order, first seen first, for None.

    A tile that lacks a band has no valid pixel of it.

    Raises:
        NotFoundError: a band that no tile has.
        InvalidInputError: a name means different bands on different platforms, tiles differ in
            a band's scale, offset or nodata, or no dtype holds all.
    """
    schemas = {row.schema.digest: row.schema for row in rows}.values()
    if names is None:
        names = tuple(dict.fromkeys(band.name for schema in schemas for band in schema.bands))
    check_band_names(rows, names)
    layers = []
    for name in names:
        infos: list[BandInfo] = []
        for schema in schemas:
            position = schema.find_band(name)
            if position is not None:
                info = schema.groups[position[0]].bands[position[1]]
                if info not in infos:
                    infos.append(info)
        if not infos:
            known = {known for schema in schemas for known in schema.names}
            raise NotFoundError(unknown_name("band", name, known))
        layers.append(_layer(name, tuple(infos), radiometry))
    return tuple(layers)


def _layer(name: str, infos: tuple[BandInfo, ...], radiometry: Radiometry) -> Layer:
    check_same_meaning(name, infos, radiometry)
    dtype = common_dtype({radiometry.dtype(info) for info in infos}, f"band {name!r}: the tiles")
    nodata = {str(info.nodata): info.nodata for info in infos}
    if len(nodata) > 1 and not radiometry.reflectance:
        raise InvalidInputError(
            f"band {name!r}: the tiles' nodata differ ({', '.join(nodata)}), so one array cannot"
            " say where it is valid: select one dataset, or use reflectance=True"
        )
    fill: float | int = infos[0].fill
    if radiometry.reflectance or (dtype.kind == "f" and infos[0].nodata is None):
        fill = float("nan")
    return Layer(name=name, infos=infos, dtype=dtype, fill=fill)


def one_lattice(rows: Sequence[TileRow]) -> None:
    """Checks that tiles lie on one lattice.

    Raises:
        InvalidInputError: none, or tiles of several schemes or cell lengths.
    """
    if not rows:
        raise InvalidInputError("the selection is empty: no tile matches the query")
    lattices = sorted({(row.schema.scheme, row.schema.length) for row in rows})
    if len(lattices) > 1:
        shown = ", ".join(f"{scheme} {length}" for scheme, length in lattices)
        datasets = ", ".join(sorted({row.dataset for row in rows}))
        raise InvalidInputError(
            f"the selection's tiles lie on different lattices ({shown}; datasets {datasets}):"
            " select datasets of one scheme and length"
        )


def common_group(
    backend: Backend,
    rows: Sequence[TileRow],
    layers: Sequence[Layer],
    resolution: float | None,
) -> ResolutionGroup:
    """The cell shape in which all tiles are read.

    Without `resolution` the finest group that stores any of the layers in any tile. With
    it, the finest shape that any of the datasets gives it.
    """
    found: list[ResolutionGroup] = []
    if resolution is None:
        for schema in {row.schema.digest: row.schema for row in rows}.values():
            for layer in layers:
                position = schema.find_band(layer.name)
                if position is not None:
                    group = schema.groups[position[0]]
                    found.append(ResolutionGroup(group.resolution_m, group.height, group.width))
    else:
        wanted = check_resolution(resolution)
        found = [
            cell_group(backend.dataset(name).groups, wanted)
            for name in sorted({row.dataset for row in rows})
        ]
    return max(found, key=lambda group: (group.height * group.width, -group.resolution_m))


@dataclass(frozen=True, slots=True, kw_only=True)
class CellReader:
    """Reads the tiles of one cell over each other: the first valid pixel wins."""

    backend: Backend
    layers: tuple[Layer, ...]
    group: ResolutionGroup
    radiometry: Radiometry = AS_STORED
    cloud_mask: bool = False

    def plans(self, row: TileRow) -> list[BandPlan]:
        """Where a tile has those of the layers that it has."""
        found: list[BandPlan] = []
        for layer in self.layers:
            if row.schema.find_band(layer.name) is not None:
                found += plan_bands(row.schema, (layer.name,))
        return found

    def read(
        self,
        rows: Sequence[TileRow],
        outs: Planes,
        masks: Planes,
        *,
        first: Fetched | None = None,
    ) -> None:
        """The tiles `rows` (of one cell, in order of precedence) into `outs` and `masks`.

        Every pixel of `outs` is written: what no tile has becomes the layer's fill.

        Args:
            rows: at least one tile.
            outs: one (height, width) array a layer, the layer's dtype, any strides.
            masks: one bool array a layer, of the same shape.
            first: the blocks of the first tile, where they were fetched ahead. The others
                are read only where it leaves pixels open.
        """
        self._read_one(rows[0], outs, masks, first)
        for row in rows[1:]:
            if all(mask.all() for mask in masks):
                break
            shape = (self.group.height, self.group.width)
            under = [np.empty(shape, layer.dtype) for layer in self.layers]
            valid = [np.empty(shape, np.bool_) for _ in self.layers]
            self._read_one(row, under, valid)
            for out, mask, other, known in zip(outs, masks, under, valid, strict=True):
                np.logical_and(known, ~mask, out=known)
                np.copyto(out, other, where=known)
                np.logical_or(mask, known, out=mask)

    def _read_one(
        self, row: TileRow, outs: Planes, masks: Planes, fetched: Fetched | None = None
    ) -> None:
        plans = self.plans(row)
        present: list[int] = []
        for index, layer in enumerate(self.layers):
            if row.schema.find_band(layer.name) is None:
                masks[index][...] = False
            else:
                present.append(index)
        if plans:
            read_into(
                self.backend,
                row,
                plans,
                [outs[index] for index in present],
                [masks[index] for index in present],
                radiometry=self.radiometry,
                cloud_mask=self.cloud_mask,
                avoid=[self.layers[index].nodata for index in present],
                fetched=fetched,
            )
        for layer, out, mask in zip(self.layers, outs, masks, strict=True):
            # Without its mask, an array is only right if invalid pixels hold the fill.
            if not mask.all():
                out[~mask] = layer.fill


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of whole cells of a mosaic, in pixels."""

    row: int
    column: int
    height: int
    width: int


class Mosaic:
    """The tiles of a selection as one array of bands, never held whole.

    Where several tiles of a cell have a pixel, the first in the selection's order that is
    valid wins: sort a query by `cloud` for the clearest, by `-time` for the newest.

    Args:
        backend: where the tiles are.
        rows: the selection, in order.
        bands: names; None for all.
        resolution: metres; None for the finest group among the bands.
        radiometry: what to do to the numbers.
        cloud_mask: leave out what the dataset calls cloud.

    Raises:
        InvalidInputError: an empty selection, tiles that do not share a lattice, or bands
            that do not go together.
        NotFoundError: an unknown band.
    """

    def __init__(
        self,
        backend: Backend,
        rows: Iterable[TileRow],
        *,
        bands: tuple[str, ...] | None = None,
        resolution: float | None = None,
        radiometry: Radiometry = AS_STORED,
        cloud_mask: bool = False,
    ) -> None:
        selection = list(rows)
        one_lattice(selection)
        self.layers = layers_of(selection, bands, radiometry)
        group = common_group(backend, selection, self.layers, resolution)
        self.dtype = common_dtype({layer.dtype for layer in self.layers}, "the bands")
        schema = selection[0].schema
        self._cells: dict[str, list[TileRow]] = {}
        for row in selection:
            self._cells.setdefault(row.geocode, []).append(row)
        self.extent = Extent.of_cells(schema.scheme, schema.length, group, self._cells)
        self._reader = CellReader(
            backend=backend,
            layers=self.layers,
            group=group,
            radiometry=radiometry,
            cloud_mask=cloud_mask,
        )

    @property
    def bands(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width)."""
        return (len(self.layers), *self.extent.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array, its mask not counted."""
        bands, height, width = self.shape
        return bands * height * width * self.dtype.itemsize

    @property
    def crs(self) -> str:
        return self.extent.crs

    @property
    def transform(self) -> Affine:
        return self.extent.transform

    @property
    def cells(self) -> tuple[str, ...]:
        """Geocodes of the cells that have a tile."""
        return tuple(self._cells)

    def window(self, geocode: str) -> Window:
        """Where a cell lies."""
        place = self.extent.window(geocode)
        group = self.extent.group
        return Window(place.row, place.column, group.height, group.width)

    def plans(self, row: TileRow) -> list[BandPlan]:
        """Which bands of one of its tiles the mosaic reads."""
        return self._reader.plans(row)

    def blocks(
        self, *, workers: int | None = None, fetched: Fetched | None = None
    ) -> Iterator[tuple[Window, _Array, _Mask]]:
        """The cells that have a tile, row by row: (window, data, mask).

        `data` is (bands, height, width) of `dtype`, `mask` the same shape. A few cells are
        held at a time, whatever the mosaic's size. `fetched`: the blocks of a mosaic's only
        tile, where they were fetched ahead.
        """
        group = self.extent.group
        shape = (len(self.layers), group.height, group.width)

        def read(cell: tuple[str, Fetched]) -> tuple[Window, _Array, _Mask]:
            geocode, first = cell
            mask = np.empty(shape, np.bool_)
            window = self.window(geocode)
            if {layer.dtype for layer in self.layers} == {self.dtype}:
                data = np.empty(shape, self.dtype)
                self._reader.read(self._cells[geocode], data, mask, first=first)
                return window, data, mask
            parts = [np.empty(shape[1:], layer.dtype) for layer in self.layers]
            self._reader.read(self._cells[geocode], parts, mask, first=first)
            return window, np.stack(parts, dtype=self.dtype, casting="safe"), mask

        order = sorted(self._cells, key=lambda code: _row_then_column(self.window(code)))
        cells = self._fetched(order) if fetched is None else [(order[0], fetched)]
        return in_threads(read, cells, workers=workers)

    def _fetched(self, geocodes: Sequence[str]) -> Iterator[tuple[str, Fetched]]:
        """Cells with the blocks of their first tiles."""
        reader = self._reader

        def first_tile(geocode: str) -> tuple[TileRow, list[BandPlan]]:
            row = self._cells[geocode][0]
            return row, reader.plans(row)

        return read_ahead(reader.backend, geocodes, first_tile, cloud_mask=reader.cloud_mask)

    def read(self, *, workers: int | None = None) -> TileArray:
        """The whole mosaic in memory; `nbytes` says how much that is."""
        data = np.empty(self.shape, self.dtype)
        for band, layer in zip(data, self.layers, strict=True):
            band[...] = layer.fill
        mask = np.zeros(self.shape, np.bool_)
        for window, block, valid in self.blocks(workers=workers):
            rows = slice(window.row, window.row + window.height)
            columns = slice(window.column, window.column + window.width)
            data[:, rows, columns] = block
            mask[:, rows, columns] = valid
        return TileArray(
            data=data, mask=mask, crs=self.crs, transform=self.transform, bands=self.bands
        )


def _row_then_column(window: Window) -> tuple[int, int]:
    return window.row, window.column
