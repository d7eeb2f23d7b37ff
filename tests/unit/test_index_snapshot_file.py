"""Snapshots of the catalog: what goes in comes out, whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import random
import struct
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from geostore.errors import (
    CorruptDataError,
    GeostoreError,
    InvalidInputError,
    ReadOnlyError,
    StorageFullError,
    StoreFormatError,
    UnavailableError,
)
from geostore.index import snapshot_file, snapshot_layout
from geostore.index.log_disk import LogDisk
from geostore.index.log_layout import Position
from geostore.index.snapshot_file import (
    SnapshotFile,
    newest_snapshots,
    open_snapshot,
    sound_snapshot,
    write_snapshot,
)
from tests.log_disks import CrashDisk, CrashError, FaultyDisk, QuickDisk, ReadOnlyDisk, World

ID = bytes(range(16))
OTHER_ID = bytes(range(1, 17))
ROWS = np.dtype([("key", "<u8"), ("cover", "<f4"), ("corner", "<i2", (2,)), ("name", "S3")])
Sections = dict[str, npt.NDArray[Any]]


def at(sequence: int) -> Position:
    return Position(3, 4096, sequence, 0xFEDCBA9876543210)


def small(seed: int = 0) -> Sections:
    rng = np.random.default_rng(seed)
    rows = np.zeros(4, ROWS)
    rows["key"], rows["name"] = rng.integers(0, 1 << 60, 4), b"abc"
    return {"rows": rows, "none": np.zeros((0, 3), "<f8"), "bytes": rng.integers(0, 9, 5, "u1")}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def written(directory: Path, sequence: int, disk: LogDisk | None = None, **options: Any) -> Path:
    """The snapshot at `sequence`; its arrays and meta follow from that."""
    sections = options.pop("sections", None) or small(sequence)
    return write_snapshot(
        directory, ID, at(sequence), {"n": sequence}, sections, disk=disk or QuickDisk(), **options
    )


def assert_same(found: SnapshotFile, sections: Sections) -> None:
    assert list(found.sections) == list(sections)
    for name, array in sections.items():
        section = found.sections[name]
        assert section.dtype == array.dtype.newbyteorder("<")
        assert section.shape == array.shape
        assert section.tobytes() == array.astype(section.dtype).tobytes()


def is_snapshot(found: SnapshotFile, sequence: int) -> bool:
    assert_same(found, small(sequence))
    return (found.position, found.meta) == (at(sequence), {"n": sequence})


# ---------------------------------------------------------------- what goes in comes out


def test_a_snapshot_comes_back_as_read_only_views_on_the_map(tmp_path: Path) -> None:
    sections = small(7)
    disk = QuickDisk()
    path = written(tmp_path, 7, disk)
    assert path.name == "snapshot-00000000000000000007.snap"
    assert disk.syncs == 2  # the file and its name
    assert names(tmp_path) == [path.name]
    for verify in (True, False):
        found = open_snapshot(path, ID, verify=verify, disk=ReadOnlyDisk())
        assert is_snapshot(found, 7)
        assert found.path == path
        assert found.mapped_bytes == path.stat().st_size
    rows = found.sections["rows"]
    with pytest.raises(ValueError, match="read-only"):
        rows["key"] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        rows.flags.writeable = True
    with pytest.raises(TypeError):
        found.sections["rows"] = rows  # type: ignore[index]
    del found
    path.unlink()
    assert rows.tobytes() == sections["rows"].tobytes()  # the map lives with the array


DTYPES = st.one_of(
    arrays_of.boolean_dtypes(),
    arrays_of.integer_dtypes(endianness="?"),
    arrays_of.unsigned_integer_dtypes(endianness="?"),
    arrays_of.floating_dtypes(sizes=(16, 32, 64), endianness="?"),
    arrays_of.complex_number_dtypes(sizes=(64, 128), endianness="?"),
    arrays_of.datetime64_dtypes(endianness="?"),
    arrays_of.timedelta64_dtypes(endianness="?"),
    arrays_of.byte_string_dtypes(min_len=1, max_len=9),
    arrays_of.unicode_string_dtypes(min_len=1, max_len=5),
)


def has_form(dtype: np.dtype[Any]) -> bool:
    """Not so: titles beside names, and values of no bytes."""
    fields = (dtype.fields or {}).values()
    return dtype.itemsize > 0 and all(len(field) == 2 for field in fields)


ANY_DTYPE = st.one_of(DTYPES, arrays_of.array_dtypes(DTYPES, min_size=1, max_size=4)).filter(
    has_form
)


@st.composite
def any_array(draw: st.DrawFn) -> npt.NDArray[Any]:
    """Of any dtype, shape and contiguity; its bytes are random."""
    dtype = draw(ANY_DTYPE)
    shape = draw(arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize
    data = random.Random(draw(st.integers(0, 1000))).randbytes(count)
    if dtype.kind in {"b", "U"} or dtype.names:
        data = bytes(count)  # not every bit pattern is a value
    array = np.ndarray(shape, dtype, buffer=bytearray(data) or bytearray(1))
    if array.ndim and draw(st.booleans()):
        array = array[::-2]
    return array.T if draw(st.booleans()) else array


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.text(min_size=1, max_size=20), any_array(), max_size=5),
    st.integers(1, 300),
    st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.none()), max_size=3),
)
def test_any_arrays_come_back(sections: Sections, piece: int, meta: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot_file, "WRITE_BYTES", piece)
        patch.setattr(snapshot_file, "READ_BYTES", piece)
        path = write_snapshot(Path(name), ID, at(1), meta, sections, disk=QuickDisk())
        found = open_snapshot(path, ID)
        assert_same(found, sections)
        assert found.meta == meta
        assert path.stat().st_size % 64 == 0


def test_values_of_big_endian_and_padded_arrays_are_kept(tmp_path: Path) -> None:
    aligned = np.zeros(3, np.dtype([("flag", "u1"), ("value", "<f8")], align=True))
    aligned["flag"], aligned["value"] = [1, 2, 3], [0.5, -1, 7]
    inner = np.dtype([("x", ">i4"), ("deep", [("y", ">u2", (2, 2))])])
    nested = np.zeros(2, [("one", inner), ("more", inner, (3,))])
    nested["more"]["deep"]["y"] = np.arange(24).reshape(2, 3, 2, 2)
    times = np.array(["2024-02-29", "NaT"], "datetime64[us]")
    sections = {"aligned": aligned, "nested": nested, "big": np.arange(6, dtype=">i8"), "t": times}
    found = open_snapshot(written(tmp_path, 1, sections=sections), ID).sections
    assert found["aligned"].dtype == aligned.dtype
    assert found["aligned"].dtype.itemsize == 16
    assert found["nested"].dtype.fields is not None
    assert found["nested"]["one"]["x"].dtype == "<i4"
    for name, array in sections.items():
        kind = array.dtype.newbyteorder("<")
        np.testing.assert_array_equal(found[name], array.astype(kind))


def test_contiguous_arrays_are_written_without_a_copy(tmp_path: Path) -> None:
    given_to_disk: list[npt.NDArray[Any]] = []

    class Disk(QuickDisk):
        def pwritev(self, descriptor: int, parts: Sequence[bytes | memoryview], at: int) -> int:
            given_to_disk.extend(np.frombuffer(part, "u1") for part in parts)
            return super().pwritev(descriptor, parts, at)

    array = np.arange(5000, dtype="<f8").reshape(50, 100)
    fortran = np.asfortranarray(array)
    written(tmp_path, 1, Disk(), sections={"c": array, "f": fortran})
    shared = [each for each in given_to_disk if np.shares_memory(each, array)]
    assert sum(each.size for each in shared) == array.nbytes
    assert not any(np.shares_memory(each, fortran) for each in given_to_disk)


def test_many_pieces_and_short_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_file, "WRITE_BYTES", 1000)
    disk = FaultyDisk()
    disk.most = 333
    sections = {"c": np.arange(999.0), "f": np.asfortranarray(np.arange(900.0).reshape(30, 30))}
    found = open_snapshot(written(tmp_path, 1, disk, sections=sections), ID)
    assert_same(found, sections)
    assert disk.calls.count("pwritev") > 40


# ---------------------------------------------------------------- what has no form in the file


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"a": np.array([None])}, "dtype object: a snapshot cannot hold it"),
        ({"a": np.zeros(2, np.longdouble)}, "a snapshot cannot hold it"),
        ({"a": np.zeros(2, np.dtype([(("title", "name"), "<i4")]))}, "a snapshot cannot hold it"),
        ({"a": np.zeros(2, np.dtype([("name", "O")]))}, "a snapshot cannot hold it"),
        ({"a": np.zeros(2, np.dtype([("empty", "<i4", (0,))]))}, "a snapshot cannot hold it"),
        (
            {
                "a": np.zeros(
                    2, np.dtype({"names": "xy", "formats": ["<i4"] * 2, "offsets": [0, 2]})
                )
            },
            "a snapshot cannot hold it",
        ),
        ({"": np.zeros(2)}, "section '': a name of 0 bytes, expected UTF-8 of 1 to 255"),
        ({"é" * 128: np.zeros(2)}, "a name of 256 bytes"),
        ({"\ud800": np.zeros(2)}, "expected UTF-8"),
        ({"a": np.zeros((1,) * 33)}, "33 dimensions"),
    ],
)
def test_arrays_without_a_form_are_refused(
    tmp_path: Path, sections: Sections, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        write_snapshot(tmp_path, ID, at(1), {}, sections)
    assert names(tmp_path) == []


@pytest.mark.parametrize("meta", [{"a": float("nan")}, {"a": b"bytes"}, {"a": object()}])
def test_a_meta_that_is_no_json_is_refused(tmp_path: Path, meta: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="a snapshot's meta is no JSON"):
        write_snapshot(tmp_path, ID, at(1), meta, {})


def test_bad_arguments_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="keep 0"):
        written(tmp_path, 1, keep=0)
    with pytest.raises(InvalidInputError, match="a log id of 3 bytes"):
        write_snapshot(tmp_path, b"abc", at(1), {}, {})
    monkeypatch.setattr(snapshot_layout, "META_BYTES_MAX", 3)
    with pytest.raises(InvalidInputError, match="meta of 7 bytes, expected at most 3"):
        written(tmp_path, 1)
    monkeypatch.undo()
    monkeypatch.setattr(snapshot_file, "SECTIONS_MAX", 2)
    with pytest.raises(InvalidInputError, match="snapshot of 3 sections"):
        written(tmp_path, 1)
    assert names(tmp_path) == []


# ---------------------------------------------------------------- damage


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    whole = path.read_bytes()
    assert len(whole) < 1500
    for place in range(len(whole)):
        for bit in (0x01, 0x80):
            damaged = bytearray(whole)
            damaged[place] ^= bit
            path.write_bytes(damaged)
            with pytest.raises(CorruptDataError, match=f"snapshot {path}: "):
                open_snapshot(path, ID)
    path.write_bytes(whole)
    assert is_snapshot(open_snapshot(path, ID), 1)


def test_a_damaged_section_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    damaged = bytearray(path.read_bytes())
    damaged[-64] ^= 1
    path.write_bytes(damaged)
    place = len(damaged) - 64
    with pytest.raises(
        CorruptDataError, match=rf"section 'bytes' at {place} has checksum \w+, expected \w+; the"
    ):
        open_snapshot(path, ID)
    unverified = open_snapshot(path, ID, verify=False)
    assert unverified.sections["bytes"][0] == small(1)["bytes"][0] ^ 1


@pytest.mark.parametrize("verify", [True, False])
def test_a_file_of_any_other_length_is_an_error(tmp_path: Path, verify: bool) -> None:
    path = written(tmp_path, 1)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptDataError, match="the file was cut short"):
            open_snapshot(path, ID, verify=verify)
    for more in (b"\0", bytes(64), bytes(5000)):
        path.write_bytes(whole + more)
        with pytest.raises(CorruptDataError, match=f"{len(whole + more)} bytes, expected"):
            open_snapshot(path, ID, verify=verify)


def test_a_file_that_is_cut_while_it_is_opened_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    whole = path.read_bytes()

    class Cutting(LogDisk):
        """Cuts the file after so many reads."""

        def __init__(self, after: int) -> None:
            super().__init__()
            self.after = after

        def pread(self, descriptor: int, length: int, offset: int) -> bytes:
            found = super().pread(descriptor, length, offset)
            self.after -= 1
            if not self.after:
                path.write_bytes(whole[:64])
            return found

    for after in range(1, 5):  # header, front, two sections that have bytes
        path.write_bytes(whole)
        with pytest.raises(CorruptDataError, match="cut short"):
            open_snapshot(path, ID, disk=Cutting(after))


def test_another_logs_snapshot_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    with pytest.raises(
        CorruptDataError, match=f"it belongs to log {ID.hex()}, expected {OTHER_ID.hex()}"
    ):
        open_snapshot(path, OTHER_ID)


def test_a_snapshot_of_another_name_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    renamed = path.rename(tmp_path / "snapshot-00000000000000000002.snap")
    with pytest.raises(CorruptDataError, match="it says that it reflects frame 1"):
        open_snapshot(renamed, ID)
    copy = path.with_name("copy")
    renamed.rename(copy)
    assert is_snapshot(open_snapshot(copy, ID), 1)


def rewritten(
    path: Path,
    *,
    table: Callable[[bytearray], None] = lambda _: None,
    meta: bytes | None = None,
    header: dict[str, int] | None = None,
) -> None:
    """Changes the front and makes its checksums right, as an attacker or a bug would."""
    data = bytearray(path.read_bytes())
    fields: dict[str, Any] = dict(
        zip(
            ("magic", "version", "sections", "id", "position", "file", "table", "meta", "sum"),
            struct.unpack_from("<8sII16s32sQQQQ", data),
            strict=True,
        )
    )
    end = -(-(128 + fields["table"] + fields["meta"]) // 64) * 64
    lines = bytearray(data[128 : 128 + fields["table"]])
    table(lines)
    data[128 : 128 + fields["table"]] = lines
    if meta is not None:
        start = 128 + fields["table"]
        data[start : start + fields["meta"]] = meta.ljust(fields["meta"])
    seed = (xxhash.xxh3_64_intdigest(ID) + 128) % (1 << 64)
    fields["sum"] = xxhash.xxh3_64_intdigest(bytes(data[128:end]), seed)
    fields.update(header or {})
    packed = struct.pack("<8sII16s32sQQQQ24x", *fields.values())
    data[:128] = packed + struct.pack("<Q", xxhash.xxh3_64_intdigest(packed))
    path.write_bytes(data)


def test_a_newer_version_says_what_to_do(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    rewritten(path)
    assert is_snapshot(open_snapshot(path, ID), 1)  # the rewriting itself changes nothing
    rewritten(path, header={"version": 2})
    with pytest.raises(
        StoreFormatError, match=r"version 2; this geostore reads version 1: install a newer"
    ):
        open_snapshot(path, ID)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("file", 1 << 60, f"expected {1 << 60}"),
        ("table", 1 << 60, "do not fit"),
        ("table", 1 << 20, "do not fit"),
        ("meta", (1 << 64) - 1, "do not fit"),
        ("sections", 0xFFFFFFFF, "do not fit"),
        ("sections", 4, "table, line 3: the table ends early"),
        ("sections", 2, "2 sections take"),
        ("sections", 0, "0 sections take"),
        ("table", 64, "have checksum"),
    ],
)
def test_absurd_lengths_in_the_header_are_errors(
    tmp_path: Path, field: str, value: int, message: str
) -> None:
    path = written(tmp_path, 1)
    rewritten(path, header={field: value})
    with pytest.raises(CorruptDataError, match=message):
        open_snapshot(path, ID)


def put(offset: int, layout: str, value: int) -> Callable[[bytearray], None]:
    return lambda table: struct.pack_into(layout, table, offset, value)


def swap(old: bytes, new: bytes) -> Callable[[bytearray], None]:
    def change(table: bytearray) -> None:
        assert table.count(old) == 1
        assert len(old) == len(new)
        table[:] = table.replace(old, new)

    return change


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (put(0, "<Q", 1 << 62), "section 'rows' is at 4611686018427387904"),
        (put(0, "<Q", 64), "section 'rows' is at 64"),
        (put(8, "<Q", 1 << 62), "section 'rows': 4611686018427387904 bytes, expected 76"),
        (put(24, "<H", 0xFFFF), "the table ends early"),
        (put(24, "<H", 0), "line 0"),
        (put(26, "<H", 0xFFFF), "65535 dimensions"),
        (put(26, "<H", 31), "line 0"),
        (put(28, "<I", 0xFFFFFFFF), "the table ends early"),
        (put(32, "<Q", 1 << 63), "section 'rows' of shape"),
        (put(32, "<Q", 1 << 61), r"section 'rows': 76 bytes, expected \d{20}"),
        (swap(b"rows", b"none"), "two sections have the same name"),
        (swap(b"rows", b"\xff\xff\xff\xff"), "table, line 0: 'utf-8'"),
        (swap(b'"|S3"', b'"|O8"'), "is no plain dtype"),
        (swap(b'"|S3"', b'"S9e"'), "is no plain dtype"),
        (swap(b'"|S3"', b'["a"]'), "is no field"),
        (swap(b'"<i2",[2]', b'"<i2",{} '), "is no shape"),
        (swap(b'"<i2",[2]', b'"<i2",[9]'), "section 'rows': 76 bytes, expected 132"),
        (swap(b'"cover"', b'"name",'), "table, line 0"),
    ],
)
def test_absurd_tables_are_errors(
    tmp_path: Path, table: Callable[[bytearray], None], message: str
) -> None:
    path = written(tmp_path, 1)
    rewritten(path, table=table)
    with pytest.raises(CorruptDataError, match=message):
        open_snapshot(path, ID)


def test_a_meta_that_is_no_object_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    for meta, message in ((b"[1]", "meta is a list"), (b'{"n":', "meta is no JSON")):
        rewritten(path, meta=meta)
        with pytest.raises(CorruptDataError, match=message):
            open_snapshot(path, ID)


def test_dtypes_too_deep_are_errors(tmp_path: Path) -> None:
    deep = np.dtype("<i4")
    for _ in range(8):
        deep = np.dtype([("x", deep)])
    assert_same(
        open_snapshot(written(tmp_path, 1, sections={"a": np.zeros(2, deep)}), ID),
        {"a": np.zeros(2, deep)},
    )
    with pytest.raises(InvalidInputError, match="at most 8 deep"):
        written(tmp_path, 2, sections={"a": np.zeros(2, [("x", deep)])})
    with pytest.raises(ValueError, match="dtype"):
        snapshot_layout.parse_dtype("[" * 100_000)
    with pytest.raises(ValueError, match="dtype"):
        snapshot_layout.parse_dtype('[["a","<f8",[2000000000]]]')
    with pytest.raises(ValueError, match="dtype"):
        snapshot_layout.parse_dtype('"<M8[zz]"')


# ---------------------------------------------------------------- a directory of them


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for sequence in (1, 9, 10, 200):
        written(tmp_path, sequence)
    paths = newest_snapshots(tmp_path)
    assert [path.name[-8:-5] for path in paths] == ["200", "010"]
    assert [is_snapshot(open_snapshot(path, ID), int(path.name[9:-5])) for path in paths]
    written(tmp_path, 201, keep=3)
    assert len(newest_snapshots(tmp_path)) == 3
    written(tmp_path, 202, keep=1)
    assert [path.name[-8:-5] for path in newest_snapshots(tmp_path)] == ["202"]


def test_newer_ones_stay(tmp_path: Path) -> None:
    for sequence in (5, 6, 3, 4):
        written(tmp_path, sequence)
    assert [int(path.name[9:-5]) for path in newest_snapshots(tmp_path)] == [6, 5, 4, 3]


def test_the_same_position_is_replaced(tmp_path: Path) -> None:
    first = open_snapshot(written(tmp_path, 5, sections={"a": np.arange(9)}), ID)
    written(tmp_path, 5)
    found, wrong = sound_snapshot(tmp_path, ID)
    assert found is not None
    assert is_snapshot(found, 5)
    assert wrong == []
    assert_same(first, {"a": np.arange(9)})  # on the file that is no more


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    others = [
        "00000001.log",
        "00000002.log.new",
        "head",
        "snapshot-1.snap",
        "snapshot-0000000000000000001x.snap",
        "snapshot-00000000000000000001.snap.old",
        f"snapshot-{chr(0x660) * 20}.snap",  # Arabic zeros
    ]
    stale = ["snapshot-00000000000000000001.snap.new", "snapshot-00000000000000000009.snap.new"]
    for name in (*others, *stale):
        (tmp_path / name).write_bytes(b"other")
    for sequence in range(2, 6):
        written(tmp_path, sequence)
    assert len(newest_snapshots(tmp_path)) == 2
    assert set(names(tmp_path)) == {
        *others,
        "snapshot-00000000000000000004.snap",
        "snapshot-00000000000000000005.snap",
    }


def test_the_newest_sound_one_is_taken(tmp_path: Path) -> None:
    assert sound_snapshot(tmp_path, ID) == (None, [])
    assert sound_snapshot(tmp_path / "missing", ID) == (None, [])
    assert newest_snapshots(tmp_path / "missing") == []
    paths = [written(tmp_path, sequence, keep=9) for sequence in range(1, 7)]
    paths[5].write_bytes(b"")
    rewritten(paths[4], header={"version": 7})
    write_snapshot(tmp_path, OTHER_ID, at(4), {}, {}, keep=9)
    damaged = bytearray(paths[2].read_bytes())
    damaged[-1] ^= 1
    paths[2].write_bytes(damaged)
    found, wrong = sound_snapshot(tmp_path, ID, disk=ReadOnlyDisk())
    assert found is not None
    assert is_snapshot(found, 2)
    assert [line.split(": ")[0] for line in wrong] == [f"snapshot {paths[i]}" for i in (5, 4, 3, 2)]
    for path in paths[:2]:
        path.write_bytes(b"no snapshot")
    found, wrong = sound_snapshot(tmp_path, ID)
    assert found is None
    assert len(wrong) == 6


def test_a_snapshot_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    written(tmp_path, 1)
    newest = written(tmp_path, 2)

    class Failing(LogDisk):
        """The newest file fails to read, or to open."""

        def __init__(self, number: int, *, at_open: bool) -> None:
            super().__init__()
            self.number, self.at_open = number, at_open
            self.bad = -1

        def open(self, name: str, flags: int, dir_fd: int | None = None) -> int:
            if name == str(newest) and self.at_open:
                raise OSError(self.number, os.strerror(self.number))
            descriptor = super().open(name, flags, dir_fd)
            if name == str(newest):
                self.bad = descriptor
            return descriptor

        def close(self, descriptor: int) -> None:
            super().close(descriptor)
            self.bad = -1

        def pread(self, descriptor: int, length: int, offset: int) -> bytes:
            if descriptor == self.bad and offset > 0:
                raise OSError(self.number, os.strerror(self.number))
            return super().pread(descriptor, length, offset)

    for disk in (Failing(errno.EIO, at_open=False), Failing(errno.EACCES, at_open=True)):
        found, wrong = sound_snapshot(tmp_path, ID, disk=disk)
        assert found is not None
        assert is_snapshot(found, 1)
        assert [line.startswith(f"snapshot {newest}: ") for line in wrong] == [True]
    with pytest.raises(UnavailableError, match="Too many open files"):
        sound_snapshot(tmp_path, ID, disk=Failing(errno.EMFILE, at_open=True))


def test_snapshots_that_a_writer_removes_meanwhile_are_looked_for_again(tmp_path: Path) -> None:
    for sequence in (1, 2):
        written(tmp_path, sequence)

    class Racing(LogDisk):
        """Other snapshots take the place of those just listed."""

        def __init__(self, times: int) -> None:
            super().__init__()
            self.times = times
            self.sequence = int(newest_snapshots(tmp_path)[0].name[9:-5])

        def names(self, dir_fd: int) -> list[str]:
            found = super().names(dir_fd)
            if self.times:
                self.times -= 1
                for _ in range(2):
                    self.sequence += 1
                    written(tmp_path, self.sequence)
            return found

    found, wrong = sound_snapshot(tmp_path, ID, disk=Racing(3))
    assert found is not None
    assert is_snapshot(found, 8)
    assert wrong == []
    with pytest.raises(UnavailableError, match="removed before it could be opened, 8 times"):
        sound_snapshot(tmp_path, ID, disk=Racing(1000))


def test_what_is_not_there_or_not_readable(tmp_path: Path) -> None:
    with pytest.raises(StoreFormatError, match="No such file or directory"):
        open_snapshot(tmp_path / "snapshot-00000000000000000001.snap", ID)
    with pytest.raises(StoreFormatError, match="No such file or directory"):
        written(tmp_path / "missing", 1)
    disk = FaultyDisk()
    for call in (
        lambda: newest_snapshots(tmp_path, disk),
        lambda: sound_snapshot(tmp_path, ID, disk=disk),
        lambda: open_snapshot(tmp_path / "x", ID, disk=disk),
        lambda: written(tmp_path, 1, disk),
    ):
        disk.faults["open"] = [errno.EACCES]
        with pytest.raises(ReadOnlyError, match=f"{tmp_path}.*no permission"):
            call()


# ---------------------------------------------------------------- a disk that fails


def test_a_full_disk_changes_nothing_at_any_byte(tmp_path: Path) -> None:
    written(tmp_path, 1)
    written(tmp_path, 2)
    before = names(tmp_path)
    length = written(tmp_path / "..", 3).stat().st_size
    newest_snapshots(tmp_path / "..")[0].unlink()

    class Filling(FaultyDisk):
        """No room can be taken ahead."""

        def reserve(self, descriptor: int, offset: int, length: int) -> None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    for room in range(0, length, 7):
        disk = Filling()
        disk.room = room
        with pytest.raises(StorageFullError, match="nothing was changed: free some space"):
            written(tmp_path, 3, disk)
        assert names(tmp_path) == before
    disk = Filling()
    disk.room = length
    written(tmp_path, 3, disk)
    assert len(newest_snapshots(tmp_path)) == 2


def test_a_full_disk_is_found_before_it_is_filled(tmp_path: Path) -> None:
    disk = FaultyDisk()
    disk.room = 1 << 20
    with pytest.raises(StorageFullError):
        written(tmp_path, 1, disk)
    assert "pwritev" not in disk.calls
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("call", "number", "kind", "message"),
    [
        ("pwritev", errno.EIO, ReadOnlyError, "a write failed"),
        ("pwritev", errno.EROFS, ReadOnlyError, "no permission"),
        ("pwritev", errno.EDQUOT, StorageFullError, "nothing was changed"),
        ("sync", errno.EIO, ReadOnlyError, "an fsync failed: .*; check the disk"),
        ("sync", errno.EINVAL, ReadOnlyError, "an fsync failed"),
        ("sync", errno.ENOSPC, StorageFullError, "nothing was changed"),
        ("rename", errno.EACCES, ReadOnlyError, "no permission"),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 2])
def test_failing_calls_leave_the_snapshots_as_they_were(
    tmp_path: Path, call: str, number: int, kind: type[GeostoreError], message: str, before: int
) -> None:
    if call != "pwritev" and before:
        before = 0  # only the first of these is before the new one is whole
    for sequence in (1, 2):
        written(tmp_path, sequence)
    disk = FaultyDisk()
    disk.faults[call] = [0] * before + [number]
    with pytest.raises(kind, match=f"snapshot {tmp_path}/snapshot-0*3.snap: .*{message}"):
        written(tmp_path, 3, disk)
    assert [int(path.name[9:-5]) for path in newest_snapshots(tmp_path)] == [2, 1]
    assert len(names(tmp_path)) == 2
    written(tmp_path, 3, disk)
    assert [int(path.name[9:-5]) for path in newest_snapshots(tmp_path)] == [3, 2]


def test_what_is_written_is_synced_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_file, "WRITE_BYTES", 800)
    monkeypatch.setattr(snapshot_file, "SYNC_BYTES", 2000)
    sections = {"a": np.arange(1000.0), "b": np.arange(500.0)}
    written(tmp_path, 1)
    for good in range(6):
        disk = FaultyDisk()
        disk.faults["sync_data"] = [0] * good + [errno.EIO]
        # What a failed fsync forgot no later one brings back: it must not go on.
        if good < 5:
            with pytest.raises(ReadOnlyError, match="an fsync failed"):
                written(tmp_path, 2, disk, sections=sections)
            assert disk.calls.count("sync_data") == good + 1
            assert "sync" not in disk.calls
            assert len(names(tmp_path)) == 1
        else:
            written(tmp_path, 2, disk, sections=sections)
    assert_same(open_snapshot(newest_snapshots(tmp_path)[0], ID), sections)


def test_a_directory_that_cannot_be_synced_keeps_the_older_ones(tmp_path: Path) -> None:
    for sequence in (1, 2):
        written(tmp_path, sequence)
    disk = FaultyDisk()
    disk.faults["sync"] = [0, errno.EIO]
    with pytest.raises(ReadOnlyError, match="an fsync failed"):
        written(tmp_path, 3, disk)
    assert [int(path.name[9:-5]) for path in newest_snapshots(tmp_path)] == [3, 2, 1]
    found, wrong = sound_snapshot(tmp_path, ID)
    assert found is not None
    assert is_snapshot(found, 3)
    assert wrong == []


@pytest.mark.parametrize("power", [False, True])
def test_a_crash_at_any_step_leaves_whole_snapshots(tmp_path: Path, power: bool) -> None:
    """The process dies, or the power goes, in each call; the durable snapshots stay."""
    ends: set[int] = set()
    for seed in range(12):
        steps = 0
        while True:
            rng = random.Random(seed * 1000 + steps)
            world = World(tmp_path / f"{power}-{seed}-{steps}", rng)
            for sequence in (1, 2):
                written(world.directory, sequence, CrashDisk(world))
            steps += 1
            disk = CrashDisk(world, crash_at=steps)
            is_done = False
            try:
                written(world.directory, 3, disk)
                is_done = True
            except CrashError:
                disk.die()
            if power:
                world.lose_power()
            found, wrong = sound_snapshot(world.directory, ID)
            assert found is not None, (seed, steps)
            sequence = found.position.sequence
            assert is_snapshot(found, sequence), (seed, steps)
            assert sequence in ({3} if is_done else {2, 3}), (seed, steps)
            assert wrong == [], (seed, steps)
            assert_older_ones_are_sound(world.directory, sequence)
            ends.add(sequence)
            written(world.directory, 4, CrashDisk(world))  # the next one finds its way
            assert newest_snapshots(world.directory)[0].name.endswith("4.snap")
            assert len(names(world.directory)) == 2
            if is_done:
                break
    assert ends == {2, 3}


def assert_older_ones_are_sound(directory: Path, newest: int) -> None:
    for path in newest_snapshots(directory):
        sequence = int(path.name[9:-5])
        assert sequence <= newest
        assert is_snapshot(open_snapshot(path, ID), sequence)
    assert len(newest_snapshots(directory)) >= 2


def test_an_array_that_changes_while_it_is_written_is_found(tmp_path: Path) -> None:
    array = np.zeros(100)

    class Changing(QuickDisk):
        def pwritev(self, descriptor: int, parts: Sequence[bytes | memoryview], at: int) -> int:
            array[3] += 1
            return super().pwritev(descriptor, parts, at)

    path = written(tmp_path, 1, Changing(), sections={"a": array})
    with pytest.raises(CorruptDataError, match="section 'a'"):
        open_snapshot(path, ID)


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    class Counting(FaultyDisk):
        held = 0

        def open(self, name: str, flags: int, dir_fd: int | None = None) -> int:
            descriptor = super().open(name, flags, dir_fd)
            self.held += 1
            return descriptor

        def close(self, descriptor: int) -> None:
            self.held -= 1
            super().close(descriptor)

    disk = Counting()
    path = written(tmp_path, 1, disk)
    disk.faults["pwritev"] = [errno.ENOSPC]
    with pytest.raises(StorageFullError):
        written(tmp_path, 2, disk)
    sound_snapshot(tmp_path, ID, disk=disk)
    path.write_bytes(b"damaged")
    sound_snapshot(tmp_path, ID, disk=disk)
    assert disk.held == 0


def test_the_documented_bytes(tmp_path: Path) -> None:
    """docs/catalog-format.md, read without geostore's own code."""
    path = write_snapshot(tmp_path, ID, at(42), {"a": 1}, {"x": np.arange(3, dtype="<u2")})
    data = path.read_bytes()
    magic, version, count, log_id = struct.unpack_from("<8sII16s", data)
    assert (magic, version, count, log_id) == (b"geosnap\n", 1, 1, ID)
    assert struct.unpack_from("<4Q", data, 32) == tuple(at(42))
    file, table, meta, checksum = struct.unpack_from("<4Q", data, 64)
    assert file == len(data) == 256
    seed = xxhash.xxh3_64_intdigest(ID)
    assert checksum == xxhash.xxh3_64_intdigest(data[128:192], (seed + 128) % 2**64)
    assert struct.unpack_from("<Q", data, 120)[0] == xxhash.xxh3_64_intdigest(data[:120])
    offset, length, checksum, name, dimensions, dtype = struct.unpack_from("<QQQHHI", data, 128)
    assert (offset, length, name, dimensions, dtype) == (192, 6, 1, 1, 5)
    assert struct.unpack_from("<Q", data, 160) == (3,)
    assert data[168:174] == b'x"<u2"'
    assert table == 48
    assert data[176 : 176 + meta] == b'{"a":1}'
    assert data[192:256] == struct.pack("<3H58x", 0, 1, 2)
    assert checksum == xxhash.xxh3_64_intdigest(data[192:256], (seed + 192) % 2**64)
    assert json.loads(data[176 : 176 + meta]) == {"a": 1}
