"""The append log under the catalog: its bytes, its readers, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import xxhash

from geostore.errors import (
    CorruptDataError,
    GeostoreError,
    InvalidInputError,
    ReadOnlyError,
    StorageFullError,
    StoreFormatError,
)
from geostore.index import log_layout, log_segments, log_writer
from geostore.index.batching import GroupCommit
from geostore.index.log import (
    START,
    FrameAt,
    LogDisk,
    LogDroppedError,
    LogReader,
    LogWriter,
    Position,
)
from tests.log_disks import FaultyDisk, QuickDisk, ReadOnlyDisk
from tests.scripts import Scripts, ask, finish

SCRIPTS = Scripts(
    """
    import os, sys
    from pathlib import Path
    from geostore.errors import *
    from geostore.index.log import *
    def say(*words):
        print(*words, flush=True)
    """
)
ID = bytes(range(16))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "log"


def opened(directory: Path, disk: LogDisk | None = None, **options: object) -> LogWriter:
    options = {"reserve_bytes": 0, "log_id": ID, **options}
    return LogWriter(directory, disk=disk or QuickDisk(), **options)  # type: ignore[arg-type]


def payloads(log: LogReader | LogWriter, after: Position = START) -> list[bytes]:
    return [bytes(frame.payload) for frame in log.frames(after)]


def filled(directory: Path, count: int = 6, **options: object) -> list[bytes]:
    """A closed log of `count` synced frames of different lengths, each synced by itself."""
    made = [bytes([65 + number]) * (number * 5 % 23) for number in range(count)]
    writer = opened(directory, **options)
    for number, payload in enumerate(made):
        writer.append(number, [payload])
        writer.sync()
    writer.close()
    return made


def segment(directory: Path, number: int = 1) -> Path:
    return directory / f"{number:08}.log"


# ---------------------------------------------------------------- what goes in comes out


@pytest.mark.parametrize("reserve_bytes", [0, 4096])
def test_frames_come_back_in_order_across_segments(directory: Path, reserve_bytes: int) -> None:
    writer = opened(directory, segment_bytes=300, reserve_bytes=reserve_bytes)
    assert writer.recovery.end == Position(1, 64, 0, 0) == writer.position
    made = [os.urandom(number) for number in range(40)]
    places = [writer.append(7, [payload]) for payload in made]
    assert payloads(writer) != made
    assert writer.sync() == writer.end == writer.position
    frames = list(writer.frames(START))
    assert [bytes(frame.payload) for frame in frames] == made
    assert [frame.at for frame in frames] == places
    assert [frame.at.sequence for frame in frames] == list(range(1, 41))
    assert {frame.kind for frame in frames} == {7}
    assert frames[-1].end == writer.position
    assert len(writer.sizes()) > 5
    assert sum(writer.sizes().values()) >= sum(map(len, made))
    for frame in frames[::7]:
        assert payloads(writer, frame.end) == made[frame.at.sequence :]
        until = writer.frames(frames[2].end, frame.end)
        assert [bytes(each.payload) for each in until] == made[3 : frame.at.sequence]
        assert writer.view(frame.at.segment, frame.at.offset, len(frame.payload)) == frame.payload
    assert all(frame.payload.readonly for frame in frames)
    assert writer.check() == []
    writer.close()
    assert bytes(frames[20].payload) == made[20]  # views outlive the log
    for number, size in enumerate(map(os.path.getsize, sorted(directory.glob("*.log"))), 1):
        assert size % 8 == 0, number  # what was reserved is cut off
    again = opened(directory, segment_bytes=300)
    assert again.recovery.end == frames[-1].end
    assert (again.recovery.frames, again.recovery.cut_bytes, again.recovery.at) == (40, 0, None)
    assert payloads(again) == made
    again.append(1, [b"more"])
    again.close()


def test_parts_are_gathered_not_joined(directory: Path) -> None:
    given: list[bytes | memoryview] = []

    class Disk(QuickDisk):
        def pwritev(self, descriptor: int, parts: Sequence[bytes | memoryview], at: int) -> int:
            given.extend(parts)
            return super().pwritev(descriptor, parts, at)

    with_items = memoryview(bytearray(16)).cast("Q")
    with_items[1] = 5
    big = bytearray(b"x" * 100_000)
    writer = opened(directory, Disk())
    given.clear()
    at = writer.append(1, [b"", big, memoryview(b"abc")[1:], with_items])
    assert [len(part) for part in given] == [48, 100_000, 2, 16, 6]
    assert isinstance(given[1], memoryview)
    assert given[1].obj is big
    many = [bytes([number % 256]) for number in range(3_000)]
    writer.append(2, many)
    writer.sync()
    assert payloads(writer) == [bytes(big) + b"bc" + bytes(with_items), b"".join(many)]
    assert at == FrameAt(1, 112, 1)
    writer.close()


def test_short_writes_are_gone_on_with(directory: Path) -> None:
    disk = FaultyDisk()
    writer = opened(directory, disk)
    made = [[b"abc", b"defgh", b"i" * 50], [b"k"], [b"l" * 20, b"m" * 20]]
    for most in (1, 7, 48, 60):
        disk.most = most
        for parts in made:
            writer.append(1, parts)
        disk.most = None
        writer.sync()
    assert payloads(writer) == [b"".join(parts) for parts in made] * 4
    writer.close()


def test_frames_beyond_the_limits_are_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = opened(directory)
    monkeypatch.setattr(log_writer, "FRAME_BYTES_MAX", 100)
    writer.append(0xFFFF, [bytes(100)])
    with pytest.raises(InvalidInputError, match="101 bytes, expected at most 100"):
        writer.append(1, [bytes(60), bytes(41)])
    for kind in (-1, 0x10000):
        with pytest.raises(InvalidInputError, match="frame kind"):
            writer.append(kind, [])
    writer.sync()
    assert payloads(writer) == [bytes(100)]
    writer.close()
    with pytest.raises(InvalidInputError, match=r"used after close"):
        writer.append(1, [])
    with pytest.raises(InvalidInputError, match="segment_bytes"):
        opened(directory, segment_bytes=64)
    with pytest.raises(InvalidInputError, match="log id of 3 bytes"):
        opened(directory, log_id=b"abc")


def test_the_layout_is_what_the_page_says(directory: Path) -> None:
    """docs/catalog-format.md, followed by hand."""
    writer = opened(directory)
    writer.append(3, [b"hello"])
    writer.sync()
    writer.append(4, [b"12345678"])
    writer.close()
    data = segment(directory).read_bytes()
    fields = b"geolog\r\n" + struct.pack("<IIIi", 1, 1, 64, 0) + ID + struct.pack("<QQ", 0, 0)
    digest = xxhash.xxh3_64_intdigest
    assert data[:64] == fields + struct.pack("<Q", digest(fields))

    seed_of_segment = digest(ID, 1)
    chain = 0
    expected = b""
    for at, length, kind, number, synced, payload in (
        (64, 5, 3, 1, 0, b"hello\0\0\0"),
        (120, 8, 4, 2, 1, b"12345678"),
    ):
        fields = struct.pack("<IHHQQQ", length, kind, 0, number, synced, chain)
        seed = (seed_of_segment + at) % 2**64
        checked = b"gsFr" + struct.pack("<I", digest(fields, seed) % 2**32) + fields + payload
        chain = digest(checked, seed)
        expected += struct.pack("<Q", chain) + checked
    assert data[64:] == expected

    head = (directory / "head").read_bytes()
    fields = b"geohead\n" + struct.pack("<II", 1, 0) + ID + bytes(24)
    assert head[:64] == fields + struct.pack("<Q", digest(fields))
    mark, number, offset, _ = struct.unpack_from("<4Q", head, 64)
    assert (mark, number, offset) == (1, 1, 120)
    assert head[96:112] == LogDisk().boot_id()
    assert struct.unpack_from("<Q", head, 120)[0] == digest(head[64:120], digest(ID, 0))
    assert head[64:128] == head[128:192]
    assert len(head) == 192


def test_a_sync_is_one_fdatasync(directory: Path) -> None:
    disk = FaultyDisk()
    writer = opened(directory, disk, segment_bytes=500)
    disk.calls.clear()
    for number in range(4):
        writer.append(number, [bytes(50)])
    writer.sync()
    writer.sync()
    assert disk.calls.count("sync_data") == 1
    assert disk.calls.count("sync") == 0
    assert disk.calls.count("pwritev") == 4 + 2  # and the head's two copies
    writer.append(5, [bytes(50)])
    disk.calls.clear()
    writer.append(6, [bytes(50)])  # begins a segment: the old one, the new one, the directory
    assert [call for call in disk.calls if "sync" in call] == ["sync_data", "sync", "sync"]
    assert disk.calls.index("sync_data") < disk.calls.index("rename")
    assert writer.end.segment == 2
    writer.close()


def test_a_sync_speaks_for_what_came_before_it(directory: Path) -> None:
    class Disk(QuickDisk):
        def sync_data(self, descriptor: int) -> None:
            super().sync_data(descriptor)
            if self.syncs == 10:  # another thread appends while the disk is at work
                writer.append(1, [b"late"])

    disk = Disk()
    writer = opened(directory, disk)
    disk.syncs = 9
    writer.append(1, [b"early"])
    assert writer.sync().sequence == 1
    assert payloads(writer) == [b"early"]
    assert writer.end.sequence == 2
    assert writer.sync().sequence == 2
    assert payloads(writer) == [b"early", b"late"]
    writer.close()


def test_a_sync_that_another_thread_did_is_not_done_again(directory: Path) -> None:
    disk = QuickDisk()
    writer = opened(directory, disk)
    real = writer._sync_lock

    class Waited:
        """While we waited for the lock another thread synced our frame and appended its own."""

        def __enter__(self) -> None:
            writer._sync_lock = real
            writer.sync()
            writer.append(1, [b"another's"])

        def __exit__(self, *_: object) -> None: ...

    writer.append(1, [b"ours"])
    disk.syncs = 0
    writer._sync_lock = Waited()  # type: ignore[assignment]
    assert writer.sync().sequence == 1
    assert disk.syncs == 1
    assert writer.sync().sequence == 2
    assert disk.syncs == 2
    writer.close()


def test_room_is_reserved_ahead_and_given_back(directory: Path) -> None:
    disk = FaultyDisk()
    writer = opened(directory, disk, reserve_bytes=1 << 16)
    for _ in range(100):
        writer.append(1, [bytes(100)])
    assert disk.calls.count("reserve") == 1
    assert segment(directory).stat().st_size > 1 << 16
    writer.sync()
    killed = shutil.copytree(directory, directory.with_name("killed"))
    writer.close()
    assert segment(directory).stat().st_size == writer.end.offset
    again = opened(killed)  # zeros are no torn frame
    assert (again.recovery.cut_bytes, again.recovery.at) == (0, None)
    assert again.position.sequence == 100
    again.close()


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_where_nothing_can_be_reserved_files_just_grow(directory: Path, number: int) -> None:
    disk = FaultyDisk()
    disk.faults["reserve"] = [number]
    writer = opened(directory, disk, reserve_bytes=4096)
    for _ in range(3):
        writer.append(1, [bytes(100)])
    assert disk.calls.count("reserve") == 1
    writer.sync()
    assert len(payloads(writer)) == 3
    writer.close()


# ---------------------------------------------------------------- readers


def test_a_reader_sees_what_was_synced_and_asks_memory_alone(directory: Path) -> None:
    class Disk(ReadOnlyDisk):
        calls = 0

        def open(self, name: str, flags: int, dir_fd: int | None = None) -> int:
            self.calls += 1
            return super().open(name, flags, dir_fd)

    writer = opened(directory)
    writer.append(1, [b"a"])
    disk = Disk()
    reader = LogReader(directory, disk=disk)
    calls = disk.calls
    assert not reader.has_news()
    assert payloads(reader) == []
    writer.sync()
    writer.append(1, [b"b"])
    assert reader.has_news()
    assert reader.refresh() == writer.position
    assert not reader.has_news()
    assert disk.calls == calls
    assert payloads(reader) == [b"a"]
    writer.sync()
    assert payloads(reader, reader.position) == []
    before = reader.position
    reader.refresh()
    assert payloads(reader, before) == [b"b"]
    assert (reader.log_id, reader.directory) == (ID, directory)
    assert reader.sizes() == writer.sizes()
    assert reader.check() == []
    with pytest.raises(CorruptDataError, match=r"bytes 200 to 300 asked for, but the log ends"):
        reader.view(1, 200, 100)
    reader.close()
    with pytest.raises(InvalidInputError, match="used after close"):
        reader.refresh()
    writer.close()


def test_views_stay_valid_and_maps_are_few(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_segments, "MAPS_MAX", 5)
    monkeypatch.setattr(log_segments, "HELD_MAX", 2)
    writer = opened(directory, segment_bytes=2_000)
    made, views = [], []
    for _ in range(60):
        made.append(os.urandom(150))
        at = writer.append(1, [made[-1]])
        views.append(writer.view(at.segment, at.offset, 150))
        assert len(writer._segments._maps) <= 5
        assert len(writer._segments._kept) <= 2
    writer.sync()
    assert [bytes(view) for view in views] == made
    views.clear()
    assert len(writer._segments._maps) <= 2
    kept = [frame.payload for frame in writer.frames(START)]
    assert writer.drop_before(3) == [1, 2]
    writer.close()
    assert [bytes(view) for view in kept] == made


def test_a_file_cut_under_a_reader_is_found_before_it_is_touched(directory: Path) -> None:
    writer = opened(directory)
    at = [writer.append(1, [bytes(9_000)]) for _ in range(3)][-1]
    writer.sync()
    reader = LogReader(directory)
    assert len(reader.view(at.segment, at.offset, 9_000)) == 9_000
    frames = reader.frames(START)
    next(frames)
    os.truncate(segment(directory), 10_000)
    for _ in range(2):
        with pytest.raises(CorruptDataError, match="cut short; rebuild the catalog"):
            reader.view(at.segment, at.offset, 9_000)
    with pytest.raises(CorruptDataError, match="cut short"):
        next(frames)
    with pytest.raises(CorruptDataError, match="cut short"):
        list(LogReader(directory).frames(START))
    writer.close()


def test_a_reader_that_fell_behind_is_told_so(directory: Path) -> None:
    writer = opened(directory, segment_bytes=300)
    for number in range(20):
        writer.append(1, [b"%d" % number * 20])
        writer.sync()
    slow = LogReader(directory)
    frames = slow.frames(START)
    ends = [next(frames).end]
    all_ends = [frame.end for frame in writer.frames(START)]
    boundary = next(end for end in all_ends if end.segment == 3)
    last_of_2 = [end for end in all_ends if end.segment == 2][-1]
    assert writer.drop_before(3) == [1, 2]
    assert writer.drop_before(3) == []
    with pytest.raises(LogDroppedError, match="begin with the newest snapshot"):
        list(frames)
    with pytest.raises(LogDroppedError, match="dropped"):
        list(slow.frames(ends[0]))
    with pytest.raises(LogDroppedError):
        LogReader(directory, after=START).view(1, 64, 10)
    assert len(payloads(slow, last_of_2)) == 20 - last_of_2.sequence  # a snapshot's place
    assert len(payloads(slow, boundary)) == 20 - boundary.sequence
    assert writer.drop_before(99) == list(range(3, writer.end.segment))  # never the last
    writer.close()
    again = opened(directory, segment_bytes=300)
    assert again.position == all_ends[-1]
    again.close()
    with pytest.raises(LogDroppedError):
        opened(directory, after=last_of_2)


def test_a_replaced_log_is_noticed(directory: Path) -> None:
    filled(directory)
    reader = LogReader(directory)
    assert reader.is_current()
    writer = opened(directory)
    compacted = directory.with_name("new")
    other = opened(compacted, log_id=None)
    other.append(9, [b"all"])
    other.sync()
    directory.rename(directory.with_name("old"))
    assert not reader.is_current()
    compacted.rename(directory)
    other.directory = directory
    assert other.is_current()
    assert not reader.has_news()
    assert not writer.is_current()
    writer.retire()
    assert reader.has_news()
    reader.refresh()
    assert not reader.is_current()
    assert len(payloads(reader)) == 6  # it reads on in the old one
    with pytest.raises(ReadOnlyError, match="another log was put in its place"):
        writer.append(1, [])
    newer = LogReader(directory)
    assert newer.is_current()
    assert newer.log_id != reader.log_id
    assert payloads(newer) == [b"all"]
    with pytest.raises(CorruptDataError, match="cut short"):
        list(newer.frames(reader.position, Position(1, 999, 99, 0)))
    for log in (reader, newer, writer, other):
        log.close()


def test_readers_in_other_processes_follow(directory: Path) -> None:
    writer = LogWriter(directory, segment_bytes=400)
    reader = SCRIPTS.start(
        """
        reader = LogReader(Path(sys.argv[1]))
        seen = reader.position
        for line in sys.stdin:
            news = reader.has_news()
            found = reader.frames(seen, reader.refresh())
            say(news, *(bytes(frame.payload).decode() for frame in found))
            seen = reader.position
        """,
        directory,
    )
    try:
        assert ask(reader, "nothing") == "False"
        writer.append(1, [b"a"])
        assert ask(reader, "appended") == "False"
        writer.sync()
        assert ask(reader, "synced") == "True a"
        for number in range(20):
            writer.append(1, [b"%d" % number])
        writer.sync()
        assert ask(reader, "more") == "True " + " ".join(map(str, range(20)))
        writer.close()
        writer = LogWriter(directory, segment_bytes=400)
        writer.append(1, [b"again"])
        writer.sync()
        assert ask(reader, "reopened") == "True again"
    finally:
        finish(reader)
        writer.close()


def test_a_killed_writer_loses_nothing_it_acknowledged(directory: Path) -> None:
    writer = SCRIPTS.start(
        """
        writer = LogWriter(Path(sys.argv[1]), segment_bytes=100_000)
        number = 0
        while True:
            for _ in range(3):
                writer.append(1, [b"%d" % number, bytes(number * 37 % 20_000)])
                number += 1
            writer.sync()
            say(number)
        """,
        directory,
    )
    assert writer.stdout is not None
    acknowledged = 0
    for _ in range(60):
        acknowledged = int(writer.stdout.readline())
    reader = LogReader(directory)
    writer.kill()
    finish(writer)
    assert reader.refresh().sequence >= acknowledged
    with_whole = LogWriter(directory)
    assert with_whole.position.sequence >= reader.refresh().sequence >= acknowledged
    found = payloads(with_whole)
    assert found == [b"%d" % n + bytes(n * 37 % 20_000) for n in range(len(found))]
    assert with_whole.check() == []
    with_whole.close()
    reader.close()


def test_a_head_made_anew_is_found(directory: Path) -> None:
    writer = opened(directory)
    reader = LogReader(directory)
    writer.append(1, [b"a"])
    writer.sync()
    reader.refresh()
    writer.close()
    (directory / "head").unlink()
    writer = opened(directory)
    writer.append(1, [b"b"])
    writer.sync()
    assert not reader.has_news()  # the file that it has mapped is nobody's now
    assert reader.is_current()
    assert reader.has_news()
    reader.refresh()
    assert payloads(reader) == [b"a", b"b"]
    assert not reader.has_news()
    (directory / "head").unlink()
    assert reader.is_current()
    writer.append(1, [b"c"])
    for _ in range(2):
        assert reader.has_news()
        reader.refresh()  # without a head it reads the log, and takes what is whole
        assert payloads(reader) == [b"a", b"b", b"c"]
    reader.close()
    writer.close()


def test_a_reader_without_a_head_beside_a_busy_writer(directory: Path) -> None:
    """What it takes for damage may be a frame that is being written."""
    writer = opened(directory)
    at = writer.append(1, [b"a" * 100])
    writer.sync()
    writer.append(1, [b"b" * 100])
    (directory / "head").unlink()
    whole = segment(directory).read_bytes()

    class Disk(QuickDisk):
        reads = 0

        def pread(self, descriptor: int, length: int, offset: int) -> bytes:
            data = super().pread(descriptor, length, offset)
            if offset < at.offset < offset + len(data):
                self.reads += 1
                if self.reads == 1:  # before its end was written
                    end = at.offset - offset + 50
                    return data[:end] + bytes(54) + data[end + 54 :]
            return data

    reader = LogReader(directory, disk=Disk())
    assert payloads(reader) == [b"a" * 100, b"b" * 100]
    assert segment(directory).read_bytes() == whole
    reader.close()
    writer.close()


# ---------------------------------------------------------------- cut, flipped, missing


@pytest.fixture(scope="module")
def two_syncs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """Six frames, of which the head calls four durable."""
    directory = tmp_path_factory.mktemp("logs") / "log"
    writer = opened(directory)
    made = [bytes([65 + number]) * (number * 5 % 23) for number in range(6)]
    for number, payload in enumerate(made):
        writer.append(number, [payload])
        if number in {1, 3}:
            writer.sync()
    writer._release()
    return directory, made


def ends(directory: Path) -> list[int]:
    log = opened(shutil.copytree(directory, directory.with_name("ends"), dirs_exist_ok=True))
    try:
        return [frame.end.offset for frame in log.frames(START)]
    finally:
        log.close()


def fresh(source: Path, target: Path, change: dict[str, bytes | None]) -> Path:
    """A copy of a log with other bytes in some files, or without them."""
    target.mkdir(exist_ok=True)
    for path in target.iterdir():
        path.unlink()
    for path in source.iterdir():
        data = change.get(path.name, path.read_bytes())
        if data is not None:
            (target / path.name).write_bytes(data)
    return target


def test_cut_at_every_byte_of_what_was_not_acknowledged(
    two_syncs: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    source, made = two_syncs
    offsets = ends(source)
    data = segment(source).read_bytes()
    for head in ("there", "missing"):
        for size in range(offsets[3], offsets[5] + 1):
            change: dict[str, bytes | None] = {"00000001.log": data[:size]}
            if head == "missing":
                change["head"] = None
            copy = fresh(source, tmp_path / "copy", change)
            whole = sum(offset <= size for offset in offsets)
            if head == "missing":
                reader = LogReader(copy)
                assert payloads(reader) == made[:whole]
                reader.close()
            log = opened(copy)
            assert payloads(log) == made[:whole]
            found = log.recovery
            # A cut in what was zero anyhow tore nothing that can be told.
            assert found.cut_bytes == len(data[offsets[whole - 1] : size].rstrip(b"\0"))
            assert (found.at is not None) == (found.cut_bytes > 0)
            if head == "there":
                assert found.unsynced_frames == whole - 4
            assert segment(copy).stat().st_size == offsets[whole - 1]
            log.append(1, [b"goes on"])
            log.sync()
            assert payloads(log) == [*made[:whole], b"goes on"]
            log.close()


def test_cut_at_every_byte_of_what_was_acknowledged(
    two_syncs: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    source, _ = two_syncs
    data = segment(source).read_bytes()
    for size in range(ends(source)[3]):
        copy = fresh(source, tmp_path / "copy", {"00000001.log": data[:size]})
        with pytest.raises(CorruptDataError, match=r"rebuild the catalog from the tile files"):
            opened(copy)
        with pytest.raises(CorruptDataError, match=r"rebuild the catalog from the tile files"):
            payloads(LogReader(copy))
        assert segment(copy).read_bytes() == data[:size]


def flipped(data: bytes) -> Iterator[tuple[int, bytes]]:
    for at in range(len(data)):
        yield at, data[:at] + bytes([data[at] ^ 1 << at * 5 % 8]) + data[at + 1 :]


class AfterRestart(QuickDisk):
    """Of a system that was started again since the head was written."""

    def boot_id(self) -> bytes:
        return b"another start :)"


def outcome(log: LogReader | LogWriter) -> list[bytes]:
    try:
        return payloads(log)
    finally:
        log.close()


@pytest.mark.parametrize("head", ["there", "missing", "behind"])
def test_a_flipped_bit_at_every_byte_is_found(
    two_syncs: tuple[Path, list[bytes]], tmp_path: Path, head: str
) -> None:
    """Frames 1 and 2 were synced together, then 3 and 4; 5 and 6 were not."""
    source, made = two_syncs
    offsets = ends(source)
    other: dict[str, bytes | None] = {"missing": None}
    if head == "behind":  # as after a loss of power: it says that nothing was synced
        opened(tmp_path / "other").close()
        other["behind"] = (tmp_path / "other" / "head").read_bytes()
    # How many frames before the damage are enough for it to pass as a crash's work.
    harmless = {"there": 4, "missing": 5, "behind": 4}[head]
    for at, data in flipped(segment(source).read_bytes()):
        change: dict[str, bytes | None] = {"00000001.log": data}
        if head in other:
            change["head"] = other[head]
        copy = fresh(source, tmp_path / "copy", change)
        hit = sum(offset <= at for offset in offsets)
        for make in (LogReader, opened):
            disk = AfterRestart() if head == "behind" else QuickDisk()
            if head == "there" and make is LogReader and hit >= 4:
                assert outcome(make(copy, disk=disk)) == made[:4]  # all that it looks at
            elif at >= 64 and hit >= harmless:
                assert outcome(make(copy, disk=disk)) == made[:hit]
            else:
                with pytest.raises((CorruptDataError, StoreFormatError), match=r"00000001\.log"):
                    outcome(make(copy, disk=disk))


def test_a_head_cut_or_flipped_at_every_byte_changes_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    made = filled(source)
    head = (source / "head").read_bytes()
    for broken in [*(data for _, data in flipped(head)), *(head[:at] for at in range(len(head)))]:
        copy = fresh(source, tmp_path / "copy", {"head": broken})
        reader = LogReader(copy)
        assert payloads(reader) == made
        log = opened(copy)
        assert payloads(log) == made
        assert log.check() == []
        log.append(1, [b"more"])
        log.sync()
        assert reader.has_news()
        reader.refresh()
        assert payloads(reader) == [*made, b"more"]
        assert (copy / "head").stat().st_size == 192
        reader.close()
        log.close()


def test_both_copies_of_the_head_are_needed_to_lose_it(directory: Path) -> None:
    made = filled(directory)
    head = bytearray((directory / "head").read_bytes())
    head[64] ^= 1
    (directory / "head").write_bytes(head)
    reader = LogReader(directory)
    assert payloads(reader) == made
    assert reader.check() == []
    head[128] ^= 1
    (directory / "head").write_bytes(head)
    reader = LogReader(directory)
    assert payloads(reader) == made
    assert reader.has_news()  # nothing tells: one has to look
    assert reader.check() == [f"log {directory}: the head is missing or damaged."]


def test_damage_names_what_is_lost_and_what_to_do(directory: Path) -> None:
    filled(directory)
    log = opened(directory)
    frames = list(log.frames(START))
    log.close()
    data = bytearray(segment(directory).read_bytes())
    data[frames[2].at.offset] ^= 1
    data[frames[3].at.offset - 20] ^= 1  # a header
    segment(directory).write_bytes(data)
    expected = (
        rf"00000001\.log: at offset {frames[1].end.offset} frame 3 does not hold \(it does not"
        r" match its checksum.*\); frames 3 to 4 are lost; rebuild the catalog from the tile"
        r" files: geostore verify --rebuild$"
    )
    with pytest.raises(CorruptDataError, match=expected):
        opened(directory)
    assert segment(directory).read_bytes() == data
    reader = LogReader(directory)
    with pytest.raises(CorruptDataError, match=expected):
        payloads(reader)
    (problem,) = reader.check()
    assert "frames 3 to 4 are lost" in problem
    assert payloads(reader, frames[3].end) == [bytes(f.payload) for f in frames[4:]]
    data[frames[5].at.offset] ^= 1
    segment(directory).write_bytes(data)
    with pytest.raises(CorruptDataError, match="frames from 6 on are lost"):
        payloads(reader, frames[4].end)


def test_frames_longer_than_a_window(directory: Path) -> None:
    made = [os.urandom(3_000_001), b"small", os.urandom(5_000_000), b"last"]
    writer = opened(directory)
    for payload in made:
        writer.append(1, [payload])
        writer.sync()
    offsets = [frame.at.offset for frame in writer.frames(START)]
    writer._release()
    again = opened(directory)
    assert payloads(again) == made
    again.close()
    data = bytearray(segment(directory).read_bytes())
    data[offsets[0] + 100] ^= 1
    (directory / "head").unlink()
    segment(directory).write_bytes(data)
    with pytest.raises(CorruptDataError, match="frame 1 is lost"):
        opened(directory)
    segment(directory).write_bytes(data[: offsets[2] + 4_000_000])
    with pytest.raises(CorruptDataError, match="frame 2 after it says that it was durable"):
        opened(directory)
    segment(directory).write_bytes(data[: offsets[1] - 48])
    again = opened(directory)
    assert payloads(again) == []
    assert again.recovery.cut_bytes == offsets[1] - 48 - 64 - 7  # its padding is zero
    again.close()


def test_missing_segments_are_named(directory: Path) -> None:
    filled(directory, 20, segment_bytes=200)
    numbers = list(LogReader(directory).sizes())
    assert len(numbers) > 4
    source = shutil.copytree(directory, directory.with_name("source"))
    for number in numbers[1:]:
        fresh(source, directory, {f"{number:08}.log": None})
        for make in (opened, LogReader):
            with pytest.raises(CorruptDataError, match=r"missing|frames from .* lost"):
                payloads(make(directory))
        if number != numbers[-1]:
            with pytest.raises(CorruptDataError, match=rf"{number:08}\.log: missing"):
                opened(directory)
    fresh(source, directory, {f"{number:08}.log": None for number in numbers})
    with pytest.raises(CorruptDataError, match="a head but no segment"):
        opened(directory)
    fresh(source, directory, {"00000002.log": segment(source, 3).read_bytes()})
    with pytest.raises(CorruptDataError, match=r"00000002.log: it says that it is segment 3"):
        opened(directory)
    filled(directory.with_name("other"), 20, segment_bytes=200, log_id=bytes(16))
    foreign = segment(directory.with_name("other"), 2).read_bytes()
    fresh(source, directory, {"00000002.log": foreign})
    with pytest.raises(CorruptDataError, match=r"00000002.log: it belongs to log 0000"):
        opened(directory)
    assert "belongs to log" in LogReader(directory).check()[0]


def test_segments_that_go_while_they_are_listed_are_no_gap(directory: Path) -> None:
    made = filled(directory, 20, segment_bytes=200)
    writer = opened(directory, segment_bytes=200)
    dropped = writer.drop_before(3)
    writer.close()

    class Disk(QuickDisk):
        """The first list has a segment that is gone by now, and not the one after it."""

        lists = 0

        def names(self, dir_fd: int) -> list[str]:
            self.lists += 1
            return [*super().names(dir_fd), *(["00000001.log"] if self.lists == 1 else [])]

    assert dropped == [1, 2]
    reader = LogReader(directory, disk=Disk())
    assert min(reader.sizes()) == 3
    assert reader.position.sequence == len(made)
    reader.close()


def test_bytes_of_a_history_that_was_cut_off_do_not_return(directory: Path) -> None:
    """A block that the file system gives back with its old content holds whole frames."""
    writer = opened(directory)
    writer.append(1, [b"kept"])
    writer.sync()
    writer.append(1, [b"first  !"])
    writer.append(1, [b"second !"])
    old = segment(directory).read_bytes()
    cut_at = writer.end.offset - 56
    writer._release()
    os.truncate(segment(directory), cut_at - 1)
    again = opened(directory)
    assert payloads(again) == [b"kept"]
    again.append(1, [b"another!"])
    again.sync()
    again._release()
    data = segment(directory).read_bytes()
    assert len(data) == cut_at
    segment(directory).write_bytes(data + old[cut_at:])  # frame 3 of the first history
    last = opened(directory)
    assert payloads(last) == [b"kept", b"another!"]
    assert last.recovery.cut_bytes == 56
    last.close()


def test_a_crash_of_the_system_leaves_the_head_behind(directory: Path) -> None:
    writer = opened(directory)
    old = (directory / "head").read_bytes()
    made = [b"a", b"bb", b"ccc"]
    for payload in made:
        writer.append(1, [payload])
        writer.sync()
    writer._release()
    (directory / "head").write_bytes(old)
    reader = LogReader(directory, disk=AfterRestart())
    assert payloads(reader) == made
    assert reader.refresh().sequence == 3
    again = opened(directory, AfterRestart())
    assert again.recovery.unsynced_frames == 3
    assert payloads(again) == made
    again.close()


def test_a_snapshot_beyond_the_log_is_an_error(directory: Path) -> None:
    filled(directory)
    position = LogReader(directory).position
    for after in (
        Position(1, position.offset + 56, 7, 1),
        Position(2, 64, 6, position.chain),
    ):
        with pytest.raises(CorruptDataError, match="rebuild the catalog"):
            opened(directory, after=after)
    # The same place in another history.
    writer = opened(directory)
    writer.append(1, [b"x"])
    writer.sync()
    other = position._replace(chain=position.chain ^ 1)
    with pytest.raises(CorruptDataError, match="another history"):
        payloads(writer, other)
    with pytest.raises(CorruptDataError, match="another history"):
        opened(directory, after=other)
    writer.close()
    with pytest.raises(CorruptDataError, match="31 bytes"):
        Position.unpack(position.pack()[1:])
    assert Position.unpack(position.pack()) == position


def test_only_what_follows_the_snapshot_is_read(directory: Path) -> None:
    filled(directory, 20, segment_bytes=200)
    places = [frame.end for frame in LogReader(directory).frames(START)]
    data = bytearray(segment(directory, 2).read_bytes())
    data[100] ^= 1
    segment(directory, 2).write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"00000002\.log"):
        opened(directory)
    after = next(place for place in places if place.segment == 3)
    log = opened(directory, after=after)
    assert log.recovery.frames == 20 - after.sequence
    assert any("00000002.log" in problem for problem in log.check())
    log.close()


@pytest.mark.parametrize("make", [opened, LogReader])
def test_a_newer_format_is_refused(
    directory: Path, make: type[LogReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(log_layout, "FORMAT_VERSION", 2)
        filled(directory)
    with pytest.raises(StoreFormatError, match=r"version 2; .* reads version 1: install a newer"):
        make(directory)


def test_flags_of_a_newer_format_are_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = log_layout.FrameHeader

    def flagged(*arguments: int) -> log_layout.FrameHeader:
        return real(*arguments)._replace(flags=4)

    writer = opened(directory)
    with monkeypatch.context() as patch:
        patch.setattr(log_writer, "FrameHeader", flagged)
        writer.append(1, [b"abc"])
    writer.sync()
    with pytest.raises(StoreFormatError, match="flags 0x4"):
        payloads(writer)
    writer.close()


def test_where_no_log_is(tmp_path: Path) -> None:
    for name in ("", "missing"):
        with pytest.raises(
            StoreFormatError, match="no segment of a catalog's log|no catalog's log"
        ):
            LogReader(tmp_path / name)
    (tmp_path / "00000001.log.new").write_bytes(b"of a writer that died")
    (tmp_path / "notes.txt").write_bytes(b"")
    log = opened(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001.log", "head", "notes.txt"]
    log.close()
    (tmp_path / "deep" / "er").parent.mkdir()
    opened(tmp_path / "deep" / "er" / "log").close()


# ---------------------------------------------------------------- failing disks


@pytest.mark.parametrize("room", [0, 1, 47, 48, 100, 148, 200])
def test_a_full_disk_changes_nothing(directory: Path, room: int) -> None:
    disk = FaultyDisk()
    writer = opened(directory, disk, reserve_bytes=4096)
    writer.append(1, [b"before"])
    disk.room = room
    before = writer.end
    with pytest.raises(StorageFullError, match="nothing was changed"):
        writer.append(1, [bytes(100), b"\1" * 100])
    assert writer.end == before
    assert segment(directory).stat().st_size == before.offset
    writer_position = None
    disk.room = 192 * 2
    writer_position = writer.sync()
    disk.room = None
    writer.append(1, [b"after"])
    assert writer.sync().sequence == writer_position.sequence + 1
    assert payloads(writer) == [b"before", b"after"]
    assert writer.check() == []
    writer.close()


def test_a_full_disk_at_a_new_segment(directory: Path) -> None:
    disk = FaultyDisk()
    writer = opened(directory, disk, segment_bytes=200)
    writer.append(1, [bytes(200)])
    for method in ("pwritev", "open"):
        disk.faults[method] = [0, 0, errno.ENOSPC] if method == "pwritev" else [errno.ENOSPC]
        with pytest.raises(StorageFullError):
            writer.append(2, [b"x"])
        assert sorted(path.name for path in directory.iterdir()) == ["00000001.log", "head"]
        disk.faults.clear()
    assert writer.append(2, [b"x"]).segment == 2
    writer.sync()
    assert payloads(writer) == [bytes(200), b"x"]
    writer.close()


def test_the_file_size_limit_of_a_real_process(directory: Path) -> None:
    printed = SCRIPTS.run(
        """
        import resource
        writer = LogWriter(Path(sys.argv[1]))
        writer.append(1, [bytes(10_000)])
        writer.sync()
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
        for size in (10_000, 100_000, 20_000):
            try:
                writer.append(1, [bytes(size)])
                say("appended", size)
            except StorageFullError as error:
                say("full", size)
        writer.sync()
        say(writer.position.sequence, writer.check())
        """,
        directory,
    )
    assert printed.splitlines() == ["appended 10000", "full 100000", "appended 20000", "3 []"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("method", ["sync_data", "sync"])
def test_a_failed_fsync_makes_it_read_only_for_ever(
    directory: Path, number: int, method: str
) -> None:
    disk = FaultyDisk()
    writer = opened(directory, disk, segment_bytes=200)
    writer.append(1, [b"durable"])
    writer.sync()
    reader = LogReader(directory)
    writer.append(1, [bytes(200)])
    disk.faults[method] = [number]
    fails = writer.sync if method == "sync_data" else lambda: writer.append(1, [b"a new segment"])
    with pytest.raises(ReadOnlyError, match="an fsync failed"):
        fails()
    assert writer.failure is not None
    for _ in range(2):
        with pytest.raises(ReadOnlyError, match="read-only since an fsync failed.*open the store"):
            writer.append(1, [b"later"])
        with pytest.raises(ReadOnlyError, match="read-only since"):
            writer.sync()
        with pytest.raises(ReadOnlyError, match="read-only since"):
            writer.drop_before(2)
    durable = [b"durable"] if method == "sync_data" else [b"durable", bytes(200)]
    assert payloads(writer) == durable
    reader.refresh()
    assert payloads(reader) == durable
    writer.close()
    again = opened(directory, segment_bytes=200)  # opened again, it may try again
    assert payloads(again) == [b"durable", bytes(200)]
    again.append(1, [b"later"])
    again.sync()
    again.close()


@pytest.mark.parametrize(
    ("number", "expected", "goes_on"),
    [(errno.EIO, ReadOnlyError, False), (errno.EROFS, ReadOnlyError, True)],
)
def test_a_failed_write(
    directory: Path, number: int, expected: type[GeostoreError], goes_on: bool
) -> None:
    disk = FaultyDisk()
    writer = opened(directory, disk)
    writer.append(1, [b"a"])
    writer.sync()
    disk.faults["pwritev"] = [number]
    with pytest.raises(expected):
        writer.append(1, [b"b"])
    if goes_on:
        writer.append(1, [b"b"])
    else:
        with pytest.raises(ReadOnlyError, match="read-only since a write failed"):
            writer.append(1, [b"b"])
    assert payloads(writer) == [b"a"]
    writer.close()


def test_a_head_that_cannot_be_written_stops_the_log(directory: Path) -> None:
    disk = FaultyDisk()
    writer = opened(directory, disk)
    writer.append(1, [b"a"])
    disk.faults["pwritev"] = [0, errno.EIO]
    with pytest.raises(ReadOnlyError, match="a write of the head failed"):
        writer.sync()
    with pytest.raises(ReadOnlyError, match="read-only since a write of the head failed"):
        writer.append(1, [b"b"])
    writer.close()


def test_a_write_that_cannot_be_undone_stops_the_log(directory: Path) -> None:
    disk = FaultyDisk()
    writer = opened(directory, disk)
    disk.faults["truncate"] = [errno.EIO]
    disk.room = 20
    with pytest.raises(ReadOnlyError, match="could not be undone"):
        writer.append(1, [b"b"])
    writer.close()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EACCES, ReadOnlyError),
        (errno.EROFS, ReadOnlyError),
        (errno.ENOSPC, StorageFullError),
        (errno.EIO, GeostoreError),
        (errno.EMFILE, GeostoreError),
        (errno.ENOTTY, GeostoreError),
    ],
)
def test_opening_tells_what_the_system_said(
    directory: Path, number: int, expected: type[GeostoreError]
) -> None:
    filled(directory)
    for method in ("open", "sync", "truncate", "pwritev"):
        disk = FaultyDisk()
        with segment(directory).open("ab") as file:
            file.write(b"torn")
        disk.faults[method] = [0, number] if method == "open" else [number]
        with pytest.raises(expected, match=str(directory)):
            opened(directory, disk)
    opened(directory).close()


def test_reading_needs_no_permission_to_write(directory: Path) -> None:
    made = filled(directory)
    for present in (True, False):
        reader = LogReader(directory, disk=ReadOnlyDisk())
        assert payloads(reader) == made
        reader.refresh()
        assert reader.check() == [] or not present
        reader.close()
        (directory / "head").unlink(missing_ok=True)


# ---------------------------------------------------------------- threads and forks


def test_threads_commit_together_and_a_reader_follows(directory: Path) -> None:
    disk = QuickDisk()
    writer = opened(directory, disk, segment_bytes=3_000)
    reader = LogReader(directory)

    def commit(items: Sequence[bytes]) -> list[int]:
        places = [writer.append(1, [item]) for item in items]
        assert writer.sync().sequence >= places[-1].sequence
        return [at.sequence for at in places]

    group = GroupCommit(commit)
    committed: list[dict[int, bytes]] = [{} for _ in range(8)]

    def work(number: int) -> None:
        for turn in range(60):
            payload = b"%d-%d" % (number, turn)
            if number % 2:
                committed[number][group.submit(payload)] = payload
            else:
                at = writer.append(1, [payload])
                writer.sync()
                committed[number][at.sequence] = payload

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    seen: list[bytes] = []
    position = START
    while len(seen) < 480:
        if reader.has_news():
            reader.refresh()
        for frame in reader.frames(position):
            seen.append(bytes(frame.payload))
            position = frame.end
    for thread in threads:
        thread.join()
    expected = {key: value for each in committed for key, value in each.items()}
    assert seen == [expected[number] for number in range(1, 481)]
    assert writer.check() == []
    reader.close()
    writer.close()


def test_a_forked_child_reads_on_and_cannot_append(directory: Path) -> None:
    writer = opened(directory, reserve_bytes=4096)
    writer.append(1, [b"a"])
    writer.sync()
    reader = LogReader(directory)
    busy = threading.Event()
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            writer.append(2, [b"busy"])
            writer.sync()
            busy.set()

    thread = threading.Thread(target=keep_busy)
    thread.start()
    busy.wait(10)
    read_end, write_end = os.pipe()
    proceed_read, proceed_write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        found: list[object] = []
        try:
            os.read(proceed_read, 1)
            for change in (lambda: writer.append(1, [b"x"]), writer.sync, writer.retire):
                try:
                    change()
                    found.append("wrote")
                except ReadOnlyError as error:
                    found.append(f"process {os.getpid()} can only read" in str(error))
            found.append(len(payloads(writer)) > 1)
            reader.refresh()
            found.append(payloads(reader)[-1].decode())
            found.append(writer.check()[0].split(":")[1])
            writer.close()
            reader.close()
        except BaseException as error:  # noqa: BLE001 - told to the parent
            found.append(repr(error))
        finally:
            os.write(write_end, json.dumps(found).encode())
            os._exit(0)
    stop.set()
    thread.join()
    writer.append(1, [b"by the parent"])
    writer.sync()
    os.write(proceed_write, b"x")
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = json.loads(pipe.read())
    os.waitpid(child, 0)
    for descriptor in (proceed_read, proceed_write):
        os.close(descriptor)
    assert said[:5] == [True, True, True, True, "by the parent"]
    assert said[5].startswith(" the head says")  # what the parent did since
    writer.append(1, [b"on"])
    writer.sync()
    assert segment(directory).stat().st_size > writer.end.offset  # the child cut nothing off
    assert writer.check() == []
    writer.close()
    reader.close()
