"""What geostore's index is held against: SQLite, DuckDB, and numpy without any index.

Each holds the tiles of `million_tiles` as somebody who knows it well would lay them out, and
gives the ids of those that match a `geostore.query.Query` by the fastest way that it has in
Python. What does not depend on the data is done once a query and not timed: the SQL text,
ranges of cells, a polygon's preparation.

Cells are whole numbers everywhere, so that boxes are exact: a cell overlaps a box with more than
an edge if its column and row lie between two numbers (`million_queries.cell_ranges`). Polygons are
boxes first; then shapely tests the distinct cells that are left.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import apsw
import duckdb
import numpy as np
import numpy.typing as npt
import shapely

from geostore.query import PercentRange, Query
from geostore.query.predicate import schema_matches
from geostore.types import NULL_TIME
from tests.benchmarks.million_queries import Ids, cell_ranges, morton_range
from tests.benchmarks.million_tiles import (
    COLUMNS_ALL,
    DATASETS,
    LENGTH,
    PLATFORMS,
    ROWS_ALL,
    SCHEMAS,
    Tiles,
    scene_name,
)

__all__ = ["DuckDb", "NumpyScan", "Rival", "SqliteBtree", "SqliteRtree", "all_rivals"]

Found = list[int] | Ids | int
"""Ids in any order unless the query sorts, or how many."""
Ask = Callable[[], Found]

_CELL_BITS = 5 * LENGTH
_COLUMN_BITS = COLUMNS_ALL.bit_length() - 1
_CELL_MASK = (1 << _CELL_BITS) - 1
_COLUMN_MASK = COLUMNS_ALL - 1
_LAST_US = (1 << 62) - 1
_UNIT_US = 6 * 3600 * 1_000_000
"""The R*Tree's unit of time. Of 1 s, 1 h, 6 h, 1 d, 3 d and 7 d this is among the fastest for
both spreads: a node's box should be about as long in time as it is wide, in the tree's numbers."""


class Rival(ABC):
    """One contender."""

    name: str

    @abstractmethod
    def load(self, tiles: Tiles) -> None:
        """Takes the tiles in; makes indexes, statistics and all."""

    @abstractmethod
    def prepare(self, query: Query, *, count: bool) -> Ask | None:
        """The call that answers, or None where it has no structure for such a query."""

    @abstractmethod
    def close(self) -> None:
        """Gives back what it holds."""


# ---------------------------------------------------------------- what all are told


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A query in the numbers of the columns."""

    cells: tuple[int, int, int, int] | None
    """First and last column, first and last row."""
    polygon: Any | None
    """A prepared shapely geometry, if the place is no box."""
    morton: tuple[int, int] | None
    span: tuple[int, int] | None
    ranges: tuple[tuple[str, float, float], ...]
    """Of `cloud` and `coverage`."""
    codes: tuple[tuple[str, tuple[int, ...]], ...]
    """Of `dataset`, `platform` and `schema`."""
    scene: str | None


def _percent(name: str, bounds: PercentRange | None) -> tuple[tuple[str, float, float], ...]:
    if bounds is None:
        return ()
    low = 0.0 if bounds.minimum is None else float(np.float32(bounds.minimum))
    high = 100.0 if bounds.maximum is None else float(np.float32(bounds.maximum))
    return ((name, low, high),)


def _wanted(query: Query) -> _Wanted:
    cells = polygon = None
    if query.region is not None:
        (box,) = query.region.bboxes
        cells = cell_ranges(box)
        source = query.region.to_json()
        if "geometry" in source:
            polygon = shapely.from_geojson(_geojson(source["geometry"]))
            shapely.prepare(polygon)
    codes: list[tuple[str, tuple[int, ...]]] = []
    if query.datasets is not None:
        codes.append(("dataset", tuple(DATASETS.index(name) for name in query.datasets)))
    if query.platform is not None:
        codes.append(("platform", (PLATFORMS.index(query.platform),)))
    if query.bands:
        has = [i for i, schema in enumerate(SCHEMAS) if schema_matches(schema, query.bands)]
        codes.append(("schema", tuple(has)))
    span = None
    if query.time is not None:
        start, end = query.time.start_us, query.time.end_us
        span = (-_LAST_US if start is None else start, _LAST_US if end is None else end)
    return _Wanted(
        cells=cells,
        polygon=polygon,
        morton=None if query.geocode is None else morton_range(query.geocode),
        span=span,
        ranges=_percent("cloud", query.cloud) + _percent("coverage", query.coverage),
        codes=tuple(codes),
        scene=query.scene,
    )


def _geojson(geometry: dict[str, Any]) -> str:
    import json

    return json.dumps(geometry)


def _in_polygon(polygon: Any, cells: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which cells, `row << 13 | column`, overlap a polygon with more than their edge."""
    distinct, inverse = np.unique(cells, return_inverse=True)
    west = (distinct & _COLUMN_MASK) * (360.0 / COLUMNS_ALL) - 180.0
    north = 90.0 - (distinct >> _COLUMN_BITS) * (180.0 / ROWS_ALL)
    boxes = shapely.box(west, north - 180.0 / ROWS_ALL, west + 360.0 / COLUMNS_ALL, north)
    met = shapely.intersects(polygon, boxes)
    rim = np.flatnonzero(met)
    rim = rim[~shapely.contains_properly(polygon, boxes[rim])]
    met[rim] = ~shapely.touches(polygon, boxes[rim])
    return cast("npt.NDArray[np.bool_]", met[inverse])


def _known_times(tiles: Tiles) -> tuple[npt.NDArray[np.bool_], Ids]:
    """(which times are known, each tile's last moment)."""
    end = np.where(tiles.time_end_us == NULL_TIME, tiles.time_us, tiles.time_end_us)
    return tiles.time_us != NULL_TIME, end


def _scene_codes(tiles: Tiles) -> dict[str, int]:
    return {scene_name(code): code for code in range(int(tiles.scene.max(initial=0)) + 1)}


def _nullable(values: npt.NDArray[Any], known: npt.NDArray[np.bool_]) -> list[Any]:
    found: list[Any] = values.tolist()
    for i in np.flatnonzero(~known).tolist():
        found[i] = None
    return found


# ---------------------------------------------------------------- SQLite


def _ids(cursor: apsw.Cursor) -> list[int]:
    """All values of a cursor of one column: apsw's `get` makes no tuple a row."""
    found = cursor.get
    if isinstance(found, list):
        return found
    return [] if found is None else [cast("int", found)]


class _Sqlite(Rival):
    """Tables that both ways have, and how they are asked."""

    def __init__(self, path: Path | None = None) -> None:
        self._connection = apsw.Connection(
            ":memory:" if path is None else str(path / f"{type(self).__name__}.db")
        )
        execute = self._connection.execute
        execute("PRAGMA page_size = 4096")
        execute("PRAGMA cache_size = -4000000")
        if path is not None:
            execute("PRAGMA mmap_size = 8589934592")
            execute("PRAGMA synchronous = OFF")
            execute("PRAGMA locking_mode = EXCLUSIVE")
        self._cursor = self._connection.cursor()

    def close(self) -> None:
        self._connection.close()

    def _create(self, tiles: Tiles) -> None:
        """The table of tiles; `spell` is 0 for instants, 1 for some days, 2 for longer."""
        known, end = _known_times(tiles)
        length = np.where(known, end - tiles.time_us, 0)
        spell = (length > 0).astype(np.int8) + (length > 30 * 86_400_000_000)
        execute = self._connection.execute
        execute(
            "CREATE TABLE tiles (id INTEGER PRIMARY KEY, row INT, col INT, morton INT,"
            " spell INT, time_us INT, end_us INT, cloud REAL, coverage REAL,"
            " dataset INT, platform INT, schema INT, scene INT)"
        )
        columns = (
            range(len(tiles)),
            tiles.row.tolist(),
            tiles.column.tolist(),
            tiles.morton.tolist(),
            spell.tolist(),
            _nullable(tiles.time_us, known),
            _nullable(end, known),
            _nullable(tiles.cloud, ~np.isnan(tiles.cloud)),
            tiles.coverage.tolist(),
            tiles.dataset.tolist(),
            tiles.platform.tolist(),
            tiles.schema.tolist(),
            tiles.scene.tolist(),
        )
        self._insert("tiles", zip(*columns, strict=True), len(columns))
        longest = [int(length[spell == each].max(initial=0)) for each in range(3)]
        execute("CREATE TABLE spells (spell INTEGER PRIMARY KEY, longest_us INT)")
        self._insert("spells", list(enumerate(longest)), 2)

    def _insert(self, table: str, rows: Iterable[tuple[Any, ...]], width: int) -> None:
        with self._connection:
            self._connection.executemany(
                f"INSERT INTO {table} VALUES ({','.join('?' * width)})", rows
            )

    def _ask(self, sql: str, bindings: tuple[Any, ...], polygon: Any | None, *, count: bool) -> Ask:
        execute = self._cursor.execute
        if count and polygon is None:
            return lambda: cast("int", execute(sql, bindings).get)
        if polygon is None:
            return lambda: _ids(execute(sql, bindings))

        def ask() -> Found:
            packed = np.array(_ids(execute(sql, bindings)), dtype=np.int64)
            ids = packed[_in_polygon(polygon, packed & _CELL_MASK)] >> _CELL_BITS
            return len(ids) if count else ids

        return ask


def _result(query: Query, wanted: _Wanted, table: str, cell: str, *, count: bool) -> str:
    """What is selected: ids, their number, or ids packed with their cell."""
    if wanted.polygon is not None:
        return f"({table}.id << {_CELL_BITS}) | {cell}"
    return "count(*)" if count and query.limit is None else f"{table}.id"


def _filters(wanted: _Wanted) -> tuple[list[str], list[Any]]:
    """Tests on the table `tiles` for what is neither place nor time nor scene."""
    tests: list[str] = []
    bindings: list[Any] = []
    for name, low, high in wanted.ranges:
        if low > 0.0 and high < 100.0:
            tests.append(f"tiles.{name} BETWEEN ? AND ?")
            bindings += [low, high]
        elif low > 0.0:
            tests.append(f"tiles.{name} >= ?")
            bindings.append(low)
        else:
            tests.append(f"tiles.{name} <= ?")
            bindings.append(high)
    for name, codes in wanted.codes:
        if len(codes) == 1:
            tests.append(f"tiles.{name} = ?")
        else:
            tests.append(f"tiles.{name} IN ({','.join('?' * len(codes))})")
        bindings += codes
    return tests, bindings


_CLOUD_KEY = "coalesce(cloud, 1000.0)"
_TIME_KEY = f"coalesce(time_us, {_LAST_US})"
"""Unknown last: NULLS LAST would keep SQLite from reading an index in its order."""
_ORDERS = {
    "-time": " ORDER BY tiles.time_us DESC NULLS LAST, dataset, morton, scene LIMIT ?",
    "cloud": f" ORDER BY {_CLOUD_KEY}, {_TIME_KEY}, dataset, morton, scene LIMIT ?",
}


_DUCKDB_ORDERS = _ORDERS | {
    "cloud": " ORDER BY cloud NULLS LAST, time_us NULLS LAST, dataset, morton, scene LIMIT ?"
}


def _order(query: Query, orders: dict[str, str]) -> tuple[str, list[Any]]:
    if query.limit is None:
        return "", []
    assert query.sort is not None
    return orders[query.sort], [query.limit]


class SqliteBtree(_Sqlite):
    """One table and covering indexes, through apsw.

    A box is a range of columns in each of its rows, and a time that may overlap is sought among
    tiles of like length: both are joins with a small table, so that each step is one descent.
    """

    name = "SQLite B-tree"

    INDEXES = (
        "place ON tiles (row, col, time_us, end_us, cloud, coverage)",
        "cell ON tiles (morton, time_us, end_us)",
        "period ON tiles (spell, time_us, end_us, cloud)",
        "dataset_period ON tiles (dataset, spell, time_us, end_us)",
        f"dataset_cloud ON tiles (dataset, {_CLOUD_KEY}, {_TIME_KEY}, morton, scene)",
        "cloud ON tiles (cloud)",
        "coverage ON tiles (coverage)",
        "platform ON tiles (platform)",
        "schema ON tiles (schema)",
        "scene ON tiles (scene)",
    )

    def load(self, tiles: Tiles) -> None:
        self._create(tiles)
        execute = self._connection.execute
        execute("CREATE TABLE grid_rows (row INTEGER PRIMARY KEY)")
        self._insert("grid_rows", [(row,) for row in range(ROWS_ALL)], 1)
        execute("CREATE TABLE scenes (name TEXT PRIMARY KEY, code INT) WITHOUT ROWID")
        self._insert("scenes", _scene_codes(tiles).items(), 2)
        for index in self.INDEXES:
            execute(f"CREATE INDEX {index}")
        execute("ANALYZE")

    def prepare(self, query: Query, *, count: bool) -> Ask | None:
        wanted = _wanted(query)
        tests, others = _filters(wanted)
        if wanted.scene is not None:
            tests.append("tiles.scene = (SELECT code FROM scenes WHERE name = ?)")
            others.append(wanted.scene)
        source, first = "tiles", []
        if wanted.cells is not None:
            west, east, north, south = wanted.cells
            source = "grid_rows CROSS JOIN tiles INDEXED BY place"
            tests = [
                "grid_rows.row BETWEEN ? AND ?",
                "tiles.row = grid_rows.row",
                "tiles.col BETWEEN ? AND ?",
                *tests,
            ]
            first = [north, south, west, east]
        elif wanted.morton is not None:
            source = "tiles INDEXED BY cell"
            tests = ["tiles.morton BETWEEN ? AND ?", *tests]
            first = [*wanted.morton]
        bindings = [*first, *others]
        if wanted.span is not None:
            start, end = wanted.span
            if first:
                tests += ["tiles.time_us <= ?", "tiles.end_us >= ?"]
                bindings += [end, start]
            else:
                index = "dataset_period" if query.datasets is not None else "period"
                source = f"spells CROSS JOIN tiles INDEXED BY {index}"
                tests += [
                    "tiles.spell = spells.spell",
                    "tiles.time_us BETWEEN ? - spells.longest_us AND ?",
                    "tiles.end_us >= ?",
                ]
                bindings += [start, end, start]
        result = _result(
            query, wanted, "tiles", f"(tiles.row << {_COLUMN_BITS}) | tiles.col", count=count
        )
        order, limit = _order(query, _ORDERS)
        sql = f"SELECT {result} FROM {source}"
        if tests:
            sql += " WHERE " + " AND ".join(tests)
        return self._ask(sql + order, (*bindings, *limit), wanted.polygon, count=count)


class SqliteRtree(_Sqlite):
    """An R*Tree of column, row and time, and the table that settles the rest, through apsw.

    The tree holds 32-bit integers: cells exactly, time in units of six hours, so times are
    tested exactly in the table. What it leaves is joined by id, which is faster than auxiliary
    columns in the tree, and so is a tree without the cloud cover as a fourth dimension.
    """

    name = "SQLite R*Tree"

    def load(self, tiles: Tiles) -> None:
        self._create(tiles)
        known, end = _known_times(tiles)
        self._first_us = int(tiles.time_us[known].min(initial=0))
        unknown = (1 << 31) - 1  # past every time
        starts = np.where(known, (tiles.time_us - self._first_us) // _UNIT_US, unknown).tolist()
        ends = np.where(known, (end - self._first_us) // _UNIT_US, unknown).tolist()
        column, row = tiles.column.tolist(), tiles.row.tolist()
        self._connection.execute(
            "CREATE VIRTUAL TABLE places USING rtree_i32 (id, x0, x1, y0, y1, t0, t1)"
        )
        columns = (range(len(tiles)), column, column, row, row, starts, ends)
        self._insert("places", zip(*columns, strict=True), len(columns))
        self._connection.execute("ANALYZE")

    def prepare(self, query: Query, *, count: bool) -> Ask | None:
        wanted = _wanted(query)
        if wanted.cells is None and wanted.morton is None and wanted.span is None:
            return None
        assert wanted.scene is None, "no shape asks for a scene and a place"
        tests: list[str] = []
        bindings: list[Any] = []
        cells = wanted.cells or _prefix_ranges(query.geocode)
        if cells is not None:
            tests += ["x1 >= ?", "x0 <= ?", "y1 >= ?", "y0 <= ?"]
            bindings += cells
        if wanted.span is not None:
            start, end = (self._units(moment) for moment in wanted.span)
            tests += ["t1 >= ?", "t0 <= ?"]
            bindings += [start, end]
        others, values = _filters(wanted)
        if wanted.span is not None:
            others += ["tiles.time_us <= ?", "tiles.end_us >= ?"]
            values += [wanted.span[1], wanted.span[0]]
        source = "places"
        if others or query.limit is not None:
            source = "places CROSS JOIN tiles ON tiles.id = places.id"
        result = _result(query, wanted, "places", f"(y0 << {_COLUMN_BITS}) | x0", count=count)
        order, limit = _order(query, _ORDERS)
        sql = f"SELECT {result} FROM {source} WHERE " + " AND ".join(tests + others) + order
        return self._ask(sql, (*bindings, *values, *limit), wanted.polygon, count=count)

    def _units(self, moment: int) -> int:
        far = (1 << 31) - 2
        return max(-far, min(far, (moment - self._first_us) // _UNIT_US))


def _prefix_ranges(prefix: str | None) -> tuple[int, int, int, int] | None:
    if prefix is None:
        return None
    from geostore.grid import GEOHASH

    return cell_ranges(GEOHASH.bounds(prefix))


# ---------------------------------------------------------------- DuckDB


class DuckDb(Rival):
    """Two copies of a table in memory, in order of time and of place, so that blocks can be left
    out by their minima and maxima: the first for queries that have a time, 1.0 to 1.6 ms by 1.2
    to 1.9 for the box with time; the second for boxes and prefixes, a third of the time.

    Statements are prepared; ids come as a numpy array, as fast as any way out.
    """

    name = "DuckDB"

    def __init__(self) -> None:
        self._connection = duckdb.connect(":memory:")
        self._statements: dict[str, str] = {}

    def close(self) -> None:
        self._connection.close()

    def load(self, tiles: Tiles) -> None:
        known, end = _known_times(tiles)
        columns = {
            "id": np.arange(len(tiles), dtype=np.int64),
            "row": tiles.row.astype(np.int16),
            "col": tiles.column.astype(np.int16),
            "morton": tiles.morton.astype(np.int32),
            "start": tiles.time_us,
            "known": known,
            "end_us": end,
            "cloud_given": tiles.cloud,
            "coverage": tiles.coverage,
            "dataset": tiles.dataset,
            "platform": tiles.platform,
            "schema": tiles.schema,
            "scene": tiles.scene,
        }
        execute = self._connection.execute
        self._connection.register("given", columns)
        for name, order in (("by_time", "time_us"), ("by_place", "morton")):
            execute(
                f"CREATE TABLE {name} AS SELECT id, row, col, morton,"
                " CASE WHEN known THEN start END AS time_us,"
                " CASE WHEN known THEN end_us END AS end_us,"
                " CASE WHEN NOT isnan(cloud_given) THEN cloud_given END AS cloud,"
                f" coverage, dataset, platform, schema, scene FROM given ORDER BY {order}"
            )
        self._connection.unregister("given")
        self._scenes = _scene_codes(tiles)
        execute("CREATE INDEX scene ON by_time (scene)")

    def _statement(self, sql: str) -> str:
        name = self._statements.get(sql)
        if name is None:
            name = self._statements[sql] = f"asked_{len(self._statements)}"
            self._connection.execute(f"PREPARE {name} AS {sql}")
        return name

    def prepare(self, query: Query, *, count: bool) -> Ask | None:
        wanted = _wanted(query)
        tests, values = _filters(wanted)
        if wanted.cells is not None:
            tests += ["col BETWEEN ? AND ?", "row BETWEEN ? AND ?"]
            values += wanted.cells
        if wanted.morton is not None:
            tests.append("morton BETWEEN ? AND ?")
            values += wanted.morton
        if wanted.span is not None:
            tests += ["time_us <= ?", "end_us >= ?"]
            values += [wanted.span[1], wanted.span[0]]
        if wanted.scene is not None:  # a subquery would keep it from its index
            tests.append("scene = ?")
            values.append(self._scenes[wanted.scene])
        result = "count(*) AS id" if count and wanted.polygon is None else "id"
        if wanted.polygon is not None:
            result += f", (row::INTEGER << {_COLUMN_BITS}) | col AS cell"
        has_place = wanted.cells is not None or wanted.morton is not None
        table = "by_place" if has_place and wanted.span is None else "by_time"
        order, limit = _order(query, _DUCKDB_ORDERS)
        where = f" WHERE {' AND '.join(tests)}" if tests else ""
        name = self._statement(f"SELECT {result} FROM {table} AS tiles{where}{order}")
        given = (*values, *limit)
        texts = ", ".join(map(str, given))
        sql = f"EXECUTE {name}({texts})" if given else f"EXECUTE {name}"
        return self._ask(sql, wanted.polygon, count=count)

    def _ask(self, sql: str, polygon: Any | None, *, count: bool) -> Ask:
        execute = self._connection.execute
        if count and polygon is None:
            return lambda: cast("tuple[int]", execute(sql).fetchone())[0]
        if polygon is None:
            return lambda: cast("Ids", execute(sql).fetchnumpy()["id"])

        def ask() -> Found:
            found = execute(sql).fetchnumpy()
            ids = found["id"][_in_polygon(polygon, found["cell"])]
            return len(ids) if count else cast("Ids", ids)

        return ask


# ---------------------------------------------------------------- numpy


class NumpyScan(Rival):
    """Every predicate over every row of packed columns: what no index costs."""

    name = "numpy scan"

    def load(self, tiles: Tiles) -> None:
        known, end = _known_times(tiles)
        self._column = tiles.column.astype(np.int16)
        self._row = tiles.row.astype(np.int16)
        self._start = np.where(known, tiles.time_us, _LAST_US)
        self._end = np.where(known, end, -_LAST_US)
        self._percent = {"cloud": tiles.cloud, "coverage": tiles.coverage}
        self._codes = {
            "dataset": tiles.dataset,
            "platform": tiles.platform,
            "schema": tiles.schema,
        }
        self._scene = tiles.scene
        self._scenes = _scene_codes(tiles)
        self._morton = tiles.morton.astype(np.int32)
        self._tiles = tiles

    def close(self) -> None:
        """Columns go with the object."""

    def prepare(self, query: Query, *, count: bool) -> Ask | None:
        wanted = _wanted(query)

        def ask() -> Found:
            mask = self._mask(wanted)
            if wanted.polygon is None and count:
                return int(np.count_nonzero(mask))
            ids = np.flatnonzero(mask)
            if wanted.polygon is not None:
                cells = self._row[ids].astype(np.int64) << _COLUMN_BITS | self._column[ids]
                ids = ids[_in_polygon(wanted.polygon, cells)]
            if query.limit is not None:
                ids = self._first(ids, query)
            return len(ids) if count else ids

        return ask

    def _mask(self, wanted: _Wanted) -> npt.NDArray[np.bool_]:
        masks: list[npt.NDArray[np.bool_]] = []
        if wanted.cells is not None:
            west, east, north, south = wanted.cells
            column, row = self._column, self._row
            masks += [column >= west, column <= east, row >= north, row <= south]
        if wanted.morton is not None:
            masks += [self._morton >= wanted.morton[0], self._morton <= wanted.morton[1]]
        if wanted.span is not None:
            masks += [self._start <= wanted.span[1], self._end >= wanted.span[0]]
        for name, low, high in wanted.ranges:
            values = self._percent[name]
            masks.append(values <= np.float32(high))  # NaN is in no range
            if low > 0.0:
                masks.append(values >= np.float32(low))
        for name, codes in wanted.codes:
            own = [self._codes[name] == code for code in codes]
            masks.append(np.logical_or.reduce(own) if own else np.zeros(len(self._row), np.bool_))
        if wanted.scene is not None:
            masks.append(self._scene == self._scenes[wanted.scene])
        mask = masks[0]
        for other in masks[1:]:
            mask &= other
        return mask

    def _first(self, ids: Ids, query: Query) -> Ids:
        limit = query.limit
        assert limit is not None
        start = self._start[ids]
        if query.sort == "-time":
            primary: npt.NDArray[Any] = np.where(start == _LAST_US, _LAST_US, -start)
        else:
            cloud = self._percent["cloud"][ids]
            primary = np.where(np.isnan(cloud), np.float32(math.inf), cloud)
        if len(ids) > limit:  # whatever lies behind the last of the first needs no sorting
            first = np.flatnonzero(primary <= np.partition(primary, limit - 1)[limit - 1])
            ids, start, primary = ids[first], start[first], primary[first]
        tiles = self._tiles
        keys = (tiles.scene[ids], tiles.morton[ids], tiles.dataset[ids], start, primary)
        return ids[np.lexsort(keys)][:limit]


def all_rivals(path: Path | None = None) -> list[Rival]:
    """One of each; SQLite's files under `path`, or in memory."""
    return [SqliteBtree(path), SqliteRtree(path), DuckDb(), NumpyScan()]
