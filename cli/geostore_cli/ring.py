"""`geostore ring`: which node, slot and directory a geocode lives in."""

from __future__ import annotations

import click

from geostore_cli.listing import Column, bytes_text, write_listing, write_pairs
from geostore_cli.parameters import format_option
from geostore_cli.session import Session, command, pass_session

__all__ = ["ring"]

COLUMNS = (
    Column("node"),
    Column("slots", justify="right"),
    Column("slots_used", "slots used", justify="right"),
    Column("tiles", justify="right"),
    Column("bytes", "size", bytes_text, "right"),
    Column("path", long=True),
)


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
        rows = [share.to_json() for share in store.ring()]
    write_listing(rows, chosen, fields=tuple(column.name for column in COLUMNS), columns=COLUMNS)
