"""A cluster's verification: every node checks itself, all at once; one report."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from geostore.errors import GeostoreError
from geostore.types import CallContext
from geostore.types.report import Problem, ProblemKind, Progress, VerifyReport

if TYPE_CHECKING:
    from geostore.backends.cluster_nodes import ClusterNodes
    from geostore.ring import RingNode

__all__ = ["verify_nodes"]

RING_TIMEOUT_S = 20.0


def verify_nodes(nodes: ClusterNodes, progress: Progress | None) -> VerifyReport:
    """Asks every node of the ring; one that cannot be asked is a finding, the others go on.

    Raises:
        UnavailableError: no node told the ring.
    """
    ring_nodes = nodes.ring(CallContext.within(RING_TIMEOUT_S)).nodes
    course = _Course(len(ring_nodes), progress)
    with ThreadPoolExecutor(len(ring_nodes), thread_name_prefix="geostore-verify") as pool:
        futures = [
            pool.submit(_verify_node, nodes, node, course.of(index))
            for index, node in enumerate(ring_nodes)
        ]
        try:
            reports = [future.result() for future in futures]
        except BaseException:  # Ctrl-C: what is asked of the nodes ends with its connection
            course.is_unwanted.set()
            nodes.close()
            raise
    return _joined(reports)


def _verify_node(nodes: ClusterNodes, node: RingNode, progress: Progress) -> VerifyReport:
    try:
        return nodes.client(node.address).verify(CallContext(), node.name, progress)
    except GeostoreError as error:
        problem = Problem(
            kind=ProblemKind.UNCHECKED,
            path=node.address,
            message=f"nothing is known of what lies there: {error}",
            node=node.name,
        )
        return VerifyReport(tiles=0, bytes=0, problems=(problem,))


def _joined(reports: Sequence[VerifyReport]) -> VerifyReport:
    return VerifyReport(
        tiles=sum(report.tiles for report in reports),
        bytes=sum(report.bytes for report in reports),
        problems=tuple(problem for report in reports for problem in report.problems),
    )


class _Course:
    """How far all nodes are together."""

    def __init__(self, count: int, progress: Progress | None) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._places = [(0, 0)] * count
        self.is_unwanted = threading.Event()

    def of(self, index: int) -> Progress:
        """What hears of one node."""

        def note(done: int, total: int) -> None:
            with self._lock:
                self._places[index] = done, total
                if self._progress is not None and not self.is_unwanted.is_set():
                    self._progress(
                        sum(place[0] for place in self._places),
                        sum(place[1] for place in self._places),
                    )

        return note
