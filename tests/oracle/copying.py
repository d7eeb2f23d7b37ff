"""Stored scenes carried from an embedded store into another one, bytes as they are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import xxhash

from geostore.backends import open_backend, open_embedded
from geostore.config import parse_target
from geostore.tiles import TileFile
from geostore.types import EncodedTile

__all__ = ["copy_scenes"]

TILES_AT_ONCE = 32


def copy_scenes(source: Path, target: str, dataset: str) -> int:
    """Puts and commits every scene of a dataset as an ingest does; how many tiles there were."""
    scenes: dict[str, dict[str, Path]] = {}
    for path in sorted(source.rglob("*.zarr.zip")):
        with TileFile.open(path) as file:
            if file.meta.dataset == dataset:
                key = file.meta.key
                scenes.setdefault(key.scene, {})[key.geocode] = path
    with (
        open_embedded(source, mode="r") as one,
        closing(open_backend(parse_target(target))) as other,
    ):
        definition = one.dataset(dataset)
        other.create_dataset(definition)
        for scene, files in scenes.items():
            record = one.scene_record(definition.id, scene)
            assert record is not None
            assert record.version is not None
            cells, version = sorted(files), record.version
            other.begin_scene(
                definition, scene, version, cells, path=record.path, reader=record.reader
            )
            for start in range(0, len(cells), TILES_AT_ONCE):
                tiles = _tiles([files[cell] for cell in cells[start : start + TILES_AT_ONCE]])
                assert other.put_tiles(tiles) == [tile.checksum for tile in tiles]
            other.commit_scene(
                definition.id,
                scene,
                version,
                cells,
                bytes_total=record.bytes,
                properties=record.properties,
            )
    return sum(map(len, scenes.values()))


def _tiles(paths: Sequence[Path]) -> list[EncodedTile]:
    tiles = []
    for path in paths:
        with TileFile.open(path) as file:
            meta, blocks = file.meta, file.blocks
        payload = path.read_bytes()
        checksum = xxhash.xxh3_128_hexdigest(payload)
        tiles.append(EncodedTile(meta=meta, payload=payload, checksum=checksum, blocks=blocks))
    return tiles
