"""How tiles lie in the catalog's key-value store.

Keys of tiles are three 16-byte BLAKE2b digests (dataset id, scene, version) and the
geocode: fixed in length whatever a scene is called (LMDB keys end at 511 bytes), and a
prefix of one names a whole dataset, scene or version. What the tiles of a scene have in
common (names, schema, properties) is one *group*, named by the digest of its content.

Row, 88 bytes, little-endian (ROW_DTYPE): all that a query needs, fixed in size so that
100,000 of them are read as one numpy array. The last 8 bytes are the XXH3-64 of the rest.
`cloud_cover` is what the dataset's cloud rule makes of the tile. The provider's own cover
stays beside it: `provider_xor` is the exclusive or of the two floats' bits, so it is 0 under
the provider's rule and in rows from before there were others.

Details, little-endian: header (DETAILS_HEADER), the block table (24 bytes an entry), five
float64 a band of statistics (NaN = none), 101 uint64 of histogram if there is one, the
tile's bitmaps if it has some (32 bytes each: two, or four with those of clear blocks; behind
four the number of cloud nodata values, int64, and these, int64); the header's first 8 bytes
are the XXH3-64 of all that follows them. Who does not know a flag reads what is before it.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xxhash

from geostore.errors import CorruptDataError, InvalidInputError
from geostore.index.entry import CatalogEntry, TileDetails
from geostore.index.log_layout import REBUILD
from geostore.types import (
    BITMAP_BYTES,
    BLOCK_DTYPE,
    NULL_TIME,
    BandStatistics,
    BlockBitmaps,
    TileKey,
)

__all__ = [
    "BITMAP_WORDS",
    "GEOCODE_BYTES",
    "HAS_BITMAPS",
    "HAS_CLEAR",
    "PREFIX_BYTES",
    "ROW_BYTES",
    "ROW_DTYPE",
    "Group",
    "details_checksum",
    "details_group",
    "details_histograms",
    "details_size",
    "key_prefix",
    "pack_details",
    "pack_row",
    "provider_covers",
    "row_group",
    "tile_key",
    "unpack_details",
    "unpack_rows",
    "with_covers",
]

DIGEST_BYTES = 16
PREFIX_BYTES = 3 * DIGEST_BYTES
GEOCODE_BYTES = 28

ROW_DTYPE = np.dtype(
    [
        ("group", "V16"),
        ("geocode", f"S{GEOCODE_BYTES}"),
        ("pixel_coverage", "<f4"),
        ("time_us", "<i8"),
        ("time_end_us", "<i8"),
        ("bytes", "<i8"),
        ("cloud_cover", "<f4"),
        ("provider_xor", "<u4"),
        ("checksum", "<u8"),
    ]
)
ROW_BYTES = ROW_DTYPE.itemsize
_CHECKED_BYTES = ROW_BYTES - 8
_ROW = struct.Struct(f"<16s{GEOCODE_BYTES}sfqqqfI")

DETAILS_HEADER = struct.Struct("<QHHIIq16s16s4x")
"""XXH3-64 of the rest; version; flags; blocks; bands; file bytes; file checksum; group."""
DETAILS_VERSION = 1
_HEAD = np.dtype(
    [("checksum", "<u8"), ("version", "<u2"), ("flags", "<u2"), ("blocks", "<u4"), ("bands", "<u4")]
)
"""How it begins."""
HAS_HISTOGRAM = 1
HAS_BITMAPS = 2
HAS_CLEAR = 4
"""The bitmaps of clear blocks too."""
BITMAP_WORDS = 4 * BITMAP_BYTES // 8
NOT_SOUND = 0xFF
"""Stands for the bits of details that do not hold."""
HISTOGRAM_BINS = 101


@lru_cache(maxsize=4096)
def _digest(text: str) -> bytes:
    # surrogatepass: a file name that is no UTF-8 reaches Python as lone surrogates.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def key_prefix(
    dataset_id: str | None = None, scene: str | None = None, version: str | None = None
) -> bytes:
    """What the keys of all tiles of a dataset, scene or version begin with.

    Raises:
        InvalidInputError: a scene without its dataset, or a version without its scene.
    """
    parts = (dataset_id, scene, version)
    given = [part for part in parts if part is not None]
    if tuple(given) != parts[: len(given)]:
        raise InvalidInputError(
            f"tiles of dataset {dataset_id}, scene {scene}, version {version}: a scene needs its"
            " dataset and a version its scene"
        )
    return b"".join(_digest(part) for part in given)


def tile_key(key: TileKey) -> bytes:
    """The store's key of a tile."""
    geocode = key.geocode.encode("ascii", "replace")
    return key_prefix(key.dataset_id, key.scene, key.version) + geocode


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What tiles of one scene version have in common, stored once."""

    dataset_id: str
    dataset: str
    scene: str
    version: str
    platform: str | None
    schema: str
    """Digest of the TileSchema."""
    cloud_method: str | None
    """How the provider's own cover was told."""
    properties: dict[str, Any]

    @classmethod
    def of(cls, entry: CatalogEntry) -> Self:
        meta = entry.meta
        return cls(
            dataset_id=meta.key.dataset_id,
            dataset=meta.dataset,
            scene=meta.key.scene,
            version=meta.key.version,
            platform=meta.platform,
            schema=meta.schema.digest,
            cloud_method=meta.cloud_method,
            properties=meta.properties,
        )

    def encode(self) -> tuple[bytes, bytes, bytes]:
        """(digest, head, properties): head is what every query needs, both are JSON.

        Raises:
            InvalidInputError: properties that are not JSON.
        """
        head = json.dumps(
            [
                self.dataset_id,
                self.dataset,
                self.scene,
                self.version,
                self.platform,
                self.schema,
                self.cloud_method,
            ]
        ).encode()
        try:
            properties = json.dumps(self.properties, sort_keys=True).encode()
        except (TypeError, ValueError) as error:
            raise InvalidInputError(
                f"scene {self.scene!r}: properties are not JSON: {error}"
            ) from None
        both = hashlib.blake2b(head, digest_size=DIGEST_BYTES)
        both.update(b"\0" + properties)
        return both.digest(), head, properties

    @classmethod
    def decode(cls, head: bytes, properties: bytes = b"{}") -> Self:
        """
        Raises:
            CorruptDataError: not what `encode` wrote.
        """
        try:
            dataset_id, dataset, scene, version, platform, schema, method = json.loads(
                head.decode()
            )
            return cls(
                dataset_id=dataset_id,
                dataset=dataset,
                scene=scene,
                version=version,
                platform=platform,
                schema=schema,
                cloud_method=method,
                properties={} if properties == b"{}" else json.loads(properties.decode()),
            )
        except ValueError as error:
            raise CorruptDataError(f"catalog: a scene's entry does not read: {error}") from None


def pack_row(entry: CatalogEntry, group: bytes) -> bytes:
    """The entry's row.

    Raises:
        InvalidInputError: a geocode that no scheme makes, or a number out of range.
    """
    meta = entry.meta
    geocode = meta.key.geocode.encode("ascii", "replace")
    if not 0 < len(geocode) <= GEOCODE_BYTES or not geocode.isalnum():
        raise InvalidInputError(
            f"geocode {meta.key.geocode[:40]!r}: expected 1..{GEOCODE_BYTES} letters and digits"
        )
    if not 0 <= meta.pixel_coverage <= 100 or not (
        meta.cloud_cover is None or 0 <= meta.cloud_cover <= 100
    ):
        raise InvalidInputError(
            f"tile {meta.key}: pixel coverage {meta.pixel_coverage}, cloud cover"
            f" {meta.cloud_cover}; expected percent in 0..100"
        )
    try:
        packed = _ROW.pack(
            group,
            geocode,
            meta.pixel_coverage,
            NULL_TIME if meta.time_us is None else meta.time_us,
            NULL_TIME if meta.time_end_us is None else meta.time_end_us,
            entry.bytes,
            math.nan if meta.cloud_cover is None else meta.cloud_cover,
            0,
        )
    except struct.error as error:
        raise InvalidInputError(f"tile {meta.key}: {error}") from None
    return packed + struct.pack("<Q", xxhash.xxh3_64_intdigest(packed))


def row_group(row: bytes) -> bytes:
    """The group's digest in a packed row."""
    return row[:DIGEST_BYTES]


def unpack_rows(rows: list[bytes]) -> npt.NDArray[np.void]:
    """Packed rows as one array of ROW_DTYPE, every checksum verified.

    Raises:
        CorruptDataError: a row of another size or checksum.
    """
    joined = b"".join(rows)
    if len(joined) != ROW_BYTES * len(rows):
        raise CorruptDataError(f"catalog: a row is not {ROW_BYTES} bytes long")
    table = np.frombuffer(joined, dtype=ROW_DTYPE)
    digest = xxhash.xxh3_64_intdigest
    expected = np.fromiter(
        (digest(row[:_CHECKED_BYTES]) for row in rows), dtype=np.uint64, count=len(rows)
    )
    if not np.array_equal(expected, table["checksum"]):
        raise CorruptDataError("catalog: a row does not match its checksum")
    return table


def provider_covers(table: npt.NDArray[np.void]) -> npt.NDArray[np.float32]:
    """The providers' own covers of rows (ROW_DTYPE); NaN: unknown."""
    bits = np.ascontiguousarray(table["cloud_cover"]).view("<u4") ^ table["provider_xor"]
    covers: npt.NDArray[np.float32] = bits.view("<f4")
    return covers


def with_covers(
    table: npt.NDArray[np.void], covers: npt.NDArray[np.float32]
) -> npt.NDArray[np.void]:
    """Rows (ROW_DTYPE) that are served with other covers, as a new table with its checksums."""
    own = provider_covers(table).view("<u4")
    changed = table.copy()
    changed["cloud_cover"] = np.where(np.isnan(covers), np.float32(math.nan), covers)
    served = np.ascontiguousarray(changed["cloud_cover"]).view("<u4")
    changed["provider_xor"] = own ^ served
    raw = memoryview(changed.tobytes())
    digest = xxhash.xxh3_64_intdigest
    changed["checksum"] = [
        digest(raw[start : start + _CHECKED_BYTES]) for start in range(0, len(raw), ROW_BYTES)
    ]
    return changed


_STATISTICS = ("minimum", "maximum", "mean", "p01", "p99")


def pack_details(entry: CatalogEntry, group: bytes) -> bytes:
    """The entry's details.

    Raises:
        InvalidInputError: a checksum that is not 32 hex digits, or a histogram of other than
            101 bins.
    """
    meta = entry.meta
    try:
        checksum = bytes.fromhex(entry.checksum)
    except ValueError:
        checksum = b""
    if len(checksum) != 16:
        raise InvalidInputError(
            f"tile {meta.key}: checksum {entry.checksum!r}, expected 32 hex digits"
        )
    numbers = np.array(
        [
            [math.nan if (value := getattr(band, name)) is None else value for name in _STATISTICS]
            for band in meta.statistics
        ],
        dtype="<f8",
    )
    parts = [entry.blocks.tobytes(), numbers.tobytes()]
    flags = 0
    if meta.cloud_histogram is not None:
        if len(meta.cloud_histogram) != HISTOGRAM_BINS:
            raise InvalidInputError(
                f"tile {meta.key}: histogram of {len(meta.cloud_histogram)} bins,"
                f" expected {HISTOGRAM_BINS}"
            )
        flags |= HAS_HISTOGRAM
        parts.append(np.array(meta.cloud_histogram, dtype="<u8").tobytes())
    if meta.bitmaps is not None:
        flags |= HAS_BITMAPS
        parts.append(meta.bitmaps.to_bytes())
        if meta.bitmaps.clear_all is not None:
            flags |= HAS_CLEAR
            codes = meta.bitmaps.cloud_nodata
            parts.append(np.array([len(codes), *codes], dtype="<i8").tobytes())
    header = DETAILS_HEADER.pack(
        0,
        DETAILS_VERSION,
        flags,
        len(entry.blocks),
        len(meta.statistics),
        entry.bytes,
        checksum,
        group,
    )
    body = b"".join([header[8:], *parts])
    return struct.pack("<Q", xxhash.xxh3_64_intdigest(body)) + body


def _read_header(key: TileKey | None, value: bytes) -> tuple[int, int, int, int, str, bytes]:
    """(flags, blocks, bands, file bytes, file checksum, group), the value being verified."""
    where = "a tile" if key is None else f"tile {key.geocode} of scene {key.scene!r}"
    if len(value) < DETAILS_HEADER.size:
        raise CorruptDataError(
            f"catalog: details of {where} are only {len(value)} bytes long; {REBUILD}"
        )
    stored, version, flags, blocks, bands, size, checksum, group = DETAILS_HEADER.unpack_from(value)
    if stored != xxhash.xxh3_64_intdigest(memoryview(value)[8:]):
        raise CorruptDataError(
            f"catalog: details of {where} do not match their checksum; {REBUILD}"
        )
    if version != DETAILS_VERSION:
        raise CorruptDataError(
            f"catalog: details of {where} have version {version}, expected {DETAILS_VERSION}"
        )
    return flags, blocks, bands, size, checksum.hex(), group


def check_details(value: bytes) -> None:
    """
    Raises:
        CorruptDataError: packed details that are cut short or damaged, or of another version.
    """
    flags, blocks, bands, *_ = _read_header(None, value)
    end = _bitmaps_start(flags, blocks, bands)
    if flags & HAS_BITMAPS:
        end += (4 if flags & HAS_CLEAR else 2) * BITMAP_BYTES
    if len(value) < end:
        raise CorruptDataError(
            f"catalog: details of a tile are {len(value)} bytes long, expected {end}; {REBUILD}"
        )


def details_checksum(value: bytes) -> str:
    """The tile file's checksum, from packed details."""
    return _read_header(None, value)[4]


def details_size(value: bytes) -> int:
    """The tile file's size in bytes, from packed details."""
    return _read_header(None, value)[3]


def details_group(value: bytes, key: TileKey | None = None) -> bytes:
    """The group's digest, from packed details (of `key`, which an error then names)."""
    return _read_header(key, value)[5]


def details_histograms(values: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    """(n, 101) histograms of packed details, each verified; all 0 where there is none."""
    found = np.zeros((len(values), HISTOGRAM_BINS), dtype=np.uint64)
    for i, value in enumerate(values):
        flags, blocks, bands, *_ = _read_header(None, value)
        if flags & HAS_HISTOGRAM:
            found[i] = np.frombuffer(
                value, "<u8", count=HISTOGRAM_BINS, offset=_histogram_start(blocks, bands)
            )
    return found


def _histogram_start(blocks: int, bands: int) -> int:
    return DETAILS_HEADER.size + blocks * BLOCK_DTYPE.itemsize + bands * 8 * len(_STATISTICS)


def _bitmaps_start(flags: int, blocks: int, bands: int) -> int:
    start = _histogram_start(blocks, bands)
    return start + 8 * HISTOGRAM_BINS if flags & HAS_HISTOGRAM else start


def bitmaps_in(
    data: memoryview, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
    """Bitmaps of packed details that lie somewhere in some bytes, each verified.

    About 1 us each, two thirds of it for the checksums.

    Args:
        data: the bytes.
        starts: where details begin in them, on any byte.
        lengths: bytes of each.

    Returns:
        (n, 16) words: valid_all, valid_any, clear_all, clear_any of 4 words each, 0 where there is
        none; (n,) which there are: the bits HAS_BITMAPS and HAS_CLEAR, or NOT_SOUND, of which
        `check_details` tells what is wrong.
    """
    words = np.zeros((len(starts), BITMAP_WORDS), dtype="<u8")
    kinds = np.full(len(starts), NOT_SOUND, dtype=np.uint8)
    long_enough = np.flatnonzero(lengths >= DETAILS_HEADER.size)
    starts, lengths = starts[long_enough], lengths[long_enough]
    if not len(starts):
        return words, kinds
    heads = _gathered(data, starts, _HEAD)
    digest = xxhash.xxh3_64_intdigest
    digests = [
        digest(data[start:end])
        for start, end in zip((starts + 8).tolist(), (starts + lengths).tolist(), strict=True)
    ]
    flags = heads["flags"]
    begin = _bitmaps_starts(heads)
    size = np.select([flags & HAS_BITMAPS == 0, flags & HAS_CLEAR == 0], [0, 2], 4) * BITMAP_BYTES
    is_sound = (
        (heads["checksum"] == np.array(digests, dtype=np.uint64))
        & (heads["version"] == DETAILS_VERSION)
        & (begin + size <= lengths)
    )
    of_sound = (flags & (HAS_BITMAPS | HAS_CLEAR)).astype(np.uint8)
    of_sound[size == 0] = 0
    kinds[long_enough[is_sound]] = of_sound[is_sound]
    for count in (BITMAP_WORDS // 2, BITMAP_WORDS):
        own = np.flatnonzero(is_sound & (size == 8 * count))
        if len(own):
            found = _gathered(data, starts[own] + begin[own], np.dtype(("<u8", count)))
            words[long_enough[own], :count] = found
    return words, kinds


def _gathered(
    data: memoryview, starts: npt.NDArray[np.int64], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Copies of values that begin on any bytes. Each must lie in `data` whole."""
    size = dtype.itemsize
    every = np.ndarray((len(data) - size + 1,), f"V{size}", data, strides=(1,))
    plain: npt.NDArray[Any] = every[starts]
    if dtype.subdtype is None:
        return plain.view(dtype)
    base, shape = dtype.subdtype
    return plain.view(base).reshape(len(starts), *shape)


def _bitmaps_starts(heads: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    """`_bitmaps_start` of many."""
    has_histogram = heads["flags"] & HAS_HISTOGRAM > 0
    return (
        DETAILS_HEADER.size
        + heads["blocks"].astype(np.int64) * BLOCK_DTYPE.itemsize
        + heads["bands"].astype(np.int64) * (8 * len(_STATISTICS))
        + np.where(has_histogram, 8 * HISTOGRAM_BINS, 0)
    )


def _read_bitmaps(flags: int, start: int, value: bytes) -> BlockBitmaps | None:
    if not flags & HAS_BITMAPS:
        return None
    if not flags & HAS_CLEAR:
        return BlockBitmaps.from_bytes(value[start : start + 2 * BITMAP_BYTES])
    end = start + 4 * BITMAP_BYTES
    codes = np.frombuffer(value, "<i8", offset=end).tolist()
    return BlockBitmaps.from_bytes(value[start:end], tuple(codes[1 : 1 + codes[0]]))


def unpack_details(key: TileKey, value: bytes, group: Group) -> TileDetails:
    """Packed details as a value; the block table is a view on `value`, not a copy.

    Raises:
        CorruptDataError: not what `pack_details` wrote.
    """
    flags, blocks, bands, size, checksum, _ = _read_header(key, value)
    table_end = DETAILS_HEADER.size + blocks * BLOCK_DTYPE.itemsize
    numbers = np.frombuffer(value, "<f8", count=bands * len(_STATISTICS), offset=table_end)
    histogram = None
    if flags & HAS_HISTOGRAM:
        start = _histogram_start(blocks, bands)
        bins = np.frombuffer(value, "<u8", count=HISTOGRAM_BINS, offset=start)
        histogram = tuple(int(count) for count in bins)
    rows = numbers.reshape(bands, len(_STATISTICS)).tolist()
    return TileDetails(
        key=key,
        blocks=np.frombuffer(value, BLOCK_DTYPE, count=blocks, offset=DETAILS_HEADER.size),
        statistics=tuple(
            BandStatistics(
                **{
                    name: None if math.isnan(number) else number
                    for name, number in zip(_STATISTICS, row, strict=True)
                }
            )
            for row in rows
        ),
        cloud_histogram=histogram,
        cloud_method=group.cloud_method,
        provider_method=group.cloud_method,
        checksum=checksum,
        bytes=size,
        properties=group.properties,
        bitmaps=_read_bitmaps(flags, _bitmaps_start(flags, blocks, bands), value),
    )
