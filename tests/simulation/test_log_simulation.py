"""The catalog's log through crashes, losses of power, failing syncs and full disks.

A run is one seed: processes follow each other in one directory, each appends and syncs at
random until it dies in some call. Whatever the disk then kept of what was not synced, the next
one finds every synced frame, and after them at most whole frames that were appended, in order.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from geostore.errors import ReadOnlyError, StorageFullError
from geostore.index.log import START, LogReader, LogWriter, Position
from tests.log_disks import CrashDisk, CrashError, World

SEEDS = 250
LIVES = 6
STEPS_MAX = 60
FOUND = [
    101_480,  # the head told of a new segment before the directory was synced
]


class Run:
    """One directory and what must be in it."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World(directory, self.rng)
        self.payloads: list[bytes] = []
        """Appended, by sequence; the last may have been under way."""
        self.synced = 0
        self.start = START
        """Where the snapshot ends: nothing before it may be asked for."""
        self.segment_bytes = self.rng.choice([200, 5_000, 20_000, 1 << 20])
        self.reserve_bytes = self.rng.choice([0, 4_096, 10_000])

    def life(self) -> None:
        """One process, from opening to its death."""
        disk = CrashDisk(self.world, crash_at=self.rng.choice([None, self.rng.randrange(1, 80)]))
        try:
            writer = LogWriter(
                self.world.directory,
                after=self.start,
                segment_bytes=self.segment_bytes,
                reserve_bytes=self.reserve_bytes,
                disk=disk,
            )
            self.verify(writer)
            reader = LogReader(self.world.directory, after=self.start, disk=CrashDisk(self.world))
            try:
                self.work(writer, reader, disk)
            finally:
                reader.close()
            if self.rng.random() < 0.3:
                writer.close()
        except CrashError:
            pass
        finally:
            disk.die()

    def verify(self, writer: LogWriter) -> None:
        """What the opened log holds is durable from here on, and is all there is."""
        found = [bytes(frame.payload) for frame in writer.frames(self.start)]
        count = self.start.sequence + len(found)
        assert self.synced <= count <= len(self.payloads)
        assert found == self.payloads[self.start.sequence : count]
        assert writer.recovery.end == writer.position == writer.end
        assert writer.position.sequence == count
        assert writer.check() == []
        del self.payloads[count:]
        self.synced = count

    def work(self, writer: LogWriter, reader: LogReader, disk: CrashDisk) -> None:
        assert reader.position.sequence == self.synced
        for _ in range(self.rng.randrange(STEPS_MAX)):
            choice = self.rng.random()
            try:
                if choice < 0.6:
                    self.append(writer)
                elif choice < 0.9:
                    self.sync(writer)
                elif choice < 0.93:
                    disk.fail_sync = True
                elif choice < 0.96:
                    disk.room = None if disk.room is not None else self.rng.randrange(3_000)
                else:
                    self.snapshot(writer)
            except StorageFullError:
                disk.room = None
            except ReadOnlyError:
                assert writer.failure is not None
                return
            self.follow(writer, reader)

    def append(self, writer: LogWriter) -> None:
        size = self.rng.choice([0, 1, 7, 8, 30, 200, 1_000, 5_000])
        payload = self.rng.randbytes(self.rng.randrange(size + 1))
        cut = self.rng.randrange(len(payload) + 1)
        before = writer.end.sequence
        self.payloads.append(payload)
        try:
            at = writer.append(len(self.payloads) & 0xFFFF, [payload[:cut], payload[cut:]])
        except (StorageFullError, ReadOnlyError):
            assert writer.end.sequence == before
            if writer.failure is None:
                self.payloads.pop()
            raise
        assert at.sequence == len(self.payloads)

    def sync(self, writer: LogWriter) -> None:
        position = writer.sync()
        assert position.sequence == writer.end.sequence
        self.synced = position.sequence

    def snapshot(self, writer: LogWriter) -> None:
        """All that is durable is kept elsewhere, and its segments go."""
        if self.rng.random() < 0.5:
            self.start = writer.position
            writer.drop_before(self.start.segment)

    def follow(self, writer: LogWriter, reader: LogReader) -> None:
        """Another process sees what was synced and nothing else."""
        if self.rng.random() < 0.3:
            old = reader.position
            assert reader.has_news() == (old.sequence != writer.position.sequence)
            assert reader.refresh().sequence == writer.position.sequence
            if old.sequence >= self.start.sequence:
                found = [bytes(frame.payload) for frame in reader.frames(old)]
                assert found == self.payloads[old.sequence : writer.position.sequence]

    def between(self) -> None:
        """After a death: perhaps the power goes; a reader may come before the next writer."""
        if self.rng.random() < 0.6:
            self.world.lose_power()
        if "00000001.log" in self.world.files or self.start != START:
            reader = LogReader(self.world.directory, after=self.start, disk=CrashDisk(self.world))
            found = [bytes(frame.payload) for frame in reader.frames(self.start)]
            count = self.start.sequence + len(found)
            assert found == self.payloads[self.start.sequence : count]
            assert count >= self.synced
            reader.close()


def live(directory: Path, seed: int) -> None:
    try:
        run = Run(directory, seed)
        for _ in range(LIVES):
            run.life()
            run.between()
    except BaseException:
        print(f"seed {seed}")
        raise


@pytest.mark.parametrize("block", range(10))
def test_every_synced_frame_survives(tmp_path: Path, block: int) -> None:
    for seed in range(block * SEEDS // 10, (block + 1) * SEEDS // 10):
        live(tmp_path / str(seed), seed)


@pytest.mark.parametrize("seed", FOUND)
def test_seeds_that_found_something(tmp_path: Path, seed: int) -> None:
    live(tmp_path / "log", seed)


def test_a_position_survives_packing() -> None:
    position = Position(7, 1 << 40, 3, (1 << 64) - 1)
    assert Position.unpack(position.pack()) == position
