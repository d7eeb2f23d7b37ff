"""Damaged copies of every source there is, ingested one after another by one long-lived process.

    python -m tests.integration.mutated_sources --seed 4 --count 300 [--tree ../shared/data]
    python -m tests.integration.mutated_sources --seed 4 --only 123 --keep DIR

What is damaged, and how, follows from the seed and the case's number alone. The cases run in
child processes (`--worker`), which this one watches: a child that dies, hangs or fills memory
is a fault like any other, told with seed and case, and the rest goes on in a new child. Each
case must end in results without a traceback, with failures told in one line each that names
the file; and leave behind no tile of a failed scene, no temporary file, no open file, nothing
on stderr. At its end a child's store must verify.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.integration.mutated_cases import Case, all_originals, draw

CASE_S_MAX = 60.0
CASE_BYTES_MAX = 1_500_000_000
"""Resident, of the process that ingests and its children together."""
DATA_BYTES_MAX = 6 << 30
"""What the system allows a child to map, so that a fault here does not take the machine."""
STORE_CASES = 250
"""A child begins a new store, and verifies the old one, after so many."""
POLL_S = 0.1
LIBRARIES_SAY = re.compile(r"^Error: Key .*\n", re.MULTILINE)
"""What libgeotiff prints past GDAL's error handler, of the GeoTIFF in a JPEG 2000 file."""
MODULE = "tests.integration.mutated_sources"
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Report:
    """What a campaign found."""

    seed: int
    cases: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, -1)
    peak_bytes: int = 0

    def add(self, line: dict[str, Any]) -> None:
        self.cases += 1
        self.statuses.update(line["statuses"])
        self.slowest = max(self.slowest, (line["seconds"], line["case"]))
        self.peak_bytes = max(self.peak_bytes, line["peak_bytes"])
        faults = list(line["faults"])
        if line["peak_bytes"] > CASE_BYTES_MAX:
            faults.append(f"took {line['peak_bytes'] >> 20} MB of memory")
        self.faults += [self.fault(line["case"], line["about"], text) for text in faults]

    def fault(self, case: int, about: str, text: str) -> str:
        again = f"python -m {MODULE} --seed {self.seed} --only {case}"
        return f"case {case}: {about}: {text}\n    again: {again}"

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(self.statuses.items()))
        slowest_s, slowest = self.slowest
        return (
            f"{self.cases} cases of seed {self.seed} in {self.seconds:.0f} s: {counts};"
            f" slowest {slowest_s:.1f} s (case {slowest}); peak {self.peak_bytes >> 20} MB;"
            f" {len(self.faults)} faults"
        )


# ---------------------------------------------------------------- the child


class Worker:
    """Ingests case after case into one store; writes one JSON line a case on `out`."""

    def __init__(self, seed: int, tree: Path | None, folder: Path, plant: str) -> None:
        self.seed = seed
        self.folder = folder
        self.plants = {
            int(at): kind
            for kind, _, at in (one.partition("@") for one in plant.split(","))
            if kind
        }
        self.originals = all_originals(tree, folder / "originals")
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        tempfile.tempdir = str(self.temporary)
        os.environ["TMPDIR"] = str(self.temporary)
        self.stderr = folder / "stderr"
        self.internal: list[str] = []
        self._hear_internal_errors()

    def _hear_internal_errors(self) -> None:
        """Our own bugs also end in a failed line; here they are told apart."""
        from geostore.errors import InternalError
        from geostore.ingest import pipeline

        failed = pipeline._failed

        def hear(path: str, error: Any, *rest: Any, **more: Any) -> Any:
            if isinstance(error, InternalError):
                self.internal.append(f"InternalError: {error}")
            return failed(path, error, *rest, **more)

        pipeline._failed = hear

    def run(self, cases: list[int], out: Any, keep: Path | None = None) -> None:
        import geostore

        for start in range(0, len(cases), STORE_CASES):
            home = self.folder / "store"
            with geostore.open(home) as store:
                for number in cases[start : start + STORE_CASES]:
                    case = draw(self.seed, number, self.originals)
                    print(json.dumps({"begins": number, "about": str(case)}), file=out, flush=True)
                    line = self._one(store, home, case, keep)
                    print(json.dumps(line), file=out, flush=True)
                problems = list(store.verify().problems)
            if problems:
                print(
                    json.dumps({"store": [str(one) for one in problems[:5]]}), file=out, flush=True
                )
            shutil.rmtree(home)

    def _one(self, store: Any, home: Path, case: Case, keep: Path | None) -> dict[str, Any]:
        place = self.folder / "case"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        source = case.make(place, self.folder / "prepared")
        if keep is not None:
            shutil.copytree(place, keep, symlinks=True, dirs_exist_ok=True)
        reset_peak()
        files = open_files()
        written = self.stderr.stat().st_size
        started = time.perf_counter()
        faults: list[str] = []
        results: list[Any] = []
        try:
            self._planted(case.number)
            name = f"case-{case.number}"
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                results = store.ingest(source, dataset=name, workers=2, **case.flags)
        except Exception as error:  # noqa: BLE001 - whatever leaves ingest is a fault
            faults.append(f"{type(error).__name__} left ingest{innermost(error)}: {error}")
        seconds = time.perf_counter() - started
        faults += self._wrong_results(results) + self._wrong_tiles(store, case, results)
        faults += self.internal
        self.internal.clear()
        left = [*self.temporary.iterdir(), *(home / "tmp").iterdir()]
        if left:
            faults.append(f"temporary files left: {[one.name for one in left]}")
        for one in left:  # so that only this case is told of it
            one.unlink()
        if still_open := sorted(open_files() - files):
            faults.append(f"files still open: {still_open}")
        with self.stderr.open("rb") as stream:
            stream.seek(written)
            said = LIBRARIES_SAY.sub("", stream.read(4000).decode(errors="replace"))
        if said:
            faults.append(f"written to stderr: {said!r}")
        return {
            "case": case.number, "about": str(case), "faults": faults,
            "statuses": [str(one.status) for one in results], "seconds": round(seconds, 3),
            "peak_bytes": peak_bytes(), "errors": [one.error for one in results if one.error],
        }  # fmt: skip

    @staticmethod
    def _wrong_results(results: list[Any]) -> list[str]:
        wrong = []
        for one in results:
            text = one.error or ""
            if str(one.status) not in ("ingested", "skipped", "unchanged", "failed"):
                wrong.append(f"status {one.status}")
            if str(one.status) != "failed":
                continue
            if Path(one.path).name not in text:
                wrong.append(f"the error does not name {Path(one.path).name!r}: {text}")
            if not text.isprintable() or len(text) > 1500 or "Traceback" in text:
                wrong.append(f"the error is not one clear line: {text[:3000]!r}")
            if one.tiles:
                wrong.append(f"failed with {one.tiles} tiles")
        return wrong

    @staticmethod
    def _wrong_tiles(store: Any, case: Case, results: list[Any]) -> list[str]:
        """The store has the tiles of what was ingested, and no other."""
        expected = sum(one.tiles for one in results if str(one.status) == "ingested")
        name = f"case-{case.number}"
        has = name in {one.name for one in store.datasets()}
        found = store.query(dataset=name).count() if has else 0
        return [] if found == expected else [f"{found} tiles in the store, {expected} reported"]

    def _planted(self, number: int) -> None:
        """A fault made on purpose, to show that it is noticed."""
        kind = self.plants.get(number)
        if kind == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif kind == "hang":
            time.sleep(600)
        elif kind == "memory":
            self.kept = b"x" * (700 << 20)
            time.sleep(600)
        elif kind == "leaving":
            (self.temporary / "left").write_text("x")
        elif kind == "stderr":
            os.write(2, b"Segmentation fault\n")
        elif kind == "open":
            self.opened = (self.folder / "planted").open("w")
        elif kind == "raise":
            raise RuntimeError("planted")


def innermost(error: BaseException) -> str:
    """Where of ours an error came from: ` at file:line`."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if "geostore" in one.filename and "tests" not in one.filename]
    return f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""


def open_files() -> set[str]:
    """Files that this process has open, but for the store's own and pipes."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(entry.readlink())
            if target.startswith("/") and "/store/" not in target and "/proc/" not in target:
                found.add(target)
    return found


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most that this process had resident since `reset_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


def work(arguments: argparse.Namespace) -> None:
    """The child's whole life. Its lines go to the stdout it was given, all else to a file."""
    import resource

    folder = Path(arguments.worker)
    lines = os.fdopen(os.dup(1), "w")
    sink = os.open(folder / "stderr", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES_MAX, DATA_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    worker = Worker(arguments.seed, arguments.tree, folder, arguments.plant)
    cases = [int(one) for one in sys.stdin.read().split()]
    worker.run(cases, lines, Path(arguments.keep) if arguments.keep else None)


# ---------------------------------------------------------------- the watch


class Child:
    """A worker process, what it still has to do, and what it is at."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, cases: list[int]) -> None:
        self.arguments = arguments
        self.folder = folder
        self.left = cases
        self.lives = 0
        self.start()

    def start(self) -> None:
        self.lives += 1
        home = self.folder / f"life-{self.lives}"
        home.mkdir(parents=True)
        options = ["--seed", str(self.arguments.seed), "--worker", str(home)]
        for name in ("tree", "keep", "plant"):
            value = getattr(self.arguments, name)
            options += [f"--{name}", str(value)] if value else []
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", MODULE, *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY,
        )  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, self.left)).encode())
        self.process.stdin.close()
        self.at: int | None = None
        self.about = ""
        self.is_condemned = False
        self.since = time.monotonic()
        self.pending = b""

    def resident_bytes(self) -> int:
        """Of the process and its children."""
        total = 0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.process.pid)
            for one in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += one.memory_info().rss
        return total

    def kill(self) -> None:
        """End it and its children, which would outlive it."""
        with contextlib.suppress(psutil.Error):
            for one in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    one.kill()
        self.process.kill()

    def close(self) -> None:
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        shutil.rmtree(self.home, ignore_errors=True)


def campaign(arguments: argparse.Namespace, say: Any = None) -> Report:
    """All cases, in `arguments.jobs` children at once."""
    report = Report(arguments.seed)
    started = time.monotonic()
    numbers = [arguments.only] if arguments.only is not None else list(range(arguments.count))
    shares = [numbers[job :: arguments.jobs] for job in range(arguments.jobs)]
    with tempfile.TemporaryDirectory(prefix="geostore-mutated-") as scratch:
        selector = selectors.DefaultSelector()
        children = [
            Child(arguments, Path(scratch, f"job-{job}"), share)
            for job, share in enumerate(shares)
            if share
        ]
        try:
            for child in children:
                selector.register(child.process.stdout, selectors.EVENT_READ, child)  # type: ignore[arg-type]
            while selector.get_map():
                for key, _ in selector.select(POLL_S):
                    _hear(selector, key.data, report, say)
                for key in list(selector.get_map().values()):
                    _watch(key.data, report, arguments)
        finally:
            for child in children:
                child.kill()
                child.close()
            selector.close()
    report.seconds = time.monotonic() - started
    return report


def _hear(selector: Any, child: Child, report: Report, say: Any) -> None:
    data = os.read(child.process.stdout.fileno(), 1 << 16)  # type: ignore[union-attr]
    *lines, child.pending = (child.pending + data).split(b"\n")
    for text in lines:
        line = json.loads(text)
        child.since = time.monotonic()
        if "begins" in line:
            child.at, child.about = line["begins"], line["about"]
        elif "store" in line:
            report.faults.append(f"a child's store does not verify: {line['store']}")
        else:
            child.left.remove(line["case"])
            child.at = None
            report.add(line)
            if say is not None:
                say(line)
    if data:
        return
    selector.unregister(child.process.stdout)
    code = child.process.wait()
    if code != 0 or child.left:
        _note_death(child, code, report)
    child.close()
    if code != 0 and child.left:
        child.start()
        selector.register(child.process.stdout, selectors.EVENT_READ, child)


def _note_death(child: Child, code: int, report: Report) -> None:
    """The case that a child was at is at fault; without one the child itself is."""
    said = (child.home / "stderr").read_text(errors="replace")[-1500:]
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    if child.at is None:
        child.left.clear()
        report.faults.append(f"a child ended between cases, {how}: {said}")
        return
    if not child.is_condemned:
        text = f"the process was {how}: {said}"
        report.faults.append(report.fault(child.at, child.about, text))
    report.cases += 1
    child.left.remove(child.at)


def _watch(child: Child, report: Report, arguments: argparse.Namespace) -> None:
    if child.at is None or child.process.poll() is not None:
        return
    resident = child.resident_bytes()
    report.peak_bytes = max(report.peak_bytes, resident)
    seconds = time.monotonic() - child.since
    why = ""
    if seconds > arguments.limit_s:
        why = f"hangs: no answer after {seconds:.0f} s"
    elif resident > arguments.bytes_max:
        why = f"takes {resident >> 20} MB of memory"
    if why and not child.is_condemned:
        child.is_condemned = True
        report.faults.append(report.fault(child.at, child.about, why))
        child.kill()


def _arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--only", type=int, help="this case alone")
    parser.add_argument("--tree", type=Path, help="a folder of real sources")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit-s", type=float, default=CASE_S_MAX)
    parser.add_argument("--bytes-max", type=int, default=CASE_BYTES_MAX)
    parser.add_argument("--keep", help="put the damaged sources there as well")
    parser.add_argument("--plant", default="", help="faults on purpose: KIND@CASE,…")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("-v", "--verbose", action="store_true")
    return parser.parse_args(words)


def run(**options: Any) -> Report:
    """A campaign by keywords, those of the command line."""
    arguments = _arguments([])
    for name, value in options.items():
        setattr(arguments, name, value)
    return campaign(arguments)


def _lines(line: dict[str, Any]) -> Iterator[str]:
    yield f"{line['case']:5d} {line['seconds']:6.2f} s {line['peak_bytes'] >> 20:5d} MB"
    yield f"{line['about']}: {', '.join(line['statuses']) or '-'}"
    yield "; ".join(line["errors"])[:300]


def main() -> None:
    arguments = _arguments()
    if arguments.worker:
        work(arguments)
        return

    def say(line: dict[str, Any]) -> None:
        print(" | ".join(_lines(line)), flush=True)

    report = campaign(arguments, say if arguments.verbose or arguments.only is not None else None)
    for fault in report.faults:
        print(fault, file=sys.stderr)
    print(report)
    sys.exit(bool(report.faults))


if __name__ == "__main__":
    main()
