"""A member's services as NodeClient calls them: each call crosses, each head is checked."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from geostore.config import HostPort
from geostore.errors import (
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    ProtocolVersionError,
    StaleRingError,
    StoreFormatError,
    UnavailableError,
    WrongClusterError,
)
from geostore.node import Node
from geostore.node.member import Member
from geostore.query import Cursor, Explain, LeafQuery, Query, keys_from
from geostore.ring import RingNode, found_ring, with_address, with_node_joined
from geostore.rpc import messages as wire
from geostore.rpc.client import NodeClient
from geostore.rpc.transport import Channels
from geostore.rpc.v1 import common_pb2
from geostore.server import CallClass, NodeServer, services_node
from geostore.server.ring_file import RingFile
from geostore.server.ring_keeper import RingKeeper
from geostore.server.ring_peers import RingPeers
from geostore.server.services import CALL_CLASSES, Door, add_services, request_id_of
from geostore.types import CallContext, SceneState

small = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "small_store.py")))
A, CELLS = small.A, small.CELLS


def call() -> CallContext:
    return CallContext.within(20.0)


class Served:
    """A member of a ring behind a port; its ring names that port."""

    def __init__(self, data: Path, name: str) -> None:
        self.door = Door()
        self.server = NodeServer(
            listen=HostPort("127.0.0.1", 0),
            services=[lambda server: add_services(server, self.door)],
            classes=CALL_CLASSES,
            request_id_of=request_id_of,
        )
        self.server.start()
        self.server.serve()
        self.address = str(self.server.address)
        self.node = Node(data / name, lock_now=True, is_member=True)
        self.file = RingFile(self.node)
        self.channels = Channels()
        self.peers = RingPeers(self.channels)
        self.own = RingNode(self.file.node_id, name, self.address)
        self.woken = 0

    def open(self, ring: object = None) -> Member:
        ring = ring or found_ring(self.own, cluster_id="c", replicas=1)
        self.member = Member(
            self.node, own_id=self.own.id, ring=ring, peers=self.peers, save_ring=self.file.save
        )
        self.peers.set_own(self.member)
        self.door.open(self.member, self.wake)
        return self.member

    def wake(self) -> None:
        self.woken += 1

    def client(self, **head: object) -> NodeClient:
        """By default with the head of a caller who knows the ring."""

        def make(context: CallContext) -> common_pb2.RequestHead:
            ring = self.member.ring()
            made = wire.make_head(context, ring.cluster_id, ring.epoch)
            for name, value in head.items():
                setattr(made, name, value)
            return made

        return NodeClient(self.channels.channel(self.address), self.address, make)

    def close(self) -> None:
        self.server.drain(0.0)
        self.channels.close()
        if hasattr(self, "member"):
            self.member.close()
        self.node.close()


@pytest.fixture
def unopened(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path, "n1")
    yield served
    served.close()


@pytest.fixture
def served(unopened: Served) -> Served:
    unopened.open()
    return unopened


def store(client: NodeClient, scene: str, cells: tuple[str, ...]) -> None:
    begun = client.begin_scene(call(), A, scene, "v1", CELLS, holder="me", path="/in/s")
    assert begun is not None
    record, attempt, lease_s = begun
    assert (record.state, record.path, lease_s > 0) == (SceneState.STAGING, "/in/s", True)
    tiles = [small.make_tile(A, scene, "v1", cell) for cell in cells]
    assert client.put_tiles(call(), tiles, attempt) == [tile.checksum for tile in tiles]
    kept_s = client.keep_scene(call(), A.id, scene, "v1", attempt=attempt, holder="me")
    assert kept_s == lease_s
    client.commit_scene(
        call(), A.id, scene, "v1", cells, attempt=attempt, bytes_total=9, properties={"k": 1}
    )


def test_every_method_of_the_services_has_a_class_and_a_handler(served: Served) -> None:
    from geostore.server.services_node import NodeService
    from geostore.server.services_store import StoreService

    classes = {name.split("/")[1].rpartition(".")[2]: kind for name, kind in CALL_CLASSES.items()}
    assert classes == {
        "StoreService": CallClass.COORDINATED,
        "NodeService": CallClass.LEAF,
        "RingService": CallClass.CONTROL,
    }
    ours = {"StoreService": StoreService, "NodeService": NodeService}
    for full_name in CALL_CLASSES:
        service, method = full_name.split("/")[1].rpartition(".")[2], full_name.split("/")[2]
        if service in ours:
            assert method in vars(ours[service]), full_name


def test_a_scene_goes_in_and_comes_out_over_the_wire(served: Served) -> None:
    client = served.client()
    client.create_dataset(call(), A)
    assert client.list_datasets(call()) == [A]
    assert client.get_dataset(call(), "a") == A
    store(client, "s1", CELLS[:3])
    assert client.begin_scene(call(), A, "s1", "v1", CELLS, holder="me") is None
    explain = Explain()
    rows = [
        r for b in client.query(call(), Query(), explain=explain, batch_rows=2) for r in b.rows()
    ]
    assert [row.key.geocode for row in rows] == list(CELLS[:3])
    assert explain.nodes_asked == ["n1"]
    assert client.count(call(), Query()) == 3
    first = next(client.query(call(), Query(limit=1)))
    rest = client.query(call(), Query(), after=Cursor.after(first))
    assert [row.key.geocode for batch in rest for row in batch.rows()] == list(CELLS[1:3])
    keys = [row.key for row in rows]
    details = client.tile_details(call(), keys)
    assert [one.properties for one in details] == [
        one.properties for one in served.member.tile_details(call(), keys)
    ]
    record = client.get_scene_record(call(), A.id, "s1")
    assert record is not None
    assert (record.properties, record.path, record.bytes) == ({"k": 1}, "/in/s", 9)
    indices = range(len(details[0].blocks))
    blocks = list(client.read_blocks(call(), [(keys[0], indices)]))
    stored = served.member.read_blocks(call(), keys[0], list(indices))
    assert [block.data and bytes(block.data) for block in blocks] == [
        data and bytes(data) for data in stored
    ]
    assert [block.checksum for block in blocks] == details[0].blocks["checksum"].tolist()
    with pytest.raises(NotFoundError):
        client.tile_details(call(), [replace(keys[0], geocode="zzzzz")])
    status = client.get_status(call())
    assert (status.tiles, status.scenes, status.datasets, len(status.nodes)) == (3, 1, 1, 1)
    assert client.delete_dataset(call(), "a") == 3
    assert client.count(call(), Query()) == 0


def test_only_the_attempt_that_is_meant_is_kept_or_given_up(served: Served) -> None:
    client = served.client()
    client.create_dataset(call(), A)
    assert client.get_scene_record(call(), A.id, "s1") is None
    begun = client.begin_scene(call(), A, "s1", "v1", CELLS, holder="me")
    assert begun is not None
    with pytest.raises(ConflictError, match="attempt 9 at version v1 is over"):
        client.keep_scene(call(), A.id, "s1", "v1", attempt=9, holder="me")
    client.abort_scene(call(), A.id, "s1", "v2")  # another version: nothing to give up
    record = client.get_scene_record(call(), A.id, "s1")
    assert record is not None
    assert record.state is SceneState.STAGING
    client.abort_scene(call(), A.id, "other", "v1")
    changed = replace(A, length=6)
    with pytest.raises((ConflictError, InvalidInputError)):
        client.begin_scene(call(), changed, "s1", "v1", CELLS, holder="me")


def test_leaf_calls_cross(served: Served) -> None:
    client = served.client()
    client.learn_dataset(call(), A)
    tile = small.make_tile(A, "s1", "v1", CELLS[0])
    assert client.stage_tiles(call(), [tile], 1) == [tile.checksum]
    assert client.scene_record(call(), A.id, "s1") is None
    assert client.leaf_count(call(), LeafQuery(query=Query())) == 0
    assert list(client.leaf_query(call(), LeafQuery(query=Query()), Explain())) == []
    assert len(client.leaf_summary(call(), LeafQuery(query=Query()), keys_from("month"))) == 0
    assert client.forget_dataset(call(), A.id, "a") == 0


def test_summaries_cross_with_what_is_wrong_about_them(served: Served) -> None:
    client, by = served.client(), keys_from(("dataset", "geocode:3"))
    assert len(client.summary(call(), Query(), by)) == 0
    with pytest.raises(InvalidInputError, match="sort 'time': a summary"):
        client.summary(call(), Query(sort="time"), by)
    with pytest.raises(InvalidInputError, match="limit 3: a summary"):
        client.leaf_summary(call(), LeafQuery(query=Query(limit=3)), by)
    for wrong, said in ((("week",), "summary key 'week'"), ((), "got no key")):
        with pytest.raises(InvalidInputError, match=f"{said}.*expected one of dataset, month"):
            client.summary(call(), Query(), wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match=f"{said}.*expected one of dataset, month"):
            client.leaf_summary(call(), LeafQuery(query=Query()), wrong)  # type: ignore[arg-type]


def test_one_block_asked_a_hundred_thousand_times_is_never_held_so_often(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = served.client()
    client.create_dataset(call(), A)
    store(client, "s1", CELLS[:2])
    key = small.make_tile(A, "s1", "v1", CELLS[0]).meta.key
    times: list[int] = []
    read = served.member.read_blocks

    def counted(context: CallContext, key: object, indices: list[int]) -> object:
        times.append(len(indices))
        return read(context, key, indices)

    monkeypatch.setattr(served.member, "read_blocks", counted)
    blocks = client.read_blocks(call(), [(key, [0] * 100_000)])
    assert sum(1 for _ in blocks) == 100_000
    assert sum(times) == 100_000
    assert max(times) <= services_node.READ_BLOCKS_MAX
    times.clear()
    monkeypatch.setattr(services_node, "READ_BYTES_MAX", 1)  # each block alone is more
    other = replace(key, geocode=CELLS[1])
    wanted = [(key, [1, 0, 1]), (other, []), (other, [0])]
    assert [b.index for b in client.read_blocks(call(), wanted)] == [1, 0, 1, 0]
    assert times == [1] * 4
    with pytest.raises(InvalidInputError, match="its block table has"):
        list(client.read_blocks(call(), [(key, [0, 99])]))


@pytest.mark.parametrize(
    ("head", "error", "said"),
    [
        ({"protocol_version": 9}, ProtocolVersionError, "version 9"),
        ({"cluster_id": "other"}, WrongClusterError, "'other'"),
        ({"cluster_id": ""}, WrongClusterError, "''"),
        ({"consistency_epoch": 1}, InvalidInputError, "consistency_epoch"),
    ],
)
def test_heads_of_strangers_are_refused(
    served: Served, head: dict[str, object], error: type[Exception], said: str
) -> None:
    client = served.client(**head)
    tile = small.make_tile(A, "s1", "v1", CELLS[0])
    for ask in (
        lambda: client.count(call(), Query()),
        lambda: list(client.query(call(), Query())),
        lambda: client.put_tiles(call(), [tile], 1),
        lambda: client.leaf_count(call(), LeafQuery(query=Query())),
    ):
        with pytest.raises(error, match=said):
            ask()


def test_only_calls_that_the_ring_sent_here_need_the_same_ring(served: Served) -> None:
    ring = with_address(served.member.ring(), served.own.id, served.address)
    served.client().take_ring(call(), ring)
    assert served.member.ring().epoch == 2
    older, newer = served.client(ring_epoch=1), served.client(ring_epoch=3)
    assert older.count(call(), Query()) == newer.count(call(), Query()) == 0
    with pytest.raises(StaleRingError) as caught:
        older.leaf_count(call(), LeafQuery(query=Query()))
    assert caught.value.epoch == 2
    woken = served.woken
    with pytest.raises(UnavailableError, match="asks for the newer one") as waiting:
        newer.leaf_count(call(), LeafQuery(query=Query()))
    assert waiting.value.retry_after_s is not None
    assert served.woken == woken + 1
    assert served.client(ring_epoch=0).leaf_count(call(), LeafQuery(query=Query())) == 0


def test_a_node_without_a_ring_says_that_it_starts(unopened: Served) -> None:
    stranger = NodeClient(unopened.channels.channel(unopened.address), unopened.address)
    with pytest.raises(UnavailableError, match="is starting"):
        stranger.get_ring(call())
    unopened.open()
    assert stranger.get_ring(call()) == unopened.member.ring()
    assert stranger.node_status(call()).name == "n1"


def test_nodes_join_move_and_learn_of_it(served: Served, tmp_path: Path) -> None:
    other = Served(tmp_path, "n2")
    try:
        asked = NodeClient(other.channels.channel(served.address), served.address)
        ring = asked.join(call(), node_id=other.own.id, name="n2", address=other.address)
        other.open(ring)
        assert served.file.ring == ring == other.member.ring()
        # The founder moves other nodes' addresses; n2 has not heard of it and is told.
        newer = with_address(ring, other.own.id, other.address)
        served.member.take_ring(call(), newer)
        with pytest.raises(StaleRingError):
            other.peers.other(served.own.id).leaf_count(call(), LeafQuery(query=Query()))
        assert other.member.ring() == newer
        newest = with_address(newer, other.own.id, other.address)
        served.member.take_ring(call(), newest)
        rows = other.peers.other(served.own.id).leaf_query(call(), LeafQuery(query=Query()))
        with pytest.raises(StaleRingError):
            next(rows)
        assert other.member.ring() == newest
    finally:
        other.close()


@pytest.mark.parametrize(
    "said",
    [
        {"address": "nowhere"},
        {"address": "127.0.0.1:0"},
        {"address": "127.0.0.1:99999"},
        {"address": "a\0b:1"},
        {"address": "x" * 100_000 + ":1"},
        {"name": "a\nb"},
        {"name": ""},
        {"node_id": ""},
        {"node_id": "x" * 1000},
        {"zone": "\x1b[2J"},
    ],
)
def test_who_cannot_be_called_or_named_does_not_join(served: Served, said: dict[str, str]) -> None:
    """A ring that has such a node could not be spread, and nodes do not leave yet."""
    before = served.member.ring()
    asked = {"node_id": "y", "name": "n2", "address": "127.0.0.1:9", **said}
    with pytest.raises(InvalidInputError, match=r"address|a node's"):
        served.client().join(call(), **asked)
    assert served.member.ring() == before
    assert served.file.ring in (None, before)


def test_the_keeper_spreads_fetches_and_announces(served: Served, tmp_path: Path) -> None:
    other = Served(tmp_path, "n2")
    try:
        gone = RingNode(other.own.id, "n2", "127.0.0.1:1")
        ring = with_node_joined(served.member.ring(), gone)
        other.open(ring)
        served.member.take_ring(call(), ring)
        keepers = [
            RingKeeper(one.member, peers=one.peers, channels=one.channels, address=one.address)
            for one in (served, other)
        ]
        assert keepers[0].take_turn()  # nobody is at n2's address
        assert not keepers[1].take_turn()  # announced
        moved = served.member.ring()
        assert (moved.epoch, moved.node(other.own.id).address) == (3, other.address)
        assert other.member.ring() == moved
        newer = with_address(moved, other.own.id, other.address)
        served.member.take_ring(call(), newer)
        assert not keepers[0].take_turn()
        assert other.member.ring() == newer
        newest = with_address(newer, other.own.id, other.address)
        served.member.take_ring(call(), newest)
        assert not keepers[1].take_turn()
        assert other.member.ring() == newest
    finally:
        other.close()


def test_a_rings_file_keeps_id_and_ring_and_knows_damage(tmp_path: Path) -> None:
    with Node(tmp_path / "n", lock_now=True, is_member=True) as node:
        file = RingFile(node)
        assert file.ring is None
        assert RingFile(node).node_id == file.node_id
        ring = found_ring(RingNode(file.node_id, "n", "a:1"), cluster_id="c", replicas=2)
        file.save(ring)
        again = RingFile(node)
        assert (again.node_id, again.ring) == (file.node_id, ring)
        path = tmp_path / "n" / "ring.json"
        value = json.loads(path.read_text())
        for changes, error in (
            ({"node_id": "x"}, CorruptDataError),
            ({"node_id": 1}, CorruptDataError),
            ({"ring": None}, CorruptDataError),
            ({"format_version": 2}, StoreFormatError),
        ):
            path.write_text(json.dumps({**value, **changes}))
            with pytest.raises(error, match=r"ring\.json"):
                RingFile(node)
        path.write_text("{")
        with pytest.raises(CorruptDataError, match="not JSON"):
            RingFile(node)


def test_who_is_taken_in_by_nobody_says_whom_it_asked(served: Served) -> None:
    from geostore.server.joining import join_ring

    own = RingNode("x", "x", "127.0.0.1:2")
    with pytest.raises(UnavailableError, match=r"no node took 'x' in .*127\.0\.0\.1:1"):
        join_ring(["127.0.0.1:1"], own, served.channels, timeout_s=0.1)
    ring = join_ring(["127.0.0.1:1", served.address], own, served.channels, timeout_s=0.1)
    assert [node.name for node in ring.nodes] == ["n1", "x"]
    with pytest.raises(ConflictError, match="'x' is taken"):
        join_ring([served.address], replace(own, id="y"), served.channels, timeout_s=0.1)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_an_address_that_nobody_can_call_is_refused(tmp_path: Path, listen: str) -> None:
    from geostore.server.node_process import run_node

    with pytest.raises(InvalidInputError, match="other nodes cannot call it"):
        run_node(tmp_path / "n", listen, insecure=True)
    assert not (tmp_path / "n").exists()
