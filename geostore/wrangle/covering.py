"""What tiles of a cell see together, to the pixel: what bitmaps of blocks leave open.

Masks and cloud layers are read as they are stored and decoded here, on the asker's side, as all
pixels are: whatever holds the tiles, an answer comes from the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from geostore.compute import valid_pixels
from geostore.compute.clouds import cloud_mask
from geostore.errors import InvalidInputError
from geostore.query import CoverageAnswer
from geostore.types import BandRole, CloudLayer, CloudRule, TileRow, TileSchema
from geostore.wrangle.clouds import find_cloud_layer
from geostore.wrangle.reading import BandPlan, StoredTile, blocks_of, in_threads, plan_bands

if TYPE_CHECKING:
    from geostore.backends import Backend
    from geostore.types import TileDetails

__all__ = ["Counted", "count_covered"]

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Counted:
    """What was found of one group."""

    pixels: int
    """Of the union of the tiles that were read."""
    is_whole: bool
    """Whether no other tile of the group could add to it."""


def count_covered(
    backend: Backend,
    answer: CoverageAnswer,
    *,
    target: float,
    clear: bool,
    exact: bool,
    workers: int | None = None,
) -> dict[int, Counted]:
    """The pixels that groups' tiles see together, by the group's index; of an answer's members.

    The tiles that promise most are read first. Without `exact` a group is left as soon as it
    reaches the target.

    Raises:
        NotFoundError: a tile was replaced or deleted since; search again.
        CorruptDataError: stored bytes fail their checksum.
    """
    if answer.members is None:
        return {}
    rows = list(answer.members.rows())
    firsts = np.flatnonzero(np.diff(answer.member_group, prepend=-1)).tolist()
    groups = [rows[i:j] for i, j in zip(firsts, [*firsts[1:], len(rows)], strict=True)]
    definitions = {row[0].dataset: backend.dataset(row[0].dataset) for row in groups}

    def count(group: list[TileRow]) -> Counted:
        definition = definitions[group[0].dataset]
        finest = definition.groups[0]
        union = _Union(backend, (finest.height, finest.width), definition.cloud_rule, clear=clear)
        return union.of(group, target=100.0 if exact else target)

    counted = in_threads(count, groups, workers=workers)
    return dict(zip(answer.member_group[firsts].tolist(), counted, strict=True))


class _Union:
    """The pixels of one cell that some tile saw."""

    def __init__(
        self, backend: Backend, shape: tuple[int, int], rule: CloudRule, *, clear: bool
    ) -> None:
        self._backend = backend
        self._shape = shape
        self._rule = rule
        self._clear = clear

    def of(self, rows: Sequence[TileRow], *, target: float) -> Counted:
        """Of tiles, until they are `target` percent together."""
        rows = sorted(rows, key=_promise, reverse=True)
        layers: list[CloudLayer | None] = [None] * len(rows)
        if self._clear:
            told = zip(rows, self._backend.details_of([row.key for row in rows]), strict=True)
            layers = [self._layer(row, details) for row, details in told]
            # Where nothing tells clouds nothing is known to be clear.
            rows = [row for row, layer in zip(rows, layers, strict=True) if layer is not None]
            layers = [layer for layer in layers if layer is not None]
        total = self._shape[0] * self._shape[1]
        union = np.zeros(self._shape, dtype=np.bool_)
        covered = 0
        plans = [_plans(row.schema) for row in rows]
        wanted = (
            (row.key, _wanted(row.schema, bands, layer))
            for row, bands, layer in zip(rows, plans, layers, strict=True)
        )
        reading = self._backend.read_tiles(wanted)
        try:
            for at, blocks in enumerate(reading):
                tile = StoredTile(rows[at], blocks)
                seen = self._seen(tile, plans[at], layers[at])
                if seen is True:
                    return Counted(total, is_whole=True)
                if seen is not False:
                    union |= seen
                    covered = int(np.count_nonzero(union))
                is_last = at + 1 == len(rows)
                if covered == total or (not is_last and 100.0 * covered >= target * total):
                    return Counted(covered, is_whole=covered == total)
        finally:
            reading.close()
        return Counted(covered, is_whole=True)

    def _layer(self, row: TileRow, details: TileDetails) -> CloudLayer | None:
        """What tells the tile's clouds, with its nodata values; None where nothing does."""
        try:
            layer = find_cloud_layer(row, details, self._rule)
        except InvalidInputError:
            return None
        if layer is None or self._rule.method != "provider" or details.bitmaps is None:
            return layer
        return replace(layer, nodata_values=frozenset(details.bitmaps.cloud_nodata))

    def _seen(
        self,
        tile: StoredTile,
        plans: Sequence[BandPlan],
        layer: CloudLayer | None,
    ) -> _Mask | bool:
        """Where the tile is valid in every data band and, with a cloud layer, known to be clear."""
        groups: dict[int, list[_Mask | bool]] = {}
        decoded: set[bytes] = set()
        for plan in plans:
            # Bands of a group mostly share one mask, stored once.
            identity = bytes([plan.group_index]) + tile.mask_identity(plan)
            if identity in decoded:
                continue
            decoded.add(identity)
            mask = tile.valid(plan)
            groups.setdefault(plan.group_index, []).append(True if mask is None else mask)
        valid = valid_pixels(groups.values(), self._shape)
        if layer is None or valid is False:
            return valid
        clear = self._clear_pixels(tile, layer)
        return clear if valid is True else clear & valid

    def _clear_pixels(self, tile: StoredTile, layer: CloudLayer) -> _Mask:
        """Where a cloud layer is known to call no cloud, on the finest grid."""
        (plan,) = plan_bands(tile.schema, (layer.band,))
        values = np.empty(plan.shape, plan.info.dtype)
        tile.data(plan, values)
        clear = ~cloud_mask(values, layer)
        known = tile.valid(plan)
        if known is not None:
            clear &= known
        if layer.nodata_values:
            clear &= ~np.isin(values, list(layer.nodata_values))
        if plan.shape == self._shape:
            return clear
        down, right = self._shape[0] // plan.shape[0], self._shape[1] // plan.shape[1]
        return clear.repeat(down, axis=0).repeat(right, axis=1)


def _promise(row: TileRow) -> tuple[float, str]:
    """How much a tile may add; the scene's name makes the order the same everywhere."""
    cloud = 0.0 if row.cloud_cover is None else row.cloud_cover
    return row.pixel_coverage * (100.0 - cloud), row.scene


def _plans(schema: TileSchema) -> tuple[BandPlan, ...]:
    """The bands that count for pixel coverage: all measured ones, or all where none is."""
    measured = tuple(band.name for band in schema.bands if band.role is BandRole.DATA)
    return plan_bands(schema, measured or None)


def _wanted(schema: TileSchema, plans: Sequence[BandPlan], layer: CloudLayer | None) -> list[int]:
    """Entries of the block table: the masks of bands, and all of the cloud layer."""
    masks = {index: None for plan in plans for index in plan.mask_blocks}
    if layer is not None:
        masks |= dict.fromkeys(blocks_of(plan_bands(schema, (layer.band,))))
    return list(masks)
