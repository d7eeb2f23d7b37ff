"""Sources at http addresses, found and opened; some ahead of their turn."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from geostore.errors import (
    GeostoreError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnreadableSourceError,
)
from geostore.scenes import Ahead, FoundSource, Remote, Scene, find_sources, open_source
from geostore.scenes.remote_cache import Turn
from tests.object_server import ObjectServer, object_server

MakeRaster = Callable[..., Path]


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with object_server() as running:
        yield running


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    made = Remote.of({}, directory=tmp_path / "cache")
    yield made
    made.close()


def found(remote: Remote, *paths: str | Path) -> list[FoundSource]:
    return list(find_sources(paths, remote=lambda: remote))


def held(remote: Remote) -> list[str]:
    """Objects that an eviction of everything leaves."""
    with remote.cache._all_room() as room:
        remote.cache._fits(room, 1 << 62)
    return sorted(path.parent.name for path in remote.cache.objects.rglob("lock"))


class TestHttp:
    def test_a_raster_is_what_a_local_copy_is(
        self, server: ObjectServer, remote: Remote, make_raster: MakeRaster
    ) -> None:
        data = np.arange(3 * 64 * 64, dtype="uint16").reshape(3, 64, 64)
        path = make_raster("m_20220501.tif", data)
        url = server.put("/x/m_20220501.tif", path.read_bytes())
        (source,) = found(remote, url + "?sig=5ec")
        assert source == FoundSource(url, named_outright=True)
        (there,) = source.open()
        (here,) = open_source(path)
        with here, there:
            assert (there.id, there.fingerprint) == (here.id, here.fingerprint)
            assert there.path == url
            assert (there.time_us, there.reader) == (here.time_us, here.reader)
            for band, other in zip(there.bands, here.bands, strict=True):
                np.testing.assert_array_equal(
                    band.source.read(0, 0, 64, 64)[0], other.source.read(0, 0, 64, 64)[0]
                )
                assert band.source.name == url
            assert len(held(remote)) == 1
        assert held(remote) == []

    def test_an_archive(
        self, server: ObjectServer, remote: Remote, make_raster: MakeRaster, tmp_path: Path
    ) -> None:
        path = make_raster("inside.tif", np.ones((1, 64, 64), "uint8"))
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as target:
            target.write(path, "folder/inside.tif")
        url = server.put("/download", (tmp_path / "z.zip").read_bytes())  # by content, not name
        (source,) = found(remote, url)
        (scene,) = source.open()
        with scene:
            assert scene.bands[0].source.name == f"{url}!folder/inside.tif"

    def test_a_damaged_raster_is_named_by_its_address(
        self, server: ObjectServer, remote: Remote, make_raster: MakeRaster, tmp_path: Path
    ) -> None:
        path = make_raster("a.tif", np.ones((1, 64, 64), "uint8"))
        url = server.put("/a.tif", path.read_bytes()[:200])
        (source,) = found(remote, url)
        with pytest.raises(UnreadableSourceError) as caught:
            source.open()
        assert url in str(caught.value)
        assert str(tmp_path) not in str(caught.value)
        assert held(remote) == []

    @pytest.mark.parametrize("path", ["/gone.tif", "/gone", "/folder/"])
    def test_what_is_not_there_is_said_in_its_turn(
        self, server: ObjectServer, remote: Remote, path: str
    ) -> None:
        (source,) = found(remote, server.url(path))
        with pytest.raises(NotFoundError, match="HTTP 404") as caught:
            source.open()
        assert server.url(path) in str(caught.value)

    def test_a_folder_has_no_listing(self, server: ObjectServer, remote: Remote) -> None:
        url = server.put("/", b"<html>Index of /")
        (source,) = found(remote, url)
        with pytest.raises(UnreadableSourceError, match="the address of a folder"):
            source.open()

    def test_what_no_reader_claims(self, server: ObjectServer, remote: Remote) -> None:
        url = server.put("/notes.txt", b"notes")
        (source,) = found(remote, url)
        with pytest.raises(UnreadableSourceError, match=f"{url}: no reader claims it"):
            source.open()
        (met,) = find_sources([url], remote=lambda: remote, named_outright=False)
        assert met.open() == []

    def test_addresses_that_cannot_be_are_said_before_work_begins(self, remote: Remote) -> None:
        for text in ("https://", "http://h:x/a.tif", "s3:///k"):
            with pytest.raises(InvalidInputError):
                find_sources(["https://h/a.tif", text], remote=lambda: remote)

    def test_named_twice_it_is_one(self, server: ObjectServer, remote: Remote) -> None:
        url = server.put("/a.tif", b"x")
        assert len(found(remote, url, url)) == 1


class TestAhead:
    @pytest.fixture
    def sources(
        self, server: ObjectServer, remote: Remote, make_raster: MakeRaster
    ) -> list[FoundSource]:
        """Nine sources: two remote ones, a local one, and so on."""
        paths = []
        for number in range(9):
            path = make_raster(f"{number}.tif", np.full((1, 64, 64), number + 1, "uint8"))
            is_local = number % 3 == 2
            paths.append(str(path) if is_local else server.put(f"/{number}.tif", path.read_bytes()))
        return found(remote, *paths)

    def values(self, scenes: list[Scene]) -> int:
        (scene,) = scenes
        with scene:
            return int(scene.bands[0].source.read(0, 0, 1, 1)[0][0, 0])

    def test_each_gives_its_own(self, sources: list[FoundSource], remote: Remote) -> None:
        with Ahead(sources) as ahead:
            assert [self.values(ahead.open(one)) for one in sources] == list(range(1, 10))
            assert self.values(ahead.open(sources[0])) == 1  # once more
        assert held(remote) == []

    @pytest.mark.parametrize("ahead_max", [0, 2])
    def test_in_any_order(self, sources: list[FoundSource], remote: Remote, ahead_max: int) -> None:
        with Ahead(sources, ahead_max=ahead_max) as ahead:
            order = [8, 3, 0, 7, 1, 6, 2, 5, 4]
            assert [self.values(ahead.open(sources[n])) - 1 for n in order] == order
        assert held(remote) == []

    def test_so_many_are_opened_before_their_turn(
        self, sources: list[FoundSource], server: ObjectServer
    ) -> None:
        opened: list[str] = []
        enough = threading.Event()

        class Noting:
            def __init__(self, number: int) -> None:
                self.number = number

            def open(self, found: FoundSource, reader, options, turn: Turn) -> list[Scene]:
                assert turn is not None
                opened.append(found.path)
                if len(opened) == 3:
                    enough.set()
                return []

        noting = [FoundSource(str(n), named_outright=False, origin=Noting(n)) for n in range(9)]
        with Ahead(noting, ahead_max=3) as ahead:
            assert enough.wait(30)
            assert sorted(opened) == ["0", "1", "2"]
            ahead.open(noting[2])
            ahead.open(noting[5])
        assert set(opened) <= {str(n) for n in range(9)}
        assert {"3", "4", "5"} <= set(opened)

    def test_errors_come_in_their_turn(
        self, server: ObjectServer, remote: Remote, make_raster: MakeRaster
    ) -> None:
        path = make_raster("a.tif", np.ones((1, 64, 64), "uint8"))
        good = server.put("/a.tif", path.read_bytes())
        sources = found(remote, server.url("/gone.tif"), good)
        with Ahead(sources) as ahead:
            with pytest.raises(NotFoundError):
                ahead.open(sources[0])
            assert self.values(ahead.open(sources[1])) == 1

    def test_what_nobody_asked_for_is_given_up_and_closed(
        self, sources: list[FoundSource], remote: Remote
    ) -> None:
        ahead = Ahead(sources)
        self.values(ahead.open(sources[0]))
        ahead.close()
        ahead.close()
        assert held(remote) == []

    def test_what_waits_for_room_is_opened_when_its_turn_comes(
        self, sources: list[FoundSource], remote: Remote
    ) -> None:
        # Nothing fits ahead of its turn: each is fetched when it is asked for.
        object.__setattr__(remote.cache, "bytes_max", 1)
        with Ahead(sources) as ahead:
            scenes = [ahead.open(one) for one in sources]
            assert [self.values(one) for one in scenes] == list(range(1, 10))
        assert remote.cache.bytes_kept() == 0

    def test_a_server_that_is_down_fails_each_source_once(self, remote: Remote) -> None:
        with object_server() as gone:
            urls = [gone.url(f"/{n}.tif") for n in range(3)]
        remote.cache.store.sleep = lambda _: None
        sources = found(remote, *urls)
        with Ahead(sources) as ahead:
            for one in sources:
                with pytest.raises(UnavailableError, match="no connection"):
                    ahead.open(one)


def test_a_trouble_while_looking_is_an_error_of_that_source(
    server: ObjectServer, remote: Remote
) -> None:
    url = server.put("/search", b"{", faults=[403])
    (source,) = found(remote, url)
    with pytest.raises(GeostoreError, match="HTTP 403"):
        source.open()


def test_a_redirect_takes_no_password_to_another_server(
    server: ObjectServer, remote: Remote
) -> None:
    with object_server() as other:
        other.put("/a.bin", b"x" * 100)
        other.put("/item", b"<html>")
        for path in ("/a.bin", "/item"):
            url = server.put(path, b"", redirect=other.url(path), needs_basic="Basic dTpw")
            (source,) = found(remote, url.replace("127", "u:p@127", 1))
            with pytest.raises(UnreadableSourceError, match="no reader claims it"):
                source.open()
        assert {one.path for one in other.asked} == {"/a.bin", "/item"}
        assert [one.headers.get("authorization") for one in other.asked] == [None] * len(
            other.asked
        )
