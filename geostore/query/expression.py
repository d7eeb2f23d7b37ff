"""What must hold of a tile, as a value: predicates joined by and, or, not.

**What an expression means** is Kleene's three-valued logic, as in SQL and CQL2. A predicate on a
value that is not known (a tile without cloud cover, time or platform) is neither true nor false
but unknown, and

- `AllOf` is false where a part is false, else unknown where a part is unknown, else true;
- `AnyOf` is true where a part is true, else unknown where a part is unknown, else false;
- `Not` turns true and false round and leaves unknown as it is.

**A tile matches where the whole is true.** So `Not(Within("cloud", None, 20))` finds the tiles
that are known to be cloudier than 20 %, and none of those whose cover nobody could tell;
`IsNull("cloud")`, which is never unknown itself, finds these.

Percentages are compared in float32, in which they are stored: a bound is rounded to float32
first (see `PercentRange`), and `<` and `>` are strict between the rounded numbers.

Expressions nest at most DEPTH_MAX deep and have at most LEAVES_MAX predicates, so whoever walks
one needs no bound of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeAlias, cast, get_args

from geostore.errors import InvalidInputError
from geostore.query.terms import (
    check_geocode,
    check_names,
    is_percent,
    is_time_us,
    moment_text,
    names_text,
    region_text,
    shown,
    span_text,
)
from geostore.types import TimeSpan

if TYPE_CHECKING:
    from geostore.grid import Region

__all__ = [
    "DEPTH_MAX",
    "LEAVES_MAX",
    "VALUES_MAX",
    "AllOf",
    "AnyOf",
    "Expression",
    "HasBands",
    "InRegion",
    "IsNull",
    "Leaf",
    "Not",
    "NullableColumn",
    "NumberColumn",
    "OneOf",
    "Predicate",
    "TextColumn",
    "TimeOverlaps",
    "UnderGeocode",
    "Within",
    "check_expression",
    "expression_from_json",
    "leaves",
]

DEPTH_MAX: Final = 32
"""Levels of an expression, its predicates included."""
LEAVES_MAX: Final = 1000
"""Predicates of an expression."""
VALUES_MAX: Final = 10_000
"""Values of one `OneOf`."""
_INT64_MAX: Final = (1 << 63) - 1

NumberColumn = Literal["cloud", "coverage", "time", "time_end", "bytes"]
"""Cloud cover and pixel coverage in percent; the start and the end of the tile's time, in
microseconds since 1970; the size of its file."""
TextColumn = Literal["dataset", "platform", "scene", "geocode"]
NullableColumn = Literal["time", "time_end", "cloud", "platform"]
"""Columns whose value may be unknown."""


class _Node:
    """What all expressions can do."""

    __slots__ = ()

    def __and__(self, other: Expression) -> Expression:
        return AllOf(_joined(AllOf, self, other))

    def __or__(self, other: Expression) -> Expression:
        return AnyOf(_joined(AnyOf, self, other))

    def __invert__(self) -> Expression:
        return Not(cast("Expression", self))

    def __bool__(self) -> NoReturn:
        # `a and b` would give b, and `a or b` a, without a word.
        raise InvalidInputError(
            "an expression is true or false of tiles, not by itself: join expressions with &, |"
            " and ~, or all_of, any_of and not_, in place of and, or, not"
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; `expression_from_json` is its inverse."""
        raise NotImplementedError


# ---------------------------------------------------------------- predicates


@dataclass(frozen=True, slots=True)
class InRegion(_Node):
    """The tile's cell overlaps the region by the rule of `Region.matches`; never unknown."""

    region: Region

    def __post_init__(self) -> None:
        from geostore.grid import Region

        if not isinstance(self.region, Region):
            raise InvalidInputError(f"region {shown(self.region)}: expected a region")

    def __str__(self) -> str:
        return f"region overlaps {region_text(self.region)}"

    def to_json(self) -> dict[str, Any]:
        return {"in_region": self.region.to_json()}


@dataclass(frozen=True, slots=True)
class UnderGeocode(_Node):
    """The tile's geocode lies under this one, or (not `recursive`) is it; never unknown."""

    geocode: str
    recursive: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        check_geocode(self.geocode)
        _check_flag("recursive", self.recursive)

    def __str__(self) -> str:
        return f"geocode {'under' if self.recursive else 'is'} {self.geocode}"

    def to_json(self) -> dict[str, Any]:
        return {"under_geocode": self.geocode, **({} if self.recursive else {"recursive": False})}


@dataclass(frozen=True, slots=True)
class TimeOverlaps(_Node):
    """The tile's interval [time, time_end] overlaps the span; unknown without a time."""

    span: TimeSpan

    def __post_init__(self) -> None:
        if not isinstance(self.span, TimeSpan):
            raise InvalidInputError(f"time {shown(self.span)}: expected a span")

    def __str__(self) -> str:
        return f"time overlaps {span_text(self.span)}"

    def to_json(self) -> dict[str, Any]:
        return {"time_overlaps": [self.span.start_us, self.span.end_us]}


@dataclass(frozen=True, slots=True)
class Within(_Node):
    """A number lies between two bounds, either of which may be None: unbounded there.

    The bounds belong to the range unless they are said to be open. Without any bound it is
    true where the number is known. Unknown where the number is.

    Raises:
        InvalidInputError: a bound that the column's numbers cannot have, or low above high.
    """

    column: NumberColumn
    low: float | None
    """Percent; microseconds since 1970, UTC; bytes."""
    high: float | None
    low_open: bool = field(default=False, kw_only=True)
    """The number is above `low`, not equal to it."""
    high_open: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        _check_choice("column", self.column, get_args(NumberColumn))
        for side, bound in (("low", self.low), ("high", self.high)):
            _check_flag(f"{side}_open", getattr(self, f"{side}_open"))
            if bound is not None:
                self._check_bound(side, bound)
        if self.low is not None and self.high is not None and self.low > self.high:
            raise InvalidInputError(
                f"{self.column}: low {self._bound_text(self.low)} is above high"
                f" {self._bound_text(self.high)}"
            )

    def _check_bound(self, side: str, bound: object) -> None:
        if self.column in ("cloud", "coverage"):
            fits, expected = is_percent(bound), "a number in 0..100"
        elif self.column == "bytes":
            whole = isinstance(bound, int) and not isinstance(bound, bool)
            fits = whole and abs(bound) <= _INT64_MAX  # type: ignore[arg-type]
            expected = "a whole number of bytes"
        else:
            fits = is_time_us(bound)
            expected = "whole microseconds since 1970 within the years 1 to 9999"
        if not fits:
            raise InvalidInputError(f"{self.column}: {side} is {shown(bound)}, expected {expected}")

    def _bound_text(self, bound: float) -> str:
        if self.column in ("time", "time_end"):
            return moment_text(int(bound))
        return f"{bound:g} %" if self.column != "bytes" else str(bound)

    def __str__(self) -> str:
        if self.low is not None and self.low == self.high and not (self.low_open or self.high_open):
            return f"{self.column} = {self._bound_text(self.low)}"
        above = ">" if self.low_open else ">="
        below = "<" if self.high_open else "<="
        if self.low is None and self.high is None:
            return f"{self.column} is known"
        if self.high is None:
            assert self.low is not None
            return f"{self.column} {above} {self._bound_text(self.low)}"
        text = f"{self.column} {below} {self._bound_text(self.high)}"
        if self.low is None:
            return text
        return f"{self._bound_text(self.low)} {above.replace('>', '<')} {text}"

    def to_json(self) -> dict[str, Any]:
        opened = {side: True for side in _OPEN if getattr(self, side)}
        return {"within": self.column, "low": self.low, "high": self.high, **opened}


@dataclass(frozen=True, slots=True)
class OneOf(_Node):
    """A text is one of these, exactly; unknown where the platform is.

    Raises:
        InvalidInputError: no value or too many, an empty text, or what is no geocode.
    """

    column: TextColumn
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_choice("column", self.column, get_args(TextColumn))
        check_names(self.values, self.column)
        _check_values(self.values, self.column)
        if self.column == "geocode":
            for value in self.values:
                check_geocode(value)

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.column} is {self.values[0]}"
        return f"{self.column} in ({names_text(self.values)})"

    def to_json(self) -> dict[str, Any]:
        return {"one_of": self.column, "values": list(self.values)}


@dataclass(frozen=True, slots=True)
class HasBands(_Node):
    """The tile has all these bands, by provider's or common name; never unknown."""

    bands: tuple[str, ...]

    def __post_init__(self) -> None:
        check_names(self.bands, "bands")
        _check_values(self.bands, "bands")

    def __str__(self) -> str:
        return f"bands has all of ({names_text(self.bands)})"

    def to_json(self) -> dict[str, Any]:
        return {"has_bands": list(self.bands)}


@dataclass(frozen=True, slots=True)
class IsNull(_Node):
    """A value is unknown. This itself is always true or false."""

    column: NullableColumn

    def __post_init__(self) -> None:
        _check_choice("column", self.column, get_args(NullableColumn))

    def __str__(self) -> str:
        return f"{self.column} is null"

    def to_json(self) -> dict[str, Any]:
        return {"is_null": self.column}


# ---------------------------------------------------------------- joined


@dataclass(frozen=True, slots=True)
class AllOf(_Node):
    """All parts hold."""

    parts: tuple[Expression, ...]

    def __post_init__(self) -> None:
        _check_parts(self, self.parts)

    def __str__(self) -> str:
        return " and ".join(map(_part_text, self.parts))

    def to_json(self) -> dict[str, Any]:
        return {"all_of": [part.to_json() for part in self.parts]}


@dataclass(frozen=True, slots=True)
class AnyOf(_Node):
    """At least one part holds."""

    parts: tuple[Expression, ...]

    def __post_init__(self) -> None:
        _check_parts(self, self.parts)

    def __str__(self) -> str:
        return " or ".join(map(_part_text, self.parts))

    def to_json(self) -> dict[str, Any]:
        return {"any_of": [part.to_json() for part in self.parts]}


@dataclass(frozen=True, slots=True)
class Not(_Node):
    """The part is false: not merely unknown."""

    part: Expression

    def __post_init__(self) -> None:
        _check_parts(self, (self.part,))

    def __str__(self) -> str:
        return f"not ({self.part})"

    def to_json(self) -> dict[str, Any]:
        return {"not": self.part.to_json()}


Predicate: TypeAlias = InRegion | UnderGeocode | TimeOverlaps | Within | OneOf | HasBands
"""The predicates that rows are asked about."""
Leaf: TypeAlias = Predicate | IsNull
Expression: TypeAlias = Leaf | AllOf | AnyOf | Not


def leaves(expression: Expression) -> Iterator[Leaf]:
    """The predicates in an expression, from the left."""
    match expression:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from leaves(part)
        case Not(part):
            yield from leaves(part)
        case _:
            yield expression


def _depth(expression: Expression) -> int:
    match expression:
        case AllOf(parts) | AnyOf(parts):
            return 1 + max(map(_depth, parts))
        case Not(part):
            return 1 + _depth(part)
        case _:
            return 1


def _joined(kind: type[AllOf | AnyOf], first: _Node, second: _Node) -> tuple[Expression, ...]:
    """Flat, so that a long chain of `&` or `|` does not nest."""
    parts: tuple[Expression, ...] = ()
    for one in (first, second):
        parts += one.parts if isinstance(one, kind) else (cast("Expression", one),)
    return parts


# ---------------------------------------------------------------- checks


def check_expression(value: object, what: str) -> None:
    """
    Raises:
        InvalidInputError: `value` is no expression.
    """
    if not isinstance(value, _Node):
        raise InvalidInputError(
            f"{what} {shown(value)}: expected an expression, as geostore.where makes them"
        )


def _check_parts(joined: AllOf | AnyOf | Not, parts: object) -> None:
    what = type(joined).__name__
    if not isinstance(parts, tuple) or not parts:
        raise InvalidInputError(
            f"{what}: got {shown(parts)}, expected a tuple of one or more expressions"
        )
    _check_count(what, len(parts))
    for part in parts:
        check_expression(part, what)
    # Parts were checked when they were made, so that these walks are short.
    _check_count(what, sum(1 for _ in islice(leaves(joined), LEAVES_MAX + 1)))
    if _depth(joined) > DEPTH_MAX:
        raise InvalidInputError(
            f"{what}: nested over {DEPTH_MAX} deep, expected at most that many levels"
        )


def _check_count(what: str, count: int) -> None:
    if count > LEAVES_MAX:
        raise InvalidInputError(
            f"{what}: over {LEAVES_MAX:,} predicates, expected at most that many"
            " (one list of values counts as one predicate)"
        )


def _check_values(values: tuple[str, ...], what: str) -> None:
    if not 1 <= len(values) <= VALUES_MAX:
        raise InvalidInputError(f"{what}: got {len(values):,} values, expected 1..{VALUES_MAX:,}")


def _check_choice(what: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidInputError(f"{what} {shown(value)}: expected one of {', '.join(known)}")


def _check_flag(what: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidInputError(f"{what} {shown(value)}: expected true or false")


def _part_text(part: Expression) -> str:
    return f"({part})" if isinstance(part, AllOf | AnyOf) else str(part)


# ---------------------------------------------------------------- JSON


_OPEN = ("low_open", "high_open")
_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "all_of": (),
    "any_of": (),
    "not": (),
    "in_region": (),
    "under_geocode": ("recursive",),
    "time_overlaps": (),
    "within": ("low", "high", *_OPEN),
    "one_of": ("values",),
    "has_bands": (),
    "is_null": (),
}
"""The word that says what an expression is, to the fields that may stand beside it."""


def expression_from_json(value: object, path: str = "where", depth: int = 1) -> Expression:
    """The expression that `to_json` described; `path` is where it stands, for messages.

    Raises:
        InvalidInputError: not such a value; names where.
    """
    if depth > DEPTH_MAX:
        raise InvalidInputError(f"where: nested over {DEPTH_MAX} deep")
    kind = _kind_of(value, path)
    assert isinstance(value, dict)
    if kind == "not":
        return Not(expression_from_json(value[kind], f"{path}.not", depth + 1))
    if kind in ("all_of", "any_of"):
        listed = _listed(value[kind], f"{path}.{kind}", LEAVES_MAX)
        parts = tuple(
            expression_from_json(part, f"{path}.{kind}[{i}]", depth + 1)
            for i, part in enumerate(listed)
        )
        return _placed(path, lambda: AllOf(parts) if kind == "all_of" else AnyOf(parts))
    return _placed(path, lambda: _leaf_from_json(kind, value, path))


def _kind_of(value: object, path: str) -> str:
    kinds = [name for name in _FIELDS if name in value] if isinstance(value, dict) else []
    if len(kinds) != 1:
        raise InvalidInputError(
            f"{path}: got {shown(value)}, expected an object with one of {', '.join(_FIELDS)}"
        )
    assert isinstance(value, dict)
    unknown = value.keys() - {kinds[0], *_FIELDS[kinds[0]]}
    if unknown:
        raise InvalidInputError(
            f"{path}: unknown field {', '.join(sorted(map(str, unknown)))[:80]} of {kinds[0]}"
        )
    return kinds[0]


def _placed(path: str, make: Callable[[], Expression]) -> Expression:
    """What `make` gives; its refusals say where."""
    try:
        return make()
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from None


def _leaf_from_json(kind: str, value: dict[str, Any], path: str) -> Leaf:
    own = value[kind]
    match kind:
        case "in_region":
            return InRegion(_region_from_json(own))
        case "under_geocode":
            return UnderGeocode(own, recursive=value.get("recursive", True))
        case "time_overlaps":
            if len(_listed(own, path, 2)) != 2:
                raise InvalidInputError("time_overlaps: expected a start and an end")
            return TimeOverlaps(TimeSpan(*own))
        case "within":
            opened = {side: value.get(side, False) for side in _OPEN}
            return Within(own, value.get("low"), value.get("high"), **opened)
        case "one_of":
            return OneOf(own, tuple(_listed(value.get("values"), path, VALUES_MAX)))
        case "has_bands":
            return HasBands(tuple(_listed(own, path, VALUES_MAX)))
        case _:
            return IsNull(own)


def _region_from_json(value: object) -> Region:
    from geostore.grid import Region

    if not isinstance(value, dict):
        raise InvalidInputError(f"in_region: got {shown(value)}, expected a region")
    return Region.from_json(value)


def _listed(value: object, path: str, count_max: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > count_max:
        got = f"{len(value):,} values" if isinstance(value, list) else shown(value)
        raise InvalidInputError(f"{path}: got {got}, expected a list of at most {count_max:,}")
    return value
