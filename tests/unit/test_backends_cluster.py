from __future__ import annotations

import inspect
import os
import pickle
import queue
import runpy
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from geostore.backends import Backend, open_backend, open_embedded
from geostore.backends.cluster import ClusterBackend
from geostore.backends.cluster_attempts import Attempt, Attempts
from geostore.backends.cluster_nodes import ClusterNodes, security_of
from geostore.config import Settings, parse_target
from geostore.errors import (
    ConflictError,
    CorruptDataError,
    GeostoreError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    StaleRingError,
    StorageFullError,
    UnavailableError,
    WrongClusterError,
)
from geostore.query import Cursor, Query
from geostore.ring import Ring, RingNode, found_ring, placement_key, slot_of, with_node_joined
from geostore.rpc.block_streams import StoredBlock
from geostore.rpc.row_arrow import batch_from_rows
from geostore.types import TileKey
from geostore.types.report import Problem, ProblemKind, VerifyReport

small = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "small_store.py")))
A = small.make_definition("a")
TARGET = parse_target("geostore://127.0.0.1:7001,127.0.0.1:7002")


def make_ring(nodes: int = 3, replicas: int = 1, cluster_id: str = "c") -> Ring:
    def node(number: int) -> RingNode:
        return RingNode(f"id{number}", f"n{number}", f"127.0.0.1:700{number}")

    ring = found_ring(node(1), cluster_id=cluster_id, replicas=replicas)
    for number in range(2, nodes + 1):
        ring = with_node_joined(ring, node(number), None)
    return ring


class Cluster:
    """Nodes that answer from `answers`, by address (or "") and method; calls are logged."""

    def __init__(self, ring: Ring) -> None:
        self.rings = {f"127.0.0.1:700{number}": ring for number in range(1, 10)}
        self.down: set[str] = set()
        self.answers: dict[tuple[str, str], Callable[..., Any]] = {}
        self.log: list[tuple[str, str]] = []

    def connect(self, address: str) -> Any:
        return FakeClient(self, address)

    def open(self, mode: Any = "a") -> ClusterBackend:
        nodes = ClusterNodes(TARGET, connect=self.connect, wait_first_s=0.0)
        return ClusterBackend(TARGET, mode=mode, connect=self.connect, nodes=nodes)

    def asked(self, method: str) -> list[str]:
        return [address for address, name in self.log if name == method]

    def answer(self, method: str, give: Callable[..., Any], address: str = "") -> None:
        self.answers[address, method] = give


class FakeClient:
    def __init__(self, cluster: Cluster, address: str) -> None:
        self.cluster, self.address = cluster, address

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)
        return partial(self._do, method)

    def _do(self, method: str, call: Any, *args: Any, **named: Any) -> Any:
        assert call.time_left_s() != 0
        cluster = self.cluster
        cluster.log.append((self.address, method))
        if self.address in cluster.down:
            raise UnavailableError(f"node {self.address}: cannot be reached")
        if method == "get_ring":
            return cluster.rings[self.address]
        give = cluster.answers.get((self.address, method)) or cluster.answers["", method]
        return give(*args, **named)


def fails(error: GeostoreError) -> Callable[..., Any]:
    def give(*_: Any, **__: Any) -> Any:
        raise error

    return give


def first_of(ring: Ring, key: TileKey) -> str:
    return ring.first_of(slot_of(placement_key(key.geocode, A.placement))).address


def test_it_has_the_protocols_methods_and_signatures() -> None:
    assert isinstance(Cluster(make_ring()).open(), Backend)
    for name, member in vars(Backend).items():
        if name.startswith("_") or not callable(member):
            continue
        asked = inspect.signature(member)
        given = inspect.signature(getattr(ClusterBackend, name))
        assert list(asked.parameters.values()) == list(given.parameters.values()), name
        assert asked.return_annotation == given.return_annotation, name


# ---------------------------------------------------------------- the ring


def test_all_down_names_each_and_why() -> None:
    cluster = Cluster(make_ring())
    cluster.down = {"127.0.0.1:7001", "127.0.0.1:7002"}
    with pytest.raises(UnavailableError, match=r"7001: .*reached; node .*7002: .*reached"):
        cluster.open().connect_now()


def test_reads_fail_over_to_another_node() -> None:
    cluster = Cluster(make_ring())
    cluster.answer("list_datasets", lambda: [A])
    cluster.down = {"127.0.0.1:7001"}
    backend = cluster.open()
    assert backend.datasets() == [A]
    cluster.down = {"127.0.0.1:7002"}
    assert backend.datasets() == [A]
    cluster.down |= {"127.0.0.1:7001", "127.0.0.1:7003"}
    with pytest.raises(UnavailableError, match=r"no node gave its ring.*7001.*7002.*7003"):
        backend.datasets()


def test_a_stale_ring_is_fetched_anew_and_the_call_goes_to_the_new_home() -> None:
    old, new = make_ring(1), make_ring(3)
    cluster = Cluster(old)
    name = next(f"d{i}" for i in range(99) if new.first_of(slot_of(f"dataset/d{i}")).id == "id3")
    definition = small.make_definition(name)
    backend = cluster.open()
    backend.connect_now()
    cluster.rings = dict.fromkeys(cluster.rings, new)
    stale = fails(StaleRingError("old", epoch=new.epoch))
    cluster.answer("create_dataset", stale, "127.0.0.1:7001")
    cluster.answer("create_dataset", lambda definition: None)
    backend.create_dataset(definition)
    assert cluster.asked("create_dataset") == ["127.0.0.1:7001", "127.0.0.1:7003"]


def test_a_ring_that_stays_stale_ends_in_an_error() -> None:
    cluster = Cluster(make_ring())
    cluster.answer("count", fails(StaleRingError("old", epoch=99)))
    with pytest.raises(UnavailableError, match="a count"):
        cluster.open().count(Query())
    assert len(cluster.asked("count")) == 4


def test_another_cluster_at_a_known_address_is_refused() -> None:
    cluster = Cluster(make_ring())
    backend = cluster.open()
    backend.connect_now()
    cluster.rings = dict.fromkeys(cluster.rings, make_ring(cluster_id="other"))
    cluster.answer("count", fails(UnavailableError("gone")))
    with pytest.raises(WrongClusterError, match="belongs to cluster 'other'"):
        backend.count(Query())


# ---------------------------------------------------------------- datasets


def test_a_creation_whose_answer_was_lost_is_no_conflict() -> None:
    cluster = Cluster(make_ring(1))
    answers = iter([UnavailableError("broke off"), ConflictError("taken")])
    cluster.answer("create_dataset", lambda definition: fails(next(answers))())
    cluster.answer("get_dataset", lambda name: A)
    cluster.open().create_dataset(A)
    assert next(answers, None) is None
    cluster.answer("create_dataset", fails(ConflictError("taken")))
    with pytest.raises(ConflictError, match="taken"):
        cluster.open().create_dataset(A)


def test_a_deletion_is_not_tried_again_where_it_may_be_done() -> None:
    cluster = Cluster(make_ring(1))
    cluster.answer("delete_dataset", fails(UnavailableError("broke off")))
    with pytest.raises(UnavailableError, match="broke off"):
        cluster.open().delete_dataset("a")
    assert len(cluster.asked("delete_dataset")) == 1


def test_a_reader_does_not_write() -> None:
    with pytest.raises(ReadOnlyError, match="mode 'a'"):
        Cluster(make_ring()).open("r").create_dataset(A)


# ---------------------------------------------------------------- scenes


def begin(cluster: Cluster, backend: ClusterBackend, scene: str = "s1") -> None:
    record: Any = SimpleNamespace(staging_version="v1", attempt=3)
    cluster.answer("begin_scene", lambda *_, **__: (record, 3, 30.0))
    assert backend.begin_scene(A, scene, "v1", small.CELLS) is record


def test_an_unchanged_scene_begins_nothing() -> None:
    cluster = Cluster(make_ring())
    cluster.answer("begin_scene", lambda *_, **__: None)
    backend = cluster.open()
    assert backend.begin_scene(A, "s1", "v1", small.CELLS) is None
    with pytest.raises(ConflictError, match="no attempt"):
        backend.put_tiles([small.make_tile(A, "s1", "v1", small.CELLS[0])])


def test_tiles_go_to_their_first_replicas_at_once_and_checksums_keep_their_order() -> None:
    ring = make_ring()
    cluster = Cluster(ring)
    tiles = [small.make_tile(A, "s1", "v1", cell) for cell in small.CELLS]
    homes = {first_of(ring, tile.meta.key) for tile in tiles}
    assert len(homes) > 1
    together = threading.Barrier(len(homes))

    def put(part: list[Any], attempt: int) -> list[str]:
        together.wait(20)
        assert attempt == 3
        assert len({first_of(ring, tile.meta.key) for tile in part}) == 1
        return [tile.checksum for tile in part]

    cluster.answer("put_tiles", put)
    cluster.answer("commit_scene", lambda *_, **named: committed.append(named["attempt"]))
    committed: list[int] = []
    with cluster.open() as backend:
        begin(cluster, backend)
        assert backend.put_tiles(tiles) == [tile.checksum for tile in tiles]
        backend.commit_scene(A.id, "s1", "v1", small.CELLS, bytes_total=1)
    assert set(cluster.asked("put_tiles")) == homes
    assert committed == [3]


def test_a_full_disk_is_said_at_once() -> None:
    cluster = Cluster(make_ring())
    cluster.answer("put_tiles", fails(StorageFullError("full")))
    with cluster.open() as backend:
        begin(cluster, backend)
        with pytest.raises(StorageFullError):
            backend.put_tiles([small.make_tile(A, "s1", "v1", small.CELLS[0])])
    assert len(cluster.asked("put_tiles")) == 1


def test_leases_are_kept_while_attempts_are_open_and_no_longer() -> None:
    kept = threading.Semaphore(0)

    def keep(attempt: Attempt) -> None:
        kept.release()
        raise UnavailableError("not now")

    attempts = Attempts(keep)
    attempts.add(
        Attempt(dataset_id="d", scene="s", version="v", number=1, holder="h", lease_s=0.003)
    )
    assert kept.acquire(timeout=20)
    assert kept.acquire(timeout=20), "a failure ended it"
    (thread,) = [t for t in threading.enumerate() if t.name == "geostore-leases"]
    attempts.drop("d", "s")
    thread.join(20)
    assert not thread.is_alive()


def end_of_leases() -> None:
    for thread in threading.enumerate():
        if thread.name == "geostore-leases":
            thread.join(20)
            assert not thread.is_alive()


def test_the_shortest_lease_sets_the_pace_and_one_without_end_is_never_renewed() -> None:
    kept: queue.SimpleQueue[str] = queue.SimpleQueue()
    attempts = Attempts(lambda attempt: kept.put(attempt.scene))
    for scene, lease_s in (("endless", 0.0), ("long", 3600.0), ("short", 0.003)):
        attempts.add(
            Attempt(dataset_id="d", scene=scene, version="v", number=1, holder="h", lease_s=lease_s)
        )
    renewed = {kept.get(timeout=20) for _ in range(4)}
    attempts.close()
    end_of_leases()
    assert renewed == {"long", "short"}


def test_a_node_that_hangs_does_not_let_the_leases_of_others_end() -> None:
    together, met = threading.Barrier(2), threading.Event()

    def keep(_: Attempt) -> None:
        with suppress(threading.BrokenBarrierError):
            together.wait(20)
            met.set()

    attempts = Attempts(keep)
    for scene in ("s1", "s2"):
        attempts.add(
            Attempt(dataset_id="d", scene=scene, version="v", number=1, holder="h", lease_s=0.06)
        )
    assert met.wait(20)
    attempts.close()
    together.abort()
    end_of_leases()


def test_the_lease_that_the_home_gives_is_the_one_that_is_kept() -> None:
    cluster = Cluster(make_ring())
    record: Any = SimpleNamespace(staging_version="v1", attempt=3)
    kept = threading.Event()
    cluster.answer("begin_scene", lambda *_, **__: (record, 3, 0.003))
    cluster.answer("keep_scene", lambda *_, **__: kept.set())
    with cluster.open() as backend:
        backend.begin_scene(A, "s1", "v1", small.CELLS)
        assert kept.wait(20)
    end_of_leases()


def test_a_scenes_record_is_read_from_the_second_replica_where_its_home_is_down() -> None:
    ring = make_ring(3, replicas=2)
    cluster = Cluster(ring)
    home, second = (node.address for node in ring.replicas_of(slot_of(f"scene/{A.id}/s1")))
    cluster.down = {home}
    cluster.answer("get_scene_record", lambda *_: "the record", second)
    record: Any = cluster.open().scene_record(A.id, "s1")
    assert record == "the record"
    assert cluster.asked("get_scene_record") == [home, second]


def test_an_abort_after_a_lost_answer_names_the_holder_that_may_have_begun() -> None:
    cluster = Cluster(make_ring())
    holders: list[str] = []

    def begin_without_answer(*_: Any, holder: str, **__: Any) -> None:
        holders.append(holder)
        raise UnavailableError("broke off")

    cluster.answer("begin_scene", begin_without_answer)
    cluster.answer("abort_scene", lambda *_, holder, **__: holders.append(holder))
    with cluster.open() as backend:
        with pytest.raises(UnavailableError):
            backend.begin_scene(A, "s1", "v1", small.CELLS)
        backend.abort_scene(A.id, "s1", "v1")
        assert len(set(holders)) == 1
        assert holders[0]
        backend.abort_scene(A.id, "s1", "v1")
        assert holders[-1] == "", "it is forgotten"


# ---------------------------------------------------------------- queries


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """All rows, one a batch."""
    with open_embedded(tmp_path_factory.mktemp("rows") / "store") as backend:
        backend.create_dataset(A)
        small.put_scene(backend, A, "s1", "v1", small.CELLS)
        (batch,) = backend.query(Query())
        return [batch.take(slice(i, i + 1)) for i in range(len(batch))]


@pytest.mark.parametrize("limit", [None, 1, 4, 6])
def test_a_query_goes_on_behind_the_last_row(batches: list[Any], limit: int | None) -> None:
    cluster = Cluster(make_ring())
    given: list[int] = []

    def answer(query: Query, *, after: Any, explain: Any) -> Iterator[Any]:
        cursors = [Cursor.after(batch) for batch in batches]
        start = 0 if after is None else cursors.index(after) + 1
        stop = len(batches) if query.limit is None else start + query.limit
        for batch in batches[start:stop][:2]:
            given.append(1)
            yield batch
        if start + 2 < len(batches) or stop - start > 2:
            raise UnavailableError("broke off")

    cluster.answer("query", answer)
    rows = [b.geocode[0] for b in cluster.open().query(Query(limit=limit))]
    assert rows == [b.geocode[0] for b in batches][:limit]
    assert len(given) == len(rows)
    if limit != 1:
        assert len(set(cluster.asked("query"))) > 1


class ArrowStream:
    """As a node's: batches, each with the position behind it, then an end or a failure."""

    def __init__(self, batches: list[Any], *, breaks_off: bool) -> None:
        self.batches, self.breaks_off, self.cursor = iter(batches), breaks_off, ""

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            self.cursor = Cursor.after(batch).to_text()
            yield batch_from_rows(batch)
        if self.breaks_off:
            raise UnavailableError("broke off")

    def close(self) -> None:
        pass


def test_arrow_goes_on_behind_the_last_row(batches: list[Any]) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    cluster = Cluster(make_ring())

    def answer(query: Query, *, after: Any) -> ArrowStream:
        cursors = [Cursor.after(batch) for batch in batches]
        start = 0 if after is None else cursors.index(after) + 1
        assert query.limit == 5 - start
        return ArrowStream(batches[start:5][:2], breaks_off=start < 3)

    cluster.answer("query_arrow", answer)
    found = [b.to_pylist() for b in cluster.open().query_arrow(Query(limit=5))]
    assert found == [batch_from_rows(batch).to_pylist() for batch in batches[:5]]
    assert len(set(cluster.asked("query_arrow"))) > 1


def test_a_query_without_progress_ends_in_an_error() -> None:
    cluster = Cluster(make_ring())
    cluster.answer("query", fails(UnavailableError("busy")))
    with pytest.raises(UnavailableError, match="a query: .*busy"):
        list(cluster.open().query(Query()))


def test_an_unknown_dataset_is_an_answer() -> None:
    cluster = Cluster(make_ring())
    cluster.answer("query", fails(NotFoundError("no dataset")))
    with pytest.raises(NotFoundError):
        list(cluster.open().query(Query()))
    assert len(cluster.asked("query")) == 1


# ---------------------------------------------------------------- tiles


@pytest.mark.parametrize(
    "error", [CorruptDataError("bad"), UnavailableError("gone"), NotFoundError("no tile")]
)
def test_a_tile_is_read_from_another_replica(error: GeostoreError) -> None:
    ring = make_ring(3, replicas=2)
    cluster = Cluster(ring)
    key = TileKey(A.id, "s1", "v1", small.CELLS[0])
    first, second = ring.replicas_of(slot_of(placement_key(key.geocode, A.placement)))
    cluster.answer("list_datasets", lambda: [A])
    cluster.answer("tile_details", lambda keys: ["details"])
    cluster.answer("read_blocks", give_block, second.address)
    cluster.answer("read_blocks", fails(error), first.address)
    backend = cluster.open()
    details: Any = backend.details(key)
    assert details == "details"
    assert cluster.asked("tile_details") == [first.address]
    assert backend.read_blocks(key, [0]) == [memoryview(b"x")]
    cluster.answer("read_blocks", fails(NotFoundError("no tile")), second.address)
    with pytest.raises(type(error)):
        backend.read_blocks(key, [0])


def give_block(wanted: Any) -> Iterator[StoredBlock]:
    yield StoredBlock(tile=0, index=0, fill=0, checksum=1, data=b"x")


def test_tiles_of_an_unknown_dataset_are_not_found() -> None:
    cluster = Cluster(make_ring())
    cluster.answer("list_datasets", list)
    with pytest.raises(NotFoundError, match="'id-a'"):
        cluster.open().details(TileKey(A.id, "s1", "v1", "dq8x0"))


# ---------------------------------------------------------------- opening


def test_it_is_pickled_and_forked() -> None:
    cluster = Cluster(make_ring())
    cluster.answer("list_datasets", lambda: [A])
    backend = cluster.open()
    backend.connect_now()
    reopened = pickle.loads(pickle.dumps(ClusterBackend(TARGET, mode="r")))
    assert reopened.name == str(TARGET)
    backend._nodes._fetching.acquire()  # a thread of the parent holds it
    pid = os.fork()
    if pid == 0:
        known = backend.datasets() == [A] and backend._nodes._fetching.acquire(timeout=1)
        os._exit(0 if known else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_closed_it_says_so() -> None:
    backend = Cluster(make_ring()).open()
    backend.close()
    backend.close()
    with pytest.raises(InvalidInputError, match="is closed"):
        backend.datasets()


def test_every_node_verifies_itself_and_one_that_is_down_is_a_finding() -> None:
    cluster = Cluster(make_ring())

    def verify(name: str, progress: Callable[[int, int], None]) -> VerifyReport:
        progress(3, 3)
        problem = Problem(kind=ProblemKind.ORPHAN, path="x", message="y", node=name)
        return VerifyReport(tiles=3, bytes=10, problems=(problem,))

    cluster.answer("verify", verify)
    backend = cluster.open()
    nodes = cluster.rings["127.0.0.1:7001"].nodes
    backend.connect_now()
    cluster.down = {nodes[1].address}
    told: list[tuple[int, int]] = []
    report = backend.verify(lambda done, total: told.append((done, total)))
    alive = len(nodes) - 1
    assert (report.tiles, report.bytes) == (3 * alive, 10 * alive)
    assert told[-1] == (3 * alive, 3 * alive)
    kinds = {problem.node: problem.kind for problem in report.problems}
    assert kinds.pop(nodes[1].name) is ProblemKind.UNCHECKED
    assert set(kinds.values()) == {ProblemKind.ORPHAN}
    assert len(kinds) == alive
    with pytest.raises(InvalidInputError, match="stop a node"):
        backend.verify(rebuild=True)


def test_settings_protect_connections() -> None:
    assert security_of(Settings(insecure=True)).insecure
    with pytest.raises(InvalidInputError, match="expected all three"):
        security_of(Settings(tls_ca="ca.pem"))
    with pytest.raises(InvalidInputError, match="needs TLS"):
        open_backend(parse_target("geostore://192.0.2.1:7440"), security=Settings())
