"""Tiles as values: their identity, their layout of blocks, and what the catalog knows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Self
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.types.bitmaps import BlockBitmaps
from geostore.types.dataset import Codec, SchemeName
from geostore.types.geo import datetime_from_us
from geostore.types.plain import plain_fields

__all__ = [
    "BLOCK_DTYPE",
    "NULL_TIME",
    "TILE_FIELDS",
    "BandInfo",
    "BandRole",
    "BandStatistics",
    "BitField",
    "EncodedTile",
    "GroupLayout",
    "RowBatch",
    "TileBlocks",
    "TileDetails",
    "TileKey",
    "TileMeta",
    "TileRow",
    "TileSchema",
]

NULL_TIME = np.iinfo(np.int64).min
"""The int64 that stands for "no time known" in time columns (numpy's NaT)."""

BLOCK_DTYPE = np.dtype([("offset", "<u8"), ("length", "<u4"), ("fill", "<u4"), ("checksum", "<u8")])
"""One entry of a tile's block table.

`offset`, `length`: the compressed block's bytes in the tile file. `checksum`: XXH3-64 of
those bytes. `length == 0` means that the block is not stored because it is uniform: a data
block is all `BandInfo.fill`; a mask block is all `fill` (1 = valid, 0 = not).
"""


TILE_FIELDS = (
    "dataset",
    "geocode",
    "scene",
    "time",
    "time_end",
    "platform",
    "bands",
    "pixel_coverage",
    "cloud_cover",
    "bbox",
    "bytes",
    "nodes",
)
"""What a listing says of a tile, in the order of the jsonl line."""


class BandRole(StrEnum):
    """What a band's numbers are: decides coverage, resampling and statistics."""

    DATA = "data"
    """Measured; counts for pixel coverage."""
    QUALITY = "quality"
    """Per-pixel quality or auxiliary (AOT, WVP, QA bits); always nearest."""
    CLASS = "class"
    """Class codes (SCL, land cover); always nearest."""
    LIKELIHOOD = "likelihood"
    """Cloud likelihood in percent, uint8."""
    PREVIEW = "preview"
    """A picture for people (TCI): not stored."""


@dataclass(frozen=True, slots=True)
class BitField:
    """Some neighbouring bits of a quality band, as in STAC's classification extension."""

    name: str
    """`cloud_confidence`."""
    offset: int
    """The lowest bit; 0 is the least."""
    length: int = 1
    """How many bits."""
    classes: dict[str, str] = field(default_factory=dict)
    """The bits' number (as text) to its meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandInfo:
    """One band as its provider defines it. Radiometry is metadata, never applied at rest."""

    name: str
    """The provider's name (`B04`)."""
    common_name: str | None = None
    """STAC common name (`red`), where there is one."""
    aliases: tuple[str, ...] = ()
    """Further common names that fit (`nir` for the only band there, which is a `nir08`)."""
    dtype: str
    """numpy name: `uint16`."""
    nodata: float | int | None = None
    role: BandRole = BandRole.DATA
    scale: float = 1.0
    """physical = stored * scale + offset."""
    offset: float = 0.0
    unit: str | None = None
    description: str | None = None
    native_resolution_m: float | None = None
    """Pixel size of the source, metres."""
    class_names: dict[str, str] = field(default_factory=dict)
    """Class code (as text) to name, for class bands."""
    class_colors: dict[str, str] = field(default_factory=dict)
    """Class code (as text) to `#rrggbb`, where the provider gives colours."""
    bitfields: tuple[BitField, ...] = ()
    """What the bits of a quality band mean."""

    def __post_init__(self) -> None:
        try:
            dtype = np.dtype(self.dtype)
        except TypeError:
            raise InvalidInputError(
                f"band {self.name!r}: dtype {self.dtype!r} is not a numpy type"
            ) from None
        if dtype.kind not in "iuf" or dtype.itemsize > 8 or dtype.name == "float16":
            raise InvalidInputError(
                f"band {self.name!r}: dtype {self.dtype} cannot be stored; expected an integer"
                " of 8 to 64 bits, float32 or float64"
            )

    @property
    def fill(self) -> float | int:
        """The stored value of pixels that no source pixel covers: nodata, else 0."""
        return 0 if self.nodata is None else self.nodata


def _same_band(value: dict[str, Any]) -> BandInfo:
    value = dict(value)
    value["role"] = BandRole(value["role"])
    if isinstance(value.get("nodata"), str):
        value["nodata"] = float(value["nodata"])
    value["bitfields"] = tuple(BitField(**one) for one in value.get("bitfields", ()))
    value["aliases"] = tuple(value.get("aliases", ()))
    return BandInfo(**value)


def _plain_band(band: BandInfo) -> dict[str, Any]:
    value = plain_fields(band)
    value["role"] = str(band.role)
    if isinstance(band.nodata, float) and not math.isfinite(band.nodata):
        value["nodata"] = str(band.nodata)
    value["bitfields"] = [plain_fields(one) for one in band.bitfields]
    for name in _LATER_FIELDS:
        if not value[name]:
            del value[name]
    return value


_LATER_FIELDS = ("class_colors", "bitfields", "aliases")
"""Left out of JSON where empty, so that schemas written before they were keep their digest."""


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """One resolution group of a tile: shape, blocks, bands in stored order."""

    name: str
    resolution_m: float
    height: int
    width: int
    block_height: int
    block_width: int
    bands: tuple[BandInfo, ...]

    @property
    def blocks_per_band(self) -> int:
        return math.ceil(self.height / self.block_height) * math.ceil(self.width / self.block_width)


@dataclass(frozen=True)
class TileSchema:
    """How a tile's blocks are laid out; shared (interned) by the tiles of a scene.

    The block table of a tile has, for each group in order, for each band in order, the
    band's data blocks (row-major), and then, again for each group and band, its mask
    blocks: `2 * sum(bands * blocks_per_band)` entries of BLOCK_DTYPE.
    """

    scheme: SchemeName
    length: int
    codec: Codec
    groups: tuple[GroupLayout, ...]

    @cached_property
    def digest(self) -> str:
        """Hex digest that identifies the schema (first 16 bytes of SHA-256)."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def shared(self) -> TileSchema:
        """The one object that stands for all equal schemas in this process, while it lives.

        Rows of several nodes then have the same object in their schema column, and whoever
        asks once an object asks once.
        """
        return _SHARED.setdefault(self.digest, self)

    @cached_property
    def data_blocks_total(self) -> int:
        """Entries in the data half of the block table (masks have as many again)."""
        return sum(group.blocks_per_band * len(group.bands) for group in self.groups)

    @cached_property
    def bands(self) -> tuple[BandInfo, ...]:
        """All bands, in stored order."""
        return tuple(band for group in self.groups for band in group.bands)

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name, provider's or common, that a band of this schema answers to."""
        return frozenset(self._positions)

    @cached_property
    def _positions(self) -> dict[str, tuple[int, int]]:
        kinds: tuple[dict[str, tuple[int, int]], ...] = ({}, {}, {})
        for group_index, group in enumerate(self.groups):
            for band_index, band in enumerate(group.bands):
                place = (group_index, band_index)
                kinds[2][band.name] = place
                if band.common_name:
                    kinds[1].setdefault(band.common_name, place)
                for alias in band.aliases:
                    kinds[0].setdefault(alias, place)
        aliases, common_names, names = kinds
        return aliases | common_names | names  # the provider's names win

    def find_band(self, name: str) -> tuple[int, int] | None:
        """(group index, band index within the group) of a band by either name."""
        return self._positions.get(name)

    def block_range(self, group_index: int, band_index: int, *, mask: bool = False) -> range:
        """Which entries of the block table hold a band's data (or mask) blocks."""
        start = self.data_blocks_total if mask else 0
        for group in self.groups[:group_index]:
            start += group.blocks_per_band * len(group.bands)
        group = self.groups[group_index]
        start += group.blocks_per_band * band_index
        return range(start, start + group.blocks_per_band)

    def to_json(self) -> dict[str, Any]:
        groups = [
            {**plain_fields(group), "bands": [_plain_band(band) for band in group.bands]}
            for group in self.groups
        ]
        return {**plain_fields(self), "groups": groups}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        groups = tuple(
            GroupLayout(**{**group, "bands": tuple(_same_band(band) for band in group["bands"])})
            for group in value["groups"]
        )
        return cls(value["scheme"], value["length"], value["codec"], groups)


_SHARED: WeakValueDictionary[str, TileSchema] = WeakValueDictionary()


@dataclass(frozen=True, slots=True, order=True)
class TileKey:
    """What identifies a tile for ever: tiles are immutable."""

    dataset_id: str
    scene: str
    version: str
    geocode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BandStatistics:
    """Over a band's valid pixels in one tile; None where it has none. Percentiles are exact
    order statistics (nearest rank).
    """

    minimum: float | None
    maximum: float | None
    mean: float | None
    p01: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TileMeta:
    """All that a tile file says of itself besides pixels; the catalog row is made from it."""

    key: TileKey
    dataset: str
    """The dataset's name when the tile was made."""
    definition: dict[str, Any]
    """The dataset's definition (`DatasetDefinition.to_json`): lets files alone rebuild a store."""
    schema: TileSchema
    time_us: int | None
    time_end_us: int | None
    platform: str | None
    pixel_coverage: float
    """Percent of finest-grid pixels valid in every data band; float32."""
    cloud_cover: float | None
    """Percent; None where nothing can tell."""
    cloud_method: str | None
    """How cloud_cover was told (`SCL 8,9,10`)."""
    cloud_histogram: tuple[int, ...] | None
    """101 pixel counts by cloud likelihood in percent, over its non-nodata pixels."""
    statistics: tuple[BandStatistics, ...]
    """One a band, in the schema's band order."""
    properties: dict[str, Any] = field(default_factory=dict)
    """The scene's own metadata (product id, baseline, ...), JSON-able."""
    bitmaps: BlockBitmaps | None = None
    """Which blocks of the cell it saw; None in tiles from before there were bitmaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedTile:
    """A tile as it will lie on disk: compressed once, never touched again."""

    meta: TileMeta
    payload: bytes
    """The whole tile file."""
    checksum: str
    """XXH3-128 of the payload, hex: the put's acknowledgement."""
    blocks: npt.NDArray[np.void]
    """The block table (BLOCK_DTYPE)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileDetails:
    """What is known of a tile beyond its row."""

    key: TileKey
    blocks: npt.NDArray[np.void]
    """The block table (BLOCK_DTYPE), read-only."""
    statistics: tuple[BandStatistics, ...]
    """One a band, in the schema's band order."""
    cloud_histogram: tuple[int, ...] | None
    """101 pixel counts by cloud likelihood in percent."""
    cloud_method: str | None
    """How the row's cover was told when this was asked for: it changes with the dataset's rule."""
    provider_method: str | None
    """How the provider tells cloud in this tile, whatever the rule; None where it does not."""
    checksum: str
    """XXH3-128 of the tile file, hex."""
    bytes: int
    """Size of the tile file."""
    properties: dict[str, Any]
    """The scene's own metadata; shared with the scene's other tiles, not to be changed."""
    bitmaps: BlockBitmaps | None = None
    """Which blocks of the cell it saw; None where nobody told."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TileBlocks:
    """Some of a tile's blocks as stored, with what it takes to decode them."""

    key: TileKey
    indices: tuple[int, ...]
    """Entries of the tile's block table."""
    data: tuple[memoryview | None, ...]
    """One an index; None: a uniform block. The receiver owns the memory."""
    table: npt.NDArray[np.void]
    """One entry an index (BLOCK_DTYPE); where a node told them, offsets are 0."""

    def entries(self, wanted: range) -> tuple[tuple[memoryview | None, ...], npt.NDArray[np.void]]:
        """(data, table) of neighbouring entries of the block table, which were asked for so."""
        start = self.indices.index(wanted.start)
        stop = start + len(wanted)
        assert self.indices[start:stop] == tuple(wanted), "blocks of a band are asked together"
        return self.data[start:stop], self.table[start:stop]


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRow:
    """One tile as a query answers it."""

    row_id: int
    """Opaque, local to the node that answered."""
    key: TileKey
    dataset: str
    schema: TileSchema
    time: datetime | None
    time_end: datetime | None
    platform: str | None
    pixel_coverage: float
    cloud_cover: float | None
    bytes: int
    nodes: tuple[str, ...]

    @property
    def geocode(self) -> str:
        return self.key.geocode

    @property
    def scene(self) -> str:
        return self.key.scene

    @property
    def bands(self) -> tuple[str, ...]:
        return tuple(band.name for band in self.schema.bands)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBatch:
    """Rows as columns of one length `n`: the catalog, the wire and users' tables speak this.

    Object columns hold interned Python values; arrays are owned by the receiver and must not
    be written to.
    """

    row_id: npt.NDArray[np.int64]
    dataset_id: npt.NDArray[np.object_]
    dataset: npt.NDArray[np.object_]
    geocode: npt.NDArray[np.object_]
    scene: npt.NDArray[np.object_]
    version: npt.NDArray[np.object_]
    schema: npt.NDArray[np.object_]
    """TileSchema objects."""
    platform: npt.NDArray[np.object_]
    """str or None."""
    time_us: npt.NDArray[np.int64]
    """NULL_TIME where unknown."""
    time_end_us: npt.NDArray[np.int64]
    pixel_coverage: npt.NDArray[np.float32]
    cloud_cover: npt.NDArray[np.float32]
    """NaN where unknown."""
    bytes: npt.NDArray[np.int64]
    nodes: npt.NDArray[np.object_]
    """tuples of node names."""

    def __len__(self) -> int:
        return len(self.row_id)

    def take(self, positions: npt.NDArray[np.integer[Any]] | slice) -> RowBatch:
        """The rows at `positions`, in that order."""
        return RowBatch(**{name: getattr(self, name)[positions] for name in ROW_COLUMNS})

    @classmethod
    def concatenate(cls, batches: Sequence[RowBatch]) -> RowBatch:
        """All rows, in order; at least one batch."""
        return RowBatch(
            **{
                name: np.concatenate([getattr(batch, name) for batch in batches])
                for name in ROW_COLUMNS
            }
        )

    def rows(self) -> Iterator[TileRow]:
        """The rows as objects, made one by one."""
        # Columns become Python's numbers at once: one by one that costs as much as the row. The
        # tiles of a scene have one time, so a moment is made once.
        moments: dict[int, datetime | None] = {NULL_TIME: None}

        def moment(us: int) -> datetime | None:
            if us not in moments:
                moments[us] = datetime_from_us(us)
            return moments[us]

        columns = [getattr(self, name).tolist() for name in ROW_COLUMNS]
        for (
            row_id,
            dataset_id,
            dataset,
            geocode,
            scene,
            version,
            schema,
            platform,
            time_us,
            end_us,
            coverage,
            cloud,
            size,
            nodes,
        ) in zip(*columns, strict=True):
            yield TileRow(
                row_id=row_id,
                key=TileKey(dataset_id, scene, version, geocode),
                dataset=dataset,
                schema=schema,
                time=moment(time_us),
                time_end=moment(end_us),
                platform=platform,
                pixel_coverage=coverage,
                cloud_cover=None if math.isnan(cloud) else cloud,
                bytes=size,
                nodes=nodes,
            )


ROW_COLUMNS: tuple[str, ...] = tuple(RowBatch.__dataclass_fields__)
