"""`geostore status`: what the store holds and how it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from geostore_cli.listing import (
    Column,
    bytes_text,
    span_text,
    time_text,
    write_listing,
    write_pairs,
)
from geostore_cli.parameters import format_option
from geostore_cli.session import Session, command, message, pass_session

if TYPE_CHECKING:
    from geostore.types.cluster import NodeStatus
    from geostore.types.report import StoreStatus

__all__ = ["status"]

EXIT_FAILED = 1
SILENT = "unreachable"
COLUMNS = (
    Column("name"),
    Column("state"),
    Column("address"),
    Column("slots", show="{:,}".format, justify="right"),
    Column("tiles", show="{:,}".format, justify="right"),
    Column("bytes", "size", bytes_text, "right"),
    Column("disk_free_bytes", "disk free", bytes_text, "right"),
    Column("uptime_s", "uptime", span_text, "right"),
)


@command()
@format_option()
@pass_session
def status(session: Session, output_format: str | None) -> None:
    """Show the store's size and state.

    Of a cluster, each node's too. A node that does not answer is named, what it alone holds
    is not counted, and the exit code is 1.
    """
    from geostore.api.placement import in_order_of_names
    from geostore.types.clocks import clock_warnings
    from geostore.types.geo import datetime_from_us

    chosen = session.listing_format(output_format)
    with session.open_store() as store:
        state = store.status()
    values = state.to_json()
    values["created"] = time_text(datetime_from_us(values.pop("created_us")))
    write_pairs(values, chosen, shown=_shown(state, str(values["created"])))
    if chosen == "table" and state.nodes:
        click.echo()
        nodes = sorted(state.nodes, key=in_order_of_names)
        write_listing(_rows(nodes), chosen, fields=(), columns=COLUMNS)
    silent = [node for node in state.nodes if node.state == SILENT]
    for node in silent:
        message(f"error: node {node.name} does not answer: {node.error}")
    for text in clock_warnings(state.nodes, now_us=time.time_ns() // 1000):
        message(f"warning: {text}")
    if silent:
        sys.exit(EXIT_FAILED)


def _shown(state: StoreStatus, created: str) -> dict[str, str]:
    """A table's lines. "At least" stands before a sum that lacks what silent nodes hold."""
    silent = sum(node.state == SILENT for node in state.nodes)
    some = "at least " if state.slots_missing else ""
    health = state.read_only_reason or "good"
    if silent:
        health = f"{silent} of {len(state.nodes)} nodes do not answer"
        if state.slots_missing:
            health += f": {state.slots_missing:,} slots have no node that does"
    return {
        "store": state.path,
        "datasets": f"{state.datasets:,}",
        "scenes": f"{'at least ' if silent else ''}{state.scenes:,}",
        "tiles": f"{some}{state.tiles:,}",
        "size": f"{some}{bytes_text(state.bytes)}",
        "disk free": bytes_text(state.disk_free_bytes),
        "slots used": f"{some}{state.slots_used:,} of 4,096",
        "health": health,
        "created": created,
        "format": f"version {state.format_version}",
    }


def _rows(nodes: Sequence[NodeStatus]) -> list[dict[str, object]]:
    """Nodes as lines; what a silent one holds is not nothing, but not known."""
    unknown = dict.fromkeys(("tiles", "bytes", "disk_free_bytes", "uptime_s"))
    return [node.to_json() | (unknown if node.state == SILENT else {}) for node in nodes]
