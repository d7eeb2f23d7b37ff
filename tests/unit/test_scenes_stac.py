"""STAC items as scenes: what they say, where their files are, and what is refused."""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from geostore.errors import GeostoreError, InvalidInputError, UnreadableSourceError
from geostore.scenes import FoundSource, Remote, Scene, find_sources, reader_named, stac_documents
from geostore.scenes.stac import collection_reader
from geostore.scenes.stac_item import ASSETS_MAX
from geostore.types import BandRole, TimeSpan
from tests.object_server import ObjectServer, object_server

MakeRaster = Callable[..., Path]
Open = Callable[..., list[Scene]]

GRID_20M = (20.0, 0.0, 500_000.0, 0.0, -20.0, 4_200_000.0)
TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"
SCL_CLASSES = [
    {"value": 0, "name": "no_data"},
    {"value": 3, "name": "cloud_shadows"},
    {"value": 4, "name": "vegetation", "color_hint": "00FF7F"},
    {"value": 8, "name": "cloud_medium_probability"},
    {"value": 9, "name": "cloud_high_probability"},
    {"value": 10, "name": "thin_cirrus"},
]


def ramp(dtype: str = "uint16", bands: int = 1, size: int = 64) -> np.ndarray:
    return np.arange(bands * size * size).reshape(bands, size, size).astype(dtype)


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with object_server() as running:
        yield running


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    made = Remote.of({}, directory=tmp_path / "cache")
    yield made
    made.close()


@pytest.fixture
def rasters(server: ObjectServer, make_raster: MakeRaster) -> dict[str, np.ndarray]:
    """Files at the server, by name."""
    contents = {"B04.tif": ramp(), "B08.tif": ramp() + 7, "SCL.tif": ramp("uint8", size=32) % 12}
    for name, data in contents.items():
        transform = GRID_20M if data.shape[1] == 32 else None
        options = {"transform": transform} if transform else {}
        server.put(f"/a/{name}", make_raster(f"made/{name}", data, **options).read_bytes())
    return contents


def item(**changes: Any) -> dict[str, Any]:
    """A STAC 1.0 item of the files above."""
    value: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "S2A 31/UFS",
        "collection": "Some Collection",
        "properties": {
            "datetime": "2022-05-01T10:30:00.5Z",
            "platform": "sentinel-2A",
            "eo:cloud_cover": 12.5,
        },
        "assets": {
            "red": {
                "href": "./B04.tif",
                "type": TIFF,
                "roles": ["data", "reflectance"],
                "title": "Red, 10 m",
                "eo:bands": [{"name": "B04", "common_name": "red"}],
                "raster:bands": [
                    {"nodata": 0, "scale": 0.0001, "offset": -0.1, "unit": "1", "gsd": 10}
                ],
            },
            "nir": {"href": "./B08.tif", "type": TIFF, "eo:bands": [{"name": "B08"}]},
            "scl": {
                "href": "SCL.tif",
                "type": TIFF,
                "roles": ["data"],
                "raster:bands": [{"nodata": 0, "classification:classes": SCL_CLASSES}],
            },
            "visual": {"href": "./TCI.tif", "type": TIFF, "roles": ["visual"]},
            "thumbnail": {"href": "./t.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
            "metadata": {"href": "./m.xml", "type": "application/xml", "roles": ["metadata"]},
            "preview": {"href": "./preview.tif", "type": TIFF},
        },
    }
    return value | changes


@pytest.fixture
def open_item(server: ObjectServer, remote: Remote, rasters: object) -> Iterator[Open]:
    """A function that serves an item beside its files and opens it as a user's address."""
    opened: list[Scene] = []

    def run(value: object, **how: Any) -> list[Scene]:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        # As APIs answer: no ranges, no length.
        url = server.put("/a/item.json", content, sends_ranges=False, sends_length=False)
        for found in find_sources([url], remote=lambda: remote):
            opened.extend(found.open(**how))
        return opened

    yield run
    for scene in opened:
        scene.close()


def bands(scene: Scene) -> dict[str, Any]:
    return {band.info.name: band.info for band in scene.bands}


class TestScene:
    def test_what_the_item_says(
        self, open_item: Open, rasters: dict[str, np.ndarray], server: ObjectServer
    ) -> None:
        (scene,) = open_item(item())
        assert (scene.id, scene.reader) == ("S2A_31_UFS", "stac-some-collection")
        assert scene.path == server.url("/a/item.json")
        assert (scene.platform, scene.time_us) == ("sentinel-2a", 1_651_401_000_500_000)
        assert scene.time_end_us == scene.time_us
        assert scene.properties["eo:cloud_cover"] == 12.5
        assert scene.properties["collection"] == "Some Collection"
        infos = bands(scene)
        assert list(infos) == ["B04", "B08", "scl"]
        red = infos["B04"]
        assert (red.common_name, red.scale, red.offset, red.unit) == ("red", 0.0001, -0.1, "1")
        assert (red.nodata, red.dtype, red.native_resolution_m) == (0, "uint16", 10.0)
        assert (red.role, red.description) == (BandRole.DATA, "Red, 10 m")
        assert (infos["B08"].scale, infos["B08"].offset, infos["B08"].nodata) == (1, 0, None)
        for name, file in (("B04", "B04.tif"), ("B08", "B08.tif"), ("scl", "SCL.tif")):
            band = scene.band(name)
            assert band is not None
            data = rasters[file][0]
            read, valid = band.source.read(0, 0, *data.shape)
            np.testing.assert_array_equal(read, data)
            said = np.ones(data.shape, bool) if valid is None else valid
            np.testing.assert_array_equal(said, data != 0 if name != "B08" else data >= 0)

    def test_classes_tell_cloud(self, open_item: Open) -> None:
        (scene,) = open_item(item())
        info = bands(scene)["scl"]
        assert info.role is BandRole.CLASS
        assert info.class_names["3"] == "cloud_shadows"
        assert info.class_colors == {"4": "#00ff7f"}
        assert scene.cloud is not None
        assert scene.cloud.method == "scl 8,9,10"
        assert scene.cloud.nodata_values == {0}

    def test_bits_tell_cloud(self, open_item: Open) -> None:
        value = item()
        value["assets"]["scl"]["raster:bands"] = [
            {
                "classification:bitfields": [
                    {"name": "fill", "offset": 0, "length": 1, "classes": [{"value": 1}]},
                    {"name": "dilated_cloud", "offset": 1, "length": 1},
                    {"name": "cirrus", "offset": 2, "length": 1},
                    {"name": "cloud", "offset": 3, "length": 1},
                    {"name": "cloud_confidence", "offset": 8, "length": 2},
                    {"name": "nonsense", "offset": 70, "length": 1},
                    {"name": "nonsense", "offset": "x"},
                    "nonsense",
                ]
            }
        ]
        (scene,) = open_item(value)
        info = bands(scene)["scl"]
        assert info.role is BandRole.QUALITY
        assert [bits.name for bits in info.bitfields][-1] == "cloud_confidence"
        assert scene.cloud is not None
        assert scene.cloud.method == "scl bits 2,3"

    def test_only_what_is_stored_is_fetched(self, open_item: Open, server: ObjectServer) -> None:
        open_item(item())
        assert {one.path for one in server.asked} == {
            "/a/item.json",
            "/a/B04.tif",
            "/a/B08.tif",
            "/a/SCL.tif",
        }

    def test_the_form_of_1_1(self, open_item: Open) -> None:
        value = item(stac_version="1.1.0")
        value["assets"]["red"] = {
            "href": "./B04.tif",
            "type": TIFF,
            "nodata": 3,
            "raster:scale": 0.5,
            "bands": [{"name": "B04", "eo:common_name": "red", "raster:offset": 2}],
        }
        (scene,) = open_item(value)
        red = bands(scene)["B04"]
        assert (red.nodata, red.scale, red.offset, red.common_name) == (3, 0.5, 2, "red")

    def test_the_form_of_0_7(self, open_item: Open) -> None:
        value = item(stac_version="0.7.0", collection=None)
        value["properties"] = {
            "datetime": "2020-10-31",
            "eo:platform": "LANDSAT_8",
            "eo:bands": [{"name": "SR_B4", "common_name": "red"}, {"name": "tir"}],
        }
        value["assets"] = {
            "SR_B4.TIF": {"href": "B04.tif", "type": "image/vnd.stac.geotiff", "eo:bands": [0]},
            "SR_QA.TIF": {"href": "SCL.tif", "type": "image/vnd.stac.geotiff"},
            "ST_X.TIF": {"href": "B08.tif", "type": "image/vnd.stac.geotiff", "eo:bands": [9, {}]},
        }
        (scene,) = open_item(value)
        assert scene.reader == "stac"
        assert scene.platform == "landsat-8"
        span = TimeSpan.parse("2020-10-31")
        assert (scene.time_us, scene.time_end_us) == (span.start_us, span.end_us)
        infos = bands(scene)
        assert {name: info.role for name, info in infos.items()} == {
            "SR_B4": BandRole.DATA,
            "SR_QA": BandRole.QUALITY,
            "ST_X": BandRole.DATA,
        }
        assert infos["SR_B4"].common_name == "red"

    @pytest.mark.parametrize(
        ("times", "span"),
        [
            (
                {"datetime": None, "start_datetime": "2021-01-01", "end_datetime": "2021-01-08"},
                ("2021-01-01", "2021-01-08"),
            ),
            (
                {"datetime": "2021-01-01T00:00:00Z", "start_datetime": "2021-01-01"},
                ("2021-01-01T00:00:00Z", "2021-01-01T00:00:00Z"),
            ),
            ({}, None),
        ],
    )
    def test_times(
        self, open_item: Open, times: dict[str, Any], span: tuple[str, str] | None
    ) -> None:
        (scene,) = open_item(item(properties=times))
        if span is None:
            assert (scene.time_us, scene.time_end_us) == (None, None)
        else:
            start, end = TimeSpan.parse(span[0]), TimeSpan.parse(span[1])
            assert (scene.time_us, scene.time_end_us) == (start.start_us, end.end_us)

    def test_an_asset_of_several_bands(
        self, open_item: Open, server: ObjectServer, make_raster: MakeRaster
    ) -> None:
        data = ramp("uint8", 4)
        path = make_raster("made/rgbn.tif", data, photometric="RGB", alpha="NO")
        server.put("/a/rgbn.tif", path.read_bytes())
        names = ["Red", "Green", "Blue", "NIR"]
        (scene,) = open_item(
            item(
                assets={
                    "image": {
                        "href": "rgbn.tif",
                        "type": TIFF,
                        "eo:bands": [{"name": n, "common_name": n.lower()} for n in names],
                    }
                }
            )
        )
        assert list(bands(scene)) == names
        for number, band in enumerate(scene.bands):
            np.testing.assert_array_equal(band.source.read(0, 0, 64, 64)[0], data[number])

    def test_of_several_sizes_the_finest(self, open_item: Open, server: ObjectServer) -> None:
        value = item()
        value["assets"] = {
            "red_20m": {
                "href": "SCL.tif",
                "type": TIFF,
                "gsd": 20,
                "eo:bands": [{"name": "B04"}],
            },
            "red": {"href": "B04.tif", "type": TIFF, "gsd": 10, "eo:bands": [{"name": "B04"}]},
        }
        (scene,) = open_item(value)
        assert [band.source.grid.width for band in scene.bands] == [64]
        assert "/a/SCL.tif" not in {one.path for one in server.asked}

    def test_repackaged_bands_of_a_known_product(self, open_item: Open) -> None:
        value = item(collection="sentinel-2-l2a")
        del value["assets"]["scl"]["raster:bands"]
        (scene,) = open_item(value)
        assert (scene.reader, scene.id) == ("sentinel-2-l2a", "S2A_31_UFS")
        infos = bands(scene)
        assert list(infos) == ["B04", "B08", "SCL"]
        known = {band.name: band for band in reader_named("sentinel-2-l2a").bands}
        assert infos["SCL"].class_names == known["SCL"].class_names
        assert infos["B08"].common_name == "nir"
        assert (infos["B04"].offset, infos["B08"].scale) == (-0.1, 0.0001)
        assert scene.cloud is not None
        assert scene.cloud.method == "SCL 8,9,10"
        assert "B11" in scene.missing
        assert "B04" not in scene.missing

    def test_the_reader_may_be_chosen(self, open_item: Open) -> None:
        (scene,) = open_item(item(collection="sentinel-2-l2a"), reader="stac-mine")
        assert scene.reader == "stac-mine"
        with pytest.raises(UnreadableSourceError):
            open_item(item(), reader="sentinel-2-l2a")

    def test_names_that_no_band_can_have(self, open_item: Open) -> None:
        value = item()
        for number, (asset, name) in enumerate(
            zip(("red", "nir", "scl"), ("4", "../x", ""), strict=True)
        ):
            value["assets"][asset]["eo:bands"] = [{"name": name, "common_name": number}]
        (scene,) = open_item(value)
        assert list(bands(scene)) == ["red", "x", "scl"]
        assert {info.common_name for info in bands(scene).values()} == {None}

    def test_the_same_content_is_the_same_version(
        self, open_item: Open, rasters: object, tmp_path: Path, remote: Remote
    ) -> None:
        (there,) = open_item(item())
        (tmp_path / "made" / "item.json").write_text(json.dumps(item()))
        (found,) = find_sources([tmp_path / "made" / "item.json"], remote=lambda: remote)
        (here,) = found.open()
        with here:
            assert (here.id, here.fingerprint) == (there.id, there.fingerprint)
            assert here.path == str(tmp_path / "made" / "item.json")


class TestPlaces:
    def test_alternates(self, open_item: Open, server: ObjectServer) -> None:
        value = item()
        value["assets"]["red"]["href"] = "gs://bucket/B04.tif"
        value["assets"]["red"]["alternate"] = {
            "az": {"href": "abfs://x/B04.tif"},
            "https": {"href": server.url("/a/B04.tif")},
        }
        (scene,) = open_item(value)
        assert "B04" in bands(scene)

    @pytest.mark.parametrize(
        ("href", "said"),
        [
            ("file:///etc/passwd", "may not name local files"),
            ("FILE:/etc/passwd", "may not name local files"),
            ("ftp://h/B04.tif", "expected an https://"),
            ("gs://bucket/B04.tif", "expected an https://"),
            ("s3://b", "expected s3://bucket/key"),
            ("x" * 10_000, "href of 10000 characters"),
        ],
    )
    def test_where_a_remote_item_may_not_point(self, open_item: Open, href: str, said: str) -> None:
        value = item()
        value["assets"]["red"]["href"] = href
        with pytest.raises(GeostoreError, match=said) as caught:
            open_item(value)
        assert len(str(caught.value)) < 700

    @pytest.mark.parametrize("href", ["/etc/passwd", "../../../../etc/passwd", "//[/etc/passwd"])
    def test_paths_stay_at_the_server(
        self, open_item: Open, server: ObjectServer, href: str
    ) -> None:
        value = item()
        value["assets"]["red"]["href"] = href
        with pytest.raises(GeostoreError):
            open_item(value)
        assert "B04" not in str(server.asked[-1].path)

    def test_a_local_item_names_local_files(
        self, rasters: object, tmp_path: Path, remote: Remote
    ) -> None:
        value = item()
        folder = tmp_path / "made"
        value["assets"]["red"]["href"] = f"file://{folder}/B04.tif"
        value["assets"]["nir"]["href"] = str(folder / "B08.tif")
        value["assets"]["scl"]["href"] = "../made/SCL.tif"
        (folder / "x.json").write_text(json.dumps(value))
        (found,) = find_sources(str(folder / "x.json"), remote=lambda: remote)
        (scene,) = found.open()
        with scene:
            assert list(bands(scene)) == ["B04", "B08", "scl"]

    @pytest.mark.parametrize("href", ["gone.tif", "/vsicurl/https://h/x.tif", "/vsizip/a.tif"])
    def test_a_local_item_whose_file_is_none(
        self, rasters: object, tmp_path: Path, remote: Remote, href: str
    ) -> None:
        value = item()
        value["assets"]["red"]["href"] = href
        (tmp_path / "made" / "x.json").write_text(json.dumps(value))
        (found,) = find_sources(str(tmp_path / "made" / "x.json"), remote=lambda: remote)
        with pytest.raises((UnreadableSourceError, InvalidInputError), match="red|vsi"):
            found.open()

    def test_standard_input(
        self,
        rasters: object,
        server: ObjectServer,
        remote: Remote,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def given(value: object) -> list[FoundSource]:
            stream = SimpleNamespace(buffer=io.BytesIO(json.dumps(value).encode()))
            monkeypatch.setattr(sys, "stdin", stream)
            return list(find_sources(["-"], remote=lambda: remote))

        value = item(links=[{"rel": "self", "href": server.url("/a/item.json")}])
        (found,) = given(value)
        assert found.path == "standard input"
        (scene,) = found.open()
        with scene:
            assert list(bands(scene)) == ["B04", "B08", "scl"]
        (found,) = given(item())  # nothing says what its references are relative to
        with pytest.raises(UnreadableSourceError, match="may not name local files"):
            found.open()
        with pytest.raises(UnreadableSourceError, match="standard input: expected a STAC item"):
            given({"type": "Polygon"})

    def test_found_items_travel_to_other_processes(
        self, rasters: object, server: ObjectServer, remote: Remote
    ) -> None:
        url = server.put("/a/item.json", json.dumps(item()).encode())
        (found,) = find_sources([url], remote=lambda: remote)
        again = pickle.loads(pickle.dumps(found))
        (scene,) = again.open()
        with scene:
            assert scene.id == "S2A_31_UFS"


class TestCollections:
    def collection(self, *ids: str, **more: Any) -> bytes:
        features = [item(id=one) for one in ids]
        return json.dumps({"type": "FeatureCollection", "features": features, **more}).encode()

    def found(self, url: str, remote: Remote) -> list[str]:
        return [one.path for one in find_sources([url], remote=lambda: remote)]

    def last_error(self, url: str, remote: Remote) -> str:
        """What the document's last source, which tells of the rest of it, says."""
        *_, last = find_sources([url], remote=lambda: remote)
        with pytest.raises(GeostoreError) as caught:
            last.open()
        return str(caught.value)

    def test_one_source_an_item(
        self, server: ObjectServer, remote: Remote, rasters: object
    ) -> None:
        url = server.put("/a/items.json", self.collection("one", "two", "one"))
        sources = list(find_sources([url], remote=lambda: remote))
        assert [one.path for one in sources] == [f"{url}#one", f"{url}#two"]
        assert all(one.is_remote and one.named_outright for one in sources)
        (scene,) = sources[1].open()
        with scene:
            assert (scene.id, scene.path) == ("two", f"{url}#two")

    def test_any_character_in_a_name(self, server: ObjectServer, remote: Remote) -> None:
        names = ["a b", "é", "a%20c", "x|y", "{z}", "𐍈"]
        for name in names:
            server.put(f"/{name.replace('%20', ' ')}", self.collection("one"))
            url = server.url(f"/{name}")
            assert self.found(url, remote) == [f"{url}#one"]

    def test_pages(self, server: ObjectServer, remote: Remote) -> None:
        def page(following: str, *ids: str) -> bytes:
            return self.collection(*ids, links=[{"rel": "next", "href": following}])

        url = server.put("/s", page("/p2?token=5ec", "a", "b"))
        server.put("/p2", page("./p3", "c"))
        server.put("/p3", self.collection("d", links=[{"rel": "next", "method": "POST"}]))
        assert self.found(f"{url}?limit=2", remote) == [f"{url}#{one}" for one in "abcd"]
        assert [one.path for one in server.asked] == ["/s?limit=2", "/p2?token=5ec", "/p3"]

    @pytest.mark.parametrize(
        ("following", "said"),
        [
            ("https://elsewhere.example/p2", "next page is at https://elsewhere.example"),
            ("/s", "lead in a circle"),
            ("/gone", "HTTP 404"),
            ("/other", "expected a page of STAC items"),
        ],
    )
    def test_pages_that_lead_astray(
        self, server: ObjectServer, remote: Remote, following: str, said: str
    ) -> None:
        server.put("/other", b"<html>")
        links = [{"rel": "next", "href": following}]
        url = server.put("/s", self.collection("a", links=links))
        assert said in self.last_error(url, remote)

    def test_too_many_items(
        self, server: ObjectServer, remote: Remote, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stac_documents, "ITEMS_MAX", 3)
        url = server.put("/s", self.collection("a", "b", "c"))
        assert self.found(url, remote) == [f"{url}#{one}" for one in "abc"]
        url = server.put("/s", self.collection("a", "b", "c", "d"))
        assert "more than 3 items" in self.last_error(url, remote)

    def test_too_many_pages(
        self, server: ObjectServer, remote: Remote, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stac_documents, "PAGES_MAX", 2)
        for number in range(4):
            links = [{"rel": "next", "href": f"/{number + 1}"}]
            server.put(f"/{number}", self.collection(f"i{number}", links=links))
        assert "more than 2 pages" in self.last_error(server.url("/0"), remote)

    def test_a_document_without_end(
        self, server: ObjectServer, remote: Remote, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stac_documents, "DOCUMENT_BYTES_MAX", 1 << 20)
        url = server.put("/s", b"{" + b" " * (1 << 21))
        assert "a JSON document of more than 1048576 bytes" in self.last_error(url, remote)


class TestRefused:
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b'{"type": "Feature", "id"', "not readable as JSON"),
            (b'{"a":' * 100_000, "not readable as JSON"),
            (json.dumps(item(id="//")).encode(), "expected an id"),
            (json.dumps(item(id="x" * 300)).encode(), "expected an id"),
            (json.dumps(item(properties=[])).encode(), "properties and assets"),
            (json.dumps(item(assets={})).encode(), "properties and assets"),
            (json.dumps(item(properties={"datetime": "soon"})).encode(), "soon"),
            (
                json.dumps(item(assets={str(n): {} for n in range(10_000)})).encode(),
                rf"10000 assets; expected at most {ASSETS_MAX}",
            ),
            (
                json.dumps(item(assets={"a": {"href": "m.xml"}})).encode(),
                "none of its 1 assets is a raster",
            ),
            (json.dumps(item(assets={"a": 1, "b": []})).encode(), "none of its 0 assets"),
            (
                json.dumps({"type": "FeatureCollection", "stac_version": "1", "features": [1]}),
                "a feature without an id",
            ),
        ],
    )
    def test_documents(self, open_item: Open, content: bytes | str, said: str) -> None:
        with pytest.raises(UnreadableSourceError, match=said) as caught:
            open_item(content if isinstance(content, bytes) else content.encode())
        assert "/a/item.json" in str(caught.value)

    def test_what_is_no_stac_document(
        self, server: ObjectServer, remote: Remote, tmp_path: Path
    ) -> None:
        for value in ({"type": "Feature", "geometry": None}, {"a": 1}, {"type": "Catalog"}):
            url = server.put("/x", json.dumps(value).encode())
            (found,) = find_sources([url], remote=lambda: remote)
            with pytest.raises(UnreadableSourceError, match="no reader claims it"):
                found.open()
            path = tmp_path / "x.json"
            path.write_text(json.dumps(value))
            (found,) = find_sources([path], remote=lambda: remote)
            assert found == FoundSource(str(path), named_outright=True)

    def test_a_damaged_asset_is_named(self, open_item: Open, server: ObjectServer) -> None:
        server.put("/a/B08.tif", server.objects["/a/B08.tif"].content[:300])
        with pytest.raises(UnreadableSourceError, match=r"/a/B08.tif"):
            open_item(item())

    def test_an_asset_that_does_not_say_where_it_lies(
        self, open_item: Open, server: ObjectServer, make_raster: MakeRaster
    ) -> None:
        path = make_raster("made/n.tif", ramp(), crs=None)
        server.put("/a/B04.tif", path.read_bytes())
        with pytest.raises(UnreadableSourceError, match="does not say where it lies"):
            open_item(item())


def test_met_in_a_directory_a_document_is_skipped(
    rasters: object, tmp_path: Path, remote: Remote
) -> None:
    (tmp_path / "made" / "item.json").write_text(json.dumps(item()))
    (tmp_path / "made" / "other.json").write_text("{}")
    by_name = {
        Path(one.path).name: one for one in find_sources(tmp_path / "made", remote=lambda: remote)
    }
    assert set(by_name) == {"B04.tif", "B08.tif", "SCL.tif", "item.json", "other.json"}
    assert by_name["item.json"].open() == []
    assert "name it to ingest" in by_name["item.json"].why_skipped()
    assert by_name["other.json"].open() == []
    assert by_name["other.json"].why_skipped() == "no reader claims this file"
    path = tmp_path / "made" / "item.json"
    (arrived,) = find_sources(path, remote=lambda: remote, named_outright=False)
    assert (arrived.open(), arrived.named_outright) == ([], False)
    pattern = str(tmp_path / "made" / "*.json")
    assert [one.open() for one in find_sources(pattern, remote=lambda: remote)] == [[], []]


@pytest.mark.parametrize(
    ("collection", "name"),
    [
        ("sentinel-1-grd", "stac-sentinel-1-grd"),
        ("HLS S30 v2.0", "stac-hls-s30-v2.0"),
        ("../../etc", "stac-etc"),
        ("Ü", "stac"),
        ("", "stac"),
        (None, "stac"),
        ("x" * 400, "stac-" + "x" * 100),
    ],
)
def test_datasets_are_named_after_the_collection(collection: str | None, name: str) -> None:
    assert collection_reader(collection) == name
    assert reader_named(name).name == name
