"""Fetching from servers that fail, and the cache that keeps what came. Loopback only."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geostore.errors import (
    GeostoreError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
    UnreadableSourceError,
)
from geostore.scenes.remote import Remote, default_cache
from geostore.scenes.remote_cache import RemoteCache, Turn
from geostore.scenes.remote_download import Download, GivenUpError
from geostore.scenes.remote_store import Patience, RemoteStore
from geostore.scenes.remote_url import RemoteUrl
from tests.object_server import ObjectServer, object_server

PIECE = 100_000
OBJECT = np.random.default_rng(1).integers(0, 256, 1_050_000, "uint8").tobytes()
"""Ten and a half pieces."""
OVERHEAD = 8 << 10
HTTP_DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with object_server() as running:
        yield running


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def make(tmp_path: Path, pauses: list[float]) -> Iterator[Callable[..., RemoteCache]]:
    """A cache in this test's folder; its store notes its pauses and does not make them."""
    made: list[RemoteCache] = []

    def run(*, patience: Patience | None = None, **how: Any) -> RemoteCache:
        store = RemoteStore(
            environment={},
            patience=patience or Patience(silence_timeout_s=5.0),
            sleep=pauses.append,
            chance=lambda: 0.5,
        )
        how = {"piece_bytes": PIECE, "directory": tmp_path / "cache", "store": store, **how}
        made.append(RemoteCache(**how))
        return made[-1]

    yield run
    for cache in made:
        cache.close()


def fetched(cache: RemoteCache, url: str, turn: Turn | None = None) -> bytes:
    held = cache.fetch(RemoteUrl(url), turn)
    try:
        return held.path.read_bytes()
    finally:
        held.close()


def files(cache: RemoteCache) -> set[str]:
    return {path.name for path in cache.objects.rglob("*") if path.is_file()} - {"lock", "room"}


class TestFetching:
    def test_whole_under_its_own_name_and_again_from_the_cache(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a/scene one.tif", OBJECT)
        cache = make()
        assert fetched(cache, url) == OBJECT
        assert files(cache) == {"scene one.tif"}
        sent = server.bytes_sent()
        # The probe's bytes are not asked for twice.
        assert sent == len(OBJECT)
        assert fetched(cache, url) == OBJECT
        assert server.bytes_sent() - sent == 64 << 10  # asked whether it is the same, no more
        assert fetched(make(), url) == OBJECT  # another process's

    def test_pieces_are_asked_side_by_side(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        assert fetched(make(), server.put("/a.bin", OBJECT)) == OBJECT
        starts = sorted(one.start or 0 for one in server.asked[1:])
        assert starts == [65_536, *range(PIECE, len(OBJECT), PIECE)]
        assert {one.headers.get("if-match") for one in server.asked[1:]} == {
            server.asked[1].headers["if-match"]
        }

    @pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, PIECE, PIECE + 1])
    def test_any_size(
        self, server: ObjectServer, make: Callable[..., RemoteCache], size: int
    ) -> None:
        url = server.put("/a.bin", OBJECT[:size])
        assert fetched(make(), url) == OBJECT[:size]

    def test_a_server_that_sends_no_parts(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT, sends_ranges=False)
        cache = make()
        assert fetched(cache, url) == OBJECT
        assert files(cache) == set()  # whether it is current could not be asked
        server.objects["/a.bin"].faults = ["", "drop"]  # the probe, then the body
        assert fetched(cache, url) == OBJECT

    def test_an_object_without_etag_or_time_is_not_kept(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT, e_tag=None)
        cache = make()
        assert fetched(cache, url) == OBJECT
        server.put("/a.bin", OBJECT[::-1], e_tag=None)
        assert fetched(cache, url) == OBJECT[::-1]
        assert files(cache) == set()

    def test_a_time_tells_states_apart_where_there_is_no_etag(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT, e_tag=None, modified=HTTP_DATE)
        cache = make()
        assert fetched(cache, url) == OBJECT
        before = server.bytes_sent()
        assert fetched(cache, url) == OBJECT
        assert server.bytes_sent() - before == 64 << 10
        server.put("/a.bin", OBJECT[::-1], e_tag=None, modified="Fri, 21 Oct 2016 07:28:00 GMT")
        assert fetched(cache, url) == OBJECT[::-1]

    def test_a_changed_object_is_fetched_anew(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT)
        cache = make()
        held = cache.fetch(RemoteUrl(url))
        server.put("/a.bin", OBJECT[::-1])
        assert fetched(cache, url) == OBJECT[::-1]
        assert held.path.read_bytes() == OBJECT  # who reads the old state goes on doing so
        held.close()

    def test_an_object_that_changes_while_it_is_fetched(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT)
        cache = make()

        class Changing(RemoteStore):
            def read(self, url: RemoteUrl, start: int, stop: int, **how: Any) -> Any:
                if start == 3 * PIECE:
                    server.put("/a.bin", OBJECT[::-1])
                return super().read(url, start, stop, **how)

        cache.store = Changing(environment={}, patience=Patience(), sleep=lambda _: None)
        assert fetched(cache, url) == OBJECT[::-1]
        assert files(cache) == {"a.bin"}

    def test_an_object_that_never_rests(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT)
        cache, count = make(), iter(range(1000))

        class Changing(RemoteStore):
            def read(self, url: RemoteUrl, start: int, stop: int, **how: Any) -> Any:
                piece = super().read(url, start, stop)
                return replace(piece, of=replace(piece.of, e_tag=f'"{next(count)}"'))

        cache.store = Changing(environment={}, patience=Patience(), sleep=lambda _: None)
        with pytest.raises(UnavailableError, match="expected one that rests"):
            fetched(cache, url)

    def test_redirects_are_followed(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        server.put("/real.bin", OBJECT)
        url = server.put("/a.bin", b"", redirect="/real.bin")
        assert fetched(make(), url) == OBJECT

    def test_signed_and_guarded_addresses(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT, needs_query="X-Amz-Signature=5ec%2Fret")
        cache = make()
        assert fetched(cache, f"{url}?X-Amz-Signature=5ec%2Fret&x=a%20b") == OBJECT
        with pytest.raises(UnreadableSourceError, match="HTTP 403") as caught:
            fetched(cache, f"{url}?X-Amz-Signature=wrong")
        assert "wrong" not in str(caught.value)
        guarded = server.put("/b.bin", OBJECT, needs_basic="Basic dTpw")
        assert fetched(cache, guarded.replace("127", "u:p@127", 1)) == OBJECT
        text = " ".join(str(path) for path in cache.directory.rglob("*"))
        assert "5ec" not in text


class TestFaults:
    def test_passing_faults_are_tried_again_with_growing_pauses(
        self, server: ObjectServer, make: Callable[..., RemoteCache], pauses: list[float]
    ) -> None:
        url = server.put("/a.bin", OBJECT[:1000], faults=[500, 503, "drop", 429])
        assert fetched(make(), url) == OBJECT[:1000]
        assert pauses == [0.375, 0.75, 1.5, 3.0]  # half of it sure, half by chance

    @pytest.mark.parametrize(
        ("faults", "kind", "said"),
        [
            ([500] * 5, UnavailableError, r"HTTP 500 \(5 tries\)"),
            ([404], NotFoundError, "HTTP 404"),
            ([410], NotFoundError, "HTTP 410"),
            ([401], UnreadableSourceError, "HTTP 401, the server refuses"),
            ([403], UnreadableSourceError, "HTTP 403, the server refuses"),
            ([416, ""], UnreadableSourceError, "HTTP 416"),
            ([418], UnreadableSourceError, "HTTP 418"),
            (["drop"] * 5, UnavailableError, r"the connection broke off \(5 tries\)"),
        ],
    )
    def test_lasting_ones_are_said(
        self,
        server: ObjectServer,
        make: Callable[..., RemoteCache],
        faults: list[str | int],
        kind: type[GeostoreError],
        said: str,
    ) -> None:
        url = server.put("/a.bin", OBJECT[:1000], faults=faults)
        with pytest.raises(kind, match=said) as caught:
            fetched(make(), url.replace("127", "u:5ec@127", 1) + "?sig=5ec")
        assert url in str(caught.value)
        assert "5ec" not in str(caught.value)
        assert type(caught.value) is kind

    def test_what_nobody_wants_any_more_is_not_tried_again(
        self, server: ObjectServer, make: Callable[..., RemoteCache], pauses: list[float]
    ) -> None:
        url = server.put("/a.bin", OBJECT[:1000], faults=[500] * 5)
        turn = Turn()
        turn.give_up()
        with pytest.raises(UnavailableError, match=r"HTTP 500 \(1 tries\)"):
            fetched(make(), url, turn)
        assert pauses == []

    def test_redirects_in_a_circle(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        server.put("/b.bin", b"", redirect="/a.bin")
        url = server.put("/a.bin", b"", redirect="/b.bin")
        with pytest.raises(UnreadableSourceError, match="redirected in a circle"):
            fetched(make(), url)

    def test_a_redirect_to_a_local_file(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", b"", redirect="file:///etc/passwd")
        with pytest.raises(GeostoreError):
            fetched(make(), url)

    def test_any_character_in_a_name(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        cache = make(patience=Patience(tries_max=1))
        cache.store.environment = {"AWS_ENDPOINT_URL": server.url(""), "AWS_REGION": "x"}
        for character in [*map(chr, range(32, 127)), "é", "𐍈", "\x85"]:
            for address in (server.url(f"/a{character}b"), f"s3://bucket/a{character}b"):
                with pytest.raises(GeostoreError):  # not there, or no key; never a panic
                    fetched(cache, address)

    @pytest.mark.parametrize("endpoint", ["nonsense", "s3://bucket", "http://", "file:///x"])
    def test_an_s3_server_that_is_none(
        self, make: Callable[..., RemoteCache], endpoint: str
    ) -> None:
        cache = make()
        cache.store.environment = {"AWS_ENDPOINT_URL": endpoint}
        with pytest.raises(GeostoreError, match="expected"):
            fetched(cache, "s3://bucket/a.tif")

    def test_nobody_listens(self, make: Callable[..., RemoteCache]) -> None:
        with object_server() as gone:
            url = gone.url("/a.bin")
        with pytest.raises(UnavailableError, match="no connection to http://127.0.0.1"):
            fetched(make(), url)

    def test_a_server_that_falls_silent(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT[:1000], faults=["stall"])
        patience = Patience(silence_timeout_s=0.1, tries_max=1)
        with pytest.raises(UnavailableError, match="silent or too slow"):
            fetched(make(patience=patience), url)

    def test_a_server_that_sends_no_parts_and_dawdles(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT, sends_ranges=False)
        cache = make(patience=Patience(silence_timeout_s=30.0, rate_min_bytes_s=4096.0))
        seconds = iter(range(0, 1_000_000, 100))
        cache.store.clock = lambda: float(next(seconds))  # each look a hundred seconds later
        with pytest.raises(UnavailableError, match=r"sent \d+ bytes in \d+ s; expected 4096"):
            fetched(cache, url)
        assert files(cache) == set()

    def test_an_object_that_is_shorter_than_announced(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT, faults=["more"] * 100)
        with pytest.raises((UnavailableError, UnreadableSourceError)) as caught:
            fetched(make(), url)
        assert url in str(caught.value)

    def test_a_server_that_does_not_say_how_long(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT, sends_ranges=False, sends_length=False)
        with pytest.raises(UnreadableSourceError, match="does not say how long"):
            fetched(make(), url)

    def test_a_folder(self, server: ObjectServer, make: Callable[..., RemoteCache]) -> None:
        with pytest.raises(UnreadableSourceError, match="expected a file's"):
            fetched(make(), server.url("/"))


class TestResuming:
    def test_only_what_lacks_is_fetched_again(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT, faults=["", *[""] * 6, *[403] * 4])
        with pytest.raises(UnreadableSourceError, match="403"):
            fetched(make(), url)
        first = server.bytes_sent()
        assert first < len(OBJECT)
        server.objects["/a.bin"].faults.clear()
        assert fetched(make(), url) == OBJECT
        # The probe is sent again, and no piece twice but those that were under way.
        assert server.bytes_sent() <= len(OBJECT) + (64 << 10) + 4 * PIECE
        assert server.bytes_sent() < first + len(OBJECT)

    def test_pieces_that_a_power_failure_emptied_are_fetched_again(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT, faults=[*[""] * 8, *[403] * 3])
        with pytest.raises(UnreadableSourceError):
            fetched(make(), url)
        cache = make()
        server.objects["/a.bin"].faults.clear()
        (part,) = cache.objects.rglob("*.part")
        part.write_bytes(bytes(len(OBJECT)))
        assert fetched(cache, url) == OBJECT

    @pytest.mark.parametrize("journal", ["", "no json\n0 00000000\n", "{}\n", "[1", "{}\n" * 9])
    def test_a_damaged_journal_is_no_journal(
        self, server: ObjectServer, make: Callable[..., RemoteCache], journal: str
    ) -> None:
        url = server.put("/a.bin", OBJECT, faults=[*[""] * 8, *[403] * 3])
        with pytest.raises(UnreadableSourceError):
            fetched(make(), url)
        cache = make()
        server.objects["/a.bin"].faults.clear()
        (path,) = cache.objects.rglob("*.journal")
        path.write_text(journal)
        assert fetched(cache, url) == OBJECT

    def test_another_state_of_the_object_is_begun_anew(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT, faults=[*[""] * 8, *[403] * 3])
        with pytest.raises(UnreadableSourceError):
            fetched(make(), url)
        server.put("/a.bin", OBJECT[::-1])
        assert fetched(make(), url) == OBJECT[::-1]


class TestRoom:
    def test_the_least_recently_used_goes_first(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        cache = make(bytes_max=3 * (PIECE + OVERHEAD))
        urls = {name: server.put(f"/{name}", name.encode() * PIECE) for name in "abcd"}
        for number, name in enumerate("abc"):
            fetched(cache, urls[name])
            (path,) = cache.objects.rglob(name)
            os.utime(path.with_name("lock"), ns=(number, number))
        fetched(cache, urls["a"])  # used again
        fetched(cache, urls["d"])
        assert files(cache) == {"a", "c", "d"}
        assert cache.bytes_kept() <= cache.bytes_max

    def test_what_is_held_stays(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        cache = make(bytes_max=PIECE + OVERHEAD)
        held = cache.fetch(RemoteUrl(server.put("/a", b"a" * PIECE)))
        others = [server.put(f"/{name}", name.encode() * PIECE) for name in "bc"]
        for url in others:
            assert fetched(make(bytes_max=1), url)[:1] == url[-1:].encode()  # another process's
        assert files(cache) == {"a"}
        assert held.path.read_bytes() == b"a" * PIECE
        held.close()
        held.close()
        assert files(cache) == {"a"}  # it fits

    def test_an_object_larger_than_the_bound_is_there_while_it_is_read(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        cache = make(bytes_max=1)
        assert fetched(cache, server.put("/a", OBJECT)) == OBJECT
        assert files(cache) == set()
        assert cache.bytes_kept() == 0

    def test_a_full_disk_is_said_before_a_byte_is_fetched(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT)
        cache = make(disk_free=lambda _: (64 << 20) + len(OBJECT) - 1)
        with pytest.raises(StorageFullError, match=r"a.bin: 1050000 bytes.*--cache"):
            fetched(cache, url)
        assert len(server.asked) == 1
        assert fetched(make(disk_free=lambda _: (64 << 20) + len(OBJECT)), url) == OBJECT

    def test_an_absurd_size(self, server: ObjectServer, make: Callable[..., RemoteCache]) -> None:
        url = server.put("/a.bin", OBJECT)
        cache = make()

        class Vast(RemoteStore):
            def read(self, url: RemoteUrl, start: int, stop: int, **how: Any) -> Any:
                piece = super().read(url, start, stop)
                return replace(piece, of=replace(piece.of, size=1 << 40))

        cache.store = Vast(environment={}, patience=Patience())
        with pytest.raises(UnreadableSourceError, match=r"1099511627776 bytes; expected at most"):
            fetched(cache, url)

    def test_a_cache_that_cannot_be_written(
        self, server: ObjectServer, make: Callable[..., RemoteCache], tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        cache = make(directory=tmp_path / "file" / "cache")
        with pytest.raises(StorageFullError, match="cannot write to the cache.*--cache"):
            fetched(cache, server.put("/a", OBJECT))

    def test_ahead_of_its_turn_it_waits_for_room(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        cache = make(bytes_max=PIECE + OVERHEAD)
        held = cache.fetch(RemoteUrl(server.put("/a", b"a" * PIECE)))
        turn, waits = Turn(is_due=False), threading.Event()
        wait = turn.wait

        def noted(timeout_s: float) -> None:
            waits.set()
            wait(timeout_s)

        turn.wait = noted  # type: ignore[method-assign]
        url = server.put("/b", b"b" * PIECE)
        with ThreadPoolExecutor(1) as pool:
            later = pool.submit(fetched, cache, url, turn)
            assert waits.wait(30)
            assert not later.done()
            assert files(cache) == {"a"}
            turn.come()  # now somebody needs it, whatever the bound
            assert later.result(30) == b"b" * PIECE
        held.close()

    def test_given_up_while_it_waits(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        cache = make(bytes_max=1)
        turn = Turn(is_due=False)
        url = server.put("/b", b"b" * PIECE)
        with ThreadPoolExecutor(1) as pool:
            later = pool.submit(fetched, cache, url, turn)
            turn.give_up()
            with pytest.raises(GivenUpError):
                later.result(30)


class TestSharing:
    def test_one_fetches_and_the_others_wait_for_it(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        url = server.put("/a.bin", OBJECT)
        caches = [make() for _ in range(4)]  # locks are between open files: as of processes
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda cache: fetched(cache, url), caches)) == {OBJECT}
        assert server.bytes_sent() == len(OBJECT) + 3 * (64 << 10)

    def test_who_waits_for_a_fetch_does_not_wait_for_its_readers(
        self,
        server: ObjectServer,
        make: Callable[..., RemoteCache],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Two scenes of one ingest share an object, and the second reads it until the first
        one has been stored.
        """
        url = RemoteUrl(server.put("/a.bin", OBJECT))
        is_fetching, may_fetch = threading.Event(), threading.Event()
        run = Download.run

        def slowly(download: Download) -> None:
            is_fetching.set()
            assert may_fetch.wait(20)
            run(download)

        monkeypatch.setattr(Download, "run", slowly)
        with ThreadPoolExecutor(1) as pool:
            fetching = pool.submit(make().fetch, url)
            assert is_fetching.wait(20)
            waits: list[float] = []

            def meanwhile(seconds: float) -> None:
                waits.append(seconds)
                may_fetch.set()
                fetching.result(20)  # it is whole, and held by its first reader
                assert len(waits) < 5, "waits for a reader"

            second = make(sleep=meanwhile).fetch(url)
            assert second.path.read_bytes() == OBJECT
            second.close()
            fetching.result().close()

    def test_fetching_evicting_and_reading_at_once(
        self, server: ObjectServer, make: Callable[..., RemoteCache]
    ) -> None:
        contents = {f"/{n}": bytes([n]) * (PIECE + n) for n in range(6)}
        urls = {path: server.put(path, content) for path, content in contents.items()}
        caches = [make(bytes_max=2 * (PIECE + OVERHEAD)) for _ in range(3)]

        def work(number: int) -> None:
            path = f"/{number * 7 % 6}"
            assert fetched(caches[number % 3], urls[path]) == contents[path]

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(60)))
        assert caches[0].bytes_kept() <= 2 * (PIECE + OVERHEAD)


def test_where_the_cache_is(tmp_path: Path) -> None:
    assert default_cache({"XDG_CACHE_HOME": "/x"}) == Path("/x/geostore")
    assert default_cache({"XDG_CACHE_HOME": "relative"}) == Path.home() / ".cache/geostore"
    assert default_cache({}) == Path.home() / ".cache/geostore"
    assert default_cache({"GEOSTORE_CACHE": "/y", "XDG_CACHE_HOME": "/x"}) == Path("/y")
    remote = Remote.of({"GEOSTORE_CACHE": str(tmp_path / "c")}, bytes_max=5)
    assert (remote.cache.directory, remote.cache.bytes_max) == (tmp_path / "c", 5)
    assert not (tmp_path / "c").exists()
