"""pgSTAC on a throw-away PostgreSQL, given the tiles of `million_tiles` as STAC items. By hand.

    apt-get install postgresql-15 postgresql-15-postgis-3
    pip install "pypgstac[psycopg]"
    python -m tests.benchmarks.pgstac_by_hand [--tiles N] [--boxes N] [--spread scattered|scenes]
        [--index-clouds] [--binaries /usr/lib/postgresql/15/bin] [--directory DIR]

It makes a cluster in a directory of its own that listens on a Unix socket there only (as root, the
user `postgres` runs it), migrates pgSTAC, loads items by `pypgstac load`, asks some of the fixed
boxes with three months and a cloud cover of at most 20 %, checks the answers, drains a collection
page by page, prints a table and takes everything away again.

Tiles without a time are left out: a STAC item needs one. pgSTAC is as `migrate` leaves it, with
indexes on place and on time; `--index-clouds` adds one on cloud cover.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import psycopg

from geostore.grid import GEOHASH
from geostore.query import Query
from geostore.types import NULL_TIME
from geostore.types.geo import datetime_from_us
from tests.benchmarks.million_queries import answer, boxes_of_size
from tests.benchmarks.million_tiles import (
    DATASETS,
    LENGTH,
    PLATFORMS,
    Spread,
    Tiles,
    make_tiles,
    scene_name,
)

LIMIT = 10_000
"""Items a page: pgSTAC gives no more."""
DRAINED = "modis"
PAGE = 1000
SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "2GB",
    "effective_cache_size": "8GB",
    "maintenance_work_mem": "512MB",
    "work_mem": "64MB",
    "max_wal_size": "16GB",
    "random_page_cost": "1.1",
    "jit": "off",
}


# ---------------------------------------------------------------- the database


class Cluster:
    """PostgreSQL in a directory, as long as the block runs."""

    def __init__(self, directory: Path, binaries: Path) -> None:
        self.directory = directory
        self._data = directory / "data"
        self._binaries = binaries
        self.environment = os.environ | {
            "PGHOST": str(directory),
            "PGUSER": "postgres",
            "PGDATABASE": "postgres",
        }

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            command = ["runuser", "-u", "postgres", "--", *command]
        with (self.directory / "log").open("ab") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, cwd="/")

    def start(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres")
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8")
        given = {**SETTINGS, "unix_socket_directories": str(self.directory)}
        options = " ".join(f"-c {name}='{value}'" for name, value in given.items())
        self._run("pg_ctl", "-D", str(self._data), "-w", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", "fast", "stop")

    def pypgstac(self, *arguments: str) -> float:
        """Runs it; seconds that it took, its start included."""
        started = time.perf_counter()
        done = subprocess.run(
            ["pypgstac", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"pypgstac {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
        return time.perf_counter() - started

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(
            host=str(self.directory),
            user="postgres",
            dbname="postgres",
            autocommit=True,
            options="-c search_path=pgstac,public",
        ) as connection:
            yield connection


# ---------------------------------------------------------------- items


def _text(time_us: int) -> str:
    return datetime_from_us(time_us).isoformat().replace("+00:00", "Z")


def _item_id(scene: int, geocode: str) -> str:
    return f"{scene_name(scene)}-{geocode}"


def items(tiles: Tiles) -> Iterator[dict[str, Any]]:
    """A STAC item for every tile with a known time."""
    bounds = GEOHASH.bounds_at(tiles.column.astype(np.int64), tiles.row.astype(np.int64), LENGTH)
    columns = (
        tiles.geocodes(),
        tiles.scene,
        tiles.dataset,
        tiles.platform,
        tiles.time_us,
        tiles.time_end_us,
        tiles.cloud,
        tiles.coverage,
        bounds,
    )
    for row in zip(*(column.tolist() for column in columns), strict=True):
        geocode, scene, dataset, platform, start, end, cloud, coverage, box = row
        if start == NULL_TIME:
            continue
        west, south, east, north = box
        properties: dict[str, Any] = {"datetime": _text(start), "geostore:coverage": coverage}
        if end not in {NULL_TIME, start}:
            properties |= {
                "datetime": None,
                "start_datetime": _text(start),
                "end_datetime": _text(end),
            }
        if PLATFORMS[platform] is not None:
            properties["platform"] = PLATFORMS[platform]
        if not math.isnan(cloud):
            properties["eo:cloud_cover"] = cloud
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        yield {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": _item_id(scene, geocode),
            "collection": DATASETS[dataset],
            "bbox": box,
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": properties,
            "links": [],
            "assets": {"tile": {"href": f"tiles/{geocode}.zarr.zip", "type": "application/zip"}},
        }


def _write_lines(path: Path, values: Iterator[dict[str, Any]]) -> int:
    count = 0
    with path.open("w") as out:
        for value in values:
            out.write(json.dumps(value) + "\n")
            count += 1
    return count


def _collections() -> Iterator[dict[str, Any]]:
    for name in DATASETS:
        yield {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": name,
            "description": name,
            "license": "other",
            "extent": {
                "spatial": {"bbox": [[-180, -90, 180, 90]]},
                "temporal": {"interval": [[None, None]]},
            },
            "links": [],
        }


# ---------------------------------------------------------------- questions


def _search(query: Query) -> str:
    """The argument of pgSTAC's `search`, for ids alone and all of them on one page."""
    assert query.region is not None
    assert query.time is not None
    assert query.time.start_us is not None
    assert query.time.end_us is not None
    return json.dumps(
        {
            "bbox": query.region.to_json()["bbox"],
            "datetime": f"{_text(query.time.start_us)}/{_text(query.time.end_us)}",
            "filter-lang": "cql2-json",
            "filter": {"op": "<=", "args": [{"property": "eo:cloud_cover"}, 20]},
            "limit": LIMIT,
            "fields": {"include": ["id"]},
        }
    )


_PLAIN = """
SELECT id FROM items
WHERE geometry && st_makeenvelope(%s, %s, %s, %s, 4326)
AND datetime <= %s AND end_datetime >= %s
AND to_float(content->'properties'->'eo:cloud_cover') <= 20
"""


def _plain(query: Query) -> tuple[Any, ...]:
    assert query.region is not None
    assert query.time is not None
    start, end = query.time.start_us, query.time.end_us
    assert start is not None
    assert end is not None
    box = query.region.to_json()["bbox"]
    return (*box, datetime_from_us(end), datetime_from_us(start))


def _check(tiles: Tiles, query: Query, found: list[str], what: str) -> None:
    ids = answer(tiles, query)
    geocodes = GEOHASH.geocodes_at(
        tiles.column[ids].astype(np.int64), tiles.row[ids].astype(np.int64), LENGTH
    )
    expected = sorted(map(_item_id, tiles.scene[ids].tolist(), geocodes.tolist()))
    if sorted(found) != expected:
        raise SystemExit(f"{what}: {len(found)} items, expected {len(expected)}: {query}")


def _ask(
    connection: psycopg.Connection[Any], tiles: Tiles, queries: tuple[Query, ...], rounds: int
) -> dict[str, list[float]]:
    """Seconds a box, of `search` and of a plain statement over pgSTAC's table of items."""
    seconds: dict[str, list[float]] = {"search()": [], "SQL over items": []}
    for turn in range(rounds + 1):  # the first one checks, and is not counted
        for query in queries:
            given = _search(query)
            started = time.perf_counter()
            row = connection.execute("SELECT * FROM search(%s)", (given,)).fetchone()
            between = time.perf_counter()
            rows = connection.execute(_PLAIN, _plain(query)).fetchall()
            ended = time.perf_counter()
            if not turn:
                assert row is not None
                features = [feature["id"] for feature in row[0]["features"]]
                _check(tiles, query, features, "search()")
                _check(tiles, query, [name for (name,) in rows], "SQL over items")
                continue
            seconds["search()"].append(between - started)
            seconds["SQL over items"].append(ended - between)
    return seconds


def _drain(connection: psycopg.Connection[Any], pages_max: int) -> tuple[int, float]:
    """(items, seconds) of a collection page by page, whole items, newest first."""
    asked: dict[str, Any] = {"collections": [DRAINED], "limit": PAGE}
    count = 0
    started = time.perf_counter()
    for _ in range(pages_max):
        row = connection.execute("SELECT * FROM search(%s)", (json.dumps(asked),)).fetchone()
        assert row is not None
        page = row[0]
        count += len(page["features"])
        token = _next_token(page)
        if token is None:
            break
        asked["token"] = token
    return count, time.perf_counter() - started


def _next_token(page: dict[str, Any]) -> str | None:
    if page.get("next"):
        return f"next:{page['next'].removeprefix('next:')}"
    for link in page.get("links", []):
        if link.get("rel") == "next":
            token = link.get("body", {}).get("token") or link["href"].partition("token=")[2]
            return str(token)
    return None


# ---------------------------------------------------------------- the run


def _load(cluster: Cluster, tiles: Tiles, *, index_clouds: bool) -> tuple[int, float]:
    """(items, seconds of `pypgstac load`)."""
    cluster.pypgstac("migrate")
    if index_clouds:
        with cluster.connection() as connection:
            connection.execute(
                "INSERT INTO queryables (name, definition, property_wrapper, property_index_type)"
                " VALUES ('eo:cloud_cover', '{\"type\": \"number\"}', 'to_float', 'BTREE')"
            )
    collections, lines = (
        cluster.directory / "collections.ndjson",
        cluster.directory / "items.ndjson",
    )
    _write_lines(collections, _collections())
    count = _write_lines(lines, items(tiles))
    cluster.pypgstac("load", "collections", str(collections), "--method", "insert")
    seconds = cluster.pypgstac("load", "items", str(lines), "--method", "insert")
    with cluster.connection() as connection:
        connection.execute("SELECT maintain_partitions()")
        made = connection.execute(
            "SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%to_float%eo:cloud_cover%'"
        ).fetchone()
        assert made is not None
        assert bool(made[0]) == index_clouds, f"{made[0]} indexes on cloud cover"
        connection.execute("VACUUM ANALYZE")
    return count, seconds


def _report(cluster: Cluster, tiles: Tiles, options: argparse.Namespace) -> None:
    count, load_s = _load(cluster, tiles, index_clouds=options.index_clouds)
    queries = boxes_of_size(tiles, 1000)[: options.boxes]
    with cluster.connection() as connection:
        version = connection.execute("SELECT get_version()").fetchone()
        server = connection.execute("SHOW server_version").fetchone()
        postgis = connection.execute("SELECT postgis_lib_version()").fetchone()
        size = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        seconds = _ask(connection, tiles, queries, options.rounds)
        drained, drain_s = _drain(connection, options.pages)
    assert version is not None
    assert server is not None
    assert postgis is not None
    assert size is not None
    rows = [len(answer(tiles, query)) for query in queries]
    print(
        f"pgSTAC {version[0]}, PostgreSQL {server[0]}, PostGIS {postgis[0]}; {options.spread},"
        f" {len(tiles):,} tiles, {count:,} items, {size[0] / 2**20:,.0f} MiB; {os.cpu_count()}"
        f" cores; {options.boxes} boxes of {int(np.median(rows)):,} items in the middle (at most"
        f" {max(rows):,}), {options.rounds} rounds\n"
    )
    print("| pgSTAC | measured |\n|---|---|")
    print(f"| load by `pypgstac load items` | {count / load_s:,.0f} items/s ({load_s:.0f} s) |")
    for name, each in seconds.items():
        p50, p95 = np.percentile(each, [50, 95]) * 1e3
        print(f"| box, 3 months, cloud: {name}, p50 / p95 | {p50:.2f} / {p95:.2f} ms |")
    print(
        f"| collection of {drained:,} items drained in pages of {PAGE:,} |"
        f" {drained / drain_s:,.0f} items/s |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=100_000)
    parser.add_argument("--boxes", type=int, default=100, help="how many of the 1,000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pages", type=int, default=100, help="at most so many are drained")
    parser.add_argument("--index-clouds", action="store_true")
    parser.add_argument("--spread", choices=get_args(Spread), default="scattered")
    parser.add_argument("--binaries", type=Path, default=Path("/usr/lib/postgresql/15/bin"))
    parser.add_argument("--directory", type=Path, help="where the cluster's own is made")
    options = parser.parse_args()
    tiles = make_tiles(options.tiles, options.spread)
    directory = Path(tempfile.mkdtemp(prefix="bench-pgstac-", dir=options.directory))
    directory.chmod(0o755)
    cluster = Cluster(directory, options.binaries)
    try:
        cluster.start()
        try:
            _report(cluster, tiles, options)
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
