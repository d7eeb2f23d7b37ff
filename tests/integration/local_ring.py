"""Three members of a ring in one process, and their clients; any of them may die at a step.

The nodes are real: disks, catalogs, ring files, members; only their calls go without
sockets. A node that dies stops for ever at its step, all its threads with it, whoever waits
for its answer hears that it cannot be reached, and it comes back on a copy of what its disk
had. The client is the real one of a cluster.
"""

from __future__ import annotations

import os
import queue
import runpy
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ring_checks import problems_at_rest

from geostore.backends.cluster import ClusterBackend
from geostore.backends.cluster_nodes import ClusterNodes
from geostore.config import parse_target
from geostore.errors import ConflictError, UnavailableError
from geostore.node import Node
from geostore.node.member import Member
from geostore.node.tile_files import TileFiles
from geostore.ring import Ring, RingNode, found_ring
from geostore.rpc.block_streams import StoredBlock
from geostore.server import ring_file
from geostore.types import CallContext, SceneRecord, SceneState

small = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "small_store.py")))

NAMES = ("n1", "n2", "n3")
INGESTER = "ingester"
CALL = CallContext()
SETTLINGS_MAX = 6
RESTARTS_MAX = 4


def one_after_another(_: TileFiles, action: Callable[[Any], object], items: Sequence[Any]) -> None:
    """In place of a batch's threads, so that each run has the same steps."""
    for item in items:
        action(item)


TileFiles._each = one_after_another  # type: ignore[method-assign]


class KilledError(BaseException):
    """The ingester's process is no more."""


class Process:
    """One life of a node or an ingester, which may end at one of its steps."""

    def __init__(self, stop_at: int | None = None, *, ends_all: bool = False) -> None:
        self.names: list[str] = []
        self.is_dead = False
        self._stop_at = stop_at
        self._ends_all = ends_all
        self._lock = threading.Lock()
        self._calls: set[queue.SimpleQueue[Any]] = set()

    def disarm(self) -> None:
        """It lives on."""
        self._stop_at = None

    def step(self, name: str) -> None:
        with self._lock:
            if not self.is_dead and len(self.names) == self._stop_at:
                if self._ends_all:
                    os._exit(small.KILLED)
                self.is_dead = True
                for waiting in self._calls:
                    waiting.put(None)
            self.names.append(name)
        if self.is_dead:
            threading.Event().wait()  # until the program ends

    def ingester_step(self, name: str) -> None:
        if len(self.names) == self._stop_at:
            self.is_dead = True
            raise KilledError
        self.names.append(name)

    def run(self, action: Callable[[], Any]) -> Any:
        """What `action` returns in a thread of this process. UnavailableError: it died."""
        outcome: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def act() -> None:
            try:
                outcome.put((action(), None))
            except BaseException as error:  # noqa: BLE001  # raised where it was asked for
                outcome.put((None, error))

        with self._lock:
            if self.is_dead:
                raise UnavailableError("it cannot be reached")
            self._calls.add(outcome)
        threading.Thread(target=act, daemon=True).start()
        found = outcome.get()
        with self._lock:
            self._calls.discard(outcome)
        if found is None or self.is_dead:
            raise UnavailableError("it died before it answered")
        answer, error = found
        if error is not None:
            raise error
        return answer


class LocalNode:
    """A node across its lives."""

    def __init__(self, cluster: Cluster, name: str, process: Process) -> None:
        self.cluster = cluster
        self.name = name
        self.lives = 0
        self.process = process
        self.member: Member | None = None
        self.root = cluster.top / name

    def start(self) -> None:
        """Raises UnavailableError: it died in the middle."""
        self.process.run(self._start)

    def _start(self) -> None:
        number = NAMES.index(self.name) + 1
        ring_file.uuid = SimpleNamespace(  # type: ignore[attr-defined]
            uuid4=lambda: SimpleNamespace(hex=f"{number:032x}")
        )
        node = Node(self.root, lock_now=True, is_member=True, step=self.process.step)
        file = ring_file.RingFile(node)
        own = RingNode(file.node_id, self.name, f"127.0.0.1:{7000 + number}")
        if file.ring is None:
            try:
                file.save(self._first_ring(own))
            except UnavailableError:  # so it ends, and is started again
                node.close()
                raise
        assert file.ring is not None
        self.member = Member(
            node, own_id=own.id, ring=file.ring, peers=self, save_ring=file.save,
            clock_s=lambda: self.cluster.now_s,
        )  # fmt: skip
        self.take_turn()

    def take_turn(self) -> list[str]:
        """As `geostore.server.ring_keeper`; what is open after it."""
        member = self.member
        assert member is not None
        with suppress(UnavailableError):
            member.take_ring(CALL, self.cluster.call(NAMES[0], "ring"))
        return member.resolve_staged(CALL) + member.settle(CALL)

    def _first_ring(self, own: RingNode) -> Ring:
        if self.name == NAMES[0]:
            return found_ring(own, cluster_id="c", replicas=self.cluster.replicas)
        ring: Ring = self.cluster.call(NAMES[0], "join", CALL, own)
        return ring

    def come_back(self, process: Process) -> None:
        """A new life on what the last one left on the disk."""
        assert self.process.is_dead
        self.lives += 1
        before, self.root = self.root, self.cluster.top / f"{self.name}.{self.lives}"
        if before.exists():
            shutil.copytree(before, self.root)
        self.process, self.member = process, None
        self.start()

    def peer(self, node_id: str) -> Any:
        """As `geostore.node.peer.Peers`."""
        assert self.member is not None
        if node_id == self.member.own_id:
            return self.member
        return LocalPeer(self.cluster, NAMES[int(node_id, 16) - 1])


class LocalPeer:
    """A node as the others call it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._ask = partial(cluster.call, name)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return partial(self._ask, method)


class LocalClient:
    """A node as clients call it: `geostore.rpc.client.NodeClient` and the service behind it."""

    def __init__(self, cluster: Cluster, address: str) -> None:
        self._ask = partial(cluster.call, NAMES[int(address[-1]) - 1])

    def get_ring(self, _: CallContext) -> Any:
        return self._ask("ring")

    def begin_scene(self, *args: Any, **named: Any) -> Any:
        record: SceneRecord = self._ask("begin_scene", *args, **named)
        is_open = record.state is SceneState.STAGING
        return (record, record.attempt, 30.0) if is_open else None

    def commit_scene(
        self, call: CallContext, dataset_id: str, scene: str, version: str, cells: Any,
        *, attempt: int, **named: Any,
    ) -> None:  # fmt: skip
        self._ask("commit_scene", call, dataset_id, scene, version, attempt, cells, **named)

    def _attempt(self, dataset_id: str, scene: str, version: str, attempt: int) -> int | None:
        record = self._ask("get_scene_record", CALL, dataset_id, scene)
        if record is None or record.staging_version != version:
            return None
        return record.attempt if attempt in (0, record.attempt) else None

    def abort_scene(
        self, call: CallContext, dataset_id: str, scene: str, version: str,
        *, attempt: int, holder: str,
    ) -> None:  # fmt: skip
        number = self._attempt(dataset_id, scene, version, attempt)
        if number is not None:
            self._ask("abort_scene", call, dataset_id, scene, number, holder)

    def keep_scene(
        self, call: CallContext, dataset_id: str, scene: str, version: str,
        *, attempt: int, holder: str,
    ) -> float:  # fmt: skip
        if self._attempt(dataset_id, scene, version, attempt) is None:
            raise ConflictError("it is over")
        self._ask("keep_scene", call, dataset_id, scene, holder)
        return 30.0

    def query(self, call: CallContext, query: Any, *, after: Any, explain: Any) -> Iterator[Any]:
        yield from self._ask("query", call, query, explain, after)

    def read_blocks(self, call: CallContext, wanted: Any) -> Iterator[StoredBlock]:
        for number, (key, indices) in enumerate(wanted):
            stored = self._ask("read_blocks", call, key, indices)
            for index, data in zip(indices, stored, strict=True):
                yield StoredBlock(tile=number, index=index, fill=0, checksum=0, data=data)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return partial(self._ask, method)


class Nodes(ClusterNodes):
    """A client's nodes; between its rounds something may happen."""

    while_it_waits: Callable[[], None] = staticmethod(lambda: None)

    def wait(self, seconds: float) -> None:  # nothing is waited for
        self.while_it_waits()


class Cluster:
    """Three nodes and their clients, over what lies in `top`."""

    def __init__(self, top: Path, replicas: int, processes: dict[str, Process]) -> None:
        self.top = top
        self.replicas = replicas
        self.now_s = 1000.0
        self.second_stop: int | None = None
        """At which step a node that comes back dies again."""
        self.nodes = {
            name: LocalNode(self, name, processes.get(name) or Process()) for name in NAMES
        }

    def start(self) -> None:
        for name in NAMES:
            try:
                self.nodes[name].start()
            except UnavailableError:
                self.revive()  # it, or whom it asked, died
                if self.nodes[name].member is None:
                    self.nodes[name].start()
        self.now_s += 60.0  # past the grace of a start

    def call(self, name: str, method: str, *args: Any, **named: Any) -> Any:
        node = self.nodes[name]
        if node.member is None:
            raise UnavailableError("it is starting")
        member = node.member

        def act() -> Any:
            answer = getattr(member, method)(*args, **named)
            return iter(list(answer)) if method in {"query", "leaf_query"} else answer

        return node.process.run(act)

    def revive(self) -> bool:
        """Starts those that died; whether there were any."""
        for lives in range(RESTARTS_MAX):
            dead = [node for node in self.nodes.values() if node.process.is_dead]
            for node in dead:
                process = Process(self.second_stop)
                self.second_stop = None
                try:
                    node.come_back(process)
                except UnavailableError:
                    if not process.is_dead:
                        raise
                else:
                    process.disarm()
            if not dead:
                return lives > 0
        raise AssertionError("nodes die too often")

    def client(self, process: Process, entry: Sequence[str] = NAMES) -> ClusterBackend:
        hosts = ",".join(f"127.0.0.1:{7001 + NAMES.index(name)}" for name in entry)
        target = parse_target(f"geostore://{hosts}")
        connect: Any = partial(LocalClient, self)
        nodes = Nodes(target, connect=connect, rounds_max=3, wait_first_s=0.0)
        backend = ClusterBackend(target, connect=connect, nodes=nodes)
        backend._scenes.step = process.ingester_step  # the seam
        return backend

    def settle(self, *, gives_up: bool) -> list[str]:
        """Lets nodes do what they do now and then; what is open after all."""
        left: list[str] = []
        for _ in range(SETTLINGS_MAX):
            if gives_up:
                self.now_s += 60.0
            try:
                left = []
                for name in NAMES:
                    node = self.nodes[name]
                    left += node.process.run(node.take_turn)
            except UnavailableError:
                if not self.revive():
                    raise
                left = ["a node that died"]
            if not left:
                break
        return left

    # ------------------------------------------------------------------ checks

    def check_seen(self, log: Path) -> list[str]:
        """What is wrong with what queries show, through each node."""
        wrong, answers = [], []
        for name in NAMES:
            with self.client(Process(), [name]) as backend:
                wrong += [f"through {name}: {text}" for text in small.check_seen(backend, log)]
                answers.append(small.seen(backend))
        if any(answer != answers[0] for answer in answers):
            wrong.append(f"nodes differ: {answers}")
        return wrong

    def check_at_rest(self) -> list[str]:
        """What is wrong with what lies at the nodes when nothing is under way."""
        members = [node.member for node in self.nodes.values()]
        assert all(members)
        rings = [member.ring() for member in members if member is not None]
        wrong = [] if rings.count(rings[0]) == len(rings) else [f"other rings: {rings}"]
        nodes = {member.own_id: member.node for member in members if member is not None}
        return wrong + list(problems_at_rest(nodes, rings[0], (small.A, small.B)))
