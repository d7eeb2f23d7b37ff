"""One congruence suite over both backends: the same commands, the same lines.

Made-up scenes go into an embedded store and into a cluster of three processes that keeps two
copies, each through another node; then every way out must say the same but for `nodes`.
`tests/oracle/test_queries.py` asks more of real scenes, in a cluster that keeps one copy.
`CONGRUENCE=full` plays this with one copy too.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr

import geostore
from geostore.demo import scene_path
from tests.local_clusters import RunningCluster, done, processes_of, run, running_cluster

NODES = ("n1", "n2", "n3")
DATASETS = (
    ("hash", "geohash", 6, 6),
    ("wide", "geohash", 6, 3),
    ("quad", "quadtile", 14, 13),
)
"""Name, scheme, cell length, placement length."""
SECONDS = re.compile(r"\b[0-9.]+ s\b")


COPIES = (1, 2) if os.environ.get("CONGRUENCE") == "full" else (2,)
EACH_CLUSTER = pytest.mark.parametrize("pair", COPIES, indirect=True)
"""By the number of copies."""
EACH_NODE = pytest.mark.parametrize(
    ("pair", "node"), list(product(COPIES, NODES)), indirect=["pair"]
)


@dataclass(frozen=True)
class Pair:
    """An embedded store and a cluster that were told the same."""

    embedded: str
    cluster: RunningCluster
    ingested: dict[str, list[dict[str, Any]]]
    """Target kind (`embedded`, `cluster`) to the lines of its ingests."""

    def both(self, node: str, *arguments: object, fails: bool = False) -> tuple[str, str]:
        """What a command prints over the embedded store and over the cluster through a node."""
        target = self.cluster.targets[NODES.index(node)]
        one, three = run("--store", self.embedded, *arguments), run("--store", target, *arguments)
        assert (one.code, one.code != 0) == (three.code, fails), (one, three)
        said = [SECONDS.sub("? s", text) for text in (one.stderr, three.stderr)]
        assert said[1].replace(target, self.embedded) == said[0]
        return one.stdout, three.stdout


def scenes(folder: Path, write_raster: Callable[..., Path]) -> list[Path]:
    """Three rasters of one place at two times; one with a hole, one beside, one without a time."""
    random = np.random.default_rng(3)
    paths = []
    for name, time, east, hole, bands in (
        ("january", "2016:01:12 16:06:42", 0.0, 0, ("red", "nir")),
        ("february", "2016:02:11 16:05:00", 0.0, 90, ("red", "nir")),
        ("beside", "2016:01:12 16:06:42", 4_000.0, 30, ("red",)),
        ("timeless", None, 0.0, 0, ("red", "nir", "blue")),
    ):
        data = random.integers(1, 4000, (len(bands), 300, 260)).astype("uint16")
        data[:, :, :hole] = 0
        path = write_raster(
            folder / f"{name}.tif",
            data,
            nodata=0,
            transform=(10.0, 0.0, 500_000.0 + east, 0.0, -10.0, 4_200_000.0),
            tags={"TIFFTAG_DATETIME": time} if time else {},
            descriptions=bands,
        )
        paths.append(path)
    return paths


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def without(rows: list[dict[str, Any]], *fields: str) -> list[list[tuple[str, Any]]]:
    """Rows with their fields in order, but some."""
    return [[item for item in row.items() if item[0] not in fields] for row in rows]


def made_pair(folder: Path, cluster: RunningCluster, write_raster: Callable[..., Path]) -> Pair:
    """The scenes in both; every dataset and scene goes into the cluster through another node."""
    paths = scenes(folder, write_raster)
    embedded = str(folder / "store")
    ingested: dict[str, list[dict[str, Any]]] = {"embedded": [], "cluster": []}
    for kind, targets in (("embedded", [embedded] * 3), ("cluster", cluster.targets)):
        for number, (name, scheme, length, placement) in enumerate(DATASETS):
            done(
                *("--store", targets[number % 3], "dataset", "create", name, "--scheme", scheme),
                *("--length", length, "--placement", placement, "--resolution", 10),
            )
        for number, path in enumerate(paths):
            for name, *_ in DATASETS:
                ran = done("--store", targets[number % 3], "ingest", path, "--dataset", name)
                ingested[kind] += lines(ran.stdout)
    return Pair(embedded, cluster, ingested)


@pytest.fixture(scope="module")
def pair_of(
    tmp_path_factory: pytest.TempPathFactory, write_raster: Callable[..., Path]
) -> Iterator[Callable[[int], Pair]]:
    """The pair whose cluster keeps so many copies; made when first asked for."""
    with ExitStack() as stack:

        @cache
        def make(copies: int) -> Pair:
            folder = tmp_path_factory.mktemp("congruence")
            cluster = running_cluster(folder / "cluster", nodes=3, replicas=copies)
            return made_pair(folder, stack.enter_context(cluster), write_raster)

        yield make


@pytest.fixture
def pair(request: pytest.FixtureRequest, pair_of: Callable[[int], Pair]) -> Pair:
    return pair_of(request.param)


# ---------------------------------------------------------------- in


@EACH_CLUSTER
def test_ingests_report_the_same(pair: Pair) -> None:
    one, three = pair.ingested["embedded"], pair.ingested["cluster"]
    assert without(three, "seconds") == without(one, "seconds")
    assert {line["status"] for line in one} == {"ingested"}
    tiles = lines(done("--store", pair.cluster.target, "query").stdout)
    assert len(tiles) == sum(line["tiles"] for line in one) > 100
    ring = pair.cluster.ring()
    assert {row["nodes"][0] for row in tiles} == set(NODES), "a node without a tile shows little"
    placements = {name: placement for name, _, _, placement in DATASETS}
    for row in tiles:
        assert row["nodes"] == ring.holders(row["geocode"][: placements[row["dataset"]]])


@EACH_NODE
def test_ingests_again_and_of_what_is_no_scene_report_the_same(
    pair: Pair, node: str, tmp_path: Path
) -> None:
    (source,) = {line["path"] for line in pair.ingested["embedded"] if "january" in line["path"]}
    broken = tmp_path / "broken.tif"
    broken.write_bytes(Path(source).read_bytes()[:5000])
    (tmp_path / "notes.txt").write_text("no scene")
    where = ("--dataset", "hash", "--workers", 1)
    for fails, arguments in (
        (False, (source, *where)),
        (False, (source, "--replace", *where)),
        (True, (broken, source, *where)),
        (True, (tmp_path, *where)),
        (True, (source, "--dataset", "hash", "--length", 4)),
        (True, (tmp_path / "nowhere.tif", *where)),
        (False, (source, "--dry-run", "--dataset", "hash")),
        (True, (source, "--dataset", "quad", "--max-tiles", 2)),
    ):
        # Quiet: how often progress is told depends on the time that passes.
        one, three = pair.both(node, "-q", "ingest", *arguments, fails=fails)
        assert without(lines(three), "seconds") == without(lines(one), "seconds"), arguments
    one, three = pair.both(node, "query", "--count")
    assert three == one


def changed_scene(folder: Path) -> Path:
    """The demo's scene with one more line in its metadata: another version of it."""
    path = folder / scene_path().name
    with zipfile.ZipFile(scene_path()) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            data = old.read(member)
            if member.filename.endswith(("MTD_MSIL1C.xml", "MTD_TL.xml")):
                data += b"<!-- delivered again -->\n"
            new.writestr(member, data)
    return path


@EACH_CLUSTER
def test_a_scene_is_replaced_and_a_dataset_deleted_alike(pair: Pair, tmp_path: Path) -> None:
    again = changed_scene(tmp_path)
    for number, (status, arguments) in enumerate(
        (
            ("ingested", (scene_path(),)),
            ("failed", (again,)),
            ("ingested", (again, "--replace")),
            ("unchanged", (again,)),
        )
    ):
        node = NODES[number % 3]
        one, three = pair.both(node, "-q", "ingest", *arguments, fails=status == "failed")
        assert without(lines(three), "seconds") == without(lines(one), "seconds")
        assert [line["status"] for line in lines(one)] == [status]
        one, three = pair.both(NODES[(number + 1) % 3], "query", "--dataset", "sentinel-2-l1c")
        assert without(lines(three), "nodes") == without(lines(one), "nodes")
        assert one
    one, three = pair.both("n2", "dataset", "delete", "sentinel-2-l1c")
    assert three == one
    for node in NODES:
        one, three = pair.both(node, "dataset", "list")
        assert [line["name"] for line in lines(one)] == [line["name"] for line in lines(three)]
        pair.both(node, "query", "--dataset", "sentinel-2-l1c", fails=True)


# ---------------------------------------------------------------- rows out

WHOLE = ()
PLACE = ("--bbox", "-75.0,37.92,-74.985,37.94")
HERE = {
    "op": "s_intersects",
    "args": [{"property": "geometry"}, {"bbox": [-75.0, 37.92, -74.985, 37.94]}],
}
JANUARY = {"op": "<", "args": [{"property": "datetime"}, {"date": "2016-02-01"}]}
EITHER = {"op": "or", "args": [HERE, {"op": "not", "args": [JANUARY]}]}
QUERIES: tuple[tuple[object, ...], ...] = (
    WHOLE,
    PLACE,
    ("--dataset", "hash,quad"),
    ("--geocode", "dqcp"),
    ("--time", "2016-01"),
    ("--coverage", "..99.5"),
    ("--cloud", "..20"),
    ("--bands", "nir"),
    ("--scene", "none-such"),
    *(("--sort", sort) for sort in ("time", "-time", "cloud", "-cloud", "coverage", "-coverage")),
    *(("--limit", limit) for limit in (0, 1, 7, 10_000)),
    ("--sort", "-coverage", "--limit", 11, "--time", "2016"),
    ("--filter", json.dumps(HERE), "--dataset", "hash"),
    ("--filter", json.dumps(EITHER), "--sort", "-coverage", "--limit", 40),
)


@EACH_NODE
def test_queries_give_the_same_lines(pair: Pair, node: str) -> None:
    for query in QUERIES:
        one, three = pair.both(node, "query", *query)
        assert without(lines(three), "nodes") == without(lines(one), "nodes"), query
        one, three = pair.both(node, "query", *query, "--count")
        assert three == one, query


def _csv(text: bytes) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(text.decode())))


def _geojson(text: bytes) -> list[dict[str, Any]]:
    features: list[dict[str, Any]] = json.loads(text)["features"]
    for feature in features:
        feature.update(feature.pop("properties"))
    return features


@EACH_NODE
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--by", "month,dataset"),
        ("--by", "geocode:6,day"),
        ("--by", "scene", "--coverage", "50.."),
        ("--dataset", "quad", "--by", "geocode:12", "--time", "2016-01"),
        ("--time", "1999"),
    ],
    ids=str,
)
def test_invariant_2_summaries_are_the_same(
    pair: Pair, node: str, arguments: tuple[object, ...]
) -> None:
    one, three = pair.both(node, "query", "--summary", *arguments)
    assert three == one
    assert bool(lines(one)) == ("1999" not in arguments)


def _parquet(text: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(text)).to_pylist()
    return rows


@EACH_NODE
@pytest.mark.parametrize("read", [_csv, _geojson, _parquet])
def test_all_formats_hold_the_same(
    pair: Pair, node: str, read: Callable[[bytes], list[dict[str, Any]]]
) -> None:
    target = pair.cluster.targets[NODES.index(node)]
    arguments = ("query", "--sort", "-coverage", "--format", read.__name__[1:])
    one = read(done("--store", pair.embedded, *arguments).output)
    three = read(done("--store", target, *arguments).output)
    assert len(one) > 100
    assert without(three, "nodes") == without(one, "nodes")


@EACH_NODE
def test_datasets_are_listed_and_shown_alike(pair: Pair, node: str) -> None:
    # Each store gave the dataset an id and a date of its own.
    one, three = pair.both(node, "dataset", "list")
    assert len(lines(one)) >= len(DATASETS)
    assert without(lines(three), "id", "created") == without(lines(one), "id", "created")
    for name, *_ in DATASETS:
        one, three = pair.both(node, "dataset", "show", name)
        assert without(lines(three), "id", "created") == without(lines(one), "id", "created")


@EACH_NODE
@pytest.mark.parametrize(
    "arguments",
    [
        ("query", "--dataset", "none-such"),
        ("query", "--bands", "B99"),
        ("query", "--geocode", "dqa!"),
        ("query", "--sort", "size"),
        ("query", "--bbox", "0,10,5,-10"),
        ("query", "--filter", '{"op": "=", "args": [{"property": "collection"}, "none-such"]}'),
        ("dataset", "show", "none-such"),
        ("dataset", "delete", "none-such"),
        ("dataset", "create", "hash"),
        ("ring", "--dataset", "hash", "--geocode", "d"),
    ],
)
def test_errors_are_told_alike(pair: Pair, node: str, arguments: tuple[object, ...]) -> None:
    pair.both(node, *arguments, fails=True)


@EACH_NODE
def test_a_geocode_is_located_where_its_tiles_are(pair: Pair, node: str) -> None:
    ring = pair.cluster.ring()
    for name, _, _, placement in DATASETS:
        (first, *_) = lines(pair.both(node, "query", "--dataset", name, "--limit", 1)[1])
        geocode = first["geocode"]
        one, three = pair.both(node, "ring", "--dataset", name, "--geocode", geocode)
        (told,) = lines(three)
        assert told["nodes"] == ring.holders(geocode[:placement])
        (alone,) = lines(one)
        assert [told[key] for key in ("slot", "tiles")] == [alone[key] for key in ("slot", "tiles")]


# ---------------------------------------------------------------- pixels out


def contents(folder: Path) -> dict[str, str]:
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.is_file()
    }


@EACH_CLUSTER
@pytest.mark.parametrize(
    ("node", "options"),
    [
        ("n1", ("--as", "cog", "--time", "2016-01")),
        ("n2", ("--as", "cog", "--mosaic", "--bands", "red")),
        ("n3", ("--as", "npy", "--time", "2016")),
        ("n1", ("--as", "zarr", "--bands", "red", "--time", "2016")),
    ],
)
def test_exports_are_the_same_bytes(
    pair: Pair, node: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    made = []
    for number, target in enumerate((pair.embedded, pair.cluster.targets[NODES.index(node)])):
        out = tmp_path / str(number) / ("out.tif" if "--mosaic" in options else "out")
        out.parent.mkdir()
        done("--store", target, "export", "--dataset", "quad", "--out", out, *options)
        made.append(contents(out))
    assert made[0]
    assert made[1] == made[0]


@EACH_NODE
def test_pixels_read_alike(pair: Pair, node: str) -> None:
    target = pair.cluster.targets[NODES.index(node)]
    with geostore.open(pair.embedded, mode="r") as one, geostore.open(target, mode="r") as three:
        pairs = zip(one.query(), three.query(), strict=True)
        for number, (mine, theirs) in enumerate(pairs):
            assert (mine.dataset, mine.geocode, mine.scene) == (
                theirs.dataset, theirs.geocode, theirs.scene
            )  # fmt: skip
            if number % 3 != NODES.index(node):
                continue  # every tile is read through one of the nodes
            alone, ring = mine.read(), theirs.read()
            assert np.array_equal(alone.data, ring.data)
            assert np.array_equal(alone.mask, ring.mask)
            assert (alone.crs, alone.transform, alone.bands) == (
                ring.crs,
                ring.transform,
                ring.bands,
            )


@EACH_NODE
def test_tables_and_cubes_are_the_same(pair: Pair, node: str) -> None:
    target = pair.cluster.targets[NODES.index(node)]
    with geostore.open(pair.embedded, mode="r") as one, geostore.open(target, mode="r") as three:
        for mine, theirs in (
            (one.query(), three.query()),
            (one.query(time="2016", sort="-cloud"), three.query(time="2016", sort="-cloud")),
            (one.query(scene="none-such"), three.query(scene="none-such")),
        ):
            assert (
                theirs.to_pandas()
                .drop(columns="nodes")
                .equals(mine.to_pandas().drop(columns="nodes"))
            )
            assert theirs.to_arrow().drop(["nodes"]).equals(mine.to_arrow().drop(["nodes"]))
        for name, *_ in DATASETS:
            cubes = [
                store.query(dataset=name, time="2016").to_xarray(bands=["red"])
                for store in (one, three)
            ]
            xr.testing.assert_identical(cubes[1], cubes[0])
            mosaics = [
                store.query(dataset=name, sort="-coverage", bands=["red"]).mosaic(["red"]).read()
                for store in (one, three)
            ]
            assert np.array_equal(mosaics[0].data, mosaics[1].data)
            assert np.array_equal(mosaics[0].mask, mosaics[1].mask)


@EACH_NODE
def test_a_lazy_cube_is_the_same(pair: Pair, node: str) -> None:
    target = pair.cluster.targets[NODES.index(node)]
    with geostore.open(pair.embedded, mode="r") as one, geostore.open(target, mode="r") as three:
        whole = one.query(dataset="quad").to_xarray(bands=["red"], groupby="scene")
        lazy = three.query(dataset="quad").to_xarray(bands=["red"], groupby="scene", chunks={})
        xr.testing.assert_identical(lazy.compute(), whole)


# ---------------------------------------------------------------- who is asked


def explained(pair: Pair, node: str, *query: object) -> tuple[dict[str, Any], dict[str, Any]]:
    one, three = pair.both(node, "query", *query, "--explain", "--format", "jsonl")
    return json.loads(one), json.loads(three)


@EACH_NODE
def test_invariant_6_a_query_asks_the_first_replicas_of_its_slots(pair: Pair, node: str) -> None:
    ring, target = pair.cluster.ring(), pair.cluster.targets[NODES.index(node)]
    stored = lines(done("--store", pair.embedded, "query").stdout)

    def check(name: str, placement_key: str, *place: object) -> None:
        query = ("--dataset", name, *place, "--explain", "--format", "jsonl")
        told = json.loads(done("--store", target, "query", *query).stdout)
        (asked,) = ring.asked([placement_key])
        assert told["nodes_asked"] == [asked], query
        assert told["nodes_skipped"] == [each for each in ring.names if each != asked]
        assert told["slots_matched"] == 1
        assert told["nodes"][0]["rows"] >= 1

    for name, _, length, placement in DATASETS:
        for row in [row for row in stored if row["dataset"] == name][::13]:
            cell, box = row["geocode"], row["bbox"]
            middle = f"{(box[0] + box[2]) / 2},{(box[1] + box[3]) / 2}"
            key = cell[:placement]
            check(name, key, "--geocode", cell)
            check(name, key, "--geocode", cell, "--exact")
            check(name, key, "--bbox", f"{middle},{middle}")
            check(name, key, "--bbox", ",".join(map(str, box)), "--coverage", "0..")
            if placement < length:
                check(name, key, "--geocode", cell[:-1])


@EACH_NODE
def test_invariant_6_a_filter_asks_the_nodes_of_either_place(pair: Pair, node: str) -> None:
    ring, target = pair.cluster.ring(), pair.cluster.targets[NODES.index(node)]
    stored = lines(done("--store", pair.embedded, "query", "--dataset", "hash").stdout)
    cells = [row["geocode"] for row in stored]
    middles = {
        row["geocode"]: [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
        for row in stored
        for box in (row["bbox"],)
    }
    for first, other in zip(cells[::31], cells[7::31], strict=False):
        point = {"type": "Point", "coordinates": middles[other]}
        either = [
            {"op": "=", "args": [{"property": "geocode"}, first]},
            {"op": "s_intersects", "args": [{"property": "geometry"}, point]},
        ]
        condition = json.dumps({"op": "or", "args": either})
        query = ("--dataset", "hash", "--filter", condition, "--explain", "--format", "jsonl")
        told = json.loads(done("--store", target, "query", *query).stdout)
        assert told["nodes_asked"] == list(ring.asked(sorted({first, other})))
        assert told["slots_matched"] == len({first, other})
        assert told["rows_matched"] == cells.count(first) + cells.count(other)


def check_explained(pair: Pair, one: dict[str, Any], three: dict[str, Any]) -> None:
    assert sorted(three["nodes_asked"] + three["nodes_skipped"]) == list(NODES)
    assert [each["name"] for each in three["nodes"]] == three["nodes_asked"]
    assert sum(each["slots"] for each in three["nodes"]) == three["slots_matched"]
    assert three["predicates"] == one["predicates"]
    if not (three["ended_early"] or one["ended_early"]):  # at the limit, on each node by itself
        assert three["rows_matched"] == one["rows_matched"]
    assert three["rows_matched"] <= three["rows_total"] <= one["rows_total"]


@EACH_NODE
@pytest.mark.parametrize("query", [WHOLE, ("--limit", 5), ("--time", "2016-01"), PLACE])
def test_explain_counts_no_copy_twice(pair: Pair, node: str, query: tuple[object, ...]) -> None:
    one, three = explained(pair, node, *query)
    check_explained(pair, one, three)
    assert three["rows_matched"] > 5
    if query is not PLACE:
        assert three["rows_total"] == one["rows_total"]
        assert three["nodes_asked"] == list(pair.cluster.ring().names)


@EACH_NODE
def test_explain_is_told_to_people(pair: Pair, node: str) -> None:
    _, text = pair.both(node, "query", "--dataset", "hash", "--geocode", "dqcp", "--explain")
    (asked,) = [line for line in text.splitlines() if line.startswith("nodes asked: ")]
    assert "; skipped: " in asked
    assert "slots asked about: " in text


# ---------------------------------------------------------------- up and down


def test_cluster_down_leaves_no_process(tmp_path: Path) -> None:
    directory = tmp_path / "a cluster"
    with running_cluster(directory, nodes=3, replicas=1) as cluster:
        began = cluster.pids()
        pids = list(began.values())
        assert len(processes_of(directory, pids)) >= 3
        kill(began["n2"])
        assert sorted(cluster.pids()) == ["n1", "n3"]
        ran = done("cluster", "up", "--dir", directory, "-q")
        assert ran.stdout.strip() == cluster.target
        again = cluster.pids()
        assert (again["n1"], again["n3"]) == (began["n1"], began["n3"])
        assert again["n2"] != began["n2"]
        pids.append(again["n2"])
        kill(again["n1"])
        assert done("cluster", "down", "--dir", directory).stderr == "geostore: stopped 2 nodes\n"
        assert processes_of(directory, pids) == []
        assert cluster.pids() == {}
        assert "no node" in done("cluster", "down", "--dir", directory).stderr


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)  # a child of this process, since `up` ran in it
