"""`geostore query`: which tiles there are."""

from __future__ import annotations

import sys
from typing import Any, Literal, get_args

import click

from geostore_cli.listing import json_text
from geostore_cli.parameters import WholeNumber, format_option, predicates
from geostore_cli.session import Session, command, pass_session

SortKey = Literal["time", "-time", "cloud", "-cloud", "coverage", "-coverage"]

__all__ = ["query"]


@command()
@predicates(bands_help="That have all these bands (B04 or red).")
@click.option(
    "--sort",
    type=click.Choice(get_args(SortKey)),
    help="Default: time, dataset, geocode, scene; nulls last.",
)
@click.option("--limit", type=WholeNumber(min=0), metavar="N", help="At most N tiles.")
@click.option("--count", is_flag=True, help="Print only how many match.")
@click.option("--explain", is_flag=True, help="Print how the query was answered, not its tiles.")
@format_option("geojson", "parquet")
@pass_session
def query(
    session: Session,
    *,
    chosen: dict[str, Any],
    sort: SortKey | None,
    limit: int | None,
    count: bool,
    explain: bool,
    output_format: str | None,
) -> None:
    """List the tiles that match all predicates.

    \b
    geostore query --bbox -75.7,37.6,-75.5,37.7 --time 2016-01 --cloud ..20
    geostore query --geocode dq8 --coverage 95.. --sort -time --limit 10
    geostore query --geometry field.geojson --format geojson > tiles.geojson
    geostore query --filter '{"op": "isNull", "args": [{"property": "cloud_cover"}]}'
    """
    if count and explain:
        raise click.UsageError("--count and --explain exclude each other")
    with session.open_store() as store:
        selection = store.query(**chosen, sort=sort, limit=limit)
        if count:
            click.echo(selection.count())
        elif explain:
            told = selection.explain()
            as_text = session.listing_format(output_format, default_pipe="table") == "table"
            click.echo(told.to_text() if as_text else json_text(told.to_json()))
        else:
            from geostore_cli.tiles import write_tiles  # with numpy: not for --help

            total = write_tiles(selection, session.listing_format(output_format))
            if total == 0 and sys.stdout.isatty():
                session.note("no tile matches")
