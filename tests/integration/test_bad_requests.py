"""What users mistype, by the command line and in Python: one clear line, nothing changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geostore
from geostore.api import Store
from geostore.errors import (
    ConflictError,
    GeostoreError,
    InvalidInputError,
    NotFoundError,
)
from tests.integration.stocked_store import StockedStore, check_one_error

LONG = "n" * 10_000
HOSTILE = {"slash": "a/b", "climbing": "../a", "control": "a\x1b[2J", "10,000": LONG}
SHOWN = {"slash": "a/b", "climbing": "../a", "control": r"a\x1b[2J", "10,000": "nnn"}
hostile = pytest.mark.parametrize("kind", HOSTILE)


# ---------------------------------------------------------------- names


class TestNames:
    """Names with `/`, control characters or 10,000 letters, wherever one is taken."""

    @hostile
    def test_dataset_that_is_made(self, stocked: StockedStore, kind: str) -> None:
        says = {"10,000": "10000 characters: expected at most 255"}.get(
            kind, "expected letters, digits"
        )
        stocked.refused("dataset", "create", HOSTILE[kind], code=2, says=("dataset name", says))
        stocked.refused(
            "ingest", stocked.raster, "--dataset", HOSTILE[kind], code=2, says=("dataset", says)
        )

    @hostile
    @pytest.mark.parametrize(
        "command", [["query", "--dataset"], ["dataset", "show"], ["dataset", "delete"]], ids=str
    )
    def test_dataset_that_is_asked_for(
        self, stocked: StockedStore, kind: str, command: list[str]
    ) -> None:
        says = (SHOWN[kind], "is not known", "Known: geotiff")
        stocked.refused(*command, HOSTILE[kind], code=1, says=says)

    @hostile
    def test_band(self, stocked: StockedStore, kind: str, tmp_path: Path) -> None:
        says = ("band", SHOWN[kind], "nir, red")
        stocked.refused("query", "--bands", HOSTILE[kind], code=1, says=says)
        out = tmp_path / "out"
        stocked.refused("export", "--out", out, "--bands", HOSTILE[kind], code=1, says=says)
        assert not out.exists()

    @hostile
    def test_geocode(self, stocked: StockedStore, kind: str) -> None:
        stocked.refused("query", "--geocode", HOSTILE[kind], code=2, says=("geocode", SHOWN[kind]))
        stocked.refused(
            "ring", "--dataset", "geotiff", "--geocode", HOSTILE[kind],
            code=2, says=("geohash", SHOWN[kind]),
        )  # fmt: skip

    @hostile
    def test_file(self, stocked: StockedStore, kind: str) -> None:
        if kind == "control":
            says: tuple[str, ...] = ("without control characters",)
        else:
            says = ("File name too long",) if kind == "10,000" else ("no such file",)
        code = 2 if kind == "control" else 1
        stocked.refused("ingest", HOSTILE[kind], code=code, says=(SHOWN[kind], *says))

    @hostile
    def test_reader(self, stocked: StockedStore, kind: str) -> None:
        says = ("reader", SHOWN[kind], "geotiff, landsat-c1-l1")
        stocked.refused("ingest", stocked.raster, "--reader", HOSTILE[kind], code=1, says=says)
        stocked.refused("dataset", "create", "x", "--like", HOSTILE[kind], code=1, says=says)

    @hostile
    @pytest.mark.parametrize("option", ["--scene", "--platform"])
    def test_scene_and_platform_are_only_compared(
        self, stocked: StockedStore, kind: str, option: str
    ) -> None:
        ran = stocked.run("query", option, HOSTILE[kind])
        assert (ran.stdout, ran.stderr) == ("", "")
        stocked.check_unharmed()

    def test_store(self, stocked: StockedStore) -> None:
        ran = stocked.run("query", "--store", LONG, code=None)
        check_one_error(ran, 1, ("store", "File name too long"))

    @pytest.mark.parametrize("uri", ["../../x.SAFE", "S2A_" + "n" * 10_000, "S2A_MSI\x07L1C_abc"])
    def test_scene_id_inside_a_product(
        self, stocked: StockedStore, tmp_path: Path, uri: str
    ) -> None:
        """A product whose metadata give it such a name is known by its folder's."""
        import zipfile

        from geostore import demo

        path = tmp_path / "p.zip"
        with zipfile.ZipFile(demo.scene_path()) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                data = old.read(name)
                if name.endswith("MTD_MSIL1C.xml"):
                    head, tag, rest = data.partition(b"<PRODUCT_URI>")
                    assert tag
                    data = head + tag + uri.encode() + rest[rest.index(b"</PRODUCT_URI>") :]
                new.writestr(name, data)
        ran = stocked.run("ingest", path, "--dry-run", code=None)
        if "\x07" in uri:  # no character of XML
            check_one_error(ran, 1, ("MTD_MSIL1C.xml", "not readable as XML"))
        else:
            assert ran.lines[0]["scene"].startswith("S2A_MSIL1C_20160112T160642_")
        stocked.check_unharmed()


# ---------------------------------------------------------------- the command line

MISTAKES: dict[str, tuple[int, str]] = {
    # unknown names: they depend on what the store has
    "query --dataset nothere": (1, "dataset 'nothere' is not known. Known: geotiff"),
    "query --dataset geotif": (1, "did you mean 'geotiff'"),
    "query --bands B99": (1, "band 'B99' is not known. Known: nir, red"),
    "dataset show nothere": (1, "Known: geotiff"),
    "dataset delete nothere": (1, "Known: geotiff"),
    "dataset create geotiff": (1, "'geotiff' exists already"),
    "ring --dataset nothere --geocode dqdxv": (1, "Known: geotiff"),
    "export --out OUT --dataset nothere": (1, "Known: geotiff"),
    "export --out OUT --scene nothere": (1, "nothing to export"),
    "ingest nothere.tif": (1, "nothere.tif: no such file or directory"),
    "ingest no*.tif": (1, "no*.tif: no file fits the pattern"),
    "ingest RASTER --reader nothere": (1, "'nothere' is not known. Known: geotiff"),
    # wrong usage
    "query --frobnicate": (2, "No such option '--frobnicate'"),
    "query extra": (2, "unexpected extra argument"),
    "query --limit -1": (2, "--limit"),
    "query --limit ten": (2, "'ten' is not a whole number from 0"),
    "query --cloud 30..10": (2, "30 is above 10"),
    "query --cloud 30": (2, "expected MIN..MAX"),
    "query --coverage 0..101": (2, "101 is not in 0..100"),
    "query --coverage nan..": (2, "not in 0..100"),
    "query --format nonsense": (2, "'nonsense' is not one of 'table', 'jsonl', 'csv'"),
    "query --sort size": (2, "'size' is not one of 'time'"),
    "query --exact": (2, "--exact needs --geocode"),
    "query --bbox 1,2,3": (2, "got 3 values, expected west,south,east,north"),
    "query --bbox 1,2,3,x": (2, "expected four numbers"),
    "query --bbox -190,0,0,10": (2, "west is -190, expected degrees longitude in -180..180"),
    "query --bbox 0,-95,0,10": (2, "south is -95, expected degrees latitude in -90..90"),
    "query --bbox 0,20,10,10": (2, "south 20 is above north 10"),
    "query --bbox 0,nan,10,10": (2, "finite"),
    "query --bbox 0,-inf,10,10": (2, "finite"),
    "query --geocode DQ8": (2, "'DQ8': expected a geohash"),
    "query --time 2016-13": (2, "'2016-13' is not a year, month, date"),
    "query --time 2016-02-30": (2, "'2016-02-30' is not"),
    "query --time 2016-06/2016-01": (2, "is after end"),
    "query --time 2016/2017/2018": (2, "expected one value or A/B"),
    "query --geometry RASTER": (2, "not GeoJSON"),
    "query --geometry nothere.geojson": (2, "nothere.geojson"),
    "export": (2, "Missing option '--out'"),
    "export --out OUT --as zip": (2, "'zip' is not one of 'cog', 'zarr', 'npy'"),
    "export --out OUT --resolution -10": (2, "above 0"),
    "ingest": (2, "expected PATH…, or --watch DIR"),
    "ingest RASTER --length 40": (2, "length 40: expected 1.."),
    "ingest RASTER --length 40 --dataset geotiff": (2, "has --length 5, asked for 40"),
    "ingest RASTER --length 40 --dataset new": (2, "length 40: expected 1..12 for geohash"),
    "ingest RASTER --length 27 --dataset new --scheme quadtile": (2, "expected 1..26 for quad"),
    "ingest RASTER --length 0": (2, "--length"),
    "ingest RASTER --scheme hexagons": (2, "'hexagons' is not one of 'geohash', 'quadtile'"),
    "ingest RASTER --scheme quadtile --dataset geotiff": (2, "has --scheme geohash"),
    "ingest RASTER --resolution 20 --dataset geotiff": (2, "has --resolution 10"),
    "ingest RASTER --resolution ten": (2, "'ten' is not a number"),
    "ingest RASTER --time 2017/2016": (2, "is after end"),
    "ingest RASTER --max-tiles 0": (2, "--max-tiles"),
    "ingest RASTER --workers 0": (2, "--workers"),
    "ingest ftp://example.org/a.tif": (2, "does not open URLs"),
    "ingest /vsicurl/example.org/a.tif": (2, "does not open URLs"),
    "dataset create new --length 13": (2, "length 13: expected 1..12"),
    "dataset create new --placement 9 --length 5": (2, "placement 9: expected 1..5"),
    "dataset create new --resampling best": (2, "'best' is not one of 'nearest'"),
    "dataset create new --codec zip": (2, "'zip' is not one of"),
    "dataset create new --length 9 --resolution 10": (2, "at least 16"),
    "ring --dataset geotiff": (2, "go together"),
    "verify --rebuild now": (2, "unexpected extra argument"),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_at_the_command_line(
    stocked: StockedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, says = MISTAKES[words]
    named = {"RASTER": stocked.raster, "OUT": "out"}
    ran = stocked.refused(
        *(named.get(word, word) for word in words.split()), code=code, says=(says,)
    )
    assert ran.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--bbox", "--time", "--cloud", "--bands", "--dataset"])
def test_an_empty_value(stocked: StockedStore, option: str) -> None:
    """What a shell makes of a variable that is not set must not mean "all"."""
    stocked.refused("query", option, "", code=2, says=(option,))


@pytest.mark.parametrize("option", ["--scene", "--platform", "--geocode"])
def test_an_empty_name(stocked: StockedStore, option: str) -> None:
    stocked.refused("query", option, "", code=2, says=(option.strip("-"), "''"))


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]},
        {"type": "Point", "coordinates": [0, 95]},
        {"type": "Point", "coordinates": [0, "north"]},
        {"type": "Circle", "coordinates": [0, 0]},
        {"type": "FeatureCollection", "features": []},
        [1, 2],
    ],
    ids=str,
)
def test_a_geometry_that_is_none(stocked: StockedStore, tmp_path: Path, geometry: object) -> None:
    path = tmp_path / "place.geojson"
    path.write_text(json.dumps(geometry))
    stocked.refused("query", "--geometry", path, code=2, says=("place.geojson",))


class TestFoldersWithoutScenes:
    """Nothing asked for went wrong, so the exit code is 0; but it is said."""

    def test_of_other_files(self, stocked: StockedStore, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        for name in ("notes.txt", "table.csv"):
            (tmp_path / "folder" / name).write_text("no scene")
        ran = stocked.run("ingest", tmp_path / "folder")
        assert [line["status"] for line in ran.lines] == ["skipped", "skipped"]
        said = "geostore: skipped 2 files that no reader claims (-v names them)\n"
        assert ran.stderr == said
        stocked.check_unharmed()

    def test_of_nothing(self, stocked: StockedStore, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        ran = stocked.run("ingest", tmp_path / "folder")
        assert ran.stdout == ""
        assert ran.stderr == f"geostore: nothing to ingest: no file in {tmp_path / 'folder'}\n"
        stocked.check_unharmed()


# ---------------------------------------------------------------- Python

Call = Callable[[Store], Any]

PYTHON: dict[str, tuple[Call, type[GeostoreError], str]] = {
    "unknown dataset": (
        lambda store: list(store.query(dataset="nothere")), NotFoundError, "Known: geotiff",
    ),
    "unknown band": (
        lambda store: list(store.query(bands=["B99"])), NotFoundError, "Known: nir, red",
    ),
    "unknown band of a tile": (
        lambda store: store.query().first().read(bands=["B99"]), GeostoreError, "nir",
    ),
    "unknown keyword": (lambda store: store.query(cloud=20), InvalidInputError, "cloud_cover"),
    "unknown option of ingest": (
        lambda store: store.ingest("a.tif", recursive=True), InvalidInputError, "recursive",
    ),
    "bbox of three": (lambda store: store.query(bbox=(1, 2, 3)), InvalidInputError, "four numbers"),
    "bbox off the globe": (
        lambda store: store.query(bbox=(0, 0, 181, 1)), InvalidInputError, "-180..180",
    ),
    "bbox upside down": (lambda store: store.query(bbox=(0, 2, 1, 1)), InvalidInputError, "above"),
    "reversed time": (lambda store: store.query(time="2017/2016"), InvalidInputError, "after end"),
    "reversed pair of times": (
        lambda store: store.query(time=("2017", "2016")), InvalidInputError, "after end",
    ),
    "time of no kind": (lambda store: store.query(time=2016), InvalidInputError, "2016"),
    "reversed cloud": (
        lambda store: store.query(cloud_cover=(30, 10)), InvalidInputError, "30 is above",
    ),
    "coverage beyond": (
        lambda store: store.query(pixel_coverage=(0, 101)), InvalidInputError, "101",
    ),
    "negative limit": (lambda store: store.query(limit=-1), InvalidInputError, "limit"),
    "unknown sort": (lambda store: store.query(sort="size"), InvalidInputError, "'size'"),
    "geocode of 10,000": (lambda store: store.query(geocode=LONG), InvalidInputError, "1..26"),
    "name with a slash": (lambda store: store.create_dataset("a/b"), InvalidInputError, "'a/b'"),
    "name of 10,000": (lambda store: store.create_dataset(LONG), InvalidInputError, "10000"),
    "name with a control character": (
        lambda store: store.create_dataset("a\x07"), InvalidInputError, r"a\\x07",
    ),
    "name that is there": (
        lambda store: store.create_dataset("geotiff"), ConflictError, "exists already",
    ),
    "unknown scheme": (
        lambda store: store.create_dataset("a", scheme="hex"), InvalidInputError, "'hex'",
    ),
    "length too long": (
        lambda store: store.create_dataset("a", length=13), InvalidInputError, r"1\.\.12",
    ),
    "like nobody": (
        lambda store: store.create_dataset("a", like="nobody"), NotFoundError, "Known: geotiff",
    ),
    "resolution of 0": (
        lambda store: store.create_dataset("a", resolution=0), InvalidInputError, "0",
    ),
    "source that is not there": (
        lambda store: store.ingest("nothere.tif"), NotFoundError, r"nothere\.tif",
    ),
    "source of 10,000": (lambda store: store.ingest(LONG), NotFoundError, "too long"),
    "ingest into a bad name": (
        lambda store: store.ingest([], dataset="a/b"), InvalidInputError, "'a/b'",
    ),
    "ingest at a bad length": (
        lambda store: store.ingest([], length=40), InvalidInputError, "length 40",
    ),
    "export of nothing": (
        lambda store: store.query(scene="nothere").export("out"), NotFoundError, "no tile matches",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PYTHON)
def test_a_mistake_in_python(
    stocked: StockedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    call, kind, said = PYTHON[name]
    with geostore.open(stocked.path) as store, pytest.raises(kind, match=said) as caught:
        call(store)
    assert len(str(caught.value)) < 1000
    stocked.check_unharmed()


def test_a_cube_over_the_memory_bound_says_how_to_go_on(
    stocked: StockedStore, make_raster: Callable[..., Path]
) -> None:
    pytest.importorskip("xarray", reason="needs xarray")
    pytest.importorskip("odc.geo", reason="needs odc-geo")
    for name, corner in (("southwest", -9e6), ("northeast", 9e6)):
        raster = make_raster(
            f"{name}.tif", np.ones((1, 64, 64), "uint8"),
            crs="EPSG:3857", transform=(10.0, 0.0, corner, 0.0, -10.0, corner),
        )  # fmt: skip
        stocked.run("ingest", raster, "--dataset", "far")
    with (
        geostore.open(stocked.path) as store,
        pytest.raises(InvalidInputError, match="chunks"),
    ):
        store.query(dataset="far").to_xarray()
    stocked.check_unharmed(others=2)
