"""`geostore ring`: the nodes and what each holds, as a picture; where a geocode lives."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from geostore_cli.listing import bytes_text, write_listing, write_pairs
from geostore_cli.parameters import format_option
from geostore_cli.session import Session, command, message, pass_session, shows_colours

if TYPE_CHECKING:
    from geostore.api import Store
    from geostore.api.placement import NodeShare

__all__ = ["picture", "ring"]

FIELDS = ("node", "state", "slots", "slots_first", "slots_used", "tiles", "bytes", "path")
EXIT_FAILED = 1


@command()
@click.option("--dataset", metavar="NAME", help="Whose placement length is used.")
@click.option("--geocode", metavar="CODE", help="The cell to look for.")
@format_option()
@pass_session
def ring(
    session: Session, *, dataset: str | None, geocode: str | None, output_format: str | None
) -> None:
    """Show the ring, or where a geocode's tiles lie.

    The first characters of a geocode, as many as its dataset's placement length, are hashed
    with SHA-1; the hash's top 12 bits are the slot. An embedded store is one node that owns
    all 4,096 slots; a slot's tile files lie in a directory of their own.

    On a terminal the ring is a picture: slots 0 to 4095 clockwise from the top, each in the
    colour of the node that is its first replica. A node that does not answer is grey, and
    the exit code is then 1.

    \b
    geostore ring
    geostore ring --dataset s2 --geocode dq8x3
    """
    if (dataset is None) != (geocode is None):
        raise click.UsageError("--dataset and --geocode go together")
    chosen = session.listing_format(output_format)
    with session.open_store() as store:
        if dataset is not None and geocode is not None:
            placement = store.locate(dataset, geocode).to_json()
            shown = {**placement, "nodes": ", ".join(placement["nodes"])}
            write_pairs(placement, chosen, shown=shown)
            return
        nodes = store.ring()
        drawn = picture(store, nodes) if chosen == "table" else ""
    if drawn:
        click.echo(drawn, nl=False)
    else:
        write_listing((node.to_json() for node in nodes), chosen, fields=FIELDS, columns=())
    silent = [node for node in nodes if node.state == "unreachable"]
    for node in silent:
        message(f"error: node {node.name} at {node.path} does not answer: its tiles are not known")
    if silent:
        sys.exit(EXIT_FAILED)


def picture(store: Store, nodes: Sequence[NodeShare]) -> str:
    """The ring drawn for stdout: as wide as the terminal, with colours where it shows them."""
    from geostore_cli.ring_picture import ring_picture

    places = {node.name: index for index, node in enumerate(nodes)}
    owners = [places.get(name, -1) for name in store.slot_owners()]
    is_known = -1 not in owners  # else a node joined between the two questions
    state = store.status()  # each tile once, where the nodes' numbers count copies
    more = "+" if state.slots_missing else ""
    return ring_picture(
        nodes,
        owners if is_known else None,
        width=shutil.get_terminal_size((80, 24)).columns,
        color=shows_colours(sys.stdout),
        utf8=(sys.stdout.encoding or "").lower().replace("-", "").startswith("utf8"),
        totals=(f"{state.tiles:,}{more} tiles", f"{bytes_text(state.bytes)}{more}"),
    )
