"""The catalog's append log against bare system calls on the same disk.

    python -m tests.benchmarks.bench_log [--quick] [--rounds N] [--directory DIR]

Commits: 200-byte frames, each durable before the next; the limit is a loop of one pwrite and one
fdatasync of as many bytes into a file of zeros whose length stays. Eight threads share syncs
through `GroupCommit`. Bulk: frames of 1 MB, one sync at the end, against the same with bare
pwrite. Replay: all frames verified and handed out, against XXH3-64 over the mapped file; caches
are warm. Rounds are interleaved; medians are printed.
"""

from __future__ import annotations

import argparse
import mmap
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import xxhash

from geostore.index.batching import GroupCommit
from geostore.index.log import START, LogDisk, LogReader, LogWriter

SMALL = os.urandom(200)
SMALL_FRAME = 48 + len(SMALL)
BIG = os.urandom(1 << 20)
THREADS = 8
TURN = 10

Table = dict[str, list[float]]


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Bench:
    """One directory; a file or log of each kind is made anew each round."""

    def __init__(self, directory: Path, *, commits: int, bulk: int, frames: int) -> None:
        self.directory = directory
        self.commits, self.bulk, self.frames = commits, bulk, frames
        self.table: Table = {}
        self.syncs_shared = 0.0

    def note(self, name: str, value: float) -> None:
        self.table.setdefault(name, []).append(value)

    def log(self, name: str, disk: LogDisk | None = None, **options: int) -> LogWriter:
        path = self.directory / name
        shutil.rmtree(path, ignore_errors=True)
        return LogWriter(path, disk=disk, **options)

    # ------------------------------------------------------------ commits

    def single_commits(self) -> None:
        """In turns of a few commits each, so that all meet the same disk."""
        data = os.urandom(SMALL_FRAME)
        path = self.directory / "bare"
        path.write_bytes(bytes(self.commits * SMALL_FRAME))
        os.sync()  # what other steps deleted is not to be discarded during this one
        writers = {
            "commits": self.log("commits"),
            "commits, growing": self.log("growing", reserve_bytes=0),
        }
        seconds = dict.fromkeys(["commits, bare", *writers], 0.0)
        with path.open("r+b", buffering=0) as file:
            os.fsync(file.fileno())

            def bare(first: int) -> None:
                for number in range(first, first + TURN):
                    os.pwrite(file.fileno(), data, number * SMALL_FRAME)
                    os.fdatasync(file.fileno())

            def through(writer: LogWriter) -> None:
                for _ in range(TURN):
                    writer.append(1, [SMALL])
                    writer.sync()

            for first in range(0, self.commits, TURN):
                seconds["commits, bare"] += timed(lambda first=first: bare(first))  # type: ignore[misc]
                for name, writer in writers.items():
                    seconds[name] += timed(lambda writer=writer: through(writer))  # type: ignore[misc]
        for name, elapsed in seconds.items():
            self.note(name, self.commits / elapsed)
        for writer in writers.values():
            writer.close()

    def shared_commits(self) -> None:
        disk = LogDisk()
        writer = self.log("shared", disk)

        def commit(items: Sequence[bytes]) -> list[int]:
            found = [writer.append(1, [item]).sequence for item in items]
            writer.sync()
            return found

        group = GroupCommit(commit)

        def work() -> None:
            for _ in range(self.commits):
                group.submit(SMALL)

        def all_threads() -> None:
            threads = [threading.Thread(target=work) for _ in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        before = disk.syncs
        total = THREADS * self.commits
        self.note("commits, shared", total / timed(all_threads))
        self.syncs_shared = total / (disk.syncs - before)
        writer.close()

    # ------------------------------------------------------------ bulk

    def bare_bulk(self) -> None:
        path = self.directory / "bare_bulk"
        path.unlink(missing_ok=True)
        os.sync()
        with path.open("wb", buffering=0) as file:

            def loop() -> None:
                for _ in range(self.bulk):
                    file.write(BIG)
                os.fdatasync(file.fileno())

            self.note("bulk, bare", self.bulk * len(BIG) / timed(loop) / 1e6)

    def log_bulk(self) -> None:
        writer = self.log("bulk")
        os.sync()

        def loop() -> None:
            for _ in range(self.bulk):
                writer.append(1, [BIG])
            writer.sync()

        self.note("bulk", self.bulk * len(BIG) / timed(loop) / 1e6)
        writer.close()

    def small_bulk(self) -> None:
        writer = self.log("small")

        def loop() -> None:
            for _ in range(self.frames):
                writer.append(1, [SMALL])
            writer.sync()

        self.note("small frames", self.frames / timed(loop))
        writer.close()

    # ------------------------------------------------------------ reading

    def replay(self, name: str, count: int) -> float:
        reader = LogReader(self.directory / name)
        elapsed = timed(lambda: self._count(reader, count))
        reader.close()
        return elapsed

    @staticmethod
    def _count(reader: LogReader, count: int) -> None:
        assert sum(1 for _ in reader.frames(START)) == count

    def reading(self) -> None:
        self.note("replay", self.bulk * len(BIG) / self.replay("bulk", self.bulk) / 1e6)
        self.note("replay, small", self.frames / self.replay("small", self.frames))
        elapsed = 0.0
        total = 0
        for path in sorted((self.directory / "bulk").glob("*.log")):
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            elapsed += timed(lambda data=data: xxhash.xxh3_64_intdigest(data))  # type: ignore[misc]
            total += len(data)
        self.note("replay, bare", total / elapsed / 1e6)
        reader = LogReader(self.directory / "small")
        at = next(reader.frames(START)).at
        turns = 20_000
        news = timed(lambda: [reader.has_news() for _ in range(turns)])
        self.note("news", news / turns * 1e9)
        place = (at.segment, at.offset, len(SMALL))
        view = timed(lambda: [reader.view(*place) for _ in range(turns)])
        self.note("view", view / turns * 1e9)
        reader.close()
        end = self._open(START, "recover")
        self._open(end, "open")

    def _open(self, after: object, name: str) -> object:
        opened: list[LogWriter] = []
        path = self.directory / "small"
        self.note(
            name,
            timed(lambda: opened.append(LogWriter(path, after=after))) * 1e3,  # type: ignore[arg-type]
        )
        opened[0].close()
        return opened[0].position

    def round(self) -> None:
        self.single_commits()
        self.shared_commits()
        self.bare_bulk()
        self.log_bulk()
        self.small_bulk()
        self.reading()

    def print(self) -> None:
        middle = {name: statistics.median(values) for name, values in self.table.items()}
        rows = [
            ("durable commits/s, 1 thread", "commits", "commits, bare"),
            ("the same, file grows by each", "commits, growing", "commits, bare"),
            (f"the same, {THREADS} threads", "commits, shared", "commits, bare"),
            ("append 1 MB frames (MB/s)", "bulk", "bulk, bare"),
            ("append 200 B frames (frames/s)", "small frames", None),
            ("replay 1 MB frames (MB/s)", "replay", "replay, bare"),
            ("replay 200 B frames (frames/s)", "replay, small", None),
            ("anything new? (ns)", "news", None),
            ("view of a payload (ns)", "view", None),
            (f"open, {self.frames:,} frames to read (ms)", "recover", None),
            ("open, none to read (ms)", "open", None),
        ]
        print(f"{'figure':<40}{'log':>12}{'bare':>12}{'ratio':>8}")
        for title, ours, bare in rows:
            line = f"{title:<40}{middle[ours]:>12,.1f}"
            if bare is not None:
                line += f"{middle[bare]:>12,.1f}{middle[ours] / middle[bare]:>8.2f}"
            print(line)
        print(f"\n{THREADS} threads: {self.syncs_shared:.1f} commits a sync")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few commits, 2 rounds")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--directory", type=Path, help="on the disk to be measured")
    options = parser.parse_args()
    rounds = options.rounds or (2 if options.quick else 7)
    sizes = {"commits": 50, "bulk": 16, "frames": 5_000}
    if not options.quick:
        sizes = {"commits": 1_000, "bulk": 300, "frames": 100_000}
    work = Path(tempfile.mkdtemp(prefix="bench-log-", dir=options.directory))
    try:
        bench = Bench(work, **sizes)
        print(
            f"{sizes}, {rounds} rounds; Python {platform.python_version()},"
            f" {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n"
        )
        for _ in range(rounds):
            bench.round()
        bench.print()
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
