"""How the command line's values are read: places, times, ranges, lists; and the predicates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from geostore.errors import InvalidInputError

if TYPE_CHECKING:
    from geostore.where import Expression

__all__ = [
    "BBOX",
    "BYTES",
    "FILTER",
    "NAMES",
    "PERCENT_RANGE",
    "RESOLUTION",
    "RESOLUTIONS",
    "SUMMARY_KEYS",
    "TIME",
    "WholeNumber",
    "format_option",
    "predicates",
]

_F = TypeVar("_F", bound=Callable[..., Any])
_FILTER_BYTES_MAX = 8 << 20  # what fits a message to a node


class _Checked(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """A value that `read` turns into what the API takes; its refusal is wrong usage."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except InvalidInputError as error:
            self.fail(str(error), param, ctx)


class WholeNumber(click.IntRange):
    """`click.IntRange` whose refusals say what was expected."""

    name = "whole number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            span = f" of {self.min}..{self.max}" if self.max is not None else f" from {self.min}"
            self.fail(f"{value!r} is not a whole number{span}", param, ctx)


def _bbox(text: str) -> tuple[float, float, float, float]:
    from geostore.types import BBox

    return BBox.parse(text).as_tuple()


def _time(text: str) -> str:
    from geostore.types import TimeSpan

    TimeSpan.parse(text)
    return text


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InvalidInputError(f"{text!r} has an empty name; expected NAME[,NAME...]")
    return names


def _number(text: str, whole: str, expected: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInputError(f"{whole!r}: {text!r} is not a number; {expected}") from None


def _percent_range(text: str) -> tuple[float | None, float | None]:
    expected = "expected MIN..MAX in percent, either side may be empty (..20, 95.., 10..30)"
    sides = text.split("..")
    if len(sides) != 2 or not any(sides):
        raise InvalidInputError(f"{text!r}: {expected}")
    low, high = (_number(side, text, expected) if side.strip() else None for side in sides)
    for side in (low, high):
        if side is not None and not 0 <= side <= 100:
            raise InvalidInputError(f"{text!r}: {side:g} is not in 0..100; {expected}")
    if low is not None and high is not None and low > high:
        raise InvalidInputError(f"{text!r}: {low:g} is above {high:g}; {expected}")
    return low, high


def _filter(text: str) -> Expression:
    """CQL2 JSON as it is, or in a file: `@FILE`, or a name that ends in .json."""
    from geostore import where

    if not text.startswith("@") and not text.endswith(".json"):
        return where.cql2(text)
    path = Path(text.removeprefix("@")).expanduser()
    try:
        if path.stat().st_size > _FILTER_BYTES_MAX:
            raise InvalidInputError(f"filter file {path}: over 8 MiB, expected a filter")
        condition = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidInputError(f"filter file {path}: {reason}") from None
    try:
        return where.cql2(condition)
    except InvalidInputError as error:
        raise InvalidInputError(f"filter file {path}: {error}") from None


def _resolution(text: str) -> float:
    expected = "expected a pixel size in metres"
    value = _number(text, text, expected)
    if not 0 < value < float("inf"):
        raise InvalidInputError(f"{text!r}: {expected}, above 0")
    return value


def _resolutions(text: str) -> list[float]:
    return [_resolution(part.strip()) for part in text.split(",")]


def _summary_keys(text: str) -> tuple[str, ...]:
    from geostore.api.summary import keys_in

    return keys_in(text)


def _bytes(text: str) -> str:
    from geostore.config import parse_bytes

    parse_bytes(text)
    return text


BBOX = _Checked("W,S,E,N", _bbox)
BYTES = _Checked("SIZE", _bytes)
FILTER = _Checked("JSON|@FILE", _filter)
SUMMARY_KEYS = _Checked("KEY[,KEY…]", _summary_keys)
TIME = _Checked("A/B", _time)
NAMES = _Checked("NAME[,NAME…]", _names)
PERCENT_RANGE = _Checked("MIN..MAX", _percent_range)
RESOLUTION = _Checked("M", _resolution)
RESOLUTIONS = _Checked("M[,M…]", _resolutions)


_PREDICATES = (
    click.option("--dataset", type=NAMES, metavar="NAME[,NAME…]", help="In these datasets."),
    click.option(
        "--bbox",
        type=BBOX,
        metavar="W,S,E,N",
        help="Cells that overlap this box, degrees lon/lat; W > E crosses the antimeridian.",
    ),
    click.option(
        "--geometry",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE.geojson",
        help="Cells that overlap the file's geometry, lon/lat.",
    ),
    click.option("--geocode", metavar="PREFIX", help="Cells under this geohash or quadtile."),
    click.option("--exact", is_flag=True, help="With --geocode: that cell only."),
    click.option(
        "--time",
        type=TIME,
        metavar="A/B",
        help="Overlapping this span: times, dates, months or years, or '..'; one value means"
        " its whole span.",
    ),
    click.option(
        "--cloud", type=PERCENT_RANGE, metavar="MIN..MAX", help="Cloud cover, percent, inclusive."
    ),
    click.option(
        "--coverage",
        type=PERCENT_RANGE,
        metavar="MIN..MAX",
        help="Pixel coverage, percent, inclusive.",
    ),
    click.option("--platform", metavar="NAME", help="From this satellite or aircraft."),
    click.option("--scene", metavar="ID", help="Of this scene."),
    click.option(
        "--filter",
        "cql2_filter",
        type=FILTER,
        metavar="JSON|@FILE",
        help="Of which this CQL2 JSON filter is true: conditions joined by and, or, not. Given as"
        " it is, or as the name of a file (@FILE or FILE.json).",
    ),
)


def predicates(*, bands_help: str) -> Callable[[_F], _F]:
    """The options that choose tiles.

    The command gets them as one mapping, `chosen`, whose keys are the keywords of `Store.query`.
    """

    def decorate(function: _F) -> _F:
        from functools import wraps

        @wraps(function)
        def with_chosen(*args: Any, **kwargs: Any) -> Any:
            return function(*args, chosen=_take_chosen(kwargs), **kwargs)

        decorated: Any = with_chosen
        bands = click.option("--bands", type=NAMES, metavar="NAME[,NAME…]", help=bands_help)
        for option in reversed((*_PREDICATES, bands)):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]  # click's decorators return what they got

    return decorate


def _take_chosen(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Moves the predicates out of `kwargs`, under the API's names; those not given are left out."""
    exact = kwargs.pop("exact")
    if exact and not kwargs["geocode"]:
        raise click.UsageError("--exact needs --geocode")
    names = {
        "dataset": "dataset",
        "bbox": "bbox",
        "geometry": "geometry",
        "geocode": "geocode",
        "time": "time",
        "cloud": "cloud_cover",
        "coverage": "pixel_coverage",
        "platform": "platform",
        "scene": "scene",
        "bands": "bands",
        "cql2_filter": "where",
    }
    values = {keyword: kwargs.pop(option) for option, keyword in names.items()}
    chosen = {keyword: value for keyword, value in values.items() if value is not None}
    if exact:
        chosen["recursive"] = False
    return chosen


def format_option(*more: str) -> Callable[[_F], _F]:
    """`--format table|jsonl|csv`, and `more` where a listing has them."""
    return click.option(
        "--format",
        "output_format",
        type=click.Choice(["table", "jsonl", "csv", *more]),
        help="Default: a table on a terminal, jsonl in a pipe.",
    )
