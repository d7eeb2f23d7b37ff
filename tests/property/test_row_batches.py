"""Row batches as bytes: any batch comes back, any damage is told."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geostore.errors import CorruptDataError, InvalidInputError
from geostore.rpc.row_batches import BatchDecoder, BatchEncoder
from geostore.types import NULL_TIME, RowBatch
from geostore.types.tile import ROW_COLUMNS
from tests.synthetic_tiles import QUAD_SCHEMA, SCHEMA, make_batch, make_entry

NAMES = st.text(st.characters(codec="utf-8"), max_size=12)
DIGITS = st.sampled_from("0123456789bcdefghjkmnpqrstuvwxyz")
TIMES = st.one_of(st.just(NULL_TIME), st.integers(-(2**63), 2**63 - 1))
PERCENT = st.one_of(st.just(float("nan")), st.floats(0, 100, width=32))


@st.composite
def batches(draw: st.DrawFn) -> RowBatch:
    rows = draw(st.integers(0, 30))
    pool = draw(st.lists(NAMES, min_size=1, max_size=5))
    names = st.one_of(st.sampled_from(pool), NAMES)
    width = draw(st.one_of(st.none(), st.integers(1, 26)))
    lengths = st.integers(1, 26) if width is None else st.just(width)

    def numbers(values: st.SearchStrategy[float], dtype: type) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=rows, max_size=rows)), dtype=dtype)

    def texts(values: st.SearchStrategy[object]) -> np.ndarray:
        column = np.empty(rows, dtype=np.object_)
        for i in range(rows):
            column[i] = draw(values)
        return column

    node_names = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
    return RowBatch(
        row_id=numbers(st.integers(-(2**63), 2**63 - 1), np.int64),
        dataset_id=texts(names),
        dataset=texts(names),
        geocode=texts(lengths.flatmap(lambda n: st.text(DIGITS, min_size=n, max_size=n))),
        scene=texts(names),
        version=texts(names),
        schema=texts(st.sampled_from([SCHEMA, QUAD_SCHEMA])),
        platform=texts(st.one_of(st.none(), names)),
        time_us=numbers(TIMES, np.int64),
        time_end_us=numbers(TIMES, np.int64),
        pixel_coverage=numbers(PERCENT, np.float32),
        cloud_cover=numbers(PERCENT, np.float32),
        bytes=numbers(st.integers(0, 2**62), np.int64),
        nodes=texts(st.lists(node_names, max_size=3).map(tuple)),
    )


@settings(deadline=None)
@given(st.lists(batches(), max_size=4), st.booleans())
def test_any_stream_comes_back(stream: list[RowBatch], row_ids: bool) -> None:
    encoder, decoder = BatchEncoder(row_ids=row_ids), BatchDecoder()
    for batch in stream:
        decoded = decoder.decode(encoder.encode(batch))
        for name in ROW_COLUMNS:
            if name != "row_id" or row_ids:
                np.testing.assert_array_equal(getattr(decoded, name), getattr(batch, name))


def _messages() -> list[bytes]:
    first = make_batch([make_entry("dqcjq", scene=f"s{i}", cloud=None) for i in range(9)])
    second = make_batch(
        [
            make_entry("dqcjq", scene="s3", time_us=None),
            make_entry("0320121032120", schema=QUAD_SCHEMA, dataset="l8", platform=None),
        ]
    )
    encoder = BatchEncoder(row_ids=True)
    return [encoder.encode(first), encoder.encode(second)]


def _read(messages: list[bytes]) -> None:
    """Nothing but the two errors leaves, and what is read can be used."""
    decoder = BatchDecoder()
    try:
        for message in messages:
            batch = decoder.decode(message)
            assert all(len(getattr(batch, name)) == len(batch) for name in ROW_COLUMNS)
            assert all(isinstance(band.name, str) for s in batch.schema for band in s.bands)
    except (CorruptDataError, InvalidInputError):
        pass


@pytest.mark.parametrize("seed", range(20))
def test_changed_bytes_never_raise_anything_else(seed: int) -> None:
    rng = random.Random(seed)
    originals = _messages()
    for _ in range(250):
        messages = [bytearray(message) for message in originals]
        for _ in range(rng.randint(1, 4)):
            message = rng.choice(messages)
            position = rng.choice([rng.randrange(len(message)), rng.randrange(400)])
            position %= len(message)
            message[position] = rng.choice([0, 255, rng.randrange(256), message[position] ^ 1])
        _read([bytes(message) for message in messages])


@settings(deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_garbage_never_raises_anything_else(data: bytes, with_magic: bool) -> None:
    _read([b"gsrb\x01\x01" + data if with_magic else data])


def test_every_byte_flipped() -> None:
    originals = _messages()
    for position in range(len(originals[0])):
        message = bytearray(originals[0])
        message[position] ^= 0xFF
        _read([bytes(message), originals[1]])


def test_arrow_of_changed_bytes_never_raises_anything_else() -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    rng = random.Random(5)
    originals = _messages()
    for _ in range(400):
        decoder = BatchDecoder()
        try:
            for original in originals:
                message = bytearray(original)
                message[rng.randrange(len(message))] = rng.randrange(256)
                decoder.decode_arrow(bytes(message)).validate(full=True)
        except (CorruptDataError, InvalidInputError):
            pass
