"""`geostore query`: which tiles there are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal, get_args

import click

from geostore_cli.listing import json_text
from geostore_cli.parameters import SUMMARY_KEYS, WholeNumber, format_option, predicates
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
@click.option("--summary", is_flag=True, help="Print sums of groups of tiles, not the tiles.")
@click.option(
    "--by",
    type=SUMMARY_KEYS,
    metavar="KEY[,KEY…]",
    help="With --summary: group by dataset (default), year, month, day, platform, scene,"
    " geocode:N (the first N digits).",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="With --summary: also draw a calendar, a map and histograms (png, jpg, pdf, svg).",
)
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
    summary: bool,
    by: tuple[str, ...] | None,
    plot: Path | None,
    output_format: str | None,
) -> None:
    """List the tiles that match all predicates.

    \b
    geostore query --bbox -75.7,37.6,-75.5,37.7 --time 2016-01 --cloud ..20
    geostore query --geocode dq8 --coverage 95.. --sort -time --limit 10
    geostore query --geometry field.geojson --format geojson > tiles.geojson
    geostore query --filter '{"op": "isNull", "args": [{"property": "cloud_cover"}]}'
    geostore query --dataset s2 --summary --by month --plot s2.png
    """
    if count + explain + summary > 1:
        raise click.UsageError("--count, --explain and --summary exclude each other")
    if not summary and (by or plot):
        raise click.UsageError(f"{'--plot' if plot else '--by'} needs --summary")
    if summary:
        if sort or limit is not None:
            raise click.UsageError(
                f"{'--sort' if sort else '--limit'}: a summary is of all tiles that match"
            )
        if output_format in ("geojson", "parquet"):
            raise click.UsageError(f"--format {output_format}: a summary is table, jsonl or csv")
    if plot is not None:
        from geostore_cli.summary_picture import check_picture

        check_picture(plot)
    with session.open_store() as store:
        selection = store.query(**chosen, sort=sort, limit=limit)
        if count:
            click.echo(selection.count())
        elif summary:
            from geostore_cli.summaries import write_summary

            write_summary(selection.summary(by or "dataset"), session.listing_format(output_format))
            if plot is not None:
                from geostore_cli.summary_picture import draw

                draw(selection, plot)
                session.note(f"wrote {plot}")
        elif explain:
            told = selection.explain()
            as_text = session.listing_format(output_format, default_pipe="table") == "table"
            click.echo(told.to_text() if as_text else json_text(told.to_json()))
        else:
            from geostore_cli.tiles import write_tiles  # with numpy: not for --help

            total = write_tiles(selection, session.listing_format(output_format))
            if total == 0 and sys.stdout.isatty():
                session.note("no tile matches")
