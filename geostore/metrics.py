"""Every metric's name, and a small registry that counts them in this process.

A name ends in its unit, so that a number read from a log or a dashboard explains itself.
Nothing is exported or printed here: `snapshot()` and `series()` hand the numbers to whoever
wants them (`geostore status`, a benchmark, a node's metrics page).
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "CATALOG_STAGE_SECONDS",
    "NODE_ABORTED_SCENES",
    "NODE_COMMITTED_SCENES",
    "NODE_CORRUPT_TILES",
    "NODE_FREE_BYTES",
    "NODE_FSYNC_SECONDS",
    "NODE_HELD_BYTES",
    "NODE_HELD_TILES",
    "NODE_OWNED_SLOTS",
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
    "SERVER_ANSWERED_REQUESTS",
    "SERVER_RECEIVED_BYTES",
    "SERVER_REFUSED_REQUESTS",
    "SERVER_REQUEST_SECONDS",
    "SERVER_RUNNING_REQUESTS",
    "SERVER_SENT_BYTES",
    "SERVER_STALLED_REQUESTS",
    "SERVER_WAITING_REQUESTS",
    "Labels",
    "Metric",
    "Registry",
    "Sample",
]

Unit = Literal["seconds", "bytes", "tiles", "blocks", "scenes", "runs", "requests", "slots"]
Kind = Literal["counter", "timer", "gauge"]
Labels = tuple[str, ...]
"""A series' label values, in the order of its metric's `labels`."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What one number means.

    Counters only grow, timers are counters of seconds, a gauge is set to what is so now.

    Raises:
        ValueError: the name does not end in its unit, a timer in something else, or buckets
            that do not rise or that no timer counts.
    """

    name: str
    kind: Kind
    unit: Unit
    description: str
    labels: tuple[str, ...] = ()
    """What tells its series apart. Values come from small fixed sets, never from clients."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of a timer's histogram, rising; empty: no histogram is kept."""

    def __post_init__(self) -> None:
        if not self.name.endswith(f"_{self.unit}"):
            raise ValueError(f"metric {self.name!r}: expected a name ending in _{self.unit}")
        if self.kind == "timer" and self.unit != "seconds":
            raise ValueError(f"metric {self.name!r}: timers count seconds, got {self.unit}")
        if self.bounds and self.kind != "timer":
            raise ValueError(f"metric {self.name!r}: only timers have bounds, got a {self.kind}")
        if list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f"metric {self.name!r}: bounds must rise, got {self.bounds}")


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


NODE_HELD_TILES = Metric("node_held_tiles", "gauge", "tiles", "tiles that queries see here")
NODE_HELD_BYTES = Metric("node_held_bytes", "gauge", "bytes", "bytes of the tiles held here")
NODE_FREE_BYTES = Metric("node_free_bytes", "gauge", "bytes", "free on the node's disk")
NODE_OWNED_SLOTS = Metric("node_owned_slots", "gauge", "slots", "slots this node is a replica of")

SERVER_ANSWERED_REQUESTS = Metric(
    "server_answered_requests", "counter", "requests", "calls that ended", ("method", "status")
)
SERVER_REFUSED_REQUESTS = Metric(
    "server_refused_requests",
    "counter",
    "requests",
    "calls refused before they took a thread",
    ("call_class", "status"),
)
SERVER_STALLED_REQUESTS = Metric(
    "server_stalled_requests",
    "counter",
    "requests",
    "calls cancelled because the client no longer read or sent",
    ("method",),
)
SERVER_REQUEST_SECONDS = Metric(
    "server_request_seconds",
    "timer",
    "seconds",
    "one call in its thread, first byte to last; waiting for the thread is not in it",
    ("method",),
    bounds=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0),
)
SERVER_RECEIVED_BYTES = Metric(
    "server_received_bytes", "counter", "bytes", "messages received", ("method",)
)
SERVER_SENT_BYTES = Metric("server_sent_bytes", "counter", "bytes", "messages sent", ("method",))
SERVER_RUNNING_REQUESTS = Metric(
    "server_running_requests", "gauge", "requests", "calls that have a thread", ("call_class",)
)
SERVER_WAITING_REQUESTS = Metric(
    "server_waiting_requests", "gauge", "requests", "calls that wait for one", ("call_class",)
)


@dataclass(frozen=True, slots=True)
class Sample:
    """A series' numbers so far: `total` in the metric's unit, over `count` observations.

    A gauge's `total` is what it was last set to.
    """

    total: float
    count: int
    maximum: float
    buckets: tuple[int, ...] = ()
    """Observations up to each of the metric's bounds and above the one before; the last
    place counts those above all."""

    def plus(self, amount: float, metric: Metric) -> Sample:
        """With one more observation."""
        buckets = self.buckets
        if metric.bounds:
            place = bisect_left(metric.bounds, amount)
            counts = list(buckets) or [0] * (len(metric.bounds) + 1)
            counts[place] += 1
            buckets = tuple(counts)
        maximum = max(self.maximum, amount) if self.count else amount
        return Sample(self.total + amount, self.count + 1, maximum, buckets)


_NOTHING = Sample(0, 0, 0)


class Registry:
    """Counters, timers and gauges of one process; thread-safe; under a µs an observation."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: dict[tuple[Metric, Labels], Sample] = {}

    def add(self, metric: Metric, amount: float = 1, *, labels: Labels = ()) -> None:
        """Adds one observation of `amount`, in the metric's unit.

        Raises:
            ValueError: a negative amount (counters only grow), a gauge, or other labels
                than the metric's.
        """
        if amount < 0:
            raise ValueError(f"metric {metric.name}: got {amount}, counters only grow")
        if metric.kind == "gauge":
            raise ValueError(f"metric {metric.name}: a gauge is set, not added to")
        key = _series_key(metric, labels)
        with self._lock:
            self._samples[key] = self._samples.get(key, _NOTHING).plus(amount, metric)

    def set(self, metric: Metric, value: float, *, labels: Labels = ()) -> None:
        """What a gauge says from now on.

        Raises:
            ValueError: not a gauge, or other labels than the metric's.
        """
        if metric.kind != "gauge":
            raise ValueError(f"metric {metric.name}: only gauges are set, this is a {metric.kind}")
        key = _series_key(metric, labels)
        with self._lock:
            old = self._samples.get(key, Sample(0, 0, value))
            self._samples[key] = Sample(value, old.count + 1, max(old.maximum, value))

    @contextmanager
    def timed(self, metric: Metric, *, labels: Labels = ()) -> Iterator[None]:
        """Times a block; a block that raises counts too, since it cost its time."""
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self.add(metric, time.perf_counter() - start_s, labels=labels)

    def read(self, metric: Metric, *, labels: Labels = ()) -> Sample:
        """One series' numbers so far; zeros where nothing was observed."""
        with self._lock:
            return self._samples.get((metric, labels), _NOTHING)

    def series(self) -> dict[Metric, dict[Labels, Sample]]:
        """Every observed metric, by name, with its series sorted by their labels."""
        with self._lock:
            samples = dict(self._samples)
        found: dict[Metric, dict[Labels, Sample]] = {}
        for metric, labels in sorted(samples, key=lambda key: (key[0].name, key[1])):
            found.setdefault(metric, {})[labels] = samples[metric, labels]
        return found

    def snapshot(self) -> dict[str, Sample]:
        """Every series by name, sorted; labelled ones as `name{label=value,...}`."""
        return {
            _series_name(metric, labels): sample
            for metric, found in self.series().items()
            for labels, sample in found.items()
        }

    def reset(self) -> None:
        """Forgets everything: for benchmarks and for a process after fork."""
        with self._lock:
            self._samples.clear()


def _series_key(metric: Metric, labels: Labels) -> tuple[Metric, Labels]:
    if len(labels) != len(metric.labels):
        raise ValueError(f"metric {metric.name}: expected labels {metric.labels}, got {labels}")
    return metric, labels


def _series_name(metric: Metric, labels: Labels) -> str:
    if not labels:
        return metric.name
    pairs = (f"{name}={value}" for name, value in zip(metric.labels, labels, strict=True))
    return f"{metric.name}{{{','.join(pairs)}}}"


REGISTRY = Registry()
"""The process's registry: rooms below the API add to it without being handed one."""
