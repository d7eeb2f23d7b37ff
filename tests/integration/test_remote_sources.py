"""Scenes where they are: in buckets of a real S3 server, at a web server, in STAC items."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np
import pytest

import geostore
from geostore import demo
from geostore.errors import GeostoreError, NotFoundError, UnreadableSourceError
from geostore.scenes import FoundSource, Remote, find_sources, open_source
from geostore.scenes.remote_download import PIECE_BYTES, PIECES_ASKED_MAX
from geostore.scenes.remote_store import Patience
from tests.object_server import ObjectServer, object_server
from tests.s3_server import CannotStartError, S3Server, s3_server

MakeRaster = Callable[..., Path]
AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")
QUICK = Patience(tries_max=2, pause_first_s=0.01)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    try:
        with s3_server(tmp_path_factory.mktemp("s3")) as server:
            yield server
    except CannotStartError as error:
        pytest.skip(f"no S3 server here: {error}")


@pytest.fixture(autouse=True)
def _no_credentials_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AWS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def web() -> Iterator[ObjectServer]:
    with object_server() as running:
        yield running


@pytest.fixture
def as_user(s3: S3Server, tmp_path: Path) -> Iterator[Remote]:
    remote = Remote.of(s3.environment, directory=tmp_path / "cache", patience=QUICK)
    yield remote
    remote.close()


@pytest.fixture
def as_anyone(s3: S3Server, tmp_path: Path) -> Iterator[Remote]:
    remote = Remote.of(s3.anonymous, directory=tmp_path / "cache", patience=QUICK)
    yield remote
    remote.close()


@dataclass(frozen=True)
class Ended:
    code: int
    lines: list[dict[str, object]]
    said: str


def command(folder: Path, *arguments: str, given: bytes | None = None, **environment: str) -> Ended:
    """`geostore ingest ARGUMENTS` as a process, to its end."""
    ended = subprocess.run(
        ingest_words(folder, *arguments),
        input=given,
        check=False,
        capture_output=True,
        timeout=120,
        env=process_environment(folder, environment),
    )
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    return Ended(ended.returncode, lines, ended.stderr.decode())


def ingest_words(folder: Path, *arguments: str) -> list[str]:
    words = [sys.executable, "-m", "geostore_cli", "--store", str(folder / "store"), "ingest"]
    return [*words, *arguments]


def process_environment(folder: Path, more: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in AWS}
    return {**kept, "GEOSTORE_CACHE": str(folder / "cache"), **more}


def found(remote: Remote, *paths: str) -> list[FoundSource]:
    return list(find_sources(paths, remote=lambda: remote))


def raster(make_raster: MakeRaster, name: str = "a.tif", value: int = 1) -> bytes:
    data = np.random.default_rng(value).integers(1, 200, (2, 64, 64)).astype("uint8")
    return make_raster(name, data, nodata=0).read_bytes()


class TestBuckets:
    def test_a_key_is_the_scene_that_a_local_copy_is(
        self,
        s3: S3Server,
        as_user: Remote,
        make_raster: MakeRaster,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        url = s3.put("private", "2022/a scene.tif", raster(make_raster, "a scene.tif"))
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        (source,) = found(as_user, url)
        (scene,) = source.open()
        with scene, open_source(tmp_path / "a scene.tif")[0] as local:
            assert (scene.id, scene.fingerprint) == (local.id, local.fingerprint)
            assert scene.path == url
        with geostore.open(tmp_path / "store") as store:
            (here,) = store.ingest([tmp_path / "a scene.tif"])
            (there,) = store.ingest([url], cache=tmp_path / "cache")
        assert (here.status, there.status) == ("ingested", "unchanged")
        assert (there.scene, there.path) == (here.scene, url)

    def test_without_a_key_only_what_is_open(
        self, s3: S3Server, as_anyone: Remote, make_raster: MakeRaster
    ) -> None:
        content = raster(make_raster)
        (source,) = found(as_anyone, s3.put("open", "a.tif", content))
        (scene,) = source.open()
        scene.close()
        url = s3.put("private", "a.tif", content)
        (source,) = found(as_anyone, url)
        with pytest.raises(UnreadableSourceError, match="refuses access.*AWS_ACCESS_KEY_ID") as no:
            source.open()
        assert url in str(no.value)

    def test_a_wrong_key_is_not_told(
        self, s3: S3Server, tmp_path: Path, make_raster: MakeRaster
    ) -> None:
        url = s3.put("private", "a.tif", raster(make_raster))
        wrong = {**s3.environment, "AWS_SECRET_ACCESS_KEY": "5ecretly-wrong"}
        remote = Remote.of(wrong, directory=tmp_path / "cache", patience=QUICK)
        with pytest.raises(UnreadableSourceError, match="HTTP 403") as no:
            found(remote, url)[0].open()
        assert "5ecret" not in str(no.value)
        remote.close()

    @pytest.mark.parametrize("key", ["open/gone.tif", "open/gone/", "no-such-bucket/a.tif"])
    def test_what_is_not_there(self, as_user: Remote, key: str) -> None:
        (source,) = found(as_user, f"s3://{key}")
        with pytest.raises(NotFoundError, match=f"s3://{key}: "):
            source.open()

    def test_a_product_folder_is_one_scene(
        self, s3: S3Server, as_anyone: Remote, tmp_path: Path
    ) -> None:
        with zipfile.ZipFile(demo.scene_path()) as archive:
            members = {
                name: archive.read(name) for name in archive.namelist() if not name.endswith("/")
            }
        for name, content in members.items():
            s3.put("open", f"products/{name}", content)
        root = next(iter(members)).partition("/")[0]
        (local,) = open_source(demo.scene_path())
        for address in (f"products/{root}/", f"products/{root}", "products/"):
            (source,) = found(as_anyone, f"s3://open/{address}")
            assert source.path == f"s3://open/products/{root}/"
            (scene,) = source.open()
            with scene:
                assert (scene.id, scene.reader) == (local.id, local.reader)
                # The names and contents of all files used, wherever they lie.
                assert scene.fingerprint == local.fingerprint
                assert scene.time_us == local.time_us
                band, other = scene.band("B04"), local.band("B04")
                assert band is not None
                assert other is not None
                grid = band.source.grid
                np.testing.assert_array_equal(
                    band.source.read(0, 0, grid.height, grid.width)[0],
                    other.source.read(0, 0, grid.height, grid.width)[0],
                )
        local.close()
        # What the scene does not use was not fetched.
        names = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
        assert any("B04" in name for name in names)
        assert not any("TCI" in name for name in names)

    def test_a_folder_is_walked(
        self, s3: S3Server, as_anyone: Remote, make_raster: MakeRaster
    ) -> None:
        content = raster(make_raster)
        for key in ("walk/b.tif", "walk/deep/er/a.tif", "walk/.hidden/a.tif", "walk/deep/.a.tif"):
            s3.put("open", key, content)
        s3.put("open", "walk/notes.txt", b"notes")
        s3.put("open", "walk-other/c.tif", content)
        sources = found(as_anyone, "s3://open/walk/")
        prefix = "s3://open/walk/"
        assert [one.path.removeprefix(prefix) for one in sources] == [
            "b.tif",
            "deep/er/a.tif",
            "notes.txt",
        ]
        assert not any(one.named_outright for one in sources)
        opened = [one.open() for one in sources]
        assert [len(scenes) for scenes in opened] == [1, 1, 0]
        for scenes in opened:
            for scene in scenes:
                scene.close()

    def test_a_stac_item_in_a_bucket(
        self, s3: S3Server, as_anyone: Remote, make_raster: MakeRaster
    ) -> None:
        s3.put("open", "items/a/B04.tif", raster(make_raster))
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": "one",
            "collection": "some",
            "properties": {"datetime": "2022-05-01T10:30:00Z"},
            "assets": {"image": {"href": "./a/B04.tif", "type": "image/tiff"}},
        }
        url = s3.put("open", "items/item.json", json.dumps(item).encode())
        (source,) = found(as_anyone, url)
        (scene,) = source.open()
        with scene:
            assert (scene.id, scene.reader, scene.path) == ("one", "stac-some", url)
            assert len(scene.bands) == 2

    def test_a_changed_object_is_a_conflict_until_it_replaces(
        self,
        s3: S3Server,
        make_raster: MakeRaster,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": "changing",
            "properties": {"datetime": "2022-05-01T10:30:00Z"},
            "assets": {"image": {"href": "./x.tif", "type": "image/tiff"}},
        }
        url = s3.put("open", "changing/item.json", json.dumps(item).encode())

        for name, value in s3.anonymous.items():
            monkeypatch.setenv(name, value)

        def status(value: int, *, replace: bool = False) -> str:
            s3.put("open", "changing/x.tif", raster(make_raster, "x.tif", value))
            with geostore.open(tmp_path / "store") as store:
                (result,) = store.ingest([url], replace=replace, cache=tmp_path / "cache")
            return str(result.status)

        assert status(1) == "ingested"
        assert status(1) == "unchanged"
        assert status(2) == "failed"
        assert status(2, replace=True) == "ingested"


class TestIngest:
    def test_addresses_and_standard_input(
        self, web: ObjectServer, make_raster: MakeRaster, tmp_path: Path
    ) -> None:
        first = web.put("/a.tif", raster(make_raster), needs_query="sig=5ecret")
        web.put("/b.tif", raster(make_raster, "b.tif", 2))
        gone = web.url("/gone.tif")
        limits = ("--cache", str(tmp_path / "c"), "--cache-bytes", "1KiB")
        ended = command(tmp_path, *limits, f"{first}?sig=5ecret", gone)
        assert (tmp_path / "c").is_dir()
        assert not any((tmp_path / "c").rglob("*.tif"))  # more than may be kept
        assert not (tmp_path / "cache").exists()
        assert ended.code == 1
        assert [(one["path"], one["status"]) for one in ended.lines] == [
            (first, "ingested"),
            (gone, "failed"),
        ]
        assert f"{gone}: HTTP 404" in ended.said
        assert "5ecret" not in ended.said + json.dumps(ended.lines)
        stored = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
        assert stored
        assert not any(b"5ecret" in path.read_bytes() for path in stored)

        item = {
            "type": "Feature",
            "stac_version": "1.1.0",
            "id": "piped",
            "collection": "some",
            "properties": {"datetime": "2022-05-01T10:30:00Z"},
            "assets": {"image": {"href": web.url("/b.tif"), "type": "image/tiff"}},
        }
        collection = {"type": "FeatureCollection", "features": [item, {**item, "id": "two"}]}
        ended = command(tmp_path, "-", given=json.dumps(collection).encode())
        assert (ended.code, ended.said.count("error")) == (0, 0)
        assert [(one["scene"], one["dataset"], one["status"]) for one in ended.lines] == [
            ("piped", "stac-some", "ingested"),
            ("two", "stac-some", "ingested"),
        ]

    def test_many_scenes_through_a_small_cache(
        self, web: ObjectServer, make_raster: MakeRaster, tmp_path: Path
    ) -> None:
        urls = [
            web.put(f"/{number}.tif", raster(make_raster, f"{number}.tif", number))
            for number in range(12)
        ]
        cache = tmp_path / "c"
        with geostore.open(tmp_path / "store") as store:
            results = store.ingest(urls, cache=cache, cache_bytes=40_000)
        assert [one.status for one in results] == ["ingested"] * 12
        assert [one.path for one in results] == urls
        kept = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
        assert kept <= 40_000

    def test_killed_while_it_fetches_and_run_again(
        self, web: ObjectServer, make_raster: MakeRaster, tmp_path: Path
    ) -> None:
        with zipfile.ZipFile(tmp_path / "big.zip", "w") as target:  # stored, not deflated
            target.writestr("a.tif", raster(make_raster))
            target.writestr("padding.bin", np.random.default_rng(3).bytes(10 * PIECE_BYTES))
        content = (tmp_path / "big.zip").read_bytes()
        url = web.put("/big.zip", content, faults=[*[""] * 6, *["stall"] * PIECES_ASKED_MAX])
        process = subprocess.Popen(
            ingest_words(tmp_path, url),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=process_environment(tmp_path, {}),
        )
        try:
            fetched = 5  # six answers: the first look, and these
            assert _journal_has(tmp_path / "cache", fetched)
            assert all(web.stalled.acquire(timeout=60) for _ in range(PIECES_ASKED_MAX))
        finally:
            process.kill()
            process.wait()
        web.go_on.set()
        web.objects["/big.zip"].faults.clear()
        before = web.bytes_sent()
        ended = command(tmp_path, url)
        assert [one["status"] for one in ended.lines] == ["ingested"]
        look = 64 << 10
        assert web.bytes_sent() - before == len(content) - fetched * PIECE_BYTES + look


def _journal_has(cache: Path, pieces: int) -> bool:
    never = Event()
    for _ in range(1200):
        for journal in cache.rglob("*.journal"):
            if len(journal.read_text().splitlines()) >= pieces + 1:
                return True
        never.wait(0.05)
    return False


def test_errors_are_ours(s3: S3Server, as_user: Remote) -> None:
    """Whatever a bucket's key looks like."""
    for key in ("a//b.tif", "../a.tif", "a/./b.tif", "%2e%2e/a.tif", "ä.tif", "a b#c?d.tif"):
        for source in found(as_user, f"s3://open/{key}"):
            with pytest.raises(GeostoreError) as caught:
                source.open()
            assert "s3://open/" in str(caught.value)
