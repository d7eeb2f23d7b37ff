"""Rows to stdout: a table for eyes, jsonl and csv for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "Column",
    "bytes_text",
    "json_text",
    "span_text",
    "time_text",
    "write_listing",
    "write_pairs",
]

TABLE_ROWS_MAX = 1000
"""Rows measured together; a longer table goes on below with its heading repeated."""
PIPE_WIDTH = 1000
"""Columns of a table that is not on a terminal: nothing needs to be cut there."""

COLUMN_GAP = 3
LONG_WIDTH_MIN = 10

Row = Mapping[str, Any]


def time_text(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC with Z; fractions only where there are any.

    >>> from datetime import UTC, datetime
    >>> time_text(datetime(2016, 1, 12, 16, 6, 42, 27000, tzinfo=UTC))
    '2016-01-12T16:06:42.027Z'
    """
    if moment is None:
        return None
    timespec = "auto"
    if moment.microsecond and moment.microsecond % 1000 == 0:
        timespec = "milliseconds"
    return moment.isoformat(timespec=timespec).removesuffix("+00:00") + "Z"


def bytes_text(count: int | None) -> str:
    """A size for people.

    >>> bytes_text(1_234_567)
    '1.2 MB'
    """
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def span_text(seconds: float) -> str:
    """A time span for people, its two largest units.

    >>> span_text(93_784)
    '1 d 2 h'
    """
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min")]
    parts.append((whole % 60, "s"))
    while len(parts) > 1 and parts[0][0] == 0:
        parts.pop(0)
    return " ".join(f"{number} {unit}" for number, unit in parts[:2])


def json_text(value: Any) -> str:
    """One line of JSON; a number that JSON has no word for is a bug and raises."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    """The row's field."""
    heading: str | None = None
    """None: the field's name."""
    show: Callable[[Any], str] = str
    """Text for a value that is not None."""
    justify: Literal["left", "right"] = "left"
    long: bool = False
    """Cut when the terminal is too narrow for all."""


def write_listing(
    rows: Iterable[Row],
    output_format: str,
    *,
    fields: tuple[str, ...],
    columns: tuple[Column, ...],
) -> int:
    """Writes rows as they come and returns how many there were.

    `fields` are those of jsonl and csv, in order; a table shows `columns`, and gathers up to
    TABLE_ROWS_MAX rows before it writes.
    """
    if output_format == "jsonl":
        return _write_jsonl(rows, fields)
    if output_format == "csv":
        return _write_csv(rows, fields)
    return _write_table(rows, columns)


def _write_jsonl(rows: Iterable[Row], fields: tuple[str, ...]) -> int:
    total = 0
    for row in rows:
        sys.stdout.write(json_text({name: row[name] for name in fields}) + "\n")
        total += 1
        if total < 64 or total % 256 == 0:  # whoever reads the pipe sees slow rows at once
            sys.stdout.flush()
    return total


def _csv_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    return json_text(value) if isinstance(value, Mapping) else value


def _write_csv(rows: Iterable[Row], fields: tuple[str, ...]) -> int:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(fields)
    total = 0
    for row in rows:
        writer.writerow([_csv_value(row[name]) for name in fields])
        total += 1
    return total


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, TABLE_ROWS_MAX)):
        yield chunk


def _write_table(rows: Iterable[Row], columns: tuple[Column, ...]) -> int:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(
        file=sys.stdout,
        width=None if sys.stdout.isatty() else PIPE_WIDTH,
        highlight=False,
        soft_wrap=False,
    )
    total = 0
    for chunk in _chunks(rows):
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
        for column, width in zip(columns, _widths(chunk, columns, console.width), strict=True):
            table.add_column(
                column.heading or column.name,
                justify=column.justify,
                no_wrap=True,
                overflow="ellipsis",
                width=width,
            )
        for row in chunk:
            table.add_row(*(Text(_shown(row, column)) for column in columns))
        console.print(table)
        total += len(chunk)
    return total


def _shown(row: Row, column: Column) -> str:
    value = row[column.name]
    text = "–" if value is None else column.show(value)
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _widths(rows: list[Row], columns: tuple[Column, ...], total: int) -> list[int]:
    """How wide each column is: as wide as it needs, but the long ones share what is left."""
    needed = [
        max(len(column.heading or column.name), *(len(_shown(row, column)) for row in rows))
        for column in columns
    ]
    # Left to rich, a table too wide loses columns at the right or narrows numbers to nothing.
    gaps = COLUMN_GAP * (len(columns) - 1)
    fixed = sum(width for width, column in zip(needed, columns, strict=True) if not column.long)
    long = sum(column.long for column in columns)
    share = max(LONG_WIDTH_MIN, (total - gaps - fixed) // max(long, 1))
    return [
        min(width, share) if column.long else width
        for width, column in zip(needed, columns, strict=True)
    ]


def write_pairs(values: Row, output_format: str, *, shown: Mapping[str, str] | None = None) -> None:
    """One thing: name and value a line as a table, else one row.

    `shown` gives texts for people in place of raw values, and leaves out what it lacks.
    """
    if output_format == "jsonl":
        click.echo(json_text(dict(values)))
        return
    if output_format == "csv":
        _write_csv([values], tuple(values))
        return
    pairs = {name: str(value) for name, value in (shown or values).items()}
    width = max(len(name) for name in pairs)
    for name, text in pairs.items():
        click.echo(f"{name:<{width}}  {text}")
