"""What callers pass, checked and made into the values that the rooms below speak."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from geostore.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from geostore.backends import Backend
    from geostore.grid import Region
    from geostore.query import Expression, PercentRange, Query
    from geostore.scenes import Reader
    from geostore.types import BBox, IngestProgress, TimeSpan

__all__ = [
    "box",
    "check_bands_known",
    "check_datasets_known",
    "check_where_known",
    "choice",
    "names",
    "percent",
    "predicates",
    "reader",
    "refuse",
    "region",
    "resolutions",
    "shown_progress",
    "time_span",
    "time_text",
    "where",
    "whole",
]

_Choice = TypeVar("_Choice")
_GEOMETRY_BYTES_MAX = 256 << 20


def refuse(unknown: Mapping[str, object], function: Callable[..., Any]) -> None:
    """Raises for keywords that a function does not have, naming those it has.

    Python's own TypeError would name the wrong one only, and be no GeostoreError.
    """
    if not unknown:
        return
    from geostore.wrangle import unknown_name

    known = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self" and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    raise InvalidInputError(
        f"{function.__name__}: {unknown_name('keyword', next(iter(unknown)), known)}"
    )


def names(what: str, value: Any) -> tuple[str, ...] | None:
    """One name or several as a tuple; None stays None."""
    if value is None:
        return None
    try:
        found = (value,) if isinstance(value, str) else tuple(dict.fromkeys(value))
    except TypeError:
        found = ()
    if not found or not all(isinstance(name, str) and name for name in found):
        raise InvalidInputError(f"{what} {value!r}: expected a name, or several")
    return found


def choice(what: str, value: _Choice | None, known: tuple[_Choice, ...]) -> _Choice | None:
    """`value`, if it is None or one of `known`."""
    if value is not None and value not in known:
        from geostore.wrangle import unknown_name

        raise InvalidInputError(unknown_name(what, str(value), map(str, known)))
    return value


def whole(what: str, value: Any) -> int | None:
    """`value`, if it is None or a whole number above 0."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInputError(f"{what} {value!r}: expected a whole number of 1 or more")
    return int(value)


def resolutions(value: Any) -> tuple[float, ...] | None:
    """One pixel size or several, metres, finest first."""
    from geostore.wrangle.lattice import check_resolution

    if value is None:
        return None
    sizes = (value,) if isinstance(value, int | float | str) else tuple(value)
    if not sizes:
        raise InvalidInputError("resolution: got none, expected one or more pixel sizes")
    return tuple(sorted({check_resolution(size) for size in sizes}))


def box(value: Any) -> BBox | None:
    """A BBox from (west, south, east, north), `W,S,E,N`, or itself."""
    from geostore.types import BBox

    if value is None or isinstance(value, BBox):
        return value
    if isinstance(value, str):
        return BBox.parse(value)
    try:
        west, south, east, north = (float(bound) for bound in value)
    except (TypeError, ValueError):
        raise InvalidInputError(
            f"bbox {value!r}: expected four numbers (west, south, east, north) in degrees"
        ) from None
    return BBox(west, south, east, north)


def region(value: Any) -> Region | None:
    """A region from a GeoJSON mapping, a geometry object, or the path of a GeoJSON file."""
    from geostore.grid import Region

    if value is None or isinstance(value, Region):
        return value
    if isinstance(value, str | os.PathLike):
        path = Path(value).expanduser()
        try:
            if path.stat().st_size > _GEOMETRY_BYTES_MAX:
                raise InvalidInputError(f"geometry file {path}: over 256 MiB, expected a place")
            value = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"geometry file {path} does not exist") from None
        except (OSError, ValueError, RecursionError) as error:
            raise InvalidInputError(f"geometry file {path}: not GeoJSON: {error}") from None
        try:
            return Region.from_geometry(value)
        except InvalidInputError as error:
            raise InvalidInputError(f"geometry file {path}: {error}") from None
    return Region.from_geometry(value)


def _moment(value: Any, *, is_end: bool) -> int | None:
    """Microseconds of one side of a span; what means a day or longer gives its end or start."""
    from geostore.types import TimeSpan

    if value is None or value == "..":
        return None
    span = _span(value)
    assert isinstance(span, TimeSpan)
    return span.end_us if is_end else span.start_us


def _span(value: Any) -> TimeSpan:
    from geostore.types import TimeSpan
    from geostore.types.geo import us_from_datetime

    if isinstance(value, str):
        return TimeSpan.parse(value)
    if isinstance(value, datetime):
        moment = us_from_datetime(value)
        return TimeSpan(moment, moment)
    if isinstance(value, date):
        return TimeSpan.parse(value.isoformat())
    raise InvalidInputError(
        f"time {value!r}: expected text (2016-01, A/B), a date, a datetime, or a pair of them"
    )


def time_span(value: Any) -> TimeSpan | None:
    """A span from text, a date, a datetime (naive: UTC), or a pair (either may be None)."""
    from geostore.types import TimeSpan

    if value is None or isinstance(value, TimeSpan):
        return value
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise InvalidInputError(f"time {value!r}: expected a pair (from, to)")
        return TimeSpan(_moment(value[0], is_end=False), _moment(value[1], is_end=True))
    return _span(value)


def percent(what: str, value: Any) -> PercentRange | None:
    """A range from (minimum, maximum), either None, or `MIN..MAX`."""
    from geostore.query import PercentRange

    if value is None or isinstance(value, PercentRange):
        return value
    try:
        if isinstance(value, str):
            return PercentRange.parse(value)
        minimum, maximum = value
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise InvalidInputError(f"{what}: {error}") from None
        raise InvalidInputError(
            f"{what} {value!r}: expected (minimum, maximum) percent, None for open"
        ) from None
    try:
        return PercentRange(minimum, maximum)
    except InvalidInputError as error:
        raise InvalidInputError(f"{what}: {error}") from None


def predicates(
    *,
    dataset: Any = None,
    bbox: Any = None,
    geometry: Any = None,
    geocode: str | None = None,
    recursive: bool = True,
    time: Any = None,
    cloud_cover: Any = None,
    pixel_coverage: Any = None,
    bands: Any = None,
    platform: str | None = None,
    scene: str | None = None,
) -> Query:
    """The query of the plain predicates, in the words of `Store.query`."""
    from geostore.grid import Region
    from geostore.query import Query

    place = box(bbox)
    both = shape = region(geometry)
    if place is not None:
        both = Region.from_bbox(place)
        both = both if shape is None else Region.of_both(both, shape)
    return Query(
        datasets=names("dataset", dataset),
        region=both,
        geocode=geocode,
        recursive=recursive,
        time=time_span(time),
        cloud=percent("cloud_cover", cloud_cover),
        coverage=percent("pixel_coverage", pixel_coverage),
        bands=names("bands", bands) or (),
        platform=platform,
        scene=scene,
    )


def where(expression: Any, cql2: Any) -> Expression | None:
    """What an expression and a CQL2 filter ask together; either may be None."""
    from geostore.query import AllOf
    from geostore.query.cql2 import from_cql2
    from geostore.query.expression import check_expression

    if expression is not None:
        check_expression(expression, "where")
    if cql2 is None:
        return expression  # type: ignore[no-any-return]  # checked
    filtered = from_cql2(cql2)
    return filtered if expression is None else AllOf((expression, filtered))


def reader(name: str) -> Reader:
    """A reader by name. Raises NotFoundError, which names the known ones."""
    from geostore.scenes import reader_named, readers
    from geostore.wrangle import unknown_name

    try:
        return reader_named(name)
    except InvalidInputError:
        raise NotFoundError(unknown_name("reader", name, readers())) from None


def check_datasets_known(backend: Backend, wanted: Iterable[str]) -> None:
    """Raises NotFoundError for a dataset that is not there; names the known ones."""
    from geostore.wrangle import unknown_name

    known = {definition.name for definition in backend.datasets()}
    for name in wanted:
        if name not in known:
            raise NotFoundError(unknown_name("dataset", name, known))


def check_where_known(backend: Backend, expression: Expression) -> None:
    """Raises NotFoundError for a dataset of an expression that is not there."""
    from geostore.query import OneOf, leaves

    datasets = [
        leaf for leaf in leaves(expression) if isinstance(leaf, OneOf) and leaf.column == "dataset"
    ]
    if datasets:
        check_datasets_known(backend, (name for leaf in datasets for name in leaf.values))


def _bands_asked(query: Query) -> tuple[str, ...]:
    """Bands that a query names, in its own predicate or in an expression."""
    from geostore.query import HasBands, leaves

    if query.where is None:
        return query.bands
    found = (leaf.bands for leaf in leaves(query.where) if isinstance(leaf, HasBands))
    return tuple(dict.fromkeys((*query.bands, *(name for bands in found for name in bands))))


def check_bands_known(backend: Backend, query: Query) -> None:
    """After a query found nothing: raises NotFoundError if no tile has a band that it asked for.

    A band that only tiles outside the query have is no mistake: the answer is empty.
    """
    from geostore.query import Query
    from geostore.wrangle import unknown_name

    unknown = [name for name in _bands_asked(query) if not backend.count(Query(bands=(name,)))]
    if not unknown:
        return
    known: set[str] = set()
    for batch in backend.query(Query()):
        for schema in {id(schema): schema for schema in batch.schema}.values():
            known |= schema.names
    if known:  # a store without tiles knows no bands yet, so nothing is wrong with the name
        raise NotFoundError(unknown_name("band", unknown[0], known))


def time_text(moment: datetime | None) -> str | None:
    """RFC 3339 with Z; None stays None."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@contextmanager
def shown_progress() -> Iterator[Callable[[IngestProgress], None]]:
    """A function that shows an ingest's steps on stderr: a bar on a terminal, else lines."""
    if not sys.stderr.isatty():
        yield _print_scene_once()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cells"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("opening", total=None)

        def show(step: IngestProgress) -> None:
            bar.update(
                task,
                description="searching" if step.is_search else Path(step.path).name[:40],
                completed=step.cells_done,
                total=None if step.is_search else step.cells_total,
            )

        yield show


def _print_scene_once() -> Callable[[IngestProgress], None]:
    """Without a terminal: a line when a scene begins and one when its last cell is done."""
    begun: set[str] = set()

    def show(step: IngestProgress) -> None:
        if step.is_search:
            return
        name = Path(step.path).name
        if step.scene not in begun:
            begun.add(step.scene)
            sys.stderr.write(f"geostore: {name}: {step.cells_total} cells\n")
        if step.cells_done == step.cells_total:
            sys.stderr.write(f"geostore: {name}: {step.tiles} tiles, {step.bytes} bytes\n")

    return show
