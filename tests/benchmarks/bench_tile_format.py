"""Tile file formats on real warped tiles: bytes, encode, decode, threads, reads, damage.

    python -m tests.benchmarks.bench_tile_format [--quick] [--rounds N]

The tiles are the main scene's, warped by a WarpedVRT (nearest, tolerance 1e-4 px) onto its
geohash-5 cells in groups of 512, 256 and 128 pixels; without the scene, made-up ones. Speed is
measured on tiles that the scene covers whole (empty pixels cost nothing and would flatter every
codec), bytes on those and on all. One-thread speeds are bytes of pixels by CPU second of the
thread; two threads are by the wall clock. Medians of interleaved rounds.

Bars: `fast` decodes >= 2 GB/s a core in <= 1.25 x the bytes of GeoTIFFs with DEFLATE 6 and
predictor 2; `small` takes <= 1.0 x and decodes >= 1 GB/s a core.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import rasterio
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.warp import Resampling, transform_bounds

REPOSITORY = Path(__file__).resolve().parents[2]
if str(REPOSITORY) not in sys.path:  # run by path
    sys.path.insert(0, str(REPOSITORY))

from geostore.errors import CorruptDataError  # noqa: E402
from geostore.grid import Region, cell_window, covering, make_groups, scheme  # noqa: E402
from geostore.tiles import (  # noqa: E402
    TileFile,
    TilePixels,
    decode_into,
    encode_tile,
    make_schema,
)
from geostore.tiles.codec import CodecSettings, decode_block, encode_block  # noqa: E402
from geostore.tiles.decode import _transpose_into  # noqa: E402
from geostore.types import (  # noqa: E402
    BandInfo,
    BandStatistics,
    BBox,
    EncodedTile,
    ResolutionGroup,
    TileKey,
    TileMeta,
)

SCENE_NAME = "S2A_MSIL1C_20160112T160642_N0201_R097_T18SVG_20160112T160642.SAFE"
SCENE = REPOSITORY.parent / "shared/data/sentinel2" / f"{SCENE_NAME}.zip"
BANDS = {
    10.0: ("B02", "B03", "B04", "B08"),
    20.0: ("B05", "B06", "B07", "B8A", "B11", "B12"),
    60.0: ("B01", "B09", "B10"),
}
REFERENCE = "GeoTIFF DEFLATE 6 + predictor 2"


@dataclass
class Tile:
    geocode: str
    groups: list[np.ndarray]
    """For each group (bands, height, width) uint16; 0 where the scene has nothing."""

    @property
    def nbytes(self) -> int:
        return sum(group.nbytes for group in self.groups)

    @property
    def is_whole(self) -> bool:
        return all((group[0] > 0).mean() > 0.99 for group in self.groups)


@dataclass
class Source:
    """The tiles, and what the same pixels take as the provider ships them."""

    what: str
    tiles: list[Tile]
    raw_bytes: int | None = None
    jp2_bytes: int | None = None
    deflate_bytes: int | None = None
    """As GeoTIFFs like the reference, unwarped: what oversampling costs, compressed."""


def lattice() -> tuple[ResolutionGroup, ...]:
    return make_groups("geohash", 5, tuple(BANDS))


def load_scene() -> Source:
    folder = f"{SCENE_NAME}/GRANULE/L1C_T18SVG_A002913_20160112T160642/IMG_DATA/"
    names = {band: f"{folder}T18SVG_20160112T160642_{band}.jp2" for band in sum(BANDS.values(), ())}
    with zipfile.ZipFile(SCENE) as archive:
        jp2_bytes = sum(archive.getinfo(name).file_size for name in names.values())
    tiles: list[Tile] = []
    raw_bytes = deflate_bytes = 0
    for group, bands in zip(lattice(), BANDS.values(), strict=True):
        with MemoryFile() as memory:
            pixels = []
            for band in bands:
                with rasterio.open(f"/vsizip/{SCENE}/{names[band]}") as dataset:
                    pixels.append(dataset.read(1))
                    profile = {"crs": dataset.crs, "transform": dataset.transform}
            stack = np.stack(pixels)
            raw_bytes += stack.nbytes
            deflate_bytes += len(geotiff_bytes(stack, GEOTIFFS[REFERENCE]))
            count, height, width = stack.shape
            shape = {"count": count, "height": height, "width": width}
            with memory.open(driver="GTiff", dtype="uint16", nodata=0, **shape, **profile) as copy:
                copy.write(stack)
            with memory.open() as source:
                if not tiles:
                    box = BBox(*transform_bounds(source.crs, "EPSG:4326", *source.bounds))
                    cells = covering(scheme("geohash"), Region.from_bbox(box), 5)
                    tiles = [Tile(cell, []) for cell in cells]
                for tile in tiles:
                    tile.groups.append(warp(source, tile.geocode, group))
    tiles = [tile for tile in tiles if tile.groups[0].any()]
    return Source("main scene", tiles, raw_bytes, jp2_bytes, deflate_bytes)


def warp(source: Any, geocode: str, group: ResolutionGroup) -> np.ndarray:
    window = cell_window("geohash", geocode, group)
    with WarpedVRT(
        source,
        crs=window.crs,
        transform=rasterio.Affine(*window.transform),
        height=window.height,
        width=window.width,
        resampling=Resampling.nearest,
        tolerance=1e-4,
        nodata=0,
    ) as warped:
        return warped.read()


def make_up_scene() -> Source:
    """Tiles with something like a landscape's spectrum, every third column twice."""
    random = np.random.default_rng(1)
    tiles = []
    for geocode in ("dq8ye", "dq8ys"):
        groups = []
        for group, bands in zip(lattice(), BANDS.values(), strict=True):
            shape = (len(bands), group.height, group.width)
            steps = random.normal(size=shape).cumsum(axis=1).cumsum(axis=2)
            steps *= 400 / np.abs(steps).max()
            pixels = (1200 + steps + random.normal(scale=30, size=shape)).astype(np.uint16)
            pixels[:, :, 2::3] = pixels[:, :, 1::3][:, :, : pixels[:, :, 2::3].shape[2]]
            groups.append(pixels)
        tiles.append(Tile(geocode, groups))
    return Source("made-up tiles (the main scene is not here)", tiles)


# ---------------------------------------------------------------- candidates
@dataclass
class Measured:
    """One candidate's samples, a value a round."""

    bytes_whole: int = 0
    bytes_all: int = 0
    encode: list[float] = field(default_factory=list)
    encode_two: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    decode_one_wall: list[float] = field(default_factory=list)
    decode_two: list[float] = field(default_factory=list)


@dataclass
class Candidate:
    """A way to store a tile's pixels."""

    name: str
    encode: Callable[[Tile], Any]
    size: Callable[[Any], int]
    decode: Callable[[Any, list[np.ndarray]], None]
    """Into arrays as `Tile.groups`."""
    encode_rounds: int = 3


def block_candidate(
    name: str,
    encode: Callable[[np.ndarray], bytes],
    decode: Callable[[bytes, np.ndarray], None],
    overhead: int,
) -> Candidate:
    """Each band one block; `overhead` stands for the rest of the file."""

    def decode_all(blocks: list[list[bytes]], out: list[np.ndarray]) -> None:
        for group, target in zip(blocks, out, strict=True):
            for block, band in zip(group, target, strict=True):
                decode(block, band)

    return Candidate(
        name,
        lambda tile: [[encode(band) for band in group] for group in tile.groups],
        lambda blocks: overhead + sum(len(block) for group in blocks for block in group),
        decode_all,
    )


def blosc_candidate(settings: CodecSettings, overhead: int) -> Candidate:
    def encode(band: np.ndarray) -> bytes:
        return encode_block(
            np.ascontiguousarray(band.T) if settings.order == "F" else band, settings
        )

    def decode(block: bytes, out: np.ndarray) -> None:
        if settings.order == "C":
            decode_block(block, out, "block")
            return
        columns = np.empty(out.shape[::-1], out.dtype)
        decode_block(block, columns, "block")
        _transpose_into(out, columns)

    order = ", by columns" if settings.order == "F" else ""
    name = (
        f"Zarr-zip {settings.compressor} {settings.level} {settings.shuffle}"
        f" {settings.block_bytes >> 10}K{order}"
    )
    return block_candidate(name, encode, decode, overhead)


def delta_candidate(overhead: int) -> Candidate:
    """Zarr's delta filter before the codec: a predictor that stock readers undo too."""
    settings = CodecSettings("zstd", 1, "shuffle", 512 << 10, "C")

    def encode(band: np.ndarray) -> bytes:
        return encode_block(imagecodecs.delta_encode(band.reshape(-1)), settings)

    def decode(block: bytes, out: np.ndarray) -> None:
        differences = np.empty(out.size, out.dtype)
        decode_block(block, differences, "block")
        out.reshape(-1)[:] = imagecodecs.delta_decode(differences)

    return block_candidate("Zarr-zip delta + zstd 1 shuffle 512K", encode, decode, overhead)


def geotiff_bytes(group: np.ndarray, options: dict[str, Any]) -> bytes:
    count, height, width = group.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            count=count,
            height=height,
            width=width,
            dtype=group.dtype,
            nodata=0,
            crs="EPSG:4326",
            transform=rasterio.Affine(1e-4, 0, -75, 0, -1e-4, 37),
            interleave="band",
            tiled=True,
            blockxsize=min(512, width // 16 * 16),
            blockysize=min(512, height // 16 * 16),
            **options,
        ) as dataset:
            dataset.write(group)
        return bytes(memory.read())


GEOTIFFS: dict[str, dict[str, Any]] = {
    REFERENCE: {"compress": "DEFLATE", "zlevel": 6, "predictor": 2},
    "GeoTIFF ZSTD 1 + predictor 2": {"compress": "ZSTD", "zstd_level": 1, "predictor": 2},
    "GeoTIFF LZW + predictor 2": {"compress": "LZW", "predictor": 2},
    "GeoTIFF uncompressed": {},
}


def geotiff_candidate(name: str) -> Candidate:
    def decode(files: list[bytes], out: list[np.ndarray]) -> None:
        for file, target in zip(files, out, strict=True):
            with MemoryFile(file) as memory, memory.open() as dataset:
                dataset.read(out=target)

    return Candidate(
        name,
        lambda tile: [geotiff_bytes(group, GEOTIFFS[name]) for group in tile.groups],
        lambda files: sum(len(file) for file in files),
        decode,
        encode_rounds=1,
    )


def bare_geotiff_candidate(overhead: int) -> Candidate:
    """What GDAL's ZSTD GeoTIFF costs at least: its codec and predictor alone."""

    def decode(block: bytes, out: np.ndarray) -> None:
        flat = imagecodecs.zstd_decode(block, out=out.nbytes)
        imagecodecs.delta_decode(np.frombuffer(flat, out.dtype).reshape(out.shape), out=out)

    return block_candidate(
        "  its blocks without GDAL",
        lambda band: imagecodecs.zstd_encode(imagecodecs.delta_encode(band), level=1),
        decode,
        overhead,
    )


def encode_geostore(tile: Tile, codec: Any) -> EncodedTile:
    """The real thing: a whole tile file, masks and metadata and all."""
    groups = [
        (group, [BandInfo(name=band, dtype="uint16", nodata=0) for band in bands])
        for group, bands in zip(lattice(), BANDS.values(), strict=True)
    ]
    schema = make_schema("geohash", 5, codec, groups)
    numbers = BandStatistics(minimum=1.0, maximum=9000.0, mean=1234.5, p01=200.0, p99=4000.0)
    meta = TileMeta(
        key=TileKey("0" * 32, SCENE_NAME, "0" * 64, tile.geocode),
        dataset="sentinel-2-l1c",
        definition={},
        schema=schema,
        time_us=1_452_614_802_000_000,
        time_end_us=1_452_614_802_000_000,
        platform="sentinel-2a",
        pixel_coverage=100.0,
        cloud_cover=None,
        cloud_method=None,
        cloud_histogram=None,
        statistics=(numbers,) * len(schema.bands),
    )
    masks: list[list[Any]] = []
    for group in tile.groups:
        mask = group[0] > 0
        masks.append([mask] * len(group))
    return encode_tile(meta, TilePixels([list(group) for group in tile.groups], masks))


def decode_geostore(tile: EncodedTile, out: list[np.ndarray]) -> None:
    schema, view = tile.meta.schema, memoryview(tile.payload)
    for group_index, target in enumerate(out):
        for band_index, band in enumerate(target):
            rows = schema.block_range(group_index, band_index)
            table = tile.blocks[rows.start : rows.stop]
            spans = zip(table["offset"].tolist(), table["length"].tolist(), strict=True)
            blocks = [view[start : start + size] if size else None for start, size in spans]
            decode_into(schema, group_index, band_index, blocks, table, band)


def geostore_candidate(codec: str) -> Candidate:
    return Candidate(
        f"geostore `{codec}` (whole file, verified)",
        lambda tile: encode_geostore(tile, codec),
        lambda tile: len(tile.payload),
        decode_geostore,
    )


def make_candidates(tiles: list[Tile], *, quick: bool) -> list[Candidate]:
    samples = [encode_geostore(tile, "fast") for tile in tiles]
    overheads = [
        len(sample.payload) - int(np.unique(sample.blocks)["length"].sum()) for sample in samples
    ]
    overhead = round(statistics.mean(overheads))
    fast = [
        CodecSettings("lz4", 5, "shuffle", 128 << 10, "C"),
        CodecSettings("lz4", 9, "shuffle", 128 << 10, "C"),
        CodecSettings("lz4", 9, "shuffle", 512 << 10, "C"),
        CodecSettings("lz4", 9, "bitshuffle", 128 << 10, "C"),
        CodecSettings("lz4hc", 1, "shuffle", 128 << 10, "C"),
        CodecSettings("lz4hc", 5, "shuffle", 128 << 10, "C"),
        CodecSettings("blosclz", 9, "shuffle", 128 << 10, "C"),  # type: ignore[arg-type]
        CodecSettings("lz4", 9, "shuffle", 128 << 10, "F"),
    ]
    small = [
        CodecSettings("zstd", 1, "bitshuffle", 256 << 10, "C"),
        CodecSettings("zstd", 1, "bitshuffle", 512 << 10, "C"),
        CodecSettings("zstd", 1, "shuffle", 512 << 10, "C"),
        CodecSettings("zstd", 5, "shuffle", 512 << 10, "C"),
        CodecSettings("zstd", 1, "shuffle", 512 << 10, "F"),
        CodecSettings("zstd", 5, "shuffle", 512 << 10, "F"),
        CodecSettings("lz4hc", 1, "shuffle", 128 << 10, "F"),
        CodecSettings("lz4hc", 5, "shuffle", 128 << 10, "F"),
    ]
    settings = [fast[4], small[1], small[7]] if quick else fast + small
    candidates = [geotiff_candidate(name) for name in list(GEOTIFFS)[: 2 if quick else None]]
    if not quick:
        candidates.insert(2, bare_geotiff_candidate(overhead))
        candidates.append(delta_candidate(overhead))
    candidates += [blosc_candidate(setting, overhead) for setting in settings]
    candidates += [geostore_candidate("fast"), geostore_candidate("small")]
    return candidates


# ---------------------------------------------------------------- codecs
def measure_codecs(source: Source, candidates: list[Candidate], rounds: int) -> dict[str, Measured]:
    whole = [tile for tile in source.tiles if tile.is_whole]
    halves = (whole[::2], whole[1::2])
    results = {candidate.name: Measured() for candidate in candidates}
    encoded: dict[str, dict[str, Any]] = {}
    for candidate in candidates:
        tiles = {tile.geocode: candidate.encode(tile) for tile in source.tiles}
        encoded[candidate.name] = tiles
        result = results[candidate.name]
        result.bytes_all = sum(candidate.size(tile) for tile in tiles.values())
        result.bytes_whole = sum(candidate.size(tiles[tile.geocode]) for tile in whole)
        out = [np.zeros_like(group) for group in whole[0].groups]
        candidate.decode(tiles[whole[0].geocode], out)
        for got, expected in zip(out, whole[0].groups, strict=True):
            assert (got == expected).all(), candidate.name

    outs = [[np.empty_like(group) for group in whole[0].groups] for _ in range(2)]

    def encode_all(candidate: Candidate, tiles: list[Tile]) -> None:
        for tile in tiles:
            candidate.encode(tile)

    def decode_all(candidate: Candidate, tiles: list[Tile], slot: int) -> None:
        for tile in tiles:
            candidate.decode(encoded[candidate.name][tile.geocode], outs[slot])

    with ThreadPoolExecutor(2) as pool:
        for number in range(rounds):
            for candidate in candidates:
                result = results[candidate.name]
                cpu, wall = time.thread_time(), time.perf_counter()
                decode_all(candidate, whole, 0)
                result.decode.append(time.thread_time() - cpu)
                result.decode_one_wall.append(time.perf_counter() - wall)
                wall = time.perf_counter()
                list(pool.map(lambda slot, c=candidate: decode_all(c, halves[slot], slot), (0, 1)))
                result.decode_two.append(time.perf_counter() - wall)
                if number < candidate.encode_rounds:
                    cpu = time.thread_time()
                    encode_all(candidate, whole)
                    result.encode.append(time.thread_time() - cpu)
                    wall = time.perf_counter()
                    list(pool.map(lambda half, c=candidate: encode_all(c, half), halves))
                    result.encode_two.append(time.perf_counter() - wall)
    return results


def print_codecs(source: Source, results: dict[str, Measured]) -> bool:
    whole = [tile for tile in source.tiles if tile.is_whole]
    raw = sum(tile.nbytes for tile in whole)
    reference = results[REFERENCE]
    print(
        f"\nCodecs: {len(whole)} whole tiles, {raw / 1e6:.1f} MB of pixels; x = bytes by those of"
    )
    print(f"{REFERENCE} (all: {len(source.tiles)} tiles, those at the scene's edge too)")
    print(
        f"{'format':<48}{'x':>7}{'x, all':>8}{'encode':>8}{'2 thr.':>8}"
        f"{'decode':>8}{'2 thr.':>8}{'gain':>6}"
    )
    print(f"{'':<48}{'':>7}{'':>8}{'MB/s':>8}{'MB/s':>8}{'GB/s':>8}{'GB/s':>8}{'':>6}")
    for name, result in results.items():
        median = statistics.median
        print(
            f"{name:<48}"
            f"{result.bytes_whole / reference.bytes_whole:>7.3f}"
            f"{result.bytes_all / reference.bytes_all:>8.3f}"
            f"{raw / median(result.encode) / 1e6:>8.0f}"
            f"{raw / median(result.encode_two) / 1e6:>8.0f}"
            f"{raw / median(result.decode) / 1e9:>8.2f}"
            f"{raw / median(result.decode_two) / 1e9:>8.2f}"
            f"{median(result.decode_one_wall) / median(result.decode_two):>6.2f}"
        )
    return print_bars(source, results, raw)


def print_bars(source: Source, results: dict[str, Measured], raw: int) -> bool:
    met = True
    print(f"\n{'bar':<44}{'limit':>8}{'measured':>10}")
    for codec, factor, speed in (("fast", 1.25, 2.0), ("small", 1.0, 1.0)):
        result = results[f"geostore `{codec}` (whole file, verified)"]
        decoded = raw / statistics.median(result.decode) / 1e9
        for what, limit, got, holds in (
            ("GB/s a core", speed, decoded, decoded >= speed),
            *(
                (f"x the bytes, {which}", factor, ours / theirs, ours <= factor * theirs)
                for which, ours, theirs in (
                    ("whole tiles", result.bytes_whole, results[REFERENCE].bytes_whole),
                    ("all tiles", result.bytes_all, results[REFERENCE].bytes_all),
                )
            ),
        ):
            verdict = "" if holds else "  MISSED"
            print(f"{f'`{codec}`: {what}':<44}{limit:>8.2f}{got:>10.2f}{verdict}")
            met = met and holds
    print("\nbytes of the scene, MB")
    if source.raw_bytes and source.jp2_bytes and source.deflate_bytes:
        print(f"  {'native pixels, uncompressed':<48}{source.raw_bytes / 1e6:>10.1f}")
        print(f"  {'native pixels, lossless JP2':<48}{source.jp2_bytes / 1e6:>10.1f}")
        print(f"  {'native pixels, ' + REFERENCE:<48}{source.deflate_bytes / 1e6:>10.1f}")
    warped_bytes = sum(tile.nbytes for tile in source.tiles)
    print(f"  {'warped pixels, uncompressed':<48}{warped_bytes / 1e6:>10.1f}")
    for name in (REFERENCE, *(name for name in results if name.startswith("geostore"))):
        print(f"  {name:<48}{results[name].bytes_all / 1e6:>10.1f}")
    return met


# ---------------------------------------------------------------- whole files
def write_files(tile: Tile, folder: Path) -> dict[str, Path]:
    paths = {}
    for codec in ("fast", "small"):
        paths[codec] = folder / f"{codec}.zarr.zip"
        paths[codec].write_bytes(encode_geostore(tile, codec).payload)
    for number, (name, options) in enumerate(GEOTIFFS.items()):
        paths[name] = folder / f"{number}.tif"
        paths[name].write_bytes(geotiff_bytes(tile.groups[0], options))
    return paths


def read_geostore(path: Path, tile: EncodedTile, bands: int, out: np.ndarray) -> None:
    """As a node does: the block table is known, one pread serves the run of blocks."""
    schema = tile.meta.schema
    ranges = [schema.block_range(0, band) for band in range(bands)]
    table = tile.blocks[ranges[0].start : ranges[-1].stop]
    start = int(table["offset"][0])
    stop = int(table["offset"][-1]) + int(table["length"][-1])
    descriptor = os.open(path, os.O_RDONLY)
    try:
        run = memoryview(os.pread(descriptor, stop - start, start))
    finally:
        os.close(descriptor)
    for band, rows in enumerate(ranges):
        part = tile.blocks[rows.start : rows.stop]
        first = int(part["offset"][0]) - start
        blocks = [run[first : first + int(part["length"][0])]]
        decode_into(schema, 0, band, blocks, part, out[band])


def read_with_gdal(path: Path, bands: int, out: np.ndarray) -> None:
    if path.suffix == ".tif":
        with rasterio.open(path) as dataset:
            dataset.read(list(range(1, bands + 1)), out=out[:bands])
        return
    for band, name in enumerate(BANDS[10.0][:bands]):
        with rasterio.open(f'ZARR:"/vsizip/{path}":/r10m/{name}') as dataset:
            dataset.read(1, out=out[band])


def read_with_zarr(path: Path, bands: int, out: np.ndarray) -> None:
    import zarr

    with zarr.storage.ZipStore(path, mode="r") as store:
        group = zarr.open_group(store, mode="r", path="r10m")
        for band, name in enumerate(BANDS[10.0][:bands]):
            out[band] = group[name][:]


def measure_reads(tile: Tile, folder: Path, rounds: int) -> None:
    paths = write_files(tile, folder)
    tiles = {codec: encode_geostore(tile, codec) for codec in ("fast", "small")}
    readers: dict[str, Callable[[int, np.ndarray], None]] = {}
    for codec in ("fast", "small"):
        path = paths[codec]
        readers[f"{codec}: block table + pread"] = lambda n, out, p=path, t=tiles[codec]: (
            read_geostore(p, t, n, out)
        )
        readers[f"{codec}: GDAL"] = lambda n, out, p=path: read_with_gdal(p, n, out)
        readers[f"{codec}: zarr-python"] = lambda n, out, p=path: read_with_zarr(p, n, out)
    for name in GEOTIFFS:
        readers[f"{name}: GDAL"] = lambda n, out, p=paths[name]: read_with_gdal(p, n, out)
    try:
        read_with_zarr(paths["fast"], 1, np.empty_like(tile.groups[0]))
    except ImportError:
        readers = {name: read for name, read in readers.items() if "zarr-python" not in name}
    samples: dict[tuple[str, int], list[float]] = {}
    out = np.empty_like(tile.groups[0])
    for _ in range(rounds):
        for name, read in readers.items():
            for bands in (1, 4):
                out[:] = 0
                start = time.perf_counter()
                read(bands, out)
                samples.setdefault((name, bands), []).append(time.perf_counter() - start)
                assert (out[:bands] == tile.groups[0][:bands]).all(), name
    print("\nReads of 512 x 512 uint16 from the page cache, ms (opening included)")
    print(f"{'file: reader':<48}{'1 band':>9}{'4 bands':>9}")
    for name in readers:
        one, four = (statistics.median(samples[name, bands]) * 1e3 for bands in (1, 4))
        print(f"{name:<48}{one:>9.2f}{four:>9.2f}")


# ---------------------------------------------------------------- damage
def tell(path: Path, expected: np.ndarray, read: Callable[[Path], np.ndarray]) -> str:
    """`told`: an error; `harmless`: the right pixels; `silent`: wrong pixels, no error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = read(path)
    except (CorruptDataError, rasterio.errors.RasterioError, ValueError, OSError):
        return "told"
    return "harmless" if got.shape == expected.shape and (got == expected).all() else "silent"


def read_tile_file(path: Path) -> np.ndarray:
    with TileFile.open(path) as file:
        return np.stack([file.read_band(0, band) for band in range(len(BANDS[10.0]))])


def read_geotiff(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


def measure_damage(tile: Tile, folder: Path, count: int) -> None:
    """A file cut short, a page of zeros (never written before a crash), a flipped bit."""
    random = np.random.default_rng(11)
    paths = write_files(tile, folder)
    print(f"\nDamage, {count} times each: told / harmless / silently wrong pixels")
    print(f"{'file':<48}{'cut':>13}{'zero page':>13}{'bit flip':>13}")
    for name, path in paths.items():
        read = read_tile_file if path.suffix == ".zip" else read_geotiff
        payload = path.read_bytes()
        damaged = folder / f"damaged{path.suffix}"
        cells = []
        for kind in ("cut", "zero", "flip"):
            counts = {"told": 0, "harmless": 0, "silent": 0}
            for _ in range(count):
                copy = bytearray(payload)
                position = int(random.integers(len(copy)))
                if kind == "cut":
                    del copy[position:]
                elif kind == "zero":
                    page = position // 4096 * 4096
                    copy[page : page + 4096] = bytes(len(copy[page : page + 4096]))
                else:
                    copy[position] ^= 1 << int(random.integers(8))
                damaged.write_bytes(copy)
                counts[tell(damaged, tile.groups[0], read)] += 1
            cells.append("/".join(str(value) for value in counts.values()))
        print(f"{name:<48}" + "".join(f"{cell:>13}" for cell in cells))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few tiles, few rounds: for CI")
    parser.add_argument("--rounds", type=int, default=None)
    options = parser.parse_args(arguments)
    rounds = options.rounds or (3 if options.quick else 11)
    source = load_scene() if SCENE.exists() else make_up_scene()
    if options.quick:
        whole = [tile for tile in source.tiles if tile.is_whole]
        rest = [tile for tile in source.tiles if not tile.is_whole]
        source.tiles = whole[:2] + rest[:1]
    print(
        f"{source.what}: {len(source.tiles)} tiles; {platform.machine()}, {os.cpu_count()} cores,"
        f" Python {platform.python_version()}, GDAL {rasterio.__gdal_version__},"
        f" imagecodecs {imagecodecs.__version__}; {rounds} rounds"
    )
    candidates = make_candidates(source.tiles, quick=options.quick)
    met = print_codecs(source, measure_codecs(source, candidates, rounds))
    whole = next(tile for tile in source.tiles if tile.is_whole)
    with tempfile.TemporaryDirectory() as folder:
        measure_reads(whole, Path(folder), rounds)
        measure_damage(whole, Path(folder), 20 if options.quick else 200)
    # Bars are defined on the main scene; a quick run on a busy machine shows, but judges not.
    return 0 if met or options.quick or source.jp2_bytes is None else 1


if __name__ == "__main__":
    sys.exit(main())
