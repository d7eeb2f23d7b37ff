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
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from geostore.api.local_process import LocalProcess, start_detached
from geostore.config import CLUSTER_SCHEME, HOSTS_MAX
from geostore.errors import (
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    StoreFormatError,
    UnavailableError,
)

__all__ = ["LocalCluster", "LocalNodeState", "StopReport"]

FORMAT_VERSION: Final = 1
NODES_DEFAULT: Final = 3
REPLICAS_DEFAULT: Final = 1
HOST: Final = "127.0.0.1"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    name: str
    port: int
    process: LocalProcess | None = None
    started_s: float = 0.0
    """Seconds since 1970 when its process was started."""

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.is_alive()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """The cluster as cluster.json keeps it."""

    nodes: tuple[_Node, ...]
    replicas: int

    @property
    def target(self) -> str:
        return CLUSTER_SCHEME + ",".join(node.address for node in self.nodes)

    def with_node(self, node: _Node) -> _Plan:
        nodes = tuple(node if node.name == other.name else other for other in self.nodes)
        return replace(self, nodes=nodes)

    def to_json(self) -> dict[str, Any]:
        nodes = [
            {
                "name": node.name,
                "port": node.port,
                "data": node.name,
                "pid": node.process.pid if node.process else None,
                "birth": node.process.birth if node.process else None,
                "started_s": node.started_s,
            }
            for node in self.nodes
        ]
        return {"format": FORMAT_VERSION, "replicas": self.replicas, "nodes": nodes}

    @classmethod
    def from_json(cls, value: Any) -> _Plan:
        """Raises KeyError, TypeError or ValueError where `value` is no plan."""
        nodes = tuple(
            _Node(
                name=_name(item["name"]),
                port=int(item["port"]),
                process=None
                if item["pid"] is None
                else LocalProcess(int(item["pid"]), str(item["birth"])),
                started_s=float(item["started_s"]),
            )
            for item in value["nodes"]
        )
        if not nodes:
            raise ValueError("no nodes")
        return cls(nodes=nodes, replicas=int(value["replicas"]))


def _name(text: str) -> str:
    if not (text[:1] == "n" and text[1:].isdecimal()):
        raise ValueError(f"node name {text!r}, expected n1, n2, ...")
    return text


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
            before = self._read()
            plan = _planned(self.directory, before, nodes=nodes, port=port, replicas=replicas)
            dead = [node for node in plan.nodes if not node.is_up]
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
        return self._file.exists()

    def status(self) -> list[LocalNodeState]:
        """Every node's process, in the order of their names' numbers.

        Raises:
            NotFoundError: no cluster was made here.
        """
        plan = self._read()
        if plan is None:
            raise NotFoundError(f"no cluster in {self.directory}: it has no cluster.json")
        return [self._state(node) for node in plan.nodes]

    def down(self, progress: Callable[[str], None] | None = None) -> StopReport:
        """Stops every node that runs; harmless where none does.

        Raises:
            UnavailableError: a process survives SIGKILL (it hangs in the kernel).
        """
        if not self._file.exists():
            return StopReport()
        with self._locked():
            plan = self._read()
            if plan is None:
                return StopReport()
            report = self._stop(plan.nodes, progress or (lambda _text: None))
            self._write(replace(plan, nodes=tuple(replace(n, process=None) for n in plan.nodes)))
        return report

    # ------------------------------------------------------------ starting

    def _start(self, plan: _Plan, group: list[_Node], tell: Callable[[str], None]) -> _Plan:
        """The plan with a group's processes, once all of them serve."""
        waiting: list[_Node] = []
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

    def _spawn(self, plan: _Plan, node: _Node) -> _Plan:
        command = [*self._command, "--data", str(self.directory / node.name)]
        command += ["--listen", node.address, "--name", node.name]
        if node.name == plan.nodes[0].name:
            command += ["--replicas", str(plan.replicas)]
        else:
            command += ["--join", plan.nodes[0].address]
        started_s = time.time()
        made: list[_Plan] = []

        def started(process: LocalProcess) -> None:
            # Written at once: should we be killed now, `down` still finds the process.
            made.append(plan.with_node(replace(node, process=process, started_s=started_s)))
            self._write(made[0])

        start_detached(
            command,
            stdout=self._output(node),
            stderr=self._log(node),
            started=started,
        )
        return made[0]

    def _serves(self, node: _Node) -> bool:
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

    def _failed(self, node: _Node, what: str) -> UnavailableError:
        log = self._log(node)
        tail = _tail(log)
        end = f"its log ends:\n{tail}" if tail else "its log is empty"
        return UnavailableError(f"node {node.name} at {node.address} {what}; {log}: {end}")

    def _take_back(self, before: _Plan | None, names: list[str]) -> None:
        """Ends what a failed or interrupted `up` started, and forgets a cluster never founded."""
        plan = self._read()
        if plan is None:
            return
        started = [node for node in plan.nodes if node.name in names]
        try:
            self._stop(started, lambda _text: None)
        except KeyboardInterrupt:  # a second one: no more patience
            self._stop(started, lambda _text: None, timeout_s=0.0)
        if before is None and not (self.directory / plan.nodes[0].name).exists():
            self._file.unlink(missing_ok=True)
            return
        for node in started:
            plan = plan.with_node(replace(node, process=None))
        self._write(plan)

    # ------------------------------------------------------------ stopping

    def _stop(
        self,
        nodes: Sequence[_Node],
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

    def _until_ended(self, nodes: Sequence[_Node], timeout_s: float) -> list[_Node]:
        """Those that still run after `timeout_s`."""
        deadline_s = self._clock() + timeout_s
        left = [node for node in nodes if node.is_up]
        while left and self._clock() < deadline_s:
            self._wait(POLL_S)
            left = [node for node in left if node.is_up]
        return left

    # ------------------------------------------------------------ files

    @property
    def _file(self) -> Path:
        return self.directory / "cluster.json"

    def _log(self, node: _Node) -> Path:
        return self.directory / f"{node.name}.log"

    def _output(self, node: _Node) -> Path:
        return self.directory / f"{node.name}.out"

    def _state(self, node: _Node) -> LocalNodeState:
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

    def _read(self) -> _Plan | None:
        try:
            value = json.loads(self._file.read_bytes())
            if value["format"] != FORMAT_VERSION:
                raise StoreFormatError(
                    f"{self._file}: format {value['format']!r}, expected {FORMAT_VERSION}:"
                    " another version of geostore wrote it"
                )
            return _Plan.from_json(value)
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptDataError(f"{self._file} is not a cluster's state: {error}") from None

    def _write(self, plan: _Plan) -> None:
        """tmp, fsync, rename: a reader sees the old state or the new one."""
        beside = self._file.with_suffix(".json.tmp")
        with beside.open("w") as file:
            json.dump(plan.to_json(), file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._file)
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _planned(
    directory: Path,
    before: _Plan | None,
    *,
    nodes: int | None,
    port: int | None,
    replicas: int | None,
) -> _Plan:
    """The cluster to bring up: as asked where it is new, else as it was."""
    for what, value, most in (("nodes", nodes, HOSTS_MAX), ("replicas", replicas, HOSTS_MAX)):
        if value is not None and not 1 <= value <= most:
            raise InvalidInputError(f"{what} {value!r}: expected a whole number of 1..{most}")
    count = nodes or (len(before.nodes) if before else NODES_DEFAULT)
    if port is not None and not 1 <= port <= 65536 - count:
        raise InvalidInputError(
            f"port {port}: expected 1..{65536 - count}, so that {count} nodes have ports from it"
        )
    if before is None:
        ports = range(port, port + count) if port is not None else _free_ports(count)
        made = tuple(_Node(name=f"n{i}", port=chosen) for i, chosen in enumerate(ports, start=1))
        return _Plan(nodes=made, replicas=replicas or REPLICAS_DEFAULT)
    if count != len(before.nodes) or (replicas or before.replicas) != before.replicas:
        raise ConflictError(
            f"the cluster in {directory} has {len(before.nodes)} nodes and {before.replicas}"
            f" replicas, not {count} and {replicas or before.replicas}: leave them out to start"
            " it as it is, or use another directory"
        )
    if port is None or port == before.nodes[0].port:
        return before
    if any(node.is_up for node in before.nodes):
        raise ConflictError(
            f"the cluster in {directory} runs at {before.nodes[0].address}: take it down before"
            f" it can go to port {port}"
        )
    moved = (replace(node, port=port + i) for i, node in enumerate(before.nodes))
    return replace(before, nodes=tuple(moved))


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now; all are held until the last is chosen."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _tail(log: Path) -> str:
    """A log's last lines."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES_MAX))
            text = file.read(TAIL_BYTES_MAX).decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.strip().splitlines()[-TAIL_LINES_MAX:])
