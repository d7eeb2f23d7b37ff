"""`geostore coverage`: which cells reach a coverage when tiles of a window are put together."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from geostore_cli.listing import Column, time_text, write_listing
from geostore_cli.parameters import TIME, format_option, predicates
from geostore_cli.session import Session, command, pass_session

if TYPE_CHECKING:
    from geostore.api.coverage import Coverage

__all__ = ["coverage"]


class _Percent(click.FloatRange):
    """`click.FloatRange` that says percent."""

    name = "percent"


def _day(text: str) -> str:
    return text[:16].replace("T", " ")


def _percent(value: float) -> str:
    return f"{value:.1f}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


COLUMNS = (
    Column("window_start", "from", show=_day),
    Column("window_end", "to", show=_day),
    Column("dataset"),
    Column("geocode"),
    Column("tiles", justify="right"),
    Column("coverage_min", "least %", _percent, "right"),
    Column("coverage_max", "most %", _percent, "right"),
    Column("coverage", "coverage %", _percent, "right"),
    Column("reached", show=_yes),
    Column("scenes", show=", ".join, long=True),
)


@command()
@predicates(bands_help="That have all these bands (B04 or red).")
@click.option(
    "--target",
    type=_Percent(0, 100, min_open=True),
    metavar="PERCENT",
    default=95.0,
    show_default=True,
    help="What a cell's tiles are to cover together.",
)
@click.option(
    "--window",
    metavar="LENGTH|all",
    default="16D",
    show_default=True,
    help="Tiles that begin in one window are put together: 16D, 12h, 2W, 1M, 1Y; all: any time.",
)
@click.option("--origin", type=TIME, metavar="DATE", help="Where a window begins. [1970-01-01]")
@click.option(
    "--max-cloud",
    type=_Percent(0, 100),
    metavar="PERCENT",
    help="Only tiles of at most so much cloud cover.",
)
@click.option("--clear", is_flag=True, help="Only pixels count that are known to be no cloud.")
@click.option("--exact-coverage", is_flag=True, help="Count every group to the pixel.")
@click.option("--bounds", is_flag=True, help="Read no masks: what bounds leave open stays open.")
@click.option("--reached", is_flag=True, help="List only groups that reach the target.")
@format_option()
@pass_session
def coverage(
    session: Session,
    *,
    chosen: dict[str, Any],
    target: float,
    window: str,
    origin: str | None,
    max_cloud: float | None,
    clear: bool,
    exact_coverage: bool,
    bounds: bool,
    reached: bool,
    output_format: str | None,
) -> None:
    """List what the tiles of each cell cover together, window by window of time.

    \b
    geostore coverage --dataset s2 --target 95 --window 16D --max-cloud 20
    geostore coverage --geocode dq8 --window 1M --clear --reached
    """
    if exact_coverage and bounds:
        raise click.UsageError("--exact-coverage and --bounds exclude each other")
    with session.open_store() as store:
        found = store.coverage(
            **chosen,
            target=target,
            window=None if window == "all" else window,
            origin=origin,
            max_cloud=max_cloud,
            clear=clear,
            exact=exact_coverage,
            refine=not bounds,
        )
        from geostore.api.coverage import COVERAGE_FIELDS  # with the store: not for --help

        total = write_listing(
            _rows(found, reached=reached),
            session.listing_format(output_format),
            fields=COVERAGE_FIELDS,
            columns=COLUMNS,
        )
        if total == 0 and sys.stdout.isatty():
            session.note("no tile matches" if not len(found) else "no group reaches the target")


def _rows(found: Coverage, *, reached: bool) -> Iterator[dict[str, Any]]:
    for row in found:
        if row.reached or not reached:
            value = row.to_json()
            for name in ("window_start", "window_end"):
                value[name] = time_text(value[name])
            value["scenes"] = list(row.scenes)
            yield value
