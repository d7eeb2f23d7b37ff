"""What an ingest of one scene will do, before a pixel is read.

A plan fixes which band goes into which resolution group, which cells may hold pixels, and
which chunks of which band each cell needs. It is a pure function of the scene's grids and
the dataset's definition.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from geostore.errors import InvalidInputError
from geostore.grid import METRES_PER_DEGREE, Region, cell_window, covering, group_for, scheme
from geostore.raster.footprint import footprint
from geostore.raster.positions import (
    SourceWindow,
    native_pixel_size_m,
    positions,
    source_window,
)
from geostore.raster.source import RasterBand, SourceGrid
from geostore.raster.warp import resample_margin_px
from geostore.scenes import Scene, SceneBand
from geostore.tiles import make_schema
from geostore.types import BandRole, BBox, DatasetDefinition, TileSchema

__all__ = ["CELLS_MAX", "BandPlan", "CellPlan", "Chunk", "Chunking", "ScenePlan", "plan_scene"]

CELLS_MAX = 50_000
"""Default bound on the cells of one scene (`--max-tiles`)."""
TILE_SIDE_MIN_PX = 16
"""Cells that hold fewer source pixels a side than this are refused."""
_QUADTILE_LATITUDE_MAX = 85.0511287798066
_BOXES_MAX = 16


@dataclass(frozen=True, slots=True)
class BandPlan:
    """One stored band: its source and its place in the tile."""

    band: SceneBand
    group: int
    """Index into the schema's groups."""
    position: int
    """Index within the group."""
    lattice: int
    """Index into `ScenePlan.lattices`: bands of one group on one source grid share a warp."""
    nearest: bool
    """Gathered by nearest whatever the dataset's resampling (class and quality bands)."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A block-aligned window of one band: what is decoded at once."""

    band: int
    """Index into `ScenePlan.bands`."""
    window: SourceWindow


@dataclass(frozen=True, slots=True)
class Chunking:
    """How a source grid is cut into chunks: whole source blocks, about `pixels` in each."""

    height: int
    width: int

    @classmethod
    def of(cls, grid: SourceGrid, pixels: int) -> Chunking:
        """Chunks of whole source blocks, so that no block is decoded twice."""
        block_width = min(grid.block_width, grid.width)
        block_height = min(grid.block_height, grid.height)
        across = max(1, math.isqrt(pixels) // block_width)
        width = min(grid.width, block_width * across)
        down = max(1, pixels // (width * block_height))
        return cls(min(grid.height, block_height * down), width)

    def over(self, grid: SourceGrid, window: SourceWindow) -> list[SourceWindow]:
        """The chunks that meet a window, row by row."""
        first_row = window.row - window.row % self.height
        first_column = window.column - window.column % self.width
        return [
            SourceWindow(
                row,
                column,
                min(self.height, grid.height - row),
                min(self.width, grid.width - column),
            )
            for row in range(first_row, window.row + window.height, self.height)
            for column in range(first_column, window.column + window.width, self.width)
        ]


@dataclass(frozen=True, slots=True)
class CellPlan:
    """One cell and the source windows it needs, one a lattice (None where they miss it)."""

    geocode: str
    windows: tuple[SourceWindow | None, ...]


@dataclass(frozen=True, slots=True)
class Lattice:
    """One (resolution group, source grid) pair."""

    group: int
    """Index into the definition's groups."""
    grid: SourceGrid
    chunking: Chunking


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """Everything that is decided before reading pixels."""

    scene: Scene
    definition: DatasetDefinition
    definition_json: dict[str, Any]
    """The definition as its tiles keep it."""
    version: str
    schema: TileSchema
    schema_groups: tuple[int, ...]
    """For each group of the schema its index in the definition (groups without bands drop)."""
    bands: tuple[BandPlan, ...]
    lattices: tuple[Lattice, ...]
    bounds: tuple[tuple[BBox, ...], ...]
    """For each lattice boxes that hold all of its source raster."""
    cells: tuple[CellPlan, ...]
    """In the order of the source's rows, so that chunks can be let go early."""

    @property
    def stacks(self) -> list[tuple[int, ...]]:
        """Bands, by their index, that are decoded together: of one pixel-interleaved file."""
        found: dict[object, list[int]] = {}
        for index, plan in enumerate(self.bands):
            source = plan.band.source
            stack = source.stack if isinstance(source, RasterBand) else None
            key = (index,) if stack is None else (id(stack), plan.lattice)
            found.setdefault(key, []).append(index)
        return [tuple(bands) for bands in found.values()]

    @property
    def geocodes(self) -> tuple[str, ...]:
        return tuple(sorted(cell.geocode for cell in self.cells))

    def chunks(self, cell: CellPlan) -> list[Chunk]:
        """What must be decoded before the cell can be warped."""
        found = []
        for index, band in enumerate(self.bands):
            window = cell.windows[band.lattice]
            if window is not None:
                lattice = self.lattices[band.lattice]
                found += [
                    Chunk(index, part) for part in lattice.chunking.over(lattice.grid, window)
                ]
        return found

    @property
    def oversampling(self) -> float:
        """Lattice pixels a source pixel, in the finest stored group, at the scene's middle."""
        lattice = self.lattices[0]
        middle = self.cells[len(self.cells) // 2].geocode
        group = self.definition.groups[lattice.group]
        window = cell_window(self.definition.scheme, middle, group)
        columns, rows = positions(window, lattice.grid)
        corners = ((0, 0), (0, -1), (-1, -1), (-1, 0))
        x = [float(columns[corner]) for corner in corners]
        y = [float(rows[corner]) for corner in corners]
        # Shoelace formula: source pixels between the centres of the four corner pixels.
        twice = abs(sum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(4)))
        return 2.0 * (window.height - 1) * (window.width - 1) / twice if twice > 0 else 1.0


def scene_version(scene: Scene, definition: DatasetDefinition) -> str:
    """The version of a scene's tiles: its source's content and all that shapes pixels."""
    text = f"{scene.fingerprint}:{definition.pixel_fingerprint()}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def native_resolution_m(band: SceneBand) -> float:
    """A band's own pixel size in metres (shorter side)."""
    if band.info.native_resolution_m is not None:
        return band.info.native_resolution_m
    return native_pixel_size_m(band.source.grid)


def stored_bands(scene: Scene) -> list[SceneBand]:
    """The scene's bands that go into tiles: all but previews."""
    return [band for band in scene.bands if band.info.role is not BandRole.PREVIEW]


def _refuse_tiny_tiles(bands: Iterable[SceneBand], definition: DatasetDefinition) -> None:
    finest = min(native_resolution_m(band) for band in bands)
    columns, rows = scheme(definition.scheme).grid_size(definition.length or 1)
    # Quadtiles are square at the equator; geohash cells may be twice as wide as high.
    degrees = 360.0 / columns
    if definition.scheme == "geohash":
        degrees = min(degrees, 180.0 / rows)
    side = degrees * METRES_PER_DEGREE / finest
    if side < TILE_SIDE_MIN_PX:
        raise InvalidInputError(
            f"a cell of length {definition.length} would hold {side:.1f} source pixels a side"
            f" (pixels of {finest:.6g} m), expected at least {TILE_SIDE_MIN_PX}: choose a"
            " shorter --length or another dataset with its own --resolution"
        )


def _cells(
    scene: Scene, regions: Iterable[Region], definition: DatasetDefinition, cells_max: int
) -> list[str]:
    if definition.length is None:
        raise InvalidInputError(f"dataset {definition.name!r} has no cell length yet")
    found: set[str] = set()
    for region in regions:
        if definition.scheme == "quadtile" and any(
            max(abs(box.south), abs(box.north)) > _QUADTILE_LATITUDE_MAX for box in region.bboxes
        ):
            raise InvalidInputError(
                f"{scene.path}: the scene reaches beyond ±85.0511° latitude, where quadtiles"
                " end; use a dataset with --scheme geohash"
            )
        try:
            found.update(
                covering(scheme(definition.scheme), region, definition.length, cells_max=cells_max)
            )
        except InvalidInputError:
            raise InvalidInputError(
                f"{scene.path}: the scene covers more than {cells_max:,} cells of"
                f" {definition.scheme} length {definition.length}: raise --max-tiles, or choose"
                f" a shorter --length or a coarser --resolution"
            ) from None
    return sorted(found)


def plan_scene(
    scene: Scene,
    definition: DatasetDefinition,
    *,
    cells_max: int = CELLS_MAX,
    chunk_px: int = 1 << 20,
) -> ScenePlan:
    """Plan the partition of a scene into the dataset's cells.

    Args:
        definition: complete (`DatasetDefinition.is_complete`).
        cells_max: refuse scenes that could make more tiles.
        chunk_px: about how many pixels of a band are decoded at once; changes memory and
            speed, never a stored byte.

    Raises:
        InvalidInputError: a band finer than all groups, too many or too small tiles, a scene
            beyond the scheme's reach.
    """
    bands = stored_bands(scene)
    if not bands:
        raise InvalidInputError(f"{scene.path}: the scene has no band to store")
    _refuse_tiny_tiles(bands, definition)
    grouped: dict[int, list[SceneBand]] = {}
    for band in bands:
        grouped.setdefault(group_for(definition.groups, native_resolution_m(band)), []).append(band)
    schema_groups = tuple(sorted(grouped))
    schema = make_schema(
        definition.scheme,
        definition.length or 0,
        definition.codec,
        [
            (definition.groups[index], [band.info for band in grouped[index]])
            for index in schema_groups
        ],
    )
    lattices: list[Lattice] = []
    plans: list[BandPlan] = []
    for at, index in enumerate(schema_groups):
        for position, band in enumerate(grouped[index]):
            lattice = Lattice(index, band.source.grid, Chunking.of(band.source.grid, chunk_px))
            if lattice not in lattices:
                lattices.append(lattice)
            nearest = definition.resampling == "nearest" or band.info.role is not BandRole.DATA
            plans.append(BandPlan(band, at, position, lattices.index(lattice), nearest))
    regions: dict[tuple[object, ...], Region] = {}
    for lattice in lattices:
        extent = _extent_of(lattice.grid)
        if extent not in regions:
            regions[extent] = footprint(lattice.grid)
    codes = _cells(scene, regions.values(), definition, cells_max)
    margins = [
        any(not plan.nearest for plan in plans if plan.lattice == index)
        for index in range(len(lattices))
    ]
    cells = []
    for code in codes:
        windows = tuple(
            _window(definition, code, lattice, kernel)
            for lattice, kernel in zip(lattices, margins, strict=True)
        )
        if any(window is not None for window in windows):
            cells.append(CellPlan(code, windows))
    cells.sort(key=_source_order)
    return ScenePlan(
        scene=scene,
        definition=definition,
        definition_json=definition.to_json(),
        version=scene_version(scene, definition),
        schema=schema,
        schema_groups=schema_groups,
        bands=tuple(plans),
        lattices=tuple(lattices),
        bounds=tuple(_bounds(regions[_extent_of(lattice.grid)]) for lattice in lattices),
        cells=tuple(cells),
    )


def _bounds(region: Region) -> tuple[BBox, ...]:
    """Boxes that hold the region; all of the globe where it would take many."""
    boxes = region.bboxes
    return boxes if len(boxes) <= _BOXES_MAX else (BBox(-180.0, -90.0, 180.0, 90.0),)


def _extent_of(grid: SourceGrid) -> tuple[object, ...]:
    """Grids of one extent (10, 20 and 60 m of one granule) have one footprint."""
    a, b, c, d, e, f = grid.transform
    return (
        grid.crs_wkt,
        grid.control,
        c,
        f,
        round(c + a * grid.width + b * grid.height, 6),
        round(f + d * grid.width + e * grid.height, 6),
    )


def _source_order(cell: CellPlan) -> tuple[float, float, str]:
    window = next(window for window in cell.windows if window is not None)
    return (window.row + window.height / 2, window.column, cell.geocode)


def _window(
    definition: DatasetDefinition, geocode: str, lattice: Lattice, kernel: bool
) -> SourceWindow | None:
    target = cell_window(definition.scheme, geocode, definition.groups[lattice.group])
    window = source_window(target, lattice.grid)
    if window is None or not kernel:
        return window
    margin = resample_margin_px(target, window)
    row, column = max(0, window.row - margin), max(0, window.column - margin)
    return SourceWindow(
        row,
        column,
        min(lattice.grid.height, window.row + window.height + margin) - row,
        min(lattice.grid.width, window.column + window.width + margin) - column,
    )
