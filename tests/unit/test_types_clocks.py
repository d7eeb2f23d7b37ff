"""Whose clock is off, in words."""

from __future__ import annotations

from dataclasses import replace

from geostore.types.clocks import clock_warnings
from geostore.types.cluster import NodeStatus

NOW_US = 1_800_000_000_000_000
NODE = NodeStatus(
    id="i", name="n", address="a:1", zone="", state="serving", epoch=1, slots=0, slots_first=0,
    slots_used=0, datasets=0, scenes=0, tiles=0, bytes=0, disk_free_bytes=0, clock_us=NOW_US,
)  # fmt: skip


def shifted(seconds: float) -> NodeStatus:
    return replace(NODE, clock_us=NOW_US + int(seconds * 1e6))


def test_only_clocks_that_are_far_off_are_told_of() -> None:
    silent = replace(NODE, clock_us=0, state="unreachable")
    assert clock_warnings([NODE, silent, shifted(59), shifted(-59)], now_us=NOW_US) == []
    [ahead, behind, day] = clock_warnings(
        [NODE, shifted(3600), shifted(-100), shifted(86_400)], now_us=NOW_US
    )
    assert "node n at a:1: its clock is 60 min ahead of this machine's" in ahead
    assert "100 s behind" in behind
    assert "24.0 h ahead" in day
