"""Filters in CQL2 JSON (OGC 21-065r2) as expressions: the part of it that tiles have answers to.

An operation is `{"op": NAME, "args": [...]}`. Supported are the comparisons, `between`, `in`,
`isNull`, `and`, `or`, `not`, `s_intersects` and `t_intersects`, over a listing's fields and the
STAC names that mean the same; anything else is refused by name, and where it stands. Unknown
values are treated as the standard has it, see `geostore.query.expression`.

Two meanings are geostore's own, so that a filter finds what a plain predicate finds:

- `s_intersects` on the geometry is "matches a place": the tile's cell overlaps it with more than
  an edge or a corner. The standard's would hold of neighbours that only touch.
- A date is the whole day (see `geostore.query.comparison`), and `t_intersects` on the time asks
  of the tile's interval, which may be a year.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, cast

from geostore.errors import InvalidInputError
from geostore.query.comparison import (
    FIELDS,
    Comparator,
    Value,
    between,
    compare,
    is_null,
    kind_of,
    one_of,
)
from geostore.query.expression import (
    DEPTH_MAX,
    LEAVES_MAX,
    VALUES_MAX,
    AllOf,
    AnyOf,
    Expression,
    InRegion,
    Not,
    TimeOverlaps,
    Within,
)
from geostore.query.terms import shown
from geostore.types import BBox, TimeSpan

if TYPE_CHECKING:
    from geostore.grid import Region

__all__ = ["from_cql2"]

GEOMETRY: Final = "geometry"
_STAC: Final = {
    "collection": "dataset",
    "id": "scene",
    "datetime": "time",
    "start_datetime": "time",
    "end_datetime": "time_end",
    "eo:cloud_cover": "cloud_cover",
}
_FLIPPED: Final[dict[Comparator, Comparator]] = {
    "=": "=",
    "<>": "<>",
    "<": ">",
    "<=": ">=",
    ">": "<",
    ">=": "<=",
}
_DATE: Final = r"\d{4}-\d{2}-\d{2}"
_FORMS: Final = {"date": re.compile(_DATE), "timestamp": re.compile(f"{_DATE}[Tt ][0-9].*")}

Args = list[Any]


def from_cql2(value: object, path: str = "filter") -> Expression:
    """The expression of a CQL2 filter, a mapping or its JSON text; `path` is its name in messages.

    Raises:
        InvalidInputError: not CQL2 JSON, or not in the part that is supported; names where, as
            in `filter.args[1].args[0]`.
    """
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            reason = "nested too deep" if isinstance(error, RecursionError) else error
            raise InvalidInputError(
                f'{path}: not JSON: {reason}; expected CQL2 JSON, {{"op": ..., "args": [...]}}'
            ) from None
    return _condition(value, path, 1)


def _fail(path: str, message: str) -> NoReturn:
    raise InvalidInputError(f"{path}: {message}")


@contextmanager
def _at(path: str) -> Iterator[None]:
    """Refusals inside say where."""
    try:
        yield
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from None


# ---------------------------------------------------------------- operations


def _condition(value: object, path: str, depth: int) -> Expression:
    if depth > DEPTH_MAX:
        _fail("filter", f"nested over {DEPTH_MAX} deep")
    op, args = _operation(value, path)
    if op in ("and", "or", "not"):
        return _joined(op, args, path, depth)
    read = _OPERATORS.get(op)
    if read is None:
        supported = ", ".join(("and", "or", "not", *_OPERATORS))
        _fail(path, f"CQL2 operator {shown(op)} is not supported; supported: {supported}")
    return read(op, args, path)


def _operation(value: object, path: str) -> tuple[str, Args]:
    if not isinstance(value, Mapping) or not isinstance(value.get("op"), str):
        _fail(path, f'got {shown(value)}, expected an operation, {{"op": ..., "args": [...]}}')
    unknown = value.keys() - {"op", "args"}
    if unknown:
        _fail(path, f"unknown member {shown(min(map(str, unknown)))}; expected op and args")
    args = value.get("args")
    if not isinstance(args, list | tuple):
        _fail(f"{path}.args", f"got {shown(args)}, expected a list")
    return value["op"], list(args)


def _joined(op: str, args: Args, path: str, depth: int) -> Expression:
    if not args or (op == "not" and len(args) != 1):
        expected = "one argument" if op == "not" else "one or more arguments"
        _fail(path, f"{op} of {len(args)} arguments, expected {expected}")
    if len(args) > LEAVES_MAX:
        _fail(path, f"{op} of {len(args):,} arguments, expected at most {LEAVES_MAX:,}")
    parts = tuple(_condition(arg, f"{path}.args[{i}]", depth + 1) for i, arg in enumerate(args))
    with _at(path):
        return Not(parts[0]) if op == "not" else AllOf(parts) if op == "and" else AnyOf(parts)


def _comparison(op: str, args: Args, path: str) -> Expression:
    comparator = cast("Comparator", op)
    first, other = _two(op, args, path)
    if _is_property(other) and not _is_property(first):
        return _compared(other, first, _FLIPPED[comparator], (f"{path}.args[1]", f"{path}.args[0]"))
    return _compared(first, other, comparator, (f"{path}.args[0]", f"{path}.args[1]"))


def _compared(
    subject: object, literal: object, comparator: Comparator, paths: tuple[str, str]
) -> Expression:
    field = _field(subject, paths[0])
    value = _literal(field, literal, paths[1])
    with _at(paths[1]):
        return compare(field, comparator, value)


def _between(op: str, args: Args, path: str) -> Expression:
    if len(args) != 3:
        _fail(path, f"{op} of {len(args)} arguments, expected a property, a low and a high value")
    field = _field(args[0], f"{path}.args[0]")
    low, high = (_literal(field, args[i], f"{path}.args[{i}]") for i in (1, 2))
    with _at(path):
        return between(field, low, high)


def _in(op: str, args: Args, path: str) -> Expression:
    subject, listed = _two(op, args, path)
    field, place = _field(subject, f"{path}.args[0]"), f"{path}.args[1]"
    count_max = VALUES_MAX if kind_of(field) == "text" else LEAVES_MAX
    if not isinstance(listed, list | tuple) or not 1 <= len(listed) <= count_max:
        got = f"{len(listed):,} values" if isinstance(listed, list | tuple) else shown(listed)
        _fail(place, f"got {got}, expected a list of 1 to {count_max:,} values")
    values = [_literal(field, value, f"{place}[{i}]") for i, value in enumerate(listed)]
    with _at(place):
        return one_of(field, values)


def _null(op: str, args: Args, path: str) -> Expression:
    if len(args) != 1:
        _fail(path, f"{op} of {len(args)} arguments, expected a property")
    place = f"{path}.args[0]"
    field = _field(args[0], place)
    with _at(place):
        return is_null(field)


def _two(op: str, args: Args, path: str) -> tuple[object, object]:
    if len(args) != 2:
        _fail(path, f"{op} of {len(args)} arguments, expected 2")
    return args[0], args[1]


# ---------------------------------------------------------------- properties and values


def _is_property(value: object) -> bool:
    return isinstance(value, Mapping) and "property" in value


def _name(value: object, path: str) -> str:
    """A property's name as it is written."""
    if not isinstance(value, Mapping) or set(value) != {"property"}:
        if isinstance(value, Mapping) and "op" in value:
            _fail(path, f"got operator {shown(value['op'])}, expected a property")
        _fail(path, f'got {shown(value)}, expected a property, {{"property": NAME}}')
    name = value["property"]
    if not isinstance(name, str) or name not in {*FIELDS, *_STAC, GEOMETRY}:
        known = ", ".join((*FIELDS, GEOMETRY))
        _fail(path, f"unknown property {shown(name)}; known: {known}, and STAC's {_stac_names()}")
    return name


def _stac_names() -> str:
    return ", ".join(_STAC)


def _field(value: object, path: str) -> str:
    """The listing's field that a property means."""
    name = _name(value, path)
    if name == GEOMETRY:
        _fail(path, "geometry is a place; expected it in s_intersects alone")
    return _STAC.get(name, name)


def _literal(field: str, value: object, path: str) -> Value:
    """A value to compare a field with; whether it is of the field's kind is seen there."""
    if isinstance(value, Mapping) and set(value) & {"property", "op"}:
        _fail(path, f"got {shown(value)}, expected a value")
    if kind_of(field) == "time":
        return _moment(value, path)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        expected = "a text" if kind_of(field) == "text" else "a number"
        _fail(path, f"{field}: got {shown(value)}, expected {expected}")
    return value


def _moment(value: object, path: str) -> TimeSpan:
    """An instant, or the span that a date, a month or a year means."""
    text: object = value
    if isinstance(value, Mapping) and set(value) in ({"timestamp"}, {"date"}):
        ((kind, text),) = value.items()
        path = f"{path}.{kind}"
        if not isinstance(text, str) or _FORMS[kind].fullmatch(text) is None:
            form = "2016-01-12" if kind == "date" else "2016-01-12T16:06:42Z"
            _fail(path, f"got {shown(text)}, expected a {kind} ({form})")
    if not isinstance(text, str) or "/" in text or text.strip() == "..":
        _fail(
            path,
            f'got {shown(text)}, expected a time: {{"timestamp": ...}}, {{"date": ...}} or a text',
        )
    with _at(path):
        return TimeSpan.parse(text)


# ---------------------------------------------------------------- places and spans


def _s_intersects(op: str, args: Args, path: str) -> Expression:
    first, other = _two(op, args, path)
    swapped = _is_property(other) and not _is_property(first)
    subject, place = (other, first) if swapped else (first, other)
    own, others = (1, 0) if swapped else (0, 1)
    if _name(subject, f"{path}.args[{own}]") != GEOMETRY:
        _fail(f"{path}.args[{own}]", "expected the property geometry: a tile has no other place")
    with _at(f"{path}.args[{others}]"):
        return InRegion(_region(place))


def _region(value: object) -> Region:
    from geostore.grid import Region

    if not isinstance(value, Mapping):
        raise InvalidInputError(f"got {shown(value)}, expected a GeoJSON geometry or a bbox")
    if set(value) != {"bbox"}:
        return Region.from_geometry(value)
    bounds = value["bbox"]
    is_box = isinstance(bounds, list | tuple) and len(bounds) in (4, 6)
    if not is_box or any(isinstance(each, bool | str | None) for each in bounds):
        raise InvalidInputError(f"bbox {shown(bounds)}: expected [west, south, east, north]")
    try:
        numbers = [float(bound) for bound in bounds]
    except (TypeError, ValueError, OverflowError):
        raise InvalidInputError(
            f"bbox {shown(bounds)}: expected [west, south, east, north]"
        ) from None
    half = len(numbers) // 2  # of six, the third of each corner is a height: tiles have none
    return Region.from_bbox(BBox(*numbers[:2], *numbers[half : half + 2]))


def _t_intersects(op: str, args: Args, path: str) -> Expression:
    first, other = _two(op, args, path)
    swapped = _is_about_time(other) and not _is_about_time(first)
    subject, literal = (other, first) if swapped else (first, other)
    own, others = (1, 0) if swapped else (0, 1)
    name = _time_name(subject, f"{path}.args[{own}]")
    span = _span(literal, f"{path}.args[{others}]")
    if name in ("time", "datetime"):
        return TimeOverlaps(span)
    # One end of the tile's time alone: an instant, which meets a span by lying in it.
    column: Literal["time", "time_end"] = "time" if name == "start_datetime" else "time_end"
    return Within(column, span.start_us, span.end_us)


def _is_about_time(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    interval = value.get("interval")
    ends = interval if isinstance(interval, list | tuple) else ()
    return "property" in value or any(map(_is_property, ends))


def _time_name(value: object, path: str) -> str:
    """`datetime` also for the interval between the start and the end property."""
    if isinstance(value, Mapping) and set(value) == {"interval"} and _is_about_time(value):
        ends = value["interval"]
        names = [_name(end, f"{path}.interval[{i}]") for i, end in enumerate(ends)]
        if [_STAC.get(name, name) for name in names] != ["time", "time_end"]:
            _fail(path, "expected the interval from start_datetime to end_datetime")
        return "datetime"
    name = _name(value, path)
    if name == GEOMETRY or kind_of(_STAC.get(name, name)) != "time":
        _fail(path, f"{name} is no time; expected datetime, start_datetime or end_datetime")
    return name


def _span(value: object, path: str) -> TimeSpan:
    if isinstance(value, str):
        with _at(path):
            return TimeSpan.parse(value)
    if not isinstance(value, Mapping) or set(value) != {"interval"}:
        return _moment(value, path)
    ends = value["interval"]
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        _fail(
            f"{path}.interval", f"got {shown(ends)}, expected a start and an end, either may be .."
        )
    sides = [
        None if end == ".." else _moment(end, f"{path}.interval[{i}]") for i, end in enumerate(ends)
    ]
    with _at(path):
        first, last = sides
        return TimeSpan(
            None if first is None else first.start_us, None if last is None else last.end_us
        )


_OPERATORS: Final[dict[str, Callable[[str, Args, str], Expression]]] = {
    **dict.fromkeys(_FLIPPED, _comparison),
    "between": _between,
    "in": _in,
    "isNull": _null,
    "s_intersects": _s_intersects,
    "t_intersects": _t_intersects,
}
