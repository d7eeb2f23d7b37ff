"""A whole cluster on this machine, one process a node, supervised through files.

There is no supervisor that must stay: `up` starts the nodes, writes down who they are and
returns; a later `status` or `down`, in any process, reads it. In the cluster's directory:

    cluster.json   who the nodes are: ports, pids, when each process began
    cluster.lock   held while nodes are started or stopped
    n1/            a node's data
    n1.log         what it logs, over all its runs
    n1.out         its stdout: the line `serving HOST:PORT` says that it serves
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from geostore.api.local_plan import ClusterNode, ClusterPlan, PlanFile, planned
from geostore.api.local_process import LocalProcess, start_detached
from geostore.errors import (
    ConflictError,
    NotFoundError,
    UnavailableError,
)

__all__ = ["LocalCluster", "LocalNodeState", "StopReport"]

POLL_S: Final = 0.02
KILL_TIMEOUT_S: Final = 10.0
LINE_BYTES_MAX: Final = 1000
TAIL_BYTES_MAX: Final = 2000
TAIL_LINES_MAX: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalNodeState:
    """One node's process, as `cluster status` shows it."""

    name: str
    pid: int | None
    """None: it does not run."""
    address: str
    state: str
    """`up` or `down`."""
    directory: str
    """Its data."""
    uptime_s: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopReport:
    """What `down` did, by the nodes' names; those that did not run are in neither."""

    stopped: tuple[str, ...] = ()
    """Ended by themselves when asked to."""
    killed: tuple[str, ...] = ()
    """Did not end in time and were killed."""


class LocalCluster:
    """The cluster of one directory.

    `command` is what starts a node; it is given `--data`, `--listen`, `--name`, and `--join`
    for all but the first, which founds the ring with `--replicas`.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        command: Sequence[str] | None = None,
        start_timeout_s: float = 120.0,
        stop_timeout_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.directory = Path(directory).expanduser().absolute()
        self._plan_file = PlanFile(self.directory / "cluster.json")
        self._command = tuple(command or (sys.executable, "-m", "geostore_cli", "node"))
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._clock = clock
        self._wait = wait

    # ------------------------------------------------------------ what users call

    def up(
        self,
        nodes: int | None = None,
        port: int | None = None,
        replicas: int | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> str:
        """Starts every node that does not run; returns the target once all serve.

        Args:
            nodes: 1..64; None: as many as there are, else 3.
            port: of the first node, the others take those after it; None: as before, else
                any that are free.
            replicas: None: as before, else 1.
            progress: hears a line as each node serves.

        If a node fails, those started by this call are stopped; those that ran go on.

        Raises:
            ConflictError: the cluster was made with other numbers, runs at other ports, or
                is being started or stopped by somebody else.
            UnavailableError: a node ended or did not serve in time; its log's end is told.
        """
        tell = progress or (lambda _text: None)
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._locked():
            before = self._plan_file.read()
            plan = planned(self.directory, before, nodes=nodes, port=port, replicas=replicas)
            dead = [node for node in plan.nodes if not node.is_up]
            if plan.replicas > len(plan.nodes):
                tell(f"{len(plan.nodes)} nodes keep as many copies, not {plan.replicas}")
            if not dead:
                tell(f"the cluster in {self.directory} is up already")
                return plan.target
            # The first node founds the ring: the others can only join what is there.
            first = [node for node in dead if node is plan.nodes[0]]
            groups = [group for group in (first, dead[len(first) :]) if group]
            try:
                for group in groups:
                    plan = self._start(plan, group, tell)
            except BaseException:
                self._take_back(before, [node.name for node in dead])
                raise
        return plan.target

    def exists(self) -> bool:
        """Whether a cluster was made here."""
        return self._plan_file.path.exists()

    def status(self) -> list[LocalNodeState]:
        """Every node's process, in the order of their names' numbers.

        Raises:
            NotFoundError: no cluster was made here.
        """
        plan = self._plan_file.read()
        if plan is None:
            raise NotFoundError(f"no cluster in {self.directory}: it has no cluster.json")
        return [self._state(node) for node in plan.nodes]

    def down(self, progress: Callable[[str], None] | None = None) -> StopReport:
        """Stops every node that runs; harmless where none does.

        Raises:
            UnavailableError: a process survives SIGKILL (it hangs in the kernel).
        """
        if not self._plan_file.path.exists():
            return StopReport()
        with self._locked():
            plan = self._plan_file.read()
            if plan is None:
                return StopReport()
            report = self._stop(plan.nodes, progress or (lambda _text: None))
            nodes = tuple(replace(node, process=None) for node in plan.nodes)
            self._plan_file.write(replace(plan, nodes=nodes))
        return report

    # ------------------------------------------------------------ starting

    def _start(
        self, plan: ClusterPlan, group: list[ClusterNode], tell: Callable[[str], None]
    ) -> ClusterPlan:
        """The plan with a group's processes, once all of them serve."""
        waiting: list[ClusterNode] = []
        for node in group:
            plan = self._spawn(plan, node)
            waiting.append(next(other for other in plan.nodes if other.name == node.name))
        deadline_s = self._clock() + self._start_timeout_s
        while waiting:
            serving = [node for node in waiting if self._serves(node)]
            for node in serving:
                waiting.remove(node)
                tell(f"{node.name} serves at {node.address}")
            if waiting and not serving:
                if self._clock() >= deadline_s:
                    raise self._failed(
                        waiting[0], f"did not serve within {self._start_timeout_s:g} s"
                    )
                self._wait(POLL_S)
        return plan

    def _spawn(self, plan: ClusterPlan, node: ClusterNode) -> ClusterPlan:
        command = [*self._command, "--data", str(self.directory / node.name)]
        command += ["--listen", node.address, "--name", node.name]
        if node.name == plan.nodes[0].name:
            command += ["--replicas", str(plan.replicas)]
        else:
            command += ["--join", plan.nodes[0].address]
        started_s = time.time()
        made: list[ClusterPlan] = []

        def started(process: LocalProcess) -> None:
            # Written at once: should we be killed now, `down` still finds the process.
            made.append(plan.with_node(replace(node, process=process, started_s=started_s)))
            self._plan_file.write(made[0])

        start_detached(
            command,
            stdout=self._output(node),
            stderr=self._log(node),
            started=started,
        )
        return made[0]

    def _serves(self, node: ClusterNode) -> bool:
        """It has said so. Raises UnavailableError if it ended or said something else."""
        is_up = node.is_up  # before the reading: what it said before it ended is then seen
        with self._output(node).open("rb") as file:
            line, newline, _ = file.read(LINE_BYTES_MAX).partition(b"\n")
        if newline or len(line) == LINE_BYTES_MAX:
            if not line.startswith(b"serving "):
                said = line.decode(errors="replace")
                raise self._failed(node, f"said {said!r}, expected 'serving HOST:PORT'")
            if is_up:
                return True
        if not is_up:
            raise self._failed(node, "ended before it served" if not newline else "ended")
        return False

    def _failed(self, node: ClusterNode, what: str) -> UnavailableError:
        log = self._log(node)
        tail = _tail(log)
        end = f"its log ends:\n{tail}" if tail else "its log is empty"
        return UnavailableError(f"node {node.name} at {node.address} {what}; {log}: {end}")

    def _take_back(self, before: ClusterPlan | None, names: list[str]) -> None:
        """Ends what a failed or interrupted `up` started, and forgets a cluster never founded."""
        plan = self._plan_file.read()
        if plan is None:
            return
        started = [node for node in plan.nodes if node.name in names]
        try:
            self._stop(started, lambda _text: None)
        except KeyboardInterrupt:  # a second one: no more patience
            self._stop(started, lambda _text: None, timeout_s=0.0)
        if before is None and not (self.directory / plan.nodes[0].name).exists():
            self._plan_file.path.unlink(missing_ok=True)
            return
        for node in started:
            plan = plan.with_node(replace(node, process=None))
        self._plan_file.write(plan)

    # ------------------------------------------------------------ stopping

    def _stop(
        self,
        nodes: Sequence[ClusterNode],
        tell: Callable[[str], None],
        *,
        timeout_s: float | None = None,
    ) -> StopReport:
        timeout_s = self._stop_timeout_s if timeout_s is None else timeout_s
        asked = [node for node in nodes if node.process and node.process.signal(signal.SIGTERM)]
        left = self._until_ended(asked, timeout_s)
        for node in left:
            assert node.process is not None
            tell(f"{node.name} did not end within {timeout_s:g} s and is killed")
            node.process.signal(signal.SIGKILL)
        stuck = self._until_ended(left, KILL_TIMEOUT_S)
        if stuck:
            names = ", ".join(
                f"{node.name} (pid {node.process and node.process.pid})" for node in stuck
            )
            raise UnavailableError(f"{names} did not end {KILL_TIMEOUT_S:g} s after SIGKILL")
        killed = tuple(node.name for node in left)
        return StopReport(
            stopped=tuple(node.name for node in asked if node.name not in killed), killed=killed
        )

    def _until_ended(self, nodes: Sequence[ClusterNode], timeout_s: float) -> list[ClusterNode]:
        """Those that still run after `timeout_s`."""
        deadline_s = self._clock() + timeout_s
        left = [node for node in nodes if node.is_up]
        while left and self._clock() < deadline_s:
            self._wait(POLL_S)
            left = [node for node in left if node.is_up]
        return left

    # ------------------------------------------------------------ files

    def _log(self, node: ClusterNode) -> Path:
        return self.directory / f"{node.name}.log"

    def _output(self, node: ClusterNode) -> Path:
        return self.directory / f"{node.name}.out"

    def _state(self, node: ClusterNode) -> LocalNodeState:
        is_up = node.is_up
        return LocalNodeState(
            name=node.name,
            pid=node.process.pid if node.process and is_up else None,
            address=node.address,
            state="up" if is_up else "down",
            directory=str(self.directory / node.name),
            uptime_s=max(0.0, time.time() - node.started_s) if is_up else None,
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Closed on exec, so that no node inherits the lock and holds it after us.
        path = self.directory / "cluster.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConflictError(
                f"the cluster in {self.directory} is being started or stopped by another"
                " process: wait for it to end"
            ) from None
        try:
            yield
        finally:
            os.close(descriptor)


def _tail(log: Path) -> str:
    """A log's last lines."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES_MAX))
            text = file.read(TAIL_BYTES_MAX).decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.strip().splitlines()[-TAIL_LINES_MAX:])
