"""`geostore verify`: is every acknowledged byte still there."""

from __future__ import annotations

import sys

import click

from geostore_cli.listing import Column, bytes_text, json_text, write_listing
from geostore_cli.parameters import format_option
from geostore_cli.progress import StepView
from geostore_cli.session import Session, command, pass_session

__all__ = ["verify"]


@command()
@click.option("--rebuild", is_flag=True, help="Make the catalog anew from the tile files.")
@format_option()
@pass_session
def verify(session: Session, *, rebuild: bool, output_format: str | None) -> None:
    """Check every file and record against the catalog.

    Reads every stored byte. Lists what is wrong, and exits with 1 if anything is. With
    --rebuild the catalog's own content is set aside and made again from the tile files.
    """
    chosen = session.listing_format(output_format)
    with (
        session.open_store(mode="a" if rebuild else "r") as store,
        StepView(session, "verify") as view,
    ):
        report = store.verify(rebuild=rebuild, progress=view)
    value = report.to_json()
    if chosen == "jsonl":
        click.echo(json_text(value))
    elif report.problems or chosen == "csv":
        write_listing(
            value["problems"],
            chosen,
            fields=("kind", "path", "message"),
            columns=(Column("kind"), Column("path"), Column("message", long=True)),
        )
    read = f"{report.tiles:,} tile{'' if report.tiles == 1 else 's'}, {bytes_text(report.bytes)}"
    found = len(report.problems)
    if found:
        # Said at -q too: it is the answer to what was asked.
        click.echo(
            f"geostore: {click.style('error:', fg='red', bold=True)} {read} are good;"
            f" {found} problem{'' if found == 1 else 's'} found",
            err=True,
        )
        sys.exit(1)
    session.note(f"{read}: all good{'; the catalog was rebuilt' if report.is_rebuilt else ''}")
