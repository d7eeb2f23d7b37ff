"""What the commands do, on a small real store, and that they say what the Python API says."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import geostore
from geostore_cli import listing
from geostore_cli.progress import IngestView

INGEST_FIELDS = [
    "path", "reader", "scene", "dataset", "status", "tiles", "bytes", "seconds", "missing", "error",
]  # fmt: skip
QUERY_FIELDS = [
    "dataset", "geocode", "scene", "time", "time_end", "platform", "bands", "pixel_coverage",
    "cloud_cover", "bbox", "bytes", "nodes",
]  # fmt: skip


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


# ---------------------------------------------------------------- ingest


def test_ingest_tells_one_line_a_scene(geostore_run, small_store, tmp_path) -> None:
    store = tmp_path / "store"
    result = geostore_run("ingest", small_store.january, small_store.february, "--store", store)
    first, second = lines(result.stdout)
    assert list(first) == INGEST_FIELDS
    assert first["path"] == str(small_store.january)
    assert (first["status"], first["reader"], first["dataset"]) == (
        "ingested",
        "geotiff",
        "geotiff",
    )
    assert first["tiles"] > 0
    assert first["bytes"] > 0
    assert (first["missing"], first["error"]) == ([], None)
    assert second["scene"].startswith("february-")
    *told, summary = result.stderr.splitlines()
    assert len(told) == 2
    assert summary.startswith("geostore: 2 ingested; 2 tiles, ")
    assert result.stderr.startswith("geostore: ingested january-")
    again = geostore_run("ingest", small_store.january, "--store", store, "-q")
    assert lines(again.stdout)[0]["status"] == "unchanged"
    assert again.stderr == ""


def test_ingest_formats(geostore_run, small_store, writable_store) -> None:
    run = ("--store", writable_store, "ingest", small_store.january, "--format")
    rows = list(csv.DictReader(io.StringIO(geostore_run(*run, "csv").stdout)))
    assert list(rows[0]) == INGEST_FIELDS
    assert rows[0]["status"] == "unchanged"
    table = geostore_run(*run, "table").stdout.splitlines()
    assert table[0].split() == ["status", "dataset", "tiles", "size", "s", "scene"]
    assert table[2].startswith("unchanged")


def test_ingest_goes_on_after_a_failure_and_exits_1(
    geostore_run, small_store, tmp_path, make_raster
) -> None:
    broken = tmp_path / "broken.tif"
    broken.write_bytes(small_store.january.read_bytes()[:600])
    nowhere = make_raster("nowhere.tif", np.ones((1, 64, 64), np.uint8), crs=None)
    store = tmp_path / "store"
    result = geostore_run(
        "ingest", broken, nowhere, small_store.january, "--store", store, "-q", code=1
    )
    assert [line["status"] for line in lines(result.stdout)] == ["failed", "failed", "ingested"]
    errors = result.stderr.splitlines()
    assert len(errors) == 2
    assert all(line.startswith("geostore: error: ") for line in errors)
    assert "broken.tif" in errors[0]
    assert "nowhere.tif" in errors[1]
    assert "CRS" in errors[1]


def test_what_no_reader_claims(geostore_run, small_store, tmp_path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").write_text("not a scene")
    shutil.copy(small_store.january, folder)
    store = tmp_path / "store"
    # Met while walking: skipped, and the exit code stays 0.
    result = geostore_run("ingest", folder, "--store", store)
    assert {line["status"] for line in lines(result.stdout)} == {"ingested", "skipped"}
    assert "skipped 1 file that no reader claims (-v names them)" in result.stderr
    assert "notes.txt" in geostore_run("-v", "ingest", folder, "--store", store).stderr
    # Named outright: a failure.
    result = geostore_run("ingest", folder / "notes.txt", "--store", store, code=1)
    assert lines(result.stdout)[0]["status"] == "failed"
    assert "notes.txt" in result.stderr


def test_a_path_that_is_not_there(geostore_run, tmp_path) -> None:
    missing = geostore_run("ingest", tmp_path / "no.tif", "--store", tmp_path / "s", code=1)
    assert "no.tif" in missing.stderr


def test_a_dry_run_says_what_would_be_made_and_writes_nothing(
    geostore_run, small_store, tmp_path
) -> None:
    store = tmp_path / "store"
    result = geostore_run("ingest", "--dry-run", small_store.january, "--store", store)
    (line,) = lines(result.stdout)
    assert list(line) == [*INGEST_FIELDS, "oversampling"]
    assert line["status"] == "planned"
    assert line["tiles"] >= 1
    assert 1.0 < line["oversampling"] < 2.0
    assert "would ingest january-" in result.stderr
    assert not store.exists()
    # Beside an existing store: its datasets are known, its writer is not disturbed.
    before = sorted(small_store.path.rglob("*"))
    with geostore.open(small_store.path) as writer:
        writer.status()
        arguments = ("--dry-run", small_store.january, "--dataset", "new", "--scheme", "quadtile")
        geostore_run("ingest", *arguments, "--store", small_store.path)
    assert sorted(small_store.path.rglob("*")) == before


def test_ingest_passes_its_options_on(geostore_run, small_store, tmp_path) -> None:
    store = tmp_path / "store"
    arguments = [
        "--dataset",
        "own",
        "--reader",
        "geotiff",
        "--scheme",
        "quadtile",
        "--length",
        "14",
    ]
    arguments += [
        "--resolution",
        "10,20",
        "--time",
        "2020-02",
        "--workers",
        "1",
        "--max-tiles",
        "9",
    ]
    result = geostore_run("ingest", small_store.january, *arguments, "--store", store)
    assert lines(result.stdout)[0]["dataset"] == "own"
    dataset = lines(geostore_run("dataset", "show", "own", "--store", store).stdout)[0]
    assert (dataset["scheme"], dataset["length"]) == ("quadtile", 14)
    assert [group["resolution"] for group in dataset["groups"]] == [10, 20]
    tile = lines(geostore_run("query", "--store", store).stdout)[0]
    assert tile["time"] == "2020-02-01T00:00:00Z"
    assert tile["time_end"] == "2020-02-29T23:59:59.999999Z"
    too_many = geostore_run(
        "ingest", small_store.january, "--dataset", "x", "--length", "6", "--max-tiles", "2",
        "--store", store, code=1,
    )  # fmt: skip
    assert "--max-tiles" in too_many.stderr


def test_ctrl_c_leaves_nothing_visible_and_the_same_command_finishes(
    geostore_run, small_store, tmp_path, monkeypatch
) -> None:
    store = ("--store", tmp_path / "store")

    def interrupt(view: object, progress: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(IngestView, "__call__", interrupt)
        result = geostore_run(*store, "ingest", small_store.january, code=130)
    assert result.stdout == ""
    assert "interrupted: nothing unfinished is visible" in result.stderr
    assert geostore_run(*store, "query", "--count").stdout == "0\n"
    assert lines(geostore_run(*store, "verify").stdout)[0]["problems"] == []
    again = geostore_run(*store, "ingest", small_store.january)
    assert lines(again.stdout)[0]["status"] == "ingested"


# ---------------------------------------------------------------- query


def test_query_lines_have_the_contracts_fields(geostore_run, small_store) -> None:
    rows = lines(geostore_run("--store", small_store.path, "query").stdout)
    assert [list(row) for row in rows] == [QUERY_FIELDS] * len(rows)
    assert rows[0]["time"] == rows[0]["time_end"] == "2016-01-12T16:06:42Z"
    assert rows[0]["bands"] == ["red", "nir"]
    assert rows[0]["cloud_cover"] is None
    with geostore.open(small_store.path, mode="r") as store:
        assert rows == [tile.to_json() for tile in store.query()]


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        ("--dataset geotiff", {"dataset": "geotiff"}),
        ("--bbox -75.01,37.93,-74.99,37.95", {"bbox": (-75.01, 37.93, -74.99, 37.95)}),
        ("--bbox -74.9,37.93,-74.8,37.95", {"bbox": (-74.9, 37.93, -74.8, 37.95)}),
        ("--geocode dqdx", {"geocode": "dqdx"}),
        ("--geocode dqdxv --exact", {"geocode": "dqdxv", "recursive": False}),
        ("--geocode dqdx --exact", {"geocode": "dqdx", "recursive": False}),
        ("--time 2016-01", {"time": "2016-01"}),
        ("--time 2016-02-01/..", {"time": "2016-02-01/.."}),
        ("--cloud 0..", {"cloud_cover": (0, None)}),
        ("--coverage 8..", {"pixel_coverage": (8, None)}),
        ("--coverage ..8", {"pixel_coverage": (None, 8)}),
        ("--coverage 0..100 --time 2016-01", {"pixel_coverage": (0, 100), "time": "2016-01"}),
        ("--bands red,nir", {"bands": ["red", "nir"]}),
        ("--platform nobody", {"platform": "nobody"}),
        ("--sort -time", {"sort": "-time"}),
        ("--sort coverage --limit 1", {"sort": "coverage", "limit": 1}),
        ("--sort -coverage", {"sort": "-coverage"}),
        ("--sort -cloud", {"sort": "-cloud"}),
        ("--limit 0", {"limit": 0}),
    ],
)
def test_predicates_answer_as_the_python_api_does(
    geostore_run, small_store, arguments, keywords
) -> None:
    words = ["--store", small_store.path, "query", *arguments.split()]
    rows = lines(geostore_run(*words).stdout)
    with geostore.open(small_store.path, mode="r") as store:
        expected = [tile.to_json() for tile in store.query(**keywords)]
    assert rows == expected
    assert int(geostore_run(*words, "--count").stdout) == len(expected)


def test_predicates_that_halve_the_small_store(geostore_run, small_store) -> None:
    """The comparison above would pass if both sides ignored a predicate; this would not."""

    def scenes(*arguments: str) -> list[str]:
        rows = lines(geostore_run("--store", small_store.path, "query", *arguments).stdout)
        return [row["scene"].split("-")[0] for row in rows]

    assert scenes() == ["january", "february"]
    assert scenes("--sort", "-time") == ["february", "january"]
    assert scenes("--time", "2016-01") == ["january"]
    assert scenes("--coverage", "..8") == ["february"]
    assert scenes("--cloud", "0..") == []
    assert scenes("--geocode", "dqdx", "--exact") == []
    assert scenes("--limit", "1") == ["january"]


def test_a_geometry_file(geostore_run, small_store, tmp_path) -> None:
    place = tmp_path / "place.geojson"
    feature = {
        "type": "Feature",
        "properties": {},
        "geometry": {"type": "Point", "coordinates": [-75.0, 37.94]},
    }
    query = ("--store", small_store.path, "query", "--count", "--geometry", place)
    place.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    assert geostore_run(*query).stdout == "2\n"
    feature["geometry"]["coordinates"] = [10.0, 10.0]
    place.write_text(json.dumps(feature))
    assert geostore_run(*query).stdout == "0\n"
    place.write_text('{"type": "Poi')
    assert "place.geojson" in geostore_run(*query, code=2).stderr


def test_a_filter_as_it_is_or_in_a_file(geostore_run, small_store, tmp_path) -> None:
    def scenes(*arguments: object) -> list[str]:
        rows = lines(geostore_run("--store", small_store.path, "query", *arguments).stdout)
        return [row["scene"].split("-")[0] for row in rows]

    def operation(name: str, *args: object) -> dict:
        return {"op": name, "args": list(args)}

    place = operation("s_intersects", {"property": "geometry"}, {"bbox": [-75.1, 37.9, -74.9, 38]})
    january = operation("t_intersects", {"property": "datetime"}, {"date": "2016-01-12"})
    either = operation("and", place, operation("not", january))
    assert scenes("--filter", json.dumps(place)) == ["january", "february"]
    assert scenes("--filter", json.dumps(either)) == ["february"]
    for name in ("filter.json", "filter.txt"):
        (tmp_path / name).write_text(json.dumps(either))
        assert scenes("--filter", f"@{tmp_path / name}") == ["february"]
    assert scenes("--filter", tmp_path / "filter.json") == ["february"]
    assert scenes("--filter", tmp_path / "filter.json", "--time", "2016-01") == []
    unknown = operation("isNull", {"property": "eo:cloud_cover"})
    assert scenes("--filter", json.dumps(unknown)) == ["january", "february"]
    clear = operation("<", {"property": "eo:cloud_cover"}, 20)
    assert scenes("--filter", json.dumps(clear)) == []
    assert scenes("--filter", json.dumps(operation("not", clear))) == []


@pytest.mark.parametrize(
    ("condition", "code", "said"),
    [
        ('{"op": "=", "args": [{"property": "cloud_cover"}, "low"]}', 2, "filter.args[1]: cloud"),
        ('{"op": "s_within", "args": []}', 2, "CQL2 operator 's_within' is not supported"),
        ('{"op": "=", "args": [{"property": "collection"}, "nothere"]}', 1, "known"),
        ("@{}/bad.json", 2, "bad.json: filter: not JSON"),
        ("{}/bad.json", 2, "bad.json: filter: not JSON"),
        ("@{}", 2, "Is a directory"),
        ("@", 2, "filter file ."),
    ],
)
def test_a_mistake_in_a_filter_says_where(
    geostore_run, small_store, tmp_path, condition, code, said
) -> None:
    (tmp_path / "bad.json").write_text("{")
    condition = condition.replace("{}", str(tmp_path))
    query = ("--store", small_store.path, "query", "--filter", condition)
    result = geostore_run(*query, code=code)
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_unknown_names_are_answered_with_the_known(geostore_run, small_store) -> None:
    query = ("--store", small_store.path, "query")
    assert "geotiff" in geostore_run(*query, "--dataset", "nothere", code=1).stderr
    message = geostore_run(*query, "--bands", "blue", code=1).stderr
    assert "red" in message
    assert "nir" in message


def test_explain(geostore_run, small_store) -> None:
    query = ("--store", small_store.path, "query", "--time", "2016-01", "--explain")
    text = geostore_run(*query).stdout
    assert "plan" in text
    assert "matched 1 of 2 tiles" in text
    assert lines(geostore_run(*query, "--format", "jsonl").stdout)[0]["rows_matched"] == 1


def test_query_as_csv_and_table(geostore_run, small_store) -> None:
    query = ("--store", small_store.path, "query", "--format")
    rows = list(csv.DictReader(io.StringIO(geostore_run(*query, "csv").stdout)))
    assert list(rows[0]) == QUERY_FIELDS
    assert rows[0]["bands"] == "red,nir"
    assert rows[0]["cloud_cover"] == ""
    assert len(rows[0]["bbox"].split(",")) == 4
    table = geostore_run(*query, "table").stdout.splitlines()
    assert table[0].split()[:3] == ["time", "dataset", "geocode"]
    assert len(table) == 2 + len(rows)
    assert rows[0]["scene"] in table[2]


def test_query_as_geojson(geostore_run, small_store) -> None:
    query = ("--store", small_store.path, "query")
    rows = lines(geostore_run(*query).stdout)
    value = json.loads(geostore_run(*query, "--format", "geojson").stdout)
    assert value["type"] == "FeatureCollection"
    assert [feature["bbox"] for feature in value["features"]] == [row["bbox"] for row in rows]
    west, south, east, north = rows[0]["bbox"]
    (ring,) = value["features"][0]["geometry"]["coordinates"]
    assert ring[0] == ring[-1] == [west, south]
    assert ring[2] == [east, north]
    assert value["features"][0]["properties"]["scene"] == rows[0]["scene"]
    empty = json.loads(geostore_run(*query, "--platform", "x", "--format", "geojson").stdout)
    assert empty["features"] == []


def test_query_as_parquet(geostore_run, small_store) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    shapely = pytest.importorskip("shapely")
    query = ("--store", small_store.path, "query")
    rows = lines(geostore_run(*query).stdout)
    data = geostore_run(*query, "--format", "parquet").stdout_bytes
    table = parquet.read_table(io.BytesIO(data))
    assert table.column_names == [*QUERY_FIELDS, "geometry"]
    found = table.to_pylist()
    assert [row["scene"] for row in found] == [row["scene"] for row in rows]
    assert list(found[0]["bbox"].values()) == rows[0]["bbox"]
    assert list(shapely.from_wkb(found[0]["geometry"]).bounds) == rows[0]["bbox"]
    assert found[0]["time"].isoformat() == "2016-01-12T16:06:42+00:00"
    assert json.loads(table.schema.metadata[b"geo"])["primary_column"] == "geometry"


# ---------------------------------------------------------------- the rest


def test_datasets_are_created_listed_shown_deleted(geostore_run, tmp_path) -> None:
    store = ("--store", tmp_path / "store")
    arguments = ["--scheme", "quadtile", "--length", "14", "--placement", "10"]
    arguments += ["--resolution", "10,20", "--resampling", "bilinear", "--codec", "small"]
    created = geostore_run(*store, "dataset", "create", "own", *arguments)
    assert (created.stdout, created.stderr) == ("", "geostore: created dataset own\n")
    geostore_run(*store, "dataset", "create", "s2", "--like", "sentinel-2-l2a")
    geostore_run(*store, "dataset", "create", "open")
    listed = lines(geostore_run(*store, "dataset", "list").stdout)
    assert [row["name"] for row in listed] == ["open", "own", "s2"]
    assert (listed[0]["length"], listed[0]["groups"]) == (None, [])
    shown = lines(geostore_run(*store, "dataset", "show", "own").stdout)[0]
    assert shown == listed[1]
    assert (shown["length"], shown["placement"]) == (14, 10)
    assert (shown["resampling"], shown["codec"]) == ("bilinear", "small")
    assert [group["resolution"] for group in listed[2]["groups"]] == [10, 20, 60]
    text = geostore_run(*store, "dataset", "show", "open", "--format", "table").stdout
    assert "by the first scene" in text
    table = geostore_run(*store, "dataset", "list", "--format", "table").stdout
    assert "10 m 512×512, 20 m 256×256, 60 m 128×128" in table
    assert "exists" in geostore_run(*store, "dataset", "create", "own", code=1).stderr
    geostore_run(*store, "dataset", "delete", "own")
    assert "open" in geostore_run(*store, "dataset", "show", "own", code=1).stderr
    assert "own" in geostore_run(*store, "dataset", "delete", "own", code=1).stderr


def test_export(geostore_run, small_store, tmp_path) -> None:
    import rasterio

    export = ("--store", small_store.path, "export", "--time", "2016-01")
    out = tmp_path / "m.tif"
    result = geostore_run(*export, "--mosaic", "--bands", "nir", "--out", out)
    assert result.stdout == f"{out}\n"
    with rasterio.open(out) as raster:
        assert raster.count == 1
        assert raster.descriptions == ("nir",)
        assert raster.read(1).max() > 0
    assert (
        "m.tif is there already" in geostore_run(*export, "--mosaic", "--out", out, code=1).stderr
    )
    geostore_run(*export, "--mosaic", "--overwrite", "--out", out)
    files = geostore_run(*export, "--as", "npy", "--out", tmp_path / "npy").stdout.split()
    array = np.load(next(name for name in files if name.endswith(".npy") and "mask" not in name))
    assert array.shape == (2, 512, 512)
    coarse = geostore_run(
        *export, "--as", "npy", "--resolution", "20", "--out", tmp_path / "coarse"
    ).stdout.split()
    assert np.load(coarse[0]).shape == (2, 256, 256)
    pytest.importorskip("zarr", reason="needs zarr")
    pytest.importorskip("xarray", reason="needs xarray")
    assert geostore_run(*export, "--as", "zarr", "--out", tmp_path / "z.zarr").stdout


def test_export_of_nothing_is_an_error(geostore_run, small_store, tmp_path) -> None:
    export = ("--store", small_store.path, "export", "--out", tmp_path / "x")
    result = geostore_run(*export, "--platform", "nobody", code=1)
    assert "no tile matches" in result.stderr
    assert not (tmp_path / "x").exists()


def test_status(geostore_run, small_store) -> None:
    value = lines(geostore_run("--store", small_store.path, "status").stdout)[0]
    assert (value["datasets"], value["scenes"], value["tiles"]) == (1, 2, 2)
    text = geostore_run("--store", small_store.path, "status", "--format", "table").stdout
    assert "tiles       2" in text
    assert "health      good" in text
    rows = geostore_run("--store", small_store.path, "status", "--format", "csv").stdout
    assert len(rows.splitlines()) == 2


def test_ring(geostore_run, small_store) -> None:
    ring = ("--store", small_store.path, "ring")
    (node,) = lines(geostore_run(*ring).stdout)
    assert (node["slots"], node["tiles"]) == (4096, 2)
    assert (node["slots_first"], node["state"]) == (4096, "serving")
    drawn = geostore_run(*ring, "--format", "table").stdout
    assert "1 node" in drawn
    assert "\x1b" not in drawn
    place = lines(geostore_run(*ring, "--dataset", "geotiff", "--geocode", "dqdxv").stdout)[0]
    # SHA-1("dqdxv") begins with acc.
    assert (place["placement_key"], place["slot"]) == ("dqdxv", 0xACC)
    assert place["nodes"] == [node["node"]]
    assert place["tiles"] == len(list(Path(place["path"]).iterdir())) == 2
    tile = lines(geostore_run("--store", small_store.path, "query", "--limit", "1").stdout)[0]
    assert tile["nodes"] == [node["node"]]
    short = geostore_run(*ring, "--dataset", "geotiff", "--geocode", "dq", code=2)
    assert "expected 5" in short.stderr
    assert "geotiff" in geostore_run(*ring, "--dataset", "no", "--geocode", "dq", code=1).stderr


def test_verify_and_rebuild(geostore_run, writable_store) -> None:
    verify = ("--store", writable_store, "verify")
    good = geostore_run(*verify)
    assert lines(good.stdout)[0]["problems"] == []
    assert "2 tiles" in good.stderr
    assert "all good" in good.stderr
    shutil.rmtree(writable_store / "catalog")
    lost = geostore_run("--store", writable_store, "query", code=1)
    assert "geostore verify --rebuild" in lost.stderr
    rebuilt = geostore_run(*verify, "--rebuild")
    assert lines(rebuilt.stdout)[0]["is_rebuilt"] is True
    assert geostore_run("--store", writable_store, "query", "--count").stdout == "2\n"


def test_verify_names_a_damaged_file(geostore_run, writable_store) -> None:
    damaged = min(writable_store.glob("tiles/*/*/*.zip"))
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 0xFF
    damaged.write_bytes(data)
    verify = ("--store", writable_store, "verify")
    result = geostore_run(*verify, code=1)
    assert lines(result.stdout)[0]["problems"][0]["kind"] == "corrupt"
    assert damaged.name in result.stderr
    assert damaged.name in geostore_run(*verify, "--format", "table", code=1).stdout
    assert geostore_run(*verify, "--format", "csv", code=1).stdout.startswith("kind,path,message")
    # A rebuild cannot bring the bytes back: it says so, and sets the file aside.
    assert "made anew without them" in geostore_run(*verify, "--rebuild", code=1).stderr
    assert not damaged.exists()


def test_a_second_writer_is_refused_and_readers_are_not(geostore_run, writable_store) -> None:
    with geostore.open(writable_store) as store:
        store.create_dataset("held")
        child = os.fork()
        if child == 0:
            # A process of its own: within one process the writer's lock is shared.
            result = geostore_run(
                "--store", writable_store, "dataset", "create", "other", code=None
            )
            read = geostore_run("--store", writable_store, "query", "--count", code=None)
            answer = (result.exit_code, result.stderr, read.exit_code, read.stdout)
            (writable_store.parent / "answer").write_bytes(pickle.dumps(answer))
            os._exit(0)
        os.waitpid(child, 0)
    answer = pickle.loads((writable_store.parent / "answer").read_bytes())
    assert answer[0] == 1
    assert answer[1].startswith("geostore: error: ")
    assert "is being written by process" in answer[1]
    assert answer[2:] == (0, "2\n")


def test_demo(geostore_run, tmp_path) -> None:
    result = geostore_run("demo", "--dir", tmp_path / "demo")
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {
        "store",
        "true-colour.png",
        "mosaic.tif",
    }
    assert "import geostore" in result.stdout
    store = tmp_path / "demo" / "store"
    assert int(geostore_run("--store", store, "query", "--count").stdout) > 1
    assert "unchanged" in geostore_run("demo", "--dir", tmp_path / "demo").stdout


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, ""),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_499, "999 kB"),
        (999_999, "1.0 MB"),
        (123_456_789, "123 MB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_sizes_for_people(count, text) -> None:
    assert listing.bytes_text(count) == text


def test_long_tables_repeat_their_heading(capsys, monkeypatch) -> None:
    monkeypatch.setattr(listing, "TABLE_ROWS_MAX", 3)
    rows = ({"n": number, "name": None} for number in range(7))
    columns = (listing.Column("n"), listing.Column("name"))
    assert listing.write_listing(rows, "table", fields=("n", "name"), columns=columns) == 7
    out = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("n ") for line in out) == 3
    assert sum(line[:1].isdigit() for line in out) == 7


def test_a_narrow_terminal_cuts_long_columns_only(capsys, monkeypatch) -> None:
    monkeypatch.setattr(listing, "PIPE_WIDTH", 40)
    rows = [{"n": 1234567, "name": "x" * 60, "t": "2016"}]
    columns = (listing.Column("n"), listing.Column("name", long=True), listing.Column("t"))
    listing.write_listing(rows, "table", fields=(), columns=columns)
    line = capsys.readouterr().out.splitlines()[2]
    assert line == "1234567   " + "x" * 22 + "…   2016"


def test_control_characters_do_not_reach_the_terminal(capsys) -> None:
    rows = [{"name": "\x1b[31mred\nline"}]
    listing.write_listing(rows, "table", fields=("name",), columns=(listing.Column("name"),))
    assert "\\x1b[31mred\\nline" in capsys.readouterr().out
