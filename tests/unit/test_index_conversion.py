"""Catalogs of before, in LMDB, are converted; the one here was written by the code of then."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import lmdb
import pytest

from geostore.errors import CorruptDataError, StoreFormatError
from geostore.index import LogCatalog, conversion, open_catalog
from geostore.index.log import LogWriter
from geostore.query import Query
from geostore.types import TileKey

STORES = Path(__file__).parent / "stores"
OLD_FILES = {"data.mdb", "lock.mdb"}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    directory = tmp_path / "catalog"
    directory.mkdir()
    data = gzip.decompress((STORES / "lmdb-catalog.mdb.gz").read_bytes())
    (directory / "data.mdb").write_bytes(data)
    (directory / "lock.mdb").write_bytes(b"")
    return directory


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        gzip.decompress((STORES / "lmdb-catalog.json.gz").read_bytes())
    )
    return found


def held(catalog: LogCatalog) -> dict[str, Any]:
    """All that a catalog says, in the words of the expectation; row ids are a catalog's own."""
    rows = []
    for batch in catalog.query(Query()):
        for i, row in enumerate(batch.rows()):
            key = row.key
            rows.append(
                [
                    [key.dataset_id, key.scene, key.version, key.geocode],
                    row.dataset,
                    row.platform,
                    row.schema.digest,
                    int(batch.time_us[i]),
                    int(batch.time_end_us[i]),
                    row.pixel_coverage,
                    row.cloud_cover,
                    row.bytes,
                ]
            )
    details = []
    keys = catalog.keys()
    for key in keys:
        found = catalog.details(key)
        statistics = [[s.minimum, s.maximum, s.mean, s.p01, s.p99] for s in found.statistics]
        histogram = found.cloud_histogram
        details.append(
            [
                found.checksum,
                found.bytes,
                found.blocks.tobytes().hex(),
                statistics,
                None if histogram is None else list(histogram),
                found.cloud_method,
                found.provider_method,
                found.properties,
            ]
        )
    records = {}
    for name in catalog.record_names():
        record = catalog.record_get(name)
        assert record is not None
        records[name] = [base64.b64encode(record.value).decode(), record.revision]
    return {
        "rows": rows,
        "provider": [catalog.provider_cover(key) for key in keys],
        "details": details,
        "staged": [[[*_names(tile.key)], tile.checksum, tile.bytes] for tile in catalog.staged()],
        "records": records,
    }


def _names(key: TileKey) -> tuple[str, ...]:
    return key.dataset_id, key.scene, key.version, key.geocode


def wanted(expected: dict[str, Any]) -> dict[str, Any]:
    return {**expected, "rows": [row[:-1] for row in expected["rows"]]}


def test_a_writer_converts_for_good(old: Path, expected: dict[str, Any]) -> None:
    with open_catalog(old, writable=True) as catalog:
        assert held(catalog) == wanted(expected)
        assert catalog.check() == []
        assert catalog.publish("id-s2", "later", "v9") == 2
    assert not OLD_FILES & {path.name for path in old.iterdir()}
    with open_catalog(old, writable=False) as again:
        assert again.count(Query()) == len(expected["rows"]) + 2
        assert again.check() == []


def test_a_reader_leaves_the_directory_as_it_is(old: Path, expected: dict[str, Any]) -> None:
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    with open_catalog(old, writable=False) as catalog:
        assert held(catalog) == wanted(expected)
        assert catalog.directory == old
        with open_catalog(old, writable=True) as writer:  # beside it
            assert writer.publish("id-s2", "later", "v9") == 2
            assert writer.count(Query()) == catalog.count(Query()) + 2
    assert (old / "log").is_dir()
    assert "data.mdb" in before


@pytest.mark.parametrize("step", ["append", "sync", "rename"])
def test_a_conversion_that_is_cut_off_is_begun_anew(
    old: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        where: Any = Path if step == "rename" else LogWriter
        patched.setattr(where, step, die)
        with pytest.raises(Killed):
            open_catalog(old, writable=True)
    assert (old / "data.mdb").exists()
    with open_catalog(old, writable=True) as catalog:
        assert held(catalog) == wanted(expected)


def test_what_a_crash_left_of_the_old_one_is_removed(old: Path, expected: dict[str, Any]) -> None:
    conversion.convert(old, old / "log")
    assert (old / "data.mdb").exists()
    with open_catalog(old, writable=False) as reader:  # the log is whole: it counts
        assert held(reader) == wanted(expected)
    with open_catalog(old, writable=True) as catalog:
        assert held(catalog) == wanted(expected)
    assert not OLD_FILES & {path.name for path in old.iterdir()}


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("content", [b"garbage" * 5000, bytes(9000), b"x"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, writable: bool) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(StoreFormatError, match=r"data\.mdb is no LMDB file"):
        open_catalog(tmp_path, writable=writable)
    assert (tmp_path / "data.mdb").read_bytes() == content
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("writable", [True, False])
def test_an_lmdb_file_of_another_program_is_refused(tmp_path: Path, writable: bool) -> None:
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as txn:
        txn.put(b"something", b"else")
    with pytest.raises(StoreFormatError, match="no geostore catalog"):
        open_catalog(tmp_path, writable=writable)


def put(directory: Path, name: bytes, key: bytes, value: bytes) -> None:
    with lmdb.open(str(directory), max_dbs=32) as environment:
        database = environment.open_db(name)
        with environment.begin(write=True) as txn:
            txn.put(key, value, db=database)


@pytest.mark.parametrize("writable", [True, False])
def test_a_newer_format_is_refused(old: Path, writable: bool) -> None:
    text = json.dumps({"name": "geostore catalog", "version": 2}).encode()
    put(old, b"meta", b"format", text)
    with pytest.raises(StoreFormatError, match=r"version 2; .* up to version 1: install a newer"):
        open_catalog(old, writable=writable)


def test_a_damaged_format_entry_is_named(old: Path) -> None:
    put(old, b"meta", b"format", b"\xff{")
    with pytest.raises(CorruptDataError, match="format entry does not read"):
        open_catalog(old, writable=False)


@pytest.mark.parametrize("writable", [True, False])
def test_a_file_cut_short_is_refused_not_read(old: Path, writable: bool) -> None:
    os.truncate(old / "data.mdb", 5 * 4096)
    with pytest.raises((CorruptDataError, StoreFormatError)):
        open_catalog(old, writable=writable)
    assert (old / "data.mdb").exists()
    assert not (old / "log").exists()


def test_no_flipped_byte_of_a_row_is_taken_over(old: Path) -> None:
    """LMDB's own pages have no checksums: damage to these may lose rows, not alter them."""
    data = (old / "data.mdb").read_bytes()
    spots = [at for at in range(len(data)) if data.startswith(b"dqcj", at)][:40:5]
    assert spots
    for spot in spots:
        damaged = bytearray(data)
        damaged[spot + 33] ^= 0x10
        directory = old.with_name("damaged")
        directory.mkdir()
        (directory / "data.mdb").write_bytes(damaged)
        try:
            with open_catalog(directory, writable=True) as catalog:
                assert catalog.check() == []
        except CorruptDataError as error:
            assert "does not match its checksum" in str(error)  # noqa: PT017
            assert (directory / "data.mdb").exists()
        shutil.rmtree(directory)
