"""What a local cluster is: its nodes, their ports and processes, as `cluster.json` keeps them."""

from __future__ import annotations

import json
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from geostore.api.local_process import LocalProcess
from geostore.config import CLUSTER_SCHEME, HOSTS_MAX
from geostore.errors import (
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    StoreFormatError,
)

__all__ = ["ClusterNode", "ClusterPlan", "PlanFile", "planned"]

FORMAT_VERSION: Final = 1
NODES_DEFAULT: Final = 3
REPLICAS_DEFAULT: Final = 1
HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNode:
    """One node, and its process while it is known to run."""

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
class ClusterPlan:
    """The cluster as cluster.json keeps it."""

    nodes: tuple[ClusterNode, ...]
    replicas: int

    @property
    def target(self) -> str:
        return CLUSTER_SCHEME + ",".join(node.address for node in self.nodes)

    def with_node(self, node: ClusterNode) -> ClusterPlan:
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
    def from_json(cls, value: Any) -> ClusterPlan:
        """Raises KeyError, TypeError or ValueError where `value` is no plan."""
        nodes = tuple(
            ClusterNode(
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


class PlanFile:
    """`cluster.json` of a cluster's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> ClusterPlan | None:
        """The plan; None: no cluster was made here.

        Raises:
            CorruptDataError: the file is damaged.
            StoreFormatError: another version of geostore wrote it.
        """
        try:
            value = json.loads(self.path.read_bytes())
            if value["format"] != FORMAT_VERSION:
                raise StoreFormatError(
                    f"{self.path}: format {value['format']!r}, expected {FORMAT_VERSION}:"
                    " another version of geostore wrote it"
                )
            return ClusterPlan.from_json(value)
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptDataError(f"{self.path} is not a cluster's state: {error}") from None

    def write(self, plan: ClusterPlan) -> None:
        """tmp, fsync, rename: a reader sees the old state or the new one."""
        beside = self.path.with_suffix(".json.tmp")
        with beside.open("w") as file:
            json.dump(plan.to_json(), file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)
        descriptor = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def planned(
    directory: Path,
    before: ClusterPlan | None,
    *,
    nodes: int | None,
    port: int | None,
    replicas: int | None,
) -> ClusterPlan:
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
        made = tuple(
            ClusterNode(name=f"n{i}", port=chosen) for i, chosen in enumerate(ports, start=1)
        )
        return ClusterPlan(nodes=made, replicas=replicas or REPLICAS_DEFAULT)
    if count != len(before.nodes) or (replicas or before.replicas) != before.replicas:
        raise ConflictError(
            f"the cluster in {directory} has {len(before.nodes)} nodes and {before.replicas}"
            f" replicas, not {count} and {replicas or before.replicas}: leave them out, or"
            " say the same, to start it as it is; or use another directory"
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
