"""`geostore ring`: which node, slot and directory a geocode lives in."""

from __future__ import annotations

import click

from geostore_cli.listing import write_pairs
from geostore_cli.parameters import format_option
from geostore_cli.session import Session, command, pass_session

__all__ = ["ring"]


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
    with session.open_store() as store:
        if dataset is None or geocode is None:
            value = store.ring()
        else:
            value = store.locate(dataset, geocode)
    write_pairs(value, session.listing_format(output_format))
