"""Three ways to put rows on the wire, for decision 0003: our columns, Arrow IPC, protobuf.

    python -m tests.benchmarks.bench_wire_formats [--quick] [--tiles N] [--rounds N]

Each takes the same batches of a catalog to bytes and back to equal batches, which is what a
coordinator needs to merge. Rounds are interleaved; medians, in nanoseconds a row. The second
table is what each adds to a process that imports it: resident memory and time, in a fresh
interpreter, over one that has numpy and protobuf.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from geostore.index import open_catalog
from geostore.query import Query
from geostore.query.identity import object_runs
from geostore.rpc.row_batches import BatchDecoder, BatchEncoder
from geostore.rpc.schema_texts import schema_of, schema_text
from geostore.types import RowBatch
from geostore.types.tile import ROW_COLUMNS
from tests.synthetic_tiles import many_entries

TEXTS = ("dataset_id", "dataset", "geocode", "scene", "version", "schema", "platform", "nodes")
INTEGERS = ("row_id", "time_us", "time_end_us", "bytes")
REALS = ("pixel_coverage", "cloud_cover")


def _texts(batch: RowBatch, name: str) -> list[str | None]:
    column = getattr(batch, name).tolist()
    if name == "schema":
        return list(_schemas(batch))
    if name == "nodes":
        return ["\0".join(nodes) for nodes in column]
    return list(column)


def _schemas(batch: RowBatch) -> list[str]:
    return [schema_text(schema).decode() for schema in batch.schema.tolist()]


def _objects(name: str, texts: list[Any]) -> np.ndarray[Any, Any]:
    if name == "schema":
        known = {text: schema_of(text.encode()) for text in set(texts)}
        texts = [known[text] for text in texts]
    elif name == "nodes":
        known_nodes = {text: tuple(filter(None, text.split("\0"))) for text in set(texts)}
        texts = [known_nodes[text] for text in texts]
    column = np.empty(len(texts), dtype=np.object_)
    column[:] = texts
    return column


# ---------------------------------------------------------------- the three


def columns_out(batches: list[RowBatch]) -> list[bytes]:
    return list(BatchEncoder().encode_stream(batches))


def columns_in(messages: list[bytes]) -> list[RowBatch]:
    decoder = BatchDecoder()
    return [decoder.decode(message) for message in messages]


def _coded(batch: RowBatch, name: str) -> Any:
    """A dictionary array, by the identity of the interned values: as cheap as ours."""
    column = getattr(batch, name)
    starts, addresses = object_runs(column)
    _, firsts, inverse = np.unique(addresses, return_index=True, return_inverse=True)
    codes = np.repeat(inverse, np.diff(starts, append=len(column))).astype(np.int32)
    values = _texts(batch.take(starts[firsts]), name)
    return pa.DictionaryArray.from_arrays(codes, pa.array(values, pa.string()))


def arrow_out(batches: list[RowBatch]) -> list[bytes]:
    """One IPC stream; a batch brings its own dictionaries."""
    made = []
    for batch in batches:
        arrays: dict[str, Any] = {
            name: pa.array(batch.geocode.tolist()) if name == "geocode" else _coded(batch, name)
            for name in TEXTS
        }
        arrays |= {name: pa.array(getattr(batch, name)) for name in (*INTEGERS, *REALS)}
        made.append(pa.RecordBatch.from_pydict(arrays))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, made[0].schema) as writer:
        for each in made:
            writer.write_batch(each)
    return [sink.getvalue().to_pybytes()]


def arrow_in(messages: list[bytes]) -> list[RowBatch]:
    found = []
    for batch in pa.ipc.open_stream(messages[0]):
        columns: dict[str, Any] = {}
        for name in TEXTS:
            array = batch.column(name)
            if name == "geocode":
                columns[name] = _objects(name, array.to_pylist())
                continue
            values = _objects(name, array.dictionary.to_pylist())
            columns[name] = values[array.indices.to_numpy()]
        for name in (*INTEGERS, *REALS):
            columns[name] = batch.column(name).to_numpy()
        found.append(RowBatch(**columns))
    return found


def _row_messages() -> Any:
    """A `Rows` message of one message a row, as a plain contract would have it."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="rows.proto", package="bench", syntax="proto3")
    row = file.message_type.add(name="Row")
    for number, name in enumerate((*TEXTS, *INTEGERS, *REALS), start=1):
        kind = kinds.TYPE_STRING if name in TEXTS else kinds.TYPE_SINT64
        kind = kinds.TYPE_FLOAT if name in REALS else kind
        row.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    rows = file.message_type.add(name="Rows")
    rows.field.add(name="schemas", number=2, type=kinds.TYPE_STRING, label=kinds.LABEL_REPEATED)
    rows.field.add(
        name="rows", number=1, type=kinds.TYPE_MESSAGE, type_name=".bench.Row",
        label=kinds.LABEL_REPEATED,
    )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.Rows"))


ROWS = _row_messages()


def protobuf_out(batches: list[RowBatch]) -> list[bytes]:
    messages = []
    for batch in batches:
        known: dict[str, int] = {}  # a schema is sent once a message, rows say which
        schemas = [str(known.setdefault(text, len(known))) for text in _schemas(batch)]
        columns = [schemas if name == "schema" else _texts(batch, name) for name in TEXTS]
        columns += [getattr(batch, name).tolist() for name in (*INTEGERS, *REALS)]
        names = (*TEXTS, *INTEGERS, *REALS)
        message = ROWS(schemas=list(known))
        for values in zip(*columns, strict=True):
            message.rows.add(**dict(zip(names, values, strict=True)))
        messages.append(message.SerializeToString())
    return messages


def protobuf_in(messages: list[bytes]) -> list[RowBatch]:
    found = []
    for data in messages:
        message = ROWS.FromString(data)
        rows = message.rows
        columns: dict[str, Any] = {
            name: _objects(name, [getattr(row, name) for row in rows])
            for name in TEXTS
            if name != "schema"
        }
        schemas = _objects("schema", list(message.schemas))
        columns["schema"] = schemas[[int(row.schema) for row in rows]]
        columns["platform"][columns["platform"] == ""] = None
        for name in INTEGERS:
            columns[name] = np.array([getattr(row, name) for row in rows], dtype=np.int64)
        for name in REALS:
            columns[name] = np.array([getattr(row, name) for row in rows], dtype=np.float32)
        found.append(RowBatch(**columns))
    return found


@dataclass(frozen=True)
class Format:
    name: str
    out: Callable[[list[RowBatch]], list[bytes]]
    back: Callable[[list[bytes]], list[RowBatch]]


FORMATS = (
    Format("our columns", columns_out, columns_in),
    Format("Arrow IPC", arrow_out, arrow_in),
    Format("protobuf, a message a row", protobuf_out, protobuf_in),
)


def _same(left: list[RowBatch], right: list[RowBatch]) -> bool:
    one, other = RowBatch.concatenate(left), RowBatch.concatenate(right)
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name in REALS)
        for name in ROW_COLUMNS
        if name != "row_id"
    )


# ---------------------------------------------------------------- what an import costs

IMPORT = """
import json, sys, time, numpy, google.protobuf.message
def rss(): return int(open('/proc/self/statm').read().split()[1]) * 4096
before, start = rss(), time.perf_counter()
exec(sys.argv[1])
print(json.dumps([rss() - before, time.perf_counter() - start]))
"""


def _import_cost(statement: str, rounds: int) -> tuple[float, float]:
    """MiB and ms, medians."""
    told = [
        json.loads(subprocess.check_output([sys.executable, "-c", IMPORT, statement]))
        for _ in range(rounds)
    ]
    memory, seconds = zip(*told, strict=True)
    return statistics.median(memory) / 2**20, 1000 * statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5,000 tiles, 3 rounds")
    parser.add_argument("--tiles", type=int)
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    tiles = options.tiles or (5_000 if options.quick else 50_000)
    rounds = options.rounds or (3 if options.quick else 7)
    work = Path(tempfile.mkdtemp(prefix="bench-wire-"))
    seconds: dict[tuple[str, str], list[float]] = {}
    sizes: dict[str, int] = {}
    try:
        with open_catalog(work / "catalog", writable=True) as catalog:
            catalog.rebuild(many_entries(tiles))
            definition = b's{"id":"id-s2","name":"s2","placement":5}'
            catalog.record_compare_and_set("dataset/s2", 0, definition)
            batches = list(catalog.query(Query()))
        for _ in range(rounds):
            for form in FORMATS:
                start = time.perf_counter()
                messages = form.out(batches)
                middle = time.perf_counter()
                back = form.back(messages)
                end = time.perf_counter()
                seconds.setdefault((form.name, "out"), []).append(middle - start)
                seconds.setdefault((form.name, "in"), []).append(end - middle)
                sizes[form.name] = sum(map(len, messages))
                assert _same(batches, back), form.name
    finally:
        shutil.rmtree(work)

    def ns(form: Format, way: str) -> float:
        return 1e9 * statistics.median(seconds[form.name, way]) / tiles

    print(f"{tiles:,} tiles, {rounds} rounds; Arrow {pa.__version__}")
    print(f"{'format':<28}{'bytes a row':>12}{'encode ns':>12}{'decode ns':>12}")
    for form in FORMATS:
        size = sizes[form.name] / tiles
        print(f"{form.name:<28}{size:>12.1f}{ns(form, 'out'):>12.0f}{ns(form, 'in'):>12.0f}")
    print(f"\n{'import':<28}{'MiB':>12}{'ms':>12}")
    for name, statement in (
        ("our columns", "import geostore.rpc.row_batches"),
        ("Arrow IPC", "import pyarrow, pyarrow.ipc"),
        ("protobuf", "import google.protobuf.message"),
    ):
        memory, ms = _import_cost(statement, rounds)
        print(f"{name:<28}{memory:>12.1f}{ms:>12.0f}")


if __name__ == "__main__":
    main()
