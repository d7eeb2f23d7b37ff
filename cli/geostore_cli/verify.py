"""`geostore verify`: is every acknowledged byte still there."""

from __future__ import annotations

import sys

import click

from geostore_cli.listing import Column, bytes_text, json_text, write_listing
from geostore_cli.parameters import format_option
from geostore_cli.progress import StepView
from geostore_cli.session import Session, command, message, pass_session

__all__ = ["verify"]

NAMED_MAX = 10
"""How many problems are named on stderr beside their listing on stdout."""


@command()
@click.option("--rebuild", is_flag=True, help="Make the catalog anew from the tile files.")
@format_option()
@pass_session
def verify(session: Session, *, rebuild: bool, output_format: str | None) -> None:
    """Check every file and record against the catalog.

    Reads every stored byte. Lists what is wrong, and exits with 1 if anything is. With
    --rebuild the catalog's own content is set aside and made again from the tile files.

    The nodes of a cluster check themselves, all at once; one that cannot be asked is a
    finding, and the others are checked all the same. To rebuild a node's catalog, stop the
    node and name its directory with --store.
    """
    from geostore.api import rebuild as make_anew

    chosen = session.listing_format(output_format)
    with StepView(session, "verify") as view:
        if rebuild:
            # Not through an open store: one whose catalog is gone cannot be opened.
            session.start_logging()
            report = make_anew(session.settings.store, progress=view)
        else:
            with session.open_store() as store:
                report = store.verify(progress=view)
    value = report.to_json()
    if chosen == "jsonl":
        click.echo(json_text(value))
    elif report.problems or chosen == "csv":
        of_nodes = any(problem.node is not None for problem in report.problems)
        columns: tuple[Column, ...] = (Column("node"),) if of_nodes else ()
        columns += (Column("kind"), Column("path"), Column("message", long=True))
        fields = tuple(column.name for column in columns)
        write_listing(value["problems"], chosen, fields=fields, columns=columns)
    read = f"{report.tiles:,} tile{'' if report.tiles == 1 else 's'}, {bytes_text(report.bytes)}"
    found = len(report.problems)
    problems = f"{found} problem{'' if found == 1 else 's'}"
    lost = any(str(problem.kind) in ("corrupt", "missing") for problem in report.problems)
    if report.is_rebuilt and not lost:
        set_right = f"; {problems} set right" if found else ""
        session.note(f"{read}: all good; the catalog was made anew{set_right}")
    elif found:
        after = "the catalog was made anew without them" if report.is_rebuilt else "nothing changed"
        unchecked = sum(str(problem.kind) == "unchecked" for problem in report.problems)
        rest = "the rest is good" if not unchecked else f"{_nodes(unchecked)} not checked"
        if chosen != "table":
            for problem in report.problems[:NAMED_MAX]:
                message(f"error: {problem}")
        message(f"error: {problems} found; {rest} ({read}); {after}")
        sys.exit(1)
    else:
        session.note(f"{read}: all good")


def _nodes(count: int) -> str:
    return f"{count} node{'' if count == 1 else 's'}"
