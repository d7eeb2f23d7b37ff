"""Every metric's name, and a small registry that counts them in this process.

A name ends in its unit, so that a number read from a log or a dashboard explains itself.
Nothing is exported or printed here: `snapshot()` hands the numbers to whoever wants them
(`geostore status`, a benchmark, later a node's metrics endpoint).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "CATALOG_STAGE_SECONDS",
    "NODE_ABORTED_SCENES",
    "NODE_COMMITTED_SCENES",
    "NODE_CORRUPT_TILES",
    "NODE_FSYNC_SECONDS",
    "NODE_PUT_BYTES",
    "NODE_PUT_SECONDS",
    "NODE_PUT_TILES",
    "NODE_READ_BLOCKS",
    "NODE_READ_BYTES",
    "NODE_READ_RUNS",
    "NODE_RECOVERY_SCENES",
    "NODE_RECOVERY_SECONDS",
    "NODE_SCENE_COMMIT_SECONDS",
    "REGISTRY",
    "Metric",
    "Registry",
    "Sample",
]

Unit = Literal["seconds", "bytes", "tiles", "blocks", "scenes", "runs"]
Kind = Literal["counter", "timer"]


@dataclass(frozen=True, slots=True)
class Metric:
    """What one number means.

    Raises:
        ValueError: the name does not end in its unit, or a timer in something else.
    """

    name: str
    kind: Kind
    unit: Unit
    description: str

    def __post_init__(self) -> None:
        if not self.name.endswith(f"_{self.unit}"):
            raise ValueError(f"metric {self.name!r}: expected a name ending in _{self.unit}")
        if self.kind == "timer" and self.unit != "seconds":
            raise ValueError(f"metric {self.name!r}: timers count seconds, got {self.unit}")


NODE_PUT_TILES = Metric("node_put_tiles", "counter", "tiles", "tile files made durable")
NODE_PUT_BYTES = Metric("node_put_bytes", "counter", "bytes", "bytes of tile files written")
NODE_PUT_SECONDS = Metric("node_put_seconds", "timer", "seconds", "one batch of puts, whole")
NODE_FSYNC_SECONDS = Metric(
    "node_fsync_seconds", "timer", "seconds", "waiting for tile files and directories to sync"
)
CATALOG_STAGE_SECONDS = Metric(
    "catalog_stage_seconds", "timer", "seconds", "one batch's staging transaction"
)
NODE_READ_BLOCKS = Metric("node_read_blocks", "counter", "blocks", "stored blocks read")
NODE_READ_BYTES = Metric("node_read_bytes", "counter", "bytes", "bytes read, gaps included")
NODE_READ_RUNS = Metric("node_read_runs", "counter", "runs", "preads: runs of near blocks")
NODE_CORRUPT_TILES = Metric(
    "node_corrupt_tiles", "counter", "tiles", "reads that found a tile file missing or cut short"
)
NODE_SCENE_COMMIT_SECONDS = Metric(
    "node_scene_commit_seconds", "timer", "seconds", "commit and publication of a scene"
)
NODE_COMMITTED_SCENES = Metric(
    "node_committed_scenes", "counter", "scenes", "scenes committed by this process"
)
NODE_ABORTED_SCENES = Metric(
    "node_aborted_scenes", "counter", "scenes", "scenes given up by this process"
)
NODE_RECOVERY_SCENES = Metric(
    "node_recovery_scenes", "counter", "scenes", "scenes that a starting writer had to settle"
)
NODE_RECOVERY_SECONDS = Metric(
    "node_recovery_seconds", "timer", "seconds", "settling what an earlier writer left"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """A metric's numbers so far: `total` in the metric's unit, over `count` observations."""

    total: float
    count: int
    maximum: float


class Registry:
    """Counters and timers of one process; thread-safe; a few hundred ns an observation."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: dict[Metric, Sample] = {}

    def add(self, metric: Metric, amount: float = 1) -> None:
        """Adds one observation of `amount`, in the metric's unit.

        Raises:
            ValueError: a negative amount: counters only grow.
        """
        if amount < 0:
            raise ValueError(f"metric {metric.name}: got {amount}, counters only grow")
        with self._lock:
            old = self._samples.get(metric)
            if old is None:
                self._samples[metric] = Sample(amount, 1, amount)
            else:
                self._samples[metric] = Sample(
                    old.total + amount, old.count + 1, max(old.maximum, amount)
                )

    @contextmanager
    def timed(self, metric: Metric) -> Iterator[None]:
        """Times a block; a block that raises counts too, since it cost its time."""
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self.add(metric, time.perf_counter() - start_s)

    def read(self, metric: Metric) -> Sample:
        """The metric's numbers so far; zeros where nothing was observed."""
        with self._lock:
            return self._samples.get(metric, Sample(0, 0, 0))

    def snapshot(self) -> dict[str, Sample]:
        """Every observed metric by name, sorted."""
        with self._lock:
            samples = dict(self._samples)
        return {m.name: samples[m] for m in sorted(samples, key=lambda m: m.name)}

    def reset(self) -> None:
        """Forgets everything: for benchmarks and for a process after fork."""
        with self._lock:
            self._samples.clear()


REGISTRY = Registry()
"""The process's registry: rooms below the API add to it without being handed one."""
