"""`geostore ingest`: scenes in."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

from geostore_cli.listing import Column, bytes_text, write_listing
from geostore_cli.parameters import RESOLUTIONS, TIME, WholeNumber, format_option
from geostore_cli.progress import IngestView
from geostore_cli.session import Session, command, pass_session

if TYPE_CHECKING:
    from geostore.types import SceneResult

__all__ = ["ingest"]

FIELDS = (
    "path",
    "reader",
    "scene",
    "dataset",
    "status",
    "tiles",
    "bytes",
    "seconds",
    "missing",
    "error",
)

COLUMNS = (
    Column("status"),
    Column("dataset"),
    Column("tiles", justify="right"),
    Column("bytes", "size", bytes_text, "right"),
    Column("seconds", "s", lambda seconds: f"{seconds:.1f}", "right"),
    Column("shown", "scene", long=True),
)
PLAN_COLUMNS = (
    Column("status"),
    Column("dataset"),
    Column("tiles", "tiles at most", justify="right"),
    Column("bytes", "raw size", bytes_text, "right"),
    Column("oversampling", show=lambda ratio: f"{ratio:.2f}", justify="right"),
    Column("shown", "scene", long=True),
)


@command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option("--dataset", metavar="NAME", help="Default: named after the reader.")
@click.option("--reader", metavar="NAME", help="Default: the one that claims the content.")
@click.option(
    "--scheme",
    type=click.Choice(["geohash", "quadtile"]),
    help="Of a dataset that is made. Default: geohash.",
)
@click.option(
    "--length",
    type=WholeNumber(min=1),
    metavar="N",
    help="Geocode length of a cell, of a dataset that is made.",
)
@click.option(
    "--resolution",
    type=RESOLUTIONS,
    metavar="M[,M…]",
    help="Pixel sizes of the groups, metres, finest first, of a dataset that is made.",
)
@click.option(
    "--time",
    type=TIME,
    metavar="A/B",
    help="When plain rasters were taken; overrides their tags and names.",
)
@click.option(
    "--max-tiles",
    type=WholeNumber(min=1),
    default=50_000,
    show_default=True,
    metavar="N",
    help="Refuse scenes that could make more.",
)
@click.option(
    "--workers",
    type=WholeNumber(min=1),
    metavar="N",
    help="Threads. Default: as many as there are processors.",
)
@click.option("--replace", is_flag=True, help="Put a changed scene in place of the stored one.")
@click.option("--dry-run", is_flag=True, help="Say what would be made; write nothing.")
@format_option()
@pass_session
def ingest(
    session: Session, /, paths: tuple[str, ...], *, output_format: str | None, **flags: Any
) -> None:
    """Put scenes into the store.

    PATH is a file, a directory, an archive or a quoted glob. A directory is walked: what no
    reader claims is skipped. Each scene is stored whole or not at all; one that fails does not
    stop the others, and the exit code is then 1. The same source again is `unchanged`.

    \b
    geostore ingest S2A_MSIL1C_20160112T160642_….SAFE.zip
    geostore ingest --dry-run --scheme quadtile --length 12 scene.tif
    """
    session.workers = flags.pop("workers")
    flags["workers"] = session.settings.workers
    flags["memory_bytes"] = session.settings.memory_bytes
    given = {keyword: value for keyword, value in flags.items() if value is not None}
    columns = PLAN_COLUMNS if flags["dry_run"] else COLUMNS
    fields = (*FIELDS, "oversampling") if flags["dry_run"] else FIELDS
    failed = 0
    opened = session.open_for_planning() if flags["dry_run"] else session.open_store(mode="a")
    chosen = session.listing_format(output_format)
    view = IngestView(session, bar=chosen == "table" or not sys.stdout.isatty())
    with opened as store, view:

        def rows(results: Iterable[SceneResult]) -> Iterator[dict[str, Any]]:
            nonlocal failed
            for result in results:
                failed += str(result.status) == "failed"
                view.finished(result)
                yield {
                    **result.to_json(),
                    "seconds": round(result.seconds, 3),
                    # A table has no room for errors, which stderr tells; a source that is no
                    # scene is known by its file.
                    "shown": result.scene or PurePath(result.path).name,
                }
            view.close()

        results = store.ingest_each(list(paths), progress=view, **given)
        total = write_listing(rows(results), chosen, fields=fields, columns=columns)
    if not total:
        session.note(f"nothing to ingest: no file in {', '.join(paths)}")
    if failed:
        stored = "" if failed == total or flags["dry_run"] else "; everything else is stored"
        if total > 1:  # else the one error says it all
            session.note(f"{failed} of {total} failed{stored}")
        sys.exit(1)
