"""Row batches as bytes: what is said, in what layout, and what is refused."""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from geostore.errors import CorruptDataError, InvalidInputError, MissingDependencyError
from geostore.grid import scheme
from geostore.query import sort_batch
from geostore.rpc import row_batches
from geostore.rpc.row_arrow import arrow_schema
from geostore.rpc.row_batches import BatchDecoder, BatchEncoder
from geostore.tensors.tables import record_batches
from geostore.types import RowBatch, TileRow, TileSchema
from geostore.types.tile import ROW_COLUMNS
from tests.synthetic_tiles import QUAD_SCHEMA, SCHEMA, make_batch, make_entry, many_entries

HEADER_BYTES = 80


def mixed_batch() -> RowBatch:
    """Two schemes, lengths that differ, nulls in every column that has them."""
    batch = make_batch(
        [
            make_entry("dqcjq", scene="Szene ä", cloud=None),
            make_entry("0320121032120", schema=QUAD_SCHEMA, dataset="l8", platform=None),
            make_entry("dqcjr", scene="\U0001f6f0", time_us=None),
            make_entry("dqcjr", version="v2", time_us=-5, time_end_us=7, coverage=33.3),
        ]
    )
    for row, nodes in enumerate([("a",), ("b", "c"), (), ("a",)]):
        batch.nodes[row] = nodes
    return batch


def same(ours: RowBatch, theirs: RowBatch, *, row_ids: bool = False) -> None:
    assert len(ours) == len(theirs)
    for name in ROW_COLUMNS:
        column, other = getattr(ours, name), getattr(theirs, name)
        assert column.dtype == other.dtype
        if name == "schema":
            column, other = (np.array([s.digest for s in each]) for each in (column, other))
        if name != "row_id" or row_ids:
            np.testing.assert_array_equal(column, other, strict=True)


def test_a_batch_comes_back_whole() -> None:
    batch = mixed_batch()
    same(BatchDecoder().decode(BatchEncoder().encode(batch)), batch)
    with_ids = replace(batch, row_id=np.array([9, -1, 2**62, 0]))
    same(BatchDecoder().decode(BatchEncoder(row_ids=True).encode(with_ids)), with_ids, row_ids=True)


def test_a_stream_sends_each_text_once_and_shares_it() -> None:
    whole = sort_batch(make_batch(list(many_entries(3000))))
    parts = [whole.take(slice(start, start + 500)) for start in range(0, 3000, 500)]
    encoder, decoder = BatchEncoder(), BatchDecoder()
    messages = [encoder.encode(part) for part in parts]
    decoded = RowBatch.concatenate([decoder.decode(message) for message in messages])
    same(decoded, whole)
    assert decoded.row_id.tolist() == list(range(3000))
    assert len({id(schema) for schema in decoded.schema}) == 1
    for name in ("scene", "version", "dataset", "nodes"):
        column = getattr(decoded, name)
        assert len({id(v) for v in column}) == len(set(getattr(whole, name)))
    assert sum(message.count(b'"scheme"') for message in messages) == 1
    for scene in set(whole.scene):
        assert sum(message.count(scene.encode()) for message in messages) == 1
    numbers = 3 * 8 + 2 * 4
    assert sum(map(len, messages)) < 3000 * (numbers + 5 + 4) + 20_000


def test_equal_values_that_are_not_one_object_share_an_entry() -> None:
    batch = make_batch([make_entry("dqcjq"), make_entry("dqcjr")])
    other = TileSchema.from_json(json.loads(json.dumps(SCHEMA.to_json())))
    batch.schema[1] = other
    batch.scene[1] = "".join(list(batch.scene[0]))
    assert batch.scene[1] is not batch.scene[0]
    decoded = BatchDecoder().decode(BatchEncoder().encode(batch))
    assert decoded.schema[0] is decoded.schema[1]
    assert decoded.scene[0] is decoded.scene[1]


def test_streams_share_their_schemas() -> None:
    first, second = (
        BatchDecoder().decode(BatchEncoder().encode(make_batch([make_entry()]))) for _ in range(2)
    )
    assert first.schema[0] is second.schema[0]


def test_numbers_are_views_of_the_message() -> None:
    message = BatchEncoder().encode(mixed_batch())
    decoded = BatchDecoder().decode(message)
    address = np.frombuffer(message, dtype=np.uint8).ctypes.data
    for name in ("time_us", "time_end_us", "pixel_coverage", "cloud_cover", "bytes"):
        column = getattr(decoded, name)
        assert 0 < column.ctypes.data - address < len(message)
        assert (column.ctypes.data - address) % 8 == 0
        assert not column.flags.writeable


def test_a_batch_without_rows() -> None:
    empty = make_batch([])
    same(BatchDecoder().decode(BatchEncoder().encode(empty)), empty)
    assert list(BatchEncoder().encode_stream([empty])) == []


def test_codes_are_wide_where_there_are_many_entries() -> None:
    entries = [make_entry(scene=f"s{i}") for i in range(300)]
    encoder, decoder = BatchEncoder(), BatchDecoder()
    same(decoder.decode(encoder.encode(make_batch(entries))), make_batch(entries))
    for some in (entries[280:281], [entries[290]] * 2, entries[:3], [entries[299]] * 7):
        same(decoder.decode(encoder.encode(make_batch(some))), make_batch(some))


def test_full_dictionaries_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_batches, "ENTRIES_MAX", 100)
    batches = [make_batch([make_entry(scene=f"s{n}-{i}") for i in range(40)]) for n in range(9)]
    encoder, decoder = BatchEncoder(), BatchDecoder()
    flags = []
    for batch in batches:
        message = encoder.encode(batch)
        flags.append(message[5])
        same(decoder.decode(message), batch)
    assert flags == [1, 0, 1, 0, 1, 0, 1, 0, 1]
    with pytest.raises(InvalidInputError, match="names take more"):
        encoder.encode(make_batch([make_entry(scene=f"x{i}") for i in range(101)]))
    same(decoder.decode(encoder.encode(batches[0])), batches[0])


def test_texts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_batches, "DICTIONARY_BYTES_MAX", 6000)
    batches = [make_batch([make_entry(scene=f"{n}" * 2000)]) for n in range(9)]
    encoder, decoder = BatchEncoder(), BatchDecoder()
    messages = [encoder.encode(batch) for batch in batches]
    for message, batch in zip(messages, batches, strict=True):
        same(decoder.decode(message), batch)
    assert 1 < sum(message[5] for message in messages) < 9
    with pytest.raises(InvalidInputError, match="names take more"):
        encoder.encode(make_batch([make_entry(scene="x" * 7000)]))
    monkeypatch.setattr(row_batches, "DICTIONARY_BYTES_MAX", 100)
    with pytest.raises(CorruptDataError, match="bytes of dictionary"):
        BatchDecoder().decode(messages[0])


def test_what_is_refused_leaves_the_stream_whole() -> None:
    encoder, decoder = BatchEncoder(), BatchDecoder()
    for change in ({"geocode": "DQ"}, {"geocode": "ä"}, {"geocode": ""}, {"geocode": "d" * 27}):
        batch = make_batch([make_entry(scene="new")])
        batch.geocode[0] = change["geocode"]
        with pytest.raises(InvalidInputError, match="geocode"):
            encoder.encode(batch)
    for name, value in [("scene", 5), ("scene", None), ("nodes", ("a\0",)), ("scene", "\ud800")]:
        batch = make_batch([make_entry()])
        getattr(batch, name)[0] = value
        with pytest.raises(InvalidInputError, match=name):
            encoder.encode(batch)
    batch = make_batch([make_entry(scene="new"), make_entry(scene="newer")])
    same(decoder.decode(encoder.encode(batch)), batch)


def test_long_batches_are_split() -> None:
    batch = make_batch(list(many_entries(700)))
    decoder = BatchDecoder()
    parts = [decoder.decode(m) for m in BatchEncoder().encode_stream([batch], rows_max=300)]
    assert [len(part) for part in parts] == [300, 300, 100]
    same(RowBatch.concatenate(parts), batch)
    with pytest.raises(InvalidInputError, match="at most 65536"):
        BatchEncoder().encode(batch.take(np.zeros(65_537, dtype=np.intp)))


# ---------------------------------------------------------------- the layout


def test_the_layout_is_as_written() -> None:
    """Read by the module's page alone, as a program in another language would."""
    batch = make_batch([make_entry("dqcjq", scene="a"), make_entry("dqcjr", scene="b", cloud=None)])
    message = BatchEncoder().encode(batch)
    assert message[:8] == b"gsrb\x01\x01\x05\x00"
    rows, total = struct.unpack_from("<II", message, 8)
    assert (rows, total) == (2, len(message))
    sizes = struct.unpack_from("<16I", message, 16)
    sections, start = [], HEADER_BYTES
    for size in sizes:
        sections.append(message[start : start + size])
        start += -(-size // 8) * 8
    counts = struct.unpack_from("<7I", sections[0])
    assert counts == (1, 1, 2, 1, 1, 1, 1)
    lengths = struct.unpack_from("<8I", sections[0], 28)
    texts, start = [], 28 + 32
    for length in lengths:
        texts.append(sections[0][start : start + length])
        start += length
    assert texts[:5] == [b"id-s2", b"s2", b"a", b"b", b"v1"]
    assert json.loads(texts[5]) == json.loads(json.dumps(SCHEMA.to_json()))
    assert texts[6:] == [b"sentinel-2a", b"local\0"]
    assert sections[1:8] == [b"\0", b"\0", b"\0\1", b"\0", b"\0", b"\0", b"\0"]
    assert sections[8:11] == [b"", b"dqcjqdqcjr", b""]
    assert struct.unpack("<2q", sections[11]) == (0, 0)
    cloud = struct.unpack("<2f", sections[14])
    assert cloud[0] == 0.0
    assert cloud[1] != cloud[1]
    assert struct.unpack("<2q", sections[15]) == (100_000, 100_000)


# ---------------------------------------------------------------- hostile bytes


def refused(message: bytes, match: str) -> None:
    with pytest.raises(CorruptDataError, match=match):
        BatchDecoder().decode(message)


def with_header(message: bytes, form: str, offset: int, value: int) -> bytes:
    changed = bytearray(message)
    struct.pack_into(form, changed, offset, value)
    return bytes(changed)


def test_every_cut_is_refused() -> None:
    message = BatchEncoder().encode(mixed_batch())
    for end in range(len(message)):
        refused(message[:end], "row batch")
    refused(message + b"\0" * 8, "row batch")


def test_another_version_is_told_from_damage() -> None:
    message = BatchEncoder().encode(mixed_batch())
    with pytest.raises(InvalidInputError, match="version 2"):
        BatchDecoder().decode(with_header(message, "<B", 4, 2))
    refused(b"GSRB" + message[4:], "begins with")


@pytest.mark.parametrize(
    ("form", "offset", "value"),
    [("<B", 5, 3), ("<B", 6, 27), ("<B", 7, 1), ("<I", 8, 2**32 - 1), ("<I", 8, 5)]
    + [("<I", 16 + 4 * section, 2**32 - 1) for section in range(16)],
)
def test_absurd_headers_are_refused(form: str, offset: int, value: int) -> None:
    refused(with_header(BatchEncoder().encode(mixed_batch()), form, offset, value), "row batch")


def test_absurd_counts_of_entries_are_refused() -> None:
    message = BatchEncoder().encode(mixed_batch())
    for column in range(7):
        for count in (2**32 - 1, 65_536, 5):
            refused(with_header(message, "<I", HEADER_BYTES + 4 * column, count), "row batch")
    for entry in range(3):
        refused(with_header(message, "<I", HEADER_BYTES + 28 + 4 * entry, 2**31), "row batch")
    refused(with_header(message, "<I", HEADER_BYTES + 28, 2**32 - 1), "row batch")


def test_a_code_without_an_entry_is_refused() -> None:
    encoder = BatchEncoder()
    encoder.encode(mixed_batch())
    refused(encoder.encode(mixed_batch()), "code")  # a decoder that missed the first message


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"[" * 10_000,
        b"\xff",
        b'{"scheme":"geohash","length":5,"codec":"fast","groups":5}',
        b'{"scheme":"geohash","length":5,"codec":"fast","groups":[{"bands":[{"dtype":[]}]}]}',
        b'{"scheme":"geohash","length":5,"codec":"fast","groups":[5]}',
        b'{"scheme":"geohash","length":"5","codec":"fast","groups":[]}',
        b'{"scheme":"hexagon","length":5,"codec":"fast","groups":[]}',
        b'{"scheme":"geohash","length":' + b"9" * 5000 + b',"codec":"fast","groups":[]}',
    ],
)
def test_schemas_that_are_none_are_refused(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_batches, "schema_text", lambda schema: text)
    refused(BatchEncoder().encode(make_batch([make_entry()])), "schema")


@pytest.mark.parametrize(
    ("where", "value"),
    [("scale", "1"), ("name", 5), ("common_name", []), ("nodata", [1]), ("dtype", "(1,")],
)
def test_bands_that_are_none_are_refused(
    where: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema: dict[str, Any] = SCHEMA.to_json()
    schema["groups"][0]["bands"][0][where] = value
    monkeypatch.setattr(row_batches, "schema_text", lambda _: json.dumps(schema).encode())
    refused(BatchEncoder().encode(make_batch([make_entry()])), "schema")


def test_streams_of_several_nodes_bring_the_same_objects() -> None:
    message = BatchEncoder().encode(make_batch([make_entry(scene="a scene of some length")]))
    one, other = (BatchDecoder().decode(message) for _ in range(2))
    for name in ("dataset_id", "dataset", "scene", "version", "schema", "platform"):
        assert getattr(one, name)[0] is getattr(other, name)[0], name
    assert one.schema[0] is one.schema[0].from_json(one.schema[0].to_json()).shared()


# ---------------------------------------------------------------- Arrow


@pytest.mark.parametrize("rows", [slice(None), slice(1), slice(1, 2), slice(0)])
def test_arrow_has_the_rows_from_the_wire_and_from_the_catalog(rows: slice) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    for whole in (mixed_batch(), sort_batch(make_batch(list(many_entries(600))), "cloud")):
        batch = whole.take(rows)
        sent = BatchDecoder().decode_arrow(BatchEncoder().encode(batch))
        for ours in (sent, *record_batches([batch])):
            ours.validate(full=True)
            assert ours.schema == arrow_schema()
            assert ours.to_pylist() == [arrow_row(row) for row in batch.rows()]


def arrow_row(row: TileRow) -> dict[str, Any]:
    """A row as `Selection.to_arrow` has it, made one field at a time."""
    box = scheme(row.schema.scheme).bounds(row.geocode)
    return {
        "dataset": row.dataset,
        "geocode": row.geocode,
        "scene": row.scene,
        "time": row.time,
        "time_end": row.time_end,
        "platform": row.platform,
        "bands": list(row.bands),
        "pixel_coverage": row.pixel_coverage,
        "cloud_cover": row.cloud_cover,
        "bbox": {"xmin": box.west, "ymin": box.south, "xmax": box.east, "ymax": box.north},
        "bytes": row.bytes,
        "nodes": list(row.nodes),
    }


def test_arrow_refuses_cells_that_are_none() -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    for geocodes in (("aaaaa",), ("d" * 13,), ("dq", "aaaaa")):
        batch = make_batch([make_entry() for _ in geocodes])
        batch.geocode[:] = geocodes
        message = BatchEncoder().encode(batch)
        with pytest.raises(CorruptDataError, match="row batch"):
            BatchDecoder().decode_arrow(message)


def test_without_pyarrow_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"geostore\[parquet\]"):
        BatchDecoder().decode_arrow(BatchEncoder().encode(make_batch([])))
