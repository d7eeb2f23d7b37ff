"""A backend in memory that holds tiles made by tests, encoded by the real tile format."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from geostore.errors import NotFoundError
from geostore.grid import make_groups
from geostore.query import Explain, Query, Summary, SummaryKeys
from geostore.rpc.row_arrow import batch_from_rows
from geostore.tiles import TilePixels, encode_tile, make_schema
from geostore.types import (
    NULL_TIME,
    BandInfo,
    BandStatistics,
    CloudRule,
    DatasetDefinition,
    EncodedTile,
    RowBatch,
    SchemeName,
    TileBlocks,
    TileDetails,
    TileKey,
    TileMeta,
)
from geostore.types.geo import us_from_datetime
from tests.summary_model import summary_of

NUMBER = BandStatistics(minimum=0.0, maximum=1.0, mean=0.5, p01=0.0, p99=1.0)
WHEN = datetime(2016, 1, 12, 16, 6, 42, tzinfo=UTC)


@dataclass(frozen=True)
class MadeBand:
    """A band to be stored: what it is, its pixels, and where they are valid."""

    info: BandInfo
    data: Any
    """(height, width), or one value for all."""
    mask: Any = True


def band(
    name: str, data: Any, mask: Any = True, *, dtype: str = "uint16", nodata: Any = 0, **info: Any
) -> MadeBand:
    return MadeBand(BandInfo(name=name, dtype=dtype, nodata=nodata, **info), data, mask)


@dataclass
class FakeBackend:
    """Datasets and tiles as a query in the default order gives them."""

    name: str = "memory"
    definitions: dict[str, DatasetDefinition] = field(default_factory=dict)
    tiles: list[EncodedTile] = field(default_factory=list)
    reads: list[list[int]] = field(default_factory=list)
    """The block indices of each call of read_blocks."""

    def make_dataset(
        self,
        name: str = "s2",
        *,
        scheme: SchemeName = "geohash",
        length: int = 5,
        resolutions: Sequence[float] = (160, 320),
        cloud_rule: CloudRule | None = None,
    ) -> DatasetDefinition:
        """By default cells of 32 and 16 pixels a side (a geohash of 5 is 4.9 km)."""
        made = DatasetDefinition(
            id=f"id-{name}",
            name=name,
            scheme=scheme,
            length=length,
            placement=min(length, 5),
            groups=make_groups(scheme, length, resolutions),
            cloud_rule=cloud_rule or CloudRule(),
        )
        self.definitions[name] = made
        return made

    def put(
        self,
        geocode: str,
        bands: Mapping[float, Sequence[MadeBand]],
        *,
        dataset: str = "s2",
        scene: str = "S1",
        time: datetime | None = WHEN,
        cloud_method: str | None = None,
        cloud_cover: float | None = None,
        platform: str | None = "sentinel-2a",
    ) -> EncodedTile:
        """Adds a tile; `bands` by the pixel size of their group."""
        definition = self.definitions[dataset]
        groups = [group for group in definition.groups if group.resolution_m in bands]
        schema = make_schema(
            definition.scheme,
            definition.length or 0,
            definition.codec,
            [(group, [made.info for made in bands[group.resolution_m]]) for group in groups],
        )
        data, masks = [], []
        for group in groups:
            shape = (group.height, group.width)
            made_bands = bands[group.resolution_m]
            data.append(
                [
                    np.ascontiguousarray(np.broadcast_to(np.asarray(m.data, m.info.dtype), shape))
                    for m in made_bands
                ]
            )
            masks.append([np.broadcast_to(np.asarray(m.mask), shape).copy() for m in made_bands])
        us = None if time is None else us_from_datetime(time)
        meta = TileMeta(
            key=TileKey(definition.id, scene, "v1", geocode),
            dataset=dataset,
            definition=definition.to_json(),
            schema=schema,
            time_us=us,
            time_end_us=us,
            platform=platform,
            pixel_coverage=100.0,
            cloud_cover=cloud_cover,
            cloud_method=cloud_method,
            cloud_histogram=None,
            statistics=(NUMBER,) * len(schema.bands),
            properties={"made": "by a test"},
        )
        tile = encode_tile(meta, TilePixels(data=data, masks=masks))
        self.tiles.append(tile)
        return tile

    # ------------------------------------------------------------ Backend

    def holders(self, slot: int) -> list[tuple[str, str]]:
        return [("local", "fake")]

    def datasets(self) -> list[DatasetDefinition]:
        return [self.definitions[name] for name in sorted(self.definitions)]

    def dataset(self, name: str) -> DatasetDefinition:
        if name not in self.definitions:
            raise NotFoundError(f"dataset {name!r}")
        return self.definitions[name]

    def create_dataset(self, definition: DatasetDefinition) -> None:
        self.definitions[definition.name] = definition

    def _tile(self, key: TileKey) -> EncodedTile:
        for tile in self.tiles:
            if tile.meta.key == key:
                return tile
        raise NotFoundError(f"tile {key}")

    def _matching(self, query: Query) -> list[EncodedTile]:
        """Datasets, bands, scene and limit: enough for what the rooms above do."""
        found = [
            tile
            for tile in self.tiles
            if (query.datasets is None or tile.meta.dataset in query.datasets)
            and tile.meta.schema.names.issuperset(query.bands)
            and query.scene in (None, tile.meta.key.scene)
            and (query.geocode is None or tile.meta.key.geocode.startswith(query.geocode))
        ]
        unknown = 2**62
        found.sort(
            key=lambda tile: (
                unknown if tile.meta.time_us is None else tile.meta.time_us,
                tile.meta.dataset,
                tile.meta.key.geocode,
                tile.meta.key.scene,
            )
        )
        return found[: query.limit]

    def query(self, query: Query, explain: Explain | None = None) -> Iterator[RowBatch]:
        found = self._matching(query)
        if explain is not None:
            explain.rows_matched = len(found)
        for start in range(0, len(found), 2):  # several batches, to be streamed
            yield _batch(found[start : start + 2])

    def query_arrow(self, query: Query) -> Iterator[Any]:
        return map(batch_from_rows, self.query(query))

    def count(self, query: Query) -> int:
        return len(self._matching(query))

    def summary(self, query: Query, by: SummaryKeys) -> Summary:
        return summary_of(_batch(self._matching(query)), by)

    def details(self, key: TileKey) -> TileDetails:
        tile = self._tile(key)
        return TileDetails(
            key=key,
            blocks=tile.blocks,
            statistics=tile.meta.statistics,
            cloud_histogram=None,
            cloud_method=tile.meta.cloud_method,
            provider_method=tile.meta.cloud_method,
            checksum=tile.checksum,
            bytes=len(tile.payload),
            properties=tile.meta.properties,
        )

    def read_blocks(self, key: TileKey, indices: Sequence[int]) -> list[memoryview | None]:
        self.reads.append(list(indices))
        tile = self._tile(key)
        found: list[memoryview | None] = []
        for index in indices:
            offset, length, _, _ = tile.blocks[index].item()
            part = memoryview(tile.payload)[offset : offset + length]
            found.append(part if length else None)
        return found

    def details_of(self, keys: Sequence[TileKey]) -> list[TileDetails]:
        return [self.details(key) for key in keys]

    def read_tiles(
        self, wanted: Iterable[tuple[TileKey, Sequence[int]]]
    ) -> Generator[TileBlocks, None, None]:
        for key, indices in wanted:
            yield TileBlocks(
                key=key,
                indices=tuple(indices),
                data=tuple(self.read_blocks(key, indices)),
                table=self._tile(key).blocks[list(indices)],
            )

    def close(self) -> None:
        pass


def _objects(values: Sequence[Any]) -> Any:
    column = np.empty(len(values), object)
    for index, value in enumerate(values):
        column[index] = value
    return column


def _batch(tiles: Sequence[EncodedTile]) -> RowBatch:
    metas = [tile.meta for tile in tiles]
    times = np.array(
        [NULL_TIME if meta.time_us is None else meta.time_us for meta in metas], np.int64
    )
    clouds = [np.nan if meta.cloud_cover is None else meta.cloud_cover for meta in metas]
    return RowBatch(
        row_id=np.arange(len(tiles), dtype=np.int64),
        dataset_id=_objects([meta.key.dataset_id for meta in metas]),
        dataset=_objects([meta.dataset for meta in metas]),
        geocode=_objects([meta.key.geocode for meta in metas]),
        scene=_objects([meta.key.scene for meta in metas]),
        version=_objects([meta.key.version for meta in metas]),
        schema=_objects([meta.schema for meta in metas]),
        platform=_objects([meta.platform for meta in metas]),
        time_us=times,
        time_end_us=times,
        pixel_coverage=np.array([meta.pixel_coverage for meta in metas], np.float32),
        cloud_cover=np.array(clouds, np.float32),
        bytes=np.array([len(tile.payload) for tile in tiles], np.int64),
        nodes=_objects([("local",)] * len(tiles)),
    )
