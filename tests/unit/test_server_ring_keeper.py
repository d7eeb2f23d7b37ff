"""Whose ring a node takes when the founder does not answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from geostore.errors import ConflictError, UnavailableError
from geostore.ring import Ring, RingNode, found_ring, with_address, with_node_joined
from geostore.server import ring_keeper
from geostore.server.ring_keeper import RingKeeper

FOUNDER, OWN, THIRD = (RingNode(f"id-{name}", name, f"127.0.0.1:{name}") for name in "123")
RING = with_node_joined(
    with_node_joined(found_ring(FOUNDER, cluster_id="ours", replicas=1), OWN), THIRD
)
NEWER = with_address(RING, THIRD.id, "127.0.0.1:9")


class Member:
    own_id = OWN.id

    def __init__(self) -> None:
        self._ring = RING

    def ring(self) -> Ring:
        return self._ring

    def take_ring(self, call: object, ring: Ring) -> int:
        if ring.cluster_id != self._ring.cluster_id:
            raise ConflictError("another cluster's")
        self._ring = ring
        return ring.epoch

    def resolve_staged(self, call: object) -> list[str]:
        return []

    def settle(self, call: object) -> list[str]:
        return []


@dataclass
class Answers:
    """A node, or what stands at an address: its ring, or nothing."""

    ring: Ring | None

    def get_ring(self, call: object) -> Ring:
        if self.ring is None:
            raise UnavailableError("nobody there")
        return self.ring


class Peers:
    def __init__(self, third: Ring | None) -> None:
        self._third = third

    def other(self, node_id: str) -> Answers:
        return Answers(self._third if node_id == THIRD.id else None)


class Channels:
    def channel(self, address: str) -> None:
        return None


@pytest.fixture
def make_keeper(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Member, RingKeeper]]:
    def make(*, joined: Ring | None, third: Ring | None) -> tuple[Member, RingKeeper]:
        monkeypatch.setattr(ring_keeper, "NodeClient", lambda _channel, _address: Answers(joined))
        member: Any = Member()
        parts: dict[str, Any] = {"peers": Peers(third), "channels": Channels()}
        keeper = RingKeeper(member, **parts, address=OWN.address, join=("127.0.0.1:8",))
        return member, keeper

    return make


Make = Callable[..., tuple[Member, RingKeeper]]


def test_an_address_that_belongs_to_strangers_now_does_not_hide_the_others(
    make_keeper: Make,
) -> None:
    member, keeper = make_keeper(joined=replace(NEWER, cluster_id="theirs", epoch=99), third=NEWER)
    assert not keeper.take_turn()
    assert member.ring() == NEWER


def test_whom_we_joined_is_asked_before_the_others(make_keeper: Make) -> None:
    member, keeper = make_keeper(joined=NEWER, third=None)
    assert not keeper.take_turn()
    assert member.ring() == NEWER


def test_when_nobody_answers_there_is_something_left_to_do(make_keeper: Make) -> None:
    member, keeper = make_keeper(joined=None, third=None)
    assert keeper.take_turn()
    assert member.ring() == RING
