"""Clocks of nodes that are off: what that spoils, and which nodes to look at."""

from __future__ import annotations

from collections.abc import Iterable

from geostore.types.cluster import NodeStatus

__all__ = ["CLOCK_OFF_MIN_S", "clock_warnings"]

CLOCK_OFF_MIN_S = 60.0
"""Far more than a status takes to be collected, far less than a wrong time zone."""


def clock_warnings(nodes: Iterable[NodeStatus], *, now_us: int) -> list[str]:
    """A sentence for each node whose clock differs from this machine's, `now_us`.

    Nothing in a cluster is decided by wall clocks (leases and deadlines are spans of time), but
    records say when things were created and committed, and certificates have dates.
    """
    warnings = []
    for node in nodes:
        if not node.clock_us:  # it did not answer
            continue
        off_s = (node.clock_us - now_us) / 1e6
        if abs(off_s) >= CLOCK_OFF_MIN_S:
            side = "ahead of" if off_s > 0 else "behind"
            warnings.append(
                f"node {node.name} at {node.address}: its clock is {_span(abs(off_s))} {side}"
                " this machine's, so the times that it records are wrong, or this one's are;"
                " set both by a time server"
            )
    return warnings


def _span(seconds: float) -> str:
    """A length of time in words.

    >>> _span(3600.4), _span(90.0), _span(200_000.0)
    ('60 min', '90 s', '55.6 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
