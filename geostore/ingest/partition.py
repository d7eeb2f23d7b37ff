"""One cell of a scene: decoded source windows in, an encoded tile out.

Everything here is a pure function of the plan and the source's pixels, so a tile's bytes do
not depend on chunk sizes, threads or memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geostore.compute import (
    band_statistics,
    block_bitmaps,
    cloud_cover,
    cloud_mask,
    likelihood_histogram,
    percent_valid,
    valid_pixels,
)
from geostore.grid import cell_window
from geostore.ingest.plan import CellPlan, Chunk, ScenePlan
from geostore.raster.positions import SourceWindow
from geostore.raster.warp import NearestMap, nearest_map, resample
from geostore.tiles import TilePixels, encode_tile
from geostore.types import BandRole, EncodedTile, TileKey, TileMeta

__all__ = ["ChunkPixels", "describe_cell", "make_tile", "warp_cell"]

_Mask = npt.NDArray[np.bool_]
_Pixels = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class ChunkPixels:
    """A decoded chunk."""

    data: _Pixels
    """(height, width) of the chunk's window."""
    valid: _Mask | None
    """Same shape; None means all valid."""

    @property
    def bytes(self) -> int:
        return self.data.nbytes + (0 if self.valid is None else self.valid.nbytes)


def _slices(
    window: SourceWindow, top: int, left: int, bottom: int, right: int
) -> tuple[slice, slice]:
    """A rectangle of the source as slices of an array that holds `window`."""
    return (
        slice(top - window.row, bottom - window.row),
        slice(left - window.column, right - window.column),
    )


def _assemble(
    plan: ScenePlan, band: int, window: SourceWindow, chunks: Mapping[Chunk, ChunkPixels]
) -> tuple[_Pixels, _Mask | None]:
    """The pixels and validity of a band's source window, put together from chunks."""
    lattice = plan.lattices[plan.bands[band].lattice]
    parts = [
        (part, chunks[Chunk(band, part)]) for part in lattice.chunking.over(lattice.grid, window)
    ]
    data = np.empty((window.height, window.width), parts[0][1].data.dtype)
    valid: _Mask | None = None
    if any(pixels.valid is not None for _, pixels in parts):
        valid = np.ones((window.height, window.width), bool)
    for part, pixels in parts:
        top, left = max(window.row, part.row), max(window.column, part.column)
        bottom = min(window.row + window.height, part.row + part.height)
        right = min(window.column + window.width, part.column + part.width)
        here = _slices(window, top, left, bottom, right)
        there = _slices(part, top, left, bottom, right)
        data[here] = pixels.data[there]
        if valid is not None and pixels.valid is not None:
            valid[here] = pixels.valid[there]
    return data, valid


def warp_cell(plan: ScenePlan, cell: CellPlan, chunks: Mapping[Chunk, ChunkPixels]) -> TilePixels:
    """All bands of one cell on the dataset's lattices, with their validity masks."""
    maps: dict[int, NearestMap | None] = {}
    data: list[list[_Pixels]] = [[] for _ in plan.schema.groups]
    masks: list[list[_Mask | bool]] = [[] for _ in plan.schema.groups]
    for index, band in enumerate(plan.bands):
        layout = plan.schema.groups[band.group]
        lattice = plan.lattices[band.lattice]
        source = cell.windows[band.lattice]
        info = band.band.info
        window = cell_window(
            plan.definition.scheme, cell.geocode, plan.definition.groups[lattice.group]
        )
        pixels: _Pixels | None = None
        mask: _Mask | bool = False
        if source is not None and band.nearest:
            if band.lattice not in maps:
                maps[band.lattice] = nearest_map(
                    window, lattice.grid, source, plan.bounds[band.lattice]
                )
            nearest = maps[band.lattice]
            if nearest is not None:
                raw, valid = _assemble(plan, index, source, chunks)
                mask = nearest.gather_mask(valid)
                if mask is not False:
                    pixels = nearest.gather(raw, info.fill)
        elif source is not None:
            raw, valid = _assemble(plan, index, source, chunks)
            pixels, mask = resample(
                raw, valid, lattice.grid, source, window, plan.definition.resampling, info.fill
            )
        if pixels is None or mask is False:
            pixels = np.full((layout.height, layout.width), info.fill, dtype=info.dtype)
        elif mask is not True:
            # What is not valid is stored as fill: it compresses, and nothing leaks through.
            np.copyto(pixels, np.asarray(info.fill, pixels.dtype), where=~mask)
        data[band.group].append(pixels)
        masks[band.group].append(mask)
    _limit_layers_to_footprint(plan, masks)
    return TilePixels(data, masks)


def _limit_layers_to_footprint(plan: ScenePlan, masks: list[list[_Mask | bool]]) -> None:
    """Layers without a nodata value of their own end where every measured band ends.

    A likelihood layer is 0 outside the swath, not unknown, in its file; counted as valid it
    would dilute cloud histograms and make tiles where the scene saw nothing.
    """
    measured = [
        masks[band.group][band.position]
        for band in plan.bands
        if band.band.info.role is BandRole.DATA
    ]
    if not measured or any(mask is True for mask in measured):
        return
    for band in plan.bands:
        info = band.band.info
        if info.role is BandRole.DATA or info.nodata is not None:
            continue
        layout = plan.schema.groups[band.group]
        seen = _union(measured, (layout.height, layout.width))
        own = masks[band.group][band.position]
        both = seen if own is True else (own if seen is True else _both(own, seen))
        masks[band.group][band.position] = both


def _both(first: _Mask | bool, second: _Mask | bool) -> _Mask | bool:
    if first is False or second is False:
        return False
    together = np.logical_and(first, second)
    return together if together.any() else False


def _union(masks: list[_Mask | bool], shape: tuple[int, int]) -> _Mask | bool:
    """Where any mask is True, on a grid of `shape` (nearest between grids of one cell)."""
    together: _Mask | bool = False
    for mask in masks:
        if isinstance(mask, bool):
            if mask:
                return True
            continue
        if mask.shape != shape:
            rows = (2 * np.arange(shape[0]) + 1) * mask.shape[0] // (2 * shape[0])
            columns = (2 * np.arange(shape[1]) + 1) * mask.shape[1] // (2 * shape[1])
            seen = mask[np.ix_(rows, columns)]
        else:
            seen = mask
        together = seen if together is False else together | seen
    return together


def describe_cell(plan: ScenePlan, cell: CellPlan, pixels: TilePixels) -> TileMeta | None:
    """Coverage, clouds and statistics of a warped cell; None if no band has a valid pixel."""
    if all(mask is False for group in pixels.masks for mask in group):
        return None
    scene, definition = plan.scene, plan.definition
    by_name = {band.band.info.name: band for band in plan.bands}
    data_masks = [
        [
            pixels.masks[at][position]
            for position, info in enumerate(layout.bands)
            if info.role is BandRole.DATA
        ]
        for at, layout in enumerate(plan.schema.groups)
    ]
    if not any(data_masks):
        data_masks = [list(group) for group in pixels.masks]
    finest = (definition.groups[0].height, definition.groups[0].width)
    valid = valid_pixels(data_masks, finest)
    cover: float | None = None
    clear: _Mask | bool | None = None
    cloud_nodata: tuple[int, ...] = ()
    if scene.cloud is not None and scene.cloud.band in by_name:
        band = by_name[scene.cloud.band]
        layer = pixels.data[band.group][band.position]
        known = pixels.masks[band.group][band.position]
        if known is not False:
            unseen = scene.cloud.nodata_values
            if unseen:
                seen = ~np.isin(layer, list(unseen))
                known = seen if known is True else seen & known
            cloud = cloud_mask(layer, scene.cloud)
            cover = cloud_cover(cloud, known)
            clear = None if cover is None else ~cloud if known is True else known & ~cloud
            cloud_nodata = tuple(sorted(unseen - {band.band.info.nodata}))
    histogram = None
    if scene.likelihood_band in by_name:
        band = by_name[scene.likelihood_band]
        histogram = likelihood_histogram(
            pixels.data[band.group][band.position],
            pixels.masks[band.group][band.position],
        )
    return TileMeta(
        key=TileKey(definition.id, scene.id, plan.version, cell.geocode),
        dataset=definition.name,
        definition=plan.definition_json,
        schema=plan.schema,
        time_us=scene.time_us,
        time_end_us=scene.time_end_us,
        platform=scene.platform,
        pixel_coverage=percent_valid(valid),
        cloud_cover=cover,
        cloud_method=scene.cloud.method if scene.cloud is not None and cover is not None else None,
        cloud_histogram=histogram,
        statistics=tuple(
            band_statistics(data, mask)
            for group, group_masks in zip(pixels.data, pixels.masks, strict=True)
            for data, mask in zip(group, group_masks, strict=True)
        ),
        properties=dict(scene.properties),
        bitmaps=block_bitmaps(valid, clear, finest, cloud_nodata=cloud_nodata),
    )


def make_tile(
    plan: ScenePlan, cell: CellPlan, chunks: Mapping[Chunk, ChunkPixels]
) -> EncodedTile | None:
    """One tile, compressed; None where the scene has no valid pixel in the cell."""
    pixels = warp_cell(plan, cell, chunks)
    meta = describe_cell(plan, cell, pixels)
    return None if meta is None else encode_tile(meta, pixels)
