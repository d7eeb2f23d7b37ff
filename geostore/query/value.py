"""The query as a value: what is asked, with no idea of who answers or how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from geostore.errors import InvalidInputError
from geostore.query.expression import Expression, check_expression, expression_from_json
from geostore.query.terms import check_geocode, check_names, is_percent, region_text, span_text
from geostore.types import TimeSpan

if TYPE_CHECKING:
    from geostore.grid import Region

__all__ = ["PercentRange", "Query", "SortKey"]

SortKey = Literal["time", "-time", "cloud", "-cloud", "coverage", "-coverage"]
"""What rows are ordered by first; a leading `-` means descending."""

_WHERE_SHOWN_MAX = 1000  # characters of an expression in words


@dataclass(frozen=True, slots=True)
class PercentRange:
    """A closed range of percent; `None` on a side means unbounded there.

    A range is a predicate even when both sides are open: a tile whose value is unknown
    matches no range.

    Stored percentages are float32. A bound is rounded to float32 before it is compared, so
    that 33.3 typed by a user matches the 33.3 that a tile stored, and 95 matches 95.0.

    Raises:
        InvalidInputError: a bound is not a number in 0..100, or minimum > maximum.
    """

    minimum: float | None
    maximum: float | None

    def __post_init__(self) -> None:
        sides: tuple[tuple[str, object], ...] = (
            ("minimum", self.minimum),
            ("maximum", self.maximum),
        )
        for side, bound in sides:
            if bound is not None and not is_percent(bound):
                raise InvalidInputError(
                    f"percent range: {side} is {bound!r}, expected a number in 0..100"
                )
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise InvalidInputError(
                f"percent range: minimum {self.minimum:g} is above maximum {self.maximum:g};"
                " the order is MIN..MAX"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """`MIN..MAX`, either side may be empty.

        >>> PercentRange.parse("..20")
        PercentRange(minimum=None, maximum=20.0)

        Raises:
            InvalidInputError: unreadable, out of 0..100, or reversed.
        """
        first, dots, last = text.strip().partition("..")
        unreadable = InvalidInputError(
            f"percent range {text!r}: expected MIN..MAX in percent, either side may be"
            " empty (..20, 95..)"
        )
        if not dots:
            raise unreadable
        try:
            minimum = float(first) if first.strip() else None
            maximum = float(last) if last.strip() else None
        except ValueError:
            raise unreadable from None
        return cls(minimum, maximum)

    def __str__(self) -> str:
        first = "" if self.minimum is None else f"{self.minimum:g}"
        last = "" if self.maximum is None else f"{self.maximum:g}"
        return f"{first}..{last}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which tiles, in what order, how many. All predicates given must hold.

    - `datasets`: names; None means all. Whoever answers raises NotFoundError for an unknown one.
    - `region`: the tile's cell overlaps it by the rule of `Region.matches`.
    - `geocode`: all cells under that prefix (`recursive`), or that cell only.
    - `time`: the tile's interval [time, time_end] overlaps the span; a tile with no time
      matches none.
    - `cloud`, `coverage`: inclusive percent ranges; unknown cloud cover matches none.
    - `bands`: the tile has all of them, by provider's or common name.
    - `where`: is true of the tile, by the logic of `geostore.query.expression`.
    - `sort`: None is by time; the order is always total (see `geostore.query.order`).

    Raises:
        InvalidInputError: a field that can never be answered.
    """

    datasets: tuple[str, ...] | None = None
    region: Region | None = None
    geocode: str | None = None
    recursive: bool = True
    time: TimeSpan | None = None
    cloud: PercentRange | None = None
    coverage: PercentRange | None = None
    bands: tuple[str, ...] = ()
    platform: str | None = None
    scene: str | None = None
    where: Expression | None = None
    sort: SortKey | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.datasets is not None:
            check_names(self.datasets, "datasets")
            if not self.datasets:
                raise InvalidInputError("datasets: got none, expected at least one name")
        check_names(self.bands, "bands")
        if self.geocode is not None:
            check_geocode(self.geocode)
        if self.sort is not None and self.sort not in get_args(SortKey):
            raise InvalidInputError(
                f"sort {self.sort!r}: expected one of {', '.join(get_args(SortKey))}"
            )
        self._check_limit(self.limit)
        if not isinstance(self.recursive, bool):
            raise InvalidInputError(f"recursive {self.recursive!r}: expected true or false")
        if self.where is not None:
            check_expression(self.where, "where")
        for name in ("platform", "scene"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise InvalidInputError(f"{name} {value!r}: expected a name")

    @staticmethod
    def _check_limit(limit: object) -> None:
        if limit is None:
            return
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            raise InvalidInputError(f"limit {limit!r}: expected a whole number of 0 or more")

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict of the fields that are set; `from_json` is its inverse."""
        value: dict[str, Any] = {}
        for name in ("geocode", "platform", "scene", "sort", "limit"):
            if getattr(self, name) is not None:
                value[name] = getattr(self, name)
        if self.datasets is not None:
            value["datasets"] = list(self.datasets)
        if self.bands:
            value["bands"] = list(self.bands)
        if not self.recursive:
            value["recursive"] = False
        if self.region is not None:
            value["region"] = self.region.to_json()
        if self.time is not None:
            value["time"] = [self.time.start_us, self.time.end_us]
        for name in ("cloud", "coverage"):
            bounds: PercentRange | None = getattr(self, name)
            if bounds is not None:
                value[name] = [bounds.minimum, bounds.maximum]
        if self.where is not None:
            value["where"] = self.where.to_json()
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The query that `to_json` wrote.

        Raises:
            InvalidInputError: an unknown field, or a field that does not read.
        """
        fields = dict(value)
        unknown = fields.keys() - set(cls.__dataclass_fields__)
        if unknown:
            raise InvalidInputError(
                f"query: unknown field {', '.join(sorted(unknown))}; expected some of"
                f" {', '.join(cls.__dataclass_fields__)}"
            )
        try:
            for name in ("datasets", "bands"):
                if fields.get(name) is not None:
                    fields[name] = tuple(fields[name])
            if fields.get("time") is not None:
                fields["time"] = TimeSpan(*fields["time"])
            for name in ("cloud", "coverage"):
                if fields.get(name) is not None:
                    fields[name] = PercentRange(*fields[name])
        except TypeError as error:
            raise InvalidInputError(f"query {value!r}: {error}") from None
        if fields.get("region") is not None:
            from geostore.grid import Region

            fields["region"] = Region.from_json(fields["region"])
        if fields.get("where") is not None:
            fields["where"] = expression_from_json(fields["where"])
        return cls(**fields)

    def predicates(self) -> dict[str, str]:
        """The predicates that are set, each as a person would read it (for explain)."""
        texts: dict[str, str] = {}
        if self.datasets is not None:
            texts["dataset"] = "in " + ", ".join(self.datasets)
        if self.region is not None:
            texts["region"] = f"overlaps {region_text(self.region)}"
        if self.geocode is not None:
            texts["geocode"] = f"under {self.geocode}" if self.recursive else f"is {self.geocode}"
        if self.time is not None:
            texts["time"] = f"overlaps {span_text(self.time)}"
        if self.cloud is not None:
            texts["cloud"] = f"within {self.cloud} %"
        if self.coverage is not None:
            texts["coverage"] = f"within {self.coverage} %"
        if self.bands:
            texts["bands"] = "has all of " + ", ".join(self.bands)
        if self.platform is not None:
            texts["platform"] = f"is {self.platform}"
        if self.scene is not None:
            texts["scene"] = f"is {self.scene}"
        if self.where is not None:
            text = str(self.where)
            texts["where"] = (
                text if len(text) <= _WHERE_SHOWN_MAX else f"{text[:_WHERE_SHOWN_MAX]}..."
            )
        return texts
