"""Where tiles lie: what `geostore ring` and `Store.locate` answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from geostore.errors import InvalidInputError
from geostore.types.cluster import EMBEDDED_NODE

if TYPE_CHECKING:
    from geostore.types import DatasetDefinition

__all__ = ["EMBEDDED_NODE", "NodeShare", "Placement", "in_order_of_names", "locate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeShare:
    """One node of the ring and what it owns."""

    node: str
    """Its name."""
    state: str
    """`serving`, `starting`, `draining`, or `unreachable`: what it holds is then not known."""
    path: str
    """Its directory; of a cluster's node its address."""
    slots: int
    """Of the ring's 4096, how many it holds a copy of."""
    slots_first: int
    """How many of them it is the first replica of."""
    slots_used: int
    """How many of them hold tile files."""
    tiles: int
    bytes: int

    @property
    def name(self) -> str:
        return self.node

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def in_order_of_names(node: _Named) -> list[tuple[int, str]]:
    """A key to sort nodes by their names as people do: n2 before n10."""
    return [
        (int(part) if part.isdecimal() else 0, part) for part in re.split("([0-9]+)", node.name)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the tiles of a cell, or of all cells under a geocode, lie."""

    dataset: str
    geocode: str
    placement_key: str
    """The leading characters that are hashed."""
    slot: int
    """0..4095, the top 12 bits of the key's SHA-1."""
    nodes: tuple[str, ...]
    path: str
    """The directory of the slot's tile files; of a cluster, its nodes' addresses."""
    tiles: int
    """How many tiles the geocode has now."""

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["nodes"] = list(self.nodes)
        return value


def locate(
    definition: DatasetDefinition,
    geocode: str,
    *,
    holders: Callable[[int], Sequence[tuple[str, str]]],
    count: Callable[[str], int],
) -> Placement:
    """The placement of a geocode.

    `holders` says who has a slot (see `Backend.holders`), `count` how many tiles a valid
    geocode has.

    Raises:
        InvalidInputError: not a geocode of the dataset's scheme, longer than its cells, or
            too short to name one slot.
    """
    from geostore.grid import scheme
    from geostore.node import StoreDirectory
    from geostore.ring import placement_key, slot_of

    code = scheme(definition.scheme).validate(geocode)
    length, characters = definition.length, definition.placement
    if length is None or characters is None:
        raise InvalidInputError(
            f"dataset {definition.name!r} has no cell length yet: its first scene fixes it"
        )
    if not characters <= len(code) <= length:
        expected = f"{length}" if characters == length else f"{characters} to {length}"
        raise InvalidInputError(
            f"geocode {code!r} of {len(code)} characters: dataset {definition.name!r} places"
            f" cells of {length} by their first {characters}; expected {expected}"
        )
    key = placement_key(code, characters)
    slot = slot_of(key)
    places = holders(slot)
    if [name for name, _ in places] == [EMBEDDED_NODE]:
        path = str(StoreDirectory(Path(places[0][1])).slot_tiles(definition.id, slot))
    else:
        path = ", ".join(place for _, place in places)
    return Placement(
        dataset=definition.name,
        geocode=code,
        placement_key=key,
        slot=slot,
        nodes=tuple(name for name, _ in places),
        path=path,
        tiles=count(code),
    )
