"""A ring of real node processes that can be killed, armed, and brought back."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from ring_checks import problems_at_rest, small

from geostore.backends.cluster import ClusterBackend, open_cluster
from geostore.config import parse_target
from geostore.node import Node
from geostore.ring import Ring, slot_of
from geostore.rpc.client import NodeClient
from geostore.rpc.transport import Channels
from geostore.server.ring_file import RingFile
from geostore.types import CallContext, DatasetDefinition

HERE = Path(__file__).parent
NAMES = ("n1", "n2", "n3")
WAIT_S = 120.0
"""For anything that must happen."""
POLL_S = 0.02


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Polls a condition, with a bound."""
    never = threading.Event()
    for _ in range(int(WAIT_S / POLL_S)):
        if holds():
            return
        never.wait(POLL_S)
    raise AssertionError(f"in {WAIT_S:g} s it did not come to: {what}")


class NodeProcesses:
    """Three nodes; data and logs below `top`. Each keeps its port over all its lives."""

    def __init__(self, top: Path, *, replicas: int, lease_s: float) -> None:
        self.top = top
        self._replicas = replicas
        self._lease_s = lease_s
        self._running: dict[str, subprocess.Popen[str]] = {}
        self.addresses: dict[str, str] = {}

    def start(self) -> None:
        for name in NAMES:
            self.begin(name)
            self.serve(name)

    def begin(self, name: str) -> None:
        """Starts a process and does not wait for it."""
        assert name not in self._running
        listen = self.addresses.get(name, "127.0.0.1:0")
        arguments = ["--data", str(self.top / name), "--listen", listen, "--name", name]
        if name == NAMES[0]:
            arguments += ["--replicas", str(self._replicas)]
        else:
            arguments += ["--join", self.addresses[NAMES[0]]]
        with (self.top / f"{name}.log").open("a") as log:
            self._running[name] = subprocess.Popen(
                [
                    sys.executable, HERE / "steered_node.py", self._orders(name),
                    str(self._lease_s), "node", *arguments,
                ],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip

    def serve(self, name: str) -> None:
        """Waits until a started process serves."""
        out = self._running[name].stdout
        assert out is not None
        said = out.readline().split()
        assert said[:1] == ["serving"], (said, (self.top / f"{name}.log").read_text()[-2000:])
        self.addresses[name] = said[1]

    def restart(self, name: str) -> None:
        self.begin(name)
        self.serve(name)

    def wait_together(self) -> None:
        """Waits until each node reaches each: after a failure they try again now and then."""
        wait_until(lambda: all(self._reaches_all(name) for name in NAMES), "all nodes meet")

    def _reaches_all(self, name: str) -> bool:
        with self.client(name) as backend:
            return all(node.state == "serving" for node in backend.status().nodes)

    def _orders(self, name: str) -> Path:
        return self.top / f"{name}.orders"

    def arm(self, name: str, step: str) -> None:
        """The node is to be killed when it comes to `step`."""
        draft = self.top / "orders.new"
        draft.write_text(step)
        draft.replace(self._orders(name))

    def kill(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        process.communicate(timeout=WAIT_S)

    def wait_killed(self, name: str) -> None:
        """Waits until an armed node was killed."""
        process = self._running.pop(name)
        process.wait(timeout=WAIT_S)  # its input stays open: that would end it too
        process.communicate(timeout=WAIT_S)
        assert process.returncode == -signal.SIGKILL, (self.top / f"{name}.log").read_text()[-2000:]

    def stop(self) -> None:
        """Ends all by SIGTERM, as a user would."""
        for process in self._running.values():
            process.terminate()
        codes = []
        for process in self._running.values():
            process.wait(timeout=WAIT_S)
            process.communicate(timeout=WAIT_S)
            codes.append(process.returncode)
        self._running.clear()
        assert set(codes) <= {0}

    def close(self) -> None:
        for name in list(self._running):
            self.kill(name)

    # ------------------------------------------------------------------ clients

    def target(self, *names: str) -> str:
        return "geostore://" + ",".join(self.addresses[name] for name in names or NAMES)

    def client(self, *names: str) -> ClusterBackend:
        return open_cluster(parse_target(self.target(*names)))

    def ring(self) -> Ring:
        with closing(Channels()) as channels:
            address = self.addresses[NAMES[0]]
            return NodeClient(channels.channel(address), address).get_ring(CallContext.within(20))

    def keepers(self, record: str) -> list[str]:
        """Names of the nodes that keep a record or a placement key's tiles, the first first."""
        return [node.name for node in self.ring().replicas_of(slot_of(record))]

    # ------------------------------------------------------------------ checks

    def seen(self) -> dict[str, dict[str, list[str]]]:
        """What queries show, the same through each node."""
        answers = []
        for name in NAMES:
            with self.client(name) as backend:
                answers.append(small.seen(backend))
        assert answers[1:] == answers[:1] * 2
        return answers[0]

    def stop_at_rest(self, definitions: Sequence[DatasetDefinition]) -> None:
        """Stops all nodes as soon as nothing is under way, and checks their disks."""
        wait_until(lambda: not self._open_scenes(), "nothing is under way")
        self.stop()
        with ExitStack() as opened:
            nodes = {}
            for name in NAMES:
                node = opened.enter_context(Node(self.top / name, lock_now=True, is_member=True))
                file = RingFile(node)
                nodes[file.node_id] = node
                assert file.ring is not None
                ring = file.ring
            assert list(problems_at_rest(nodes, ring, definitions)) == []

    def _open_scenes(self) -> list[str]:
        """Scenes with something left to do, as the nodes' disks tell beside their processes."""
        found = []
        for name in NAMES:
            with Node(self.top / name, mode="r", is_member=True) as node:
                catalog = node.catalog
                names = [*catalog.record_names("scene/"), *catalog.record_names("deleted/")]
                records = [(each, catalog.record_get(each)) for each in names]
                found += [each for each, one in records if one and one.value[:1] != b"S"]
                found += [f"staged {tile.key}" for tile in catalog.staged()]
        return found


@contextmanager
def ring_of_processes(top: Path, *, replicas: int, lease_s: float) -> Iterator[NodeProcesses]:
    """Three nodes that serve, and none left afterwards."""
    nodes = NodeProcesses(top, replicas=replicas, lease_s=lease_s)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.close()
