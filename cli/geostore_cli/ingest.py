"""`geostore ingest`: scenes in."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import PurePath
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from geostore_cli.listing import Column, bytes_text, write_listing
from geostore_cli.parameters import BYTES, RESOLUTIONS, TIME, WholeNumber, format_option
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
@click.argument("paths", nargs=-1, metavar="[PATH…]")
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
@click.option(
    "--memory",
    type=BYTES,
    metavar="SIZE",
    help="About how much to hold at once, as 2GiB. Default: a quarter of the machine's.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Where fetched files are kept. Default: $GEOSTORE_CACHE, else ~/.cache/geostore.",
)
@click.option(
    "--cache-bytes",
    type=BYTES,
    metavar="SIZE",
    help="How much of them to keep, as 5GiB. Default: 20GiB.",
)
@click.option(
    "--executor",
    default="threads",
    show_default=True,
    metavar="threads|dask|dask://HOST:PORT",
    help="Where scenes are worked on; dask needs a store that is a cluster.",
)
@click.option(
    "--clouds",
    type=click.Choice(["s2cloudless"]),
    help="Add a detector's cloud likelihood where it has the bands (Sentinel-2 L1C).",
)
@click.option(
    "--watch",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Ingest what lies in DIR and what arrives there, until interrupted.",
)
@click.option("--replace", is_flag=True, help="Put a changed scene in place of the stored one.")
@click.option("--dry-run", is_flag=True, help="Say what would be made; write nothing.")
@format_option()
@pass_session
def ingest(
    session: Session, /, paths: tuple[str, ...], *, output_format: str | None, **flags: Any
) -> None:
    """Put scenes into the store.

    PATH is a file, a directory, an archive, a quoted glob, an https:// or s3:// address, or a
    STAC item or item collection (- for one on standard input). A directory is walked: what no
    reader claims is skipped. Each scene is stored whole or not at all; one that fails does not
    stop the others, and the exit code is then 1. The same source again is `unchanged`.

    \b
    geostore ingest S2A_MSIL1C_20160112T160642_….SAFE.zip
    geostore ingest --dry-run --scheme quadtile --length 12 scene.tif
    geostore ingest --watch /data/incoming
    """
    watched = flags.pop("watch")
    if bool(paths) == bool(watched):
        raise click.UsageError("expected PATH…, or --watch DIR without any")
    if watched and flags["dry_run"]:
        raise click.UsageError("--watch and --dry-run: a dry run has nothing to wait for")
    session.workers = flags.pop("workers")
    session.memory_bytes = flags.pop("memory")
    session.cache, session.cache_bytes = flags.pop("cache"), flags.pop("cache_bytes")
    flags["workers"] = session.settings.workers
    flags["memory_bytes"] = session.settings.memory_bytes
    flags["cache"] = session.settings.cache
    flags["cache_bytes"] = session.settings.cache_bytes
    given = {keyword: value for keyword, value in flags.items() if value is not None}
    columns = PLAN_COLUMNS if flags["dry_run"] else COLUMNS
    fields = (*FIELDS, "oversampling") if flags["dry_run"] else FIELDS
    opened = session.open_for_planning() if flags["dry_run"] else session.open_store(mode="a")
    chosen = session.listing_format(output_format)
    view = IngestView(session, bar=chosen == "table" or not sys.stdout.isatty())
    with opened as store, view, ExitStack() as signals:
        if watched:
            stop = signals.enter_context(_stopped_by_signals(session))
            results = store.watch(watched, stop=stop, progress=view, **given)
        else:
            results = store.ingest_each(list(paths), progress=view, **given)
        write_listing(_rows(results, view), chosen, fields=fields, columns=columns)
    if not view.ended and not watched:
        session.note(f"nothing to ingest: no file in {', '.join(paths)}")
    if view.failed:
        sys.exit(1)


def _rows(results: Iterable[SceneResult], view: IngestView) -> Iterator[dict[str, Any]]:
    for result in results:
        view.finished(result)
        yield {
            **result.to_json(),
            "seconds": round(result.seconds, 3),
            # A table has no room for errors, which stderr tells; a source that is no
            # scene is known by its file.
            "shown": result.scene or PurePath(result.path).name,
        }
    view.close()


@contextmanager
def _stopped_by_signals(session: Session) -> Iterator[threading.Event]:
    """Set by the first Ctrl-C or SIGTERM: what is under way is ended. A second one interrupts."""
    stop = threading.Event()

    def hear(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        session.note("stopping after the scenes under way; once more gives them up")

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, hear) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
