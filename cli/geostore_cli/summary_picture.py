"""What tiles there are, as a picture: a calendar, a map of cells, and histograms.

The calendar has days by month for up to three years, and weeks by year for more. The map is
equirectangular, true to scale at its middle, in cells of as many digits as can be told apart. Both
are of summaries: a million tiles are drawn as fast as a thousand.
"""

from __future__ import annotations

import errno
import math
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from geostore.errors import InvalidInputError, MissingDependencyError, StorageFullError
from geostore_cli.listing import bytes_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from geostore.api import Selection, SummaryTable

__all__ = ["check_picture", "draw"]

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".pdf", ".svg")
DAYS_BY_MONTH_YEARS: Final = 3
YEARS_MAX: Final = 60
"""More years in a row than this are not all drawn: only those that have tiles."""
CELLS_MAX: Final = 20_000
CELLS_ACROSS_MAX: Final = 300
"""Cells that have room side by side on the map: some three pixels each."""
CELLS_FEW: Final = 500
CELLS_ACROSS_FEW: Final = 100
"""A few cells far from each other are only seen if they are larger."""
DIGITS: Final = (26, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1)
"""Geocode lengths that are tried for the map, the finest first; 26 is a whole geocode."""
TITLE_CHARACTERS_MAX: Final = 140

NOTHING_COLOUR: Final = "#efefef"
TEXT_COLOUR: Final = "#555555"
BAR_COLOUR: Final = "#31688e"
COUNT_COLOURS: Final = "viridis_r"
CLOUD_COLOURS: Final = "YlGnBu_r"
COVERAGE_COLOURS: Final = "YlGn"
LOG_RATIO: Final = 30
"""Counts that differ by more than this are coloured by their logarithm."""
DPI: Final = 130
WIDTH_IN: Final = 13.0
MAP_RATIO: Final = 1.4
"""Width over height of the map's panel."""
MONTHS: Final = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def check_picture(path: Path) -> None:
    """Before anything is asked: whether a picture can be drawn and written there at all.

    Raises:
        click.UsageError: a name that is no picture's, or no directory for it.
        MissingDependencyError: matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise click.UsageError(
            f"--plot {path}: a picture's name ends in one of {', '.join(SUFFIXES)}"
        )
    if path.is_dir():
        raise click.UsageError(f"--plot {path}: is a directory, expected a file's name")
    if not path.absolute().parent.is_dir():
        raise click.UsageError(f"--plot {path}: {path.absolute().parent} is no directory")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "--plot needs matplotlib: pip install 'geostore[plot]'"
        ) from None


def draw(selection: Selection, path: Path) -> None:
    """Asks the selection for its days and its cells, and writes the picture, whole or not at all.

    Raises:
        InvalidInputError: the file cannot be written. StorageFullError: the disk is full.
    """
    figure = picture(selection)
    scratch: str | None = None
    try:
        handle, scratch = tempfile.mkstemp(dir=path.absolute().parent, suffix=path.suffix.lower())
        os.close(handle)
        figure.savefig(scratch, dpi=DPI, facecolor="white")
        made = Path(scratch)
        made.chmod(0o666 & ~_umask())
        made.replace(path)
        scratch = None
    except OSError as error:
        text = f"picture {path}: cannot be written: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError(text) from None
        raise InvalidInputError(text) from None
    finally:
        if scratch is not None:
            with suppress(OSError):
                Path(scratch).unlink()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


# ---------------------------------------------------------------- what is drawn


@dataclass(slots=True)
class _Sum:
    """Tiles of a stretch of days, and the sums that their means are made of."""

    tiles: int = 0
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    known: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, row: Mapping[str, Any]) -> None:
        self.tiles += row["tiles"]
        for measure in ("cloud_cover", "pixel_coverage"):
            mean = row[f"{measure}_mean"]
            if mean is not None:
                known = row["tiles"] - row[f"{measure}_unknown"]
                self.sums[measure] += mean * known
                self.known[measure] += known

    def mean(self, measure: str) -> float:
        return self.sums[measure] / self.known[measure] if self.known[measure] else math.nan


@dataclass(frozen=True, slots=True)
class _Calendar:
    """Places of days in a grid of rows and columns, and what the grid's marks say."""

    rows: Sequence[str]
    columns: int
    ticks: Sequence[tuple[float, str]]
    column_name: str
    unit: str
    cells: Mapping[tuple[int, int], _Sum]
    impossible: frozenset[tuple[int, int]] = frozenset()
    """Days that no month has."""


def picture(selection: Selection) -> Figure:
    """The figure, not yet written."""
    from matplotlib.figure import Figure

    days = selection.summary("day")
    rows = days.rows()
    timed = [row for row in rows if row["day"] is not None]
    timeless = sum(row["tiles"] for row in rows if row["day"] is None)
    calendar = _calendar(timed) if timed else None
    calendar_in = 0.95 + 0.17 * max(3, len(calendar.rows)) if calendar else 0.0
    figure = Figure(
        figsize=(WIDTH_IN, 1.1 + 2 * calendar_in + 6.2 if rows else 3.0), layout="constrained"
    )
    figure.suptitle(_title(selection, days, timed), fontsize=13)
    if not rows:
        figure.text(
            0.5, 0.4, "No tile matches", ha="center", va="center", fontsize=16, color=TEXT_COLOUR
        )
        return figure
    heights = [calendar_in, calendar_in, 6.2] if calendar else [6.2]
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=[2.4, 1])
    if calendar is not None:
        note = f"; {timeless:,} more have no time" if timeless else ""
        _draw_count(figure, figure.add_subplot(grid[0, :]), calendar, note)
        _draw_mean(figure, figure.add_subplot(grid[1, :]), calendar)
    _draw_map(figure, figure.add_subplot(grid[-1, 0]), places(selection))
    side = grid[-1, 1].subgridspec(2, 1)
    for place, (measure, name) in enumerate(
        (("cloud_cover", "cloud cover"), ("pixel_coverage", "pixel coverage"))
    ):
        _draw_histogram(figure.add_subplot(side[place]), rows, measure, name)
    return figure


def _title(selection: Selection, days: SummaryTable, timed: Sequence[Mapping[str, Any]]) -> str:
    told = repr(selection).removeprefix("Selection(").removesuffix(")")
    if len(told) > TITLE_CHARACTERS_MAX:
        told = told[: TITLE_CHARACTERS_MAX - 3] + "..."
    sizes = f"{days.tiles:,} tile{'' if days.tiles == 1 else 's'}"
    if days.tiles:
        sizes += f", {bytes_text(days.bytes)}"
    if timed:
        first, last = timed[0]["day"], timed[-1]["day"]
        sizes += f", {first}" if first == last else f", {first} to {last}"
    # A dollar would begin a formula.
    return f"{sizes}\n{told}".replace("$", r"\$")


# ---------------------------------------------------------------- the calendar


def _calendar(timed: Sequence[Mapping[str, Any]]) -> _Calendar:
    days = [(date.fromisoformat(row["day"]), row) for row in timed]
    first, last = days[0][0], days[-1][0]
    if last.year - first.year < DAYS_BY_MONTH_YEARS:
        return _days_by_month(days, first, last)
    return _weeks_by_year(days)


def _days_by_month(
    days: Iterable[tuple[date, Mapping[str, Any]]], first: date, last: date
) -> _Calendar:
    start, end = 12 * first.year + first.month - 1, 12 * last.year + last.month - 1
    cells: dict[tuple[int, int], _Sum] = defaultdict(_Sum)
    for day, row in days:
        cells[12 * day.year + day.month - 1 - start, day.day - 1].add(row)
    months = range(start, end + 1)
    return _Calendar(
        rows=[f"{MONTHS[month % 12]} {month // 12}" for month in months],
        columns=31,
        ticks=[(day - 0.5, str(day)) for day in range(1, 32)],
        column_name="day of the month",
        unit="day",
        cells=cells,
        impossible=frozenset(
            (month - start, day) for month in months for day in range(_days_in(month), 31)
        ),
    )


def _days_in(month: int) -> int:
    """Of a month counted from the year 0."""
    for days in (31, 30, 29):
        with suppress(ValueError):
            return date(month // 12, month % 12 + 1, days).day
    return 28


def _weeks_by_year(days: Sequence[tuple[date, Mapping[str, Any]]]) -> _Calendar:
    years = sorted({day.year for day, _ in days})
    if years[-1] - years[0] < YEARS_MAX:
        years = list(range(years[0], years[-1] + 1))
    place = {year: row for row, year in enumerate(years)}
    cells: dict[tuple[int, int], _Sum] = defaultdict(_Sum)
    for day, row in days:
        cells[place[day.year], (day.timetuple().tm_yday - 1) // 7].add(row)
    starts = [
        (date(2001, month, 1) - date(2001, 1, 1)) / timedelta(days=7) for month in range(1, 13)
    ]
    return _Calendar(
        rows=[str(year) for year in years],
        columns=53,
        ticks=list(zip(starts, MONTHS, strict=True)),
        column_name="weeks from 1 January, UTC",
        unit="week",
        cells=cells,
    )


def _count_norm(values: Sequence[float]) -> Any:
    from matplotlib.colors import LogNorm, Normalize

    least, greatest = min(values), max(values)
    if greatest > LOG_RATIO * least:
        return LogNorm(least, greatest)
    return Normalize(0, greatest)


def _draw_count(figure: Figure, axes: Axes, calendar: _Calendar, note: str) -> None:
    values = {place: float(each.tiles) for place, each in calendar.cells.items()}
    norm = _count_norm(list(values.values()))
    mesh = _draw_grid(axes, calendar, values, cmap=COUNT_COLOURS, norm=norm)
    axes.set_title(f"Tiles by the {calendar.unit} in which they begin{note}", loc="left")
    bar = figure.colorbar(mesh, ax=axes, pad=0.01, aspect=12)
    bar.set_label(f"tiles a {calendar.unit}")
    _whole_ticks(bar)


def _draw_mean(figure: Figure, axes: Axes, calendar: _Calendar) -> None:
    from matplotlib.colors import Normalize

    measure, name, colours = "cloud_cover", "cloud cover", CLOUD_COLOURS
    if not any(each.known[measure] for each in calendar.cells.values()):
        measure, name, colours = "pixel_coverage", "pixel coverage", COVERAGE_COLOURS
    values = {place: each.mean(measure) for place, each in calendar.cells.items()}
    mesh = _draw_grid(axes, calendar, values, cmap=colours, norm=Normalize(0, 100))
    without = "" if measure == "cloud_cover" else "; cloud cover is not known of any"
    axes.set_title(f"Mean {name} of tiles{without}", loc="left")
    figure.colorbar(mesh, ax=axes, pad=0.01, aspect=12).set_label("mean, %")


def _draw_grid(
    axes: Axes, calendar: _Calendar, values: Mapping[tuple[int, int], float], **colours: Any
) -> Any:
    import numpy as np

    grid = np.full((len(calendar.rows), calendar.columns), np.nan)
    for place, value in values.items():
        grid[place] = value
    blank = np.full(grid.shape, np.nan)
    for place in calendar.impossible:
        blank[place] = 1
    axes.set_facecolor(NOTHING_COLOUR)
    axes.pcolormesh(blank, cmap="gray", vmin=0, vmax=1)
    mesh = axes.pcolormesh(grid, edgecolors="white", linewidth=0.6, **colours)
    axes.set_ylim(len(calendar.rows), 0)
    every = math.ceil(len(calendar.rows) / 40)
    axes.set_yticks(
        [row + 0.5 for row in range(0, len(calendar.rows), every)], calendar.rows[::every]
    )
    axes.set_xticks(
        [place for place, _ in calendar.ticks], [text for _, text in calendar.ticks], fontsize=8
    )
    axes.set_xlabel(calendar.column_name, fontsize=9, color=TEXT_COLOUR)
    axes.tick_params(length=0, labelsize=8)
    _bare(axes)
    return mesh


def _bare(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)


def _whole_ticks(bar: Any) -> None:
    """Counts are whole: no ticks at halves, no powers of ten in a colour bar of four numbers."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if isinstance(bar.norm, LogNorm):
        few = bar.vmax < 1000 * bar.vmin
        bar.locator = LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,))
        bar.minorlocator = NullLocator()
    else:
        bar.locator = MaxNLocator(nbins=5, integer=True)
    bar.formatter = FuncFormatter(lambda value, _: f"{value:,.0f}")
    bar.update_ticks()


# ---------------------------------------------------------------- the map


@dataclass(frozen=True, slots=True)
class _Places:
    """Cells on one sheet of longitudes, which may go on past 180 degrees."""

    cells: Sequence[tuple[float, float, float, float]]
    tiles: Sequence[int]
    text: str

    @property
    def extent(self) -> tuple[float, float, float, float]:
        west, south, east, north = zip(*self.cells, strict=True)
        return min(west), min(south), max(east), max(north)


def places(selection: Selection) -> _Places:
    """The cells in which tiles lie, of the most digits that a map can show."""
    for digits in DIGITS:
        try:
            table = selection.summary(f"geocode:{digits}")
        except InvalidInputError:  # more groups than a summary may have
            continue
        if len(table) <= CELLS_MAX:
            found = _placed(table.rows())
            west, _, east, _ = found.extent
            widths = sorted(cell[2] - cell[0] for cell in found.cells)
            across = CELLS_ACROSS_FEW if len(table) < CELLS_FEW else CELLS_ACROSS_MAX
            if (east - west) / widths[len(widths) // 2] <= across:
                return found
    return found


def _placed(rows: Sequence[Mapping[str, Any]]) -> _Places:
    cells = [row["bbox"] for row in rows]
    moved = [(w + 360, s, e + 360, n) if e <= 0 else (w, s, e, n) for w, s, e, n in cells]
    # Across the antimeridian, if that is the narrower sheet.
    cells = min(cells, moved, key=lambda boxes: max(b[2] for b in boxes) - min(b[0] for b in boxes))
    kinds = sorted({(row["scheme"], len(row["geocode"])) for row in rows})
    texts = [f"{scheme}, {digits} digit{'' if digits == 1 else 's'}" for scheme, digits in kinds]
    shown = " and ".join(texts) if len(texts) < 3 else f"{len(texts)} kinds"
    return _Places(cells, [row["tiles"] for row in rows], shown)


def _draw_map(figure: Figure, axes: Axes, found: _Places) -> None:
    from matplotlib.collections import PolyCollection

    west, south, east, north = found.extent
    margin = 0.06 * max(east - west, north - south)
    if len(found.cells) < 4:  # a cell or two are small in what is around them
        margin = 1.5 * max(east - west, north - south)
    stretch = 1 / math.cos(math.radians(max(-80.0, min(80.0, (south + north) / 2))))
    width, height = east - west + 2 * margin, stretch * (north - south + 2 * margin)
    # As wide as the panel or as tall: what is too narrow shows more of its surroundings.
    more_x = max(0.0, min(360.0, MAP_RATIO * height) - width) / 2
    more_y = max(0.0, width / MAP_RATIO - height) / 2 / stretch
    edge = 180 if east <= 180 else 540  # on the sheet of the cells
    axes.set_xlim(
        max(west - margin - more_x, -180),
        min(east + margin + more_x, edge),
    )
    axes.set_ylim(max(south - margin - more_y, -90), min(north + margin + more_y, 90))
    axes.set_aspect(stretch)
    corners = [[(w, s), (e, s), (e, n), (w, n)] for w, s, e, n in found.cells]
    norm = _count_norm([float(count) for count in found.tiles])
    mesh = PolyCollection(
        corners,
        array=list(found.tiles),
        cmap=COUNT_COLOURS,
        norm=norm,
        edgecolors="white" if len(corners) < 2500 else "face",
        linewidths=0.4 if len(corners) < 2500 else 0.2,
        zorder=2,
    )
    axes.add_collection(mesh)
    axes.set_facecolor("#f7f7f7")
    axes.grid(color="#dddddd", linewidth=0.6, zorder=0)
    axes.xaxis.set_major_formatter(_longitude)
    axes.yaxis.set_major_formatter(_latitude)
    axes.set_xlabel("longitude", color=TEXT_COLOUR)
    axes.set_ylabel("latitude", color=TEXT_COLOUR)
    axes.tick_params(labelsize=8)
    axes.set_title(f"Tiles by cell ({found.text})", loc="left")
    bar = figure.colorbar(mesh, cax=axes.inset_axes((1.015, 0, 0.025, 1)))
    bar.set_label("tiles a cell")
    _whole_ticks(bar)


def _degrees(value: float, positive: str, negative: str) -> str:
    text = f"{abs(value):.6f}".rstrip("0").rstrip(".")
    return f"{text}°{positive if value > 0 else negative if value < 0 else ''}"


def _longitude(value: float, _: object = None) -> str:
    return _degrees((value + 180) % 360 - 180, "E", "W")


def _latitude(value: float, _: object = None) -> str:
    return _degrees(value, "N", "S")


# ---------------------------------------------------------------- histograms


def _draw_histogram(axes: Axes, rows: Sequence[Mapping[str, Any]], measure: str, name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    counts = [
        sum(column) for column in zip(*(row[f"{measure}_histogram"] for row in rows), strict=True)
    ]
    unknown = sum(row[f"{measure}_unknown"] for row in rows)
    width = 100 / len(counts)
    axes.bar(
        [width * place for place in range(len(counts))],
        counts,
        width=width,
        align="edge",
        color=BAR_COLOUR,
        edgecolor="white",
        linewidth=0.6,
    )
    note = f" (unknown of {unknown:,})" if unknown else ""
    axes.set_title(f"{name.capitalize()}{note}", loc="left")
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"{name}, %", color=TEXT_COLOUR)
    axes.set_ylabel("tiles", color=TEXT_COLOUR)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if not any(counts):
        axes.set_yticks([])
        axes.text(50, 0.5, "not known", ha="center", va="center", color=TEXT_COLOUR)
        axes.set_ylim(0, 1)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
