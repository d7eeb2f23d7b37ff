"""Which node holds which slot: pure array arithmetic, no names, no addresses, no clock.

`owners` has one row a slot and one column a copy; its values number the nodes and its first
column is the first replica. Every change is one choice a slot, with loads to be made even:

- a node that joins is put into every slot in thought; each slot then drops one of its members
  or the newcomer again. So nothing can move except to the newcomer.
- each slot of a node that leaves takes one node in.

Unit weights are solved exactly (augmenting paths, as in a flow with convex costs: Ahuja,
Magnanti and Orlin, "Network Flows", chapter 14); weights by bytes by moves and swaps between
pairs of nodes. Multi-token rings need neither, at the price of a spread of 12 % at 50 nodes.

A slot's copies stand in as many zones as there are, up to the number of copies. Kept for every
slot at every change, that rule alone makes each later change possible without other moves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from geostore.ring.balance import Choice, even_out

__all__ = [
    "fair_shares",
    "owners_joined",
    "owners_left",
    "slot_weights",
    "zone_numbers",
    "zones_of",
]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MOVED_LIMIT = 1.05
"""Slots a join may move when they are weighed by bytes, as a share of the fair number."""

NOBODY = -1

EMPTY_SLOT_WEIGHT = 1 / 16
"""The least weight of a slot, as a share of the mean: what is empty today fills tomorrow."""


def zone_numbers(labels: Sequence[str]) -> Integers:
    """Equal labels get equal numbers; a node without a label is a zone of its own.

    So without labels "distinct zones" says "distinct nodes", and needs no case of its own.
    """
    known: dict[str, int] = {}
    numbers = [
        known.setdefault(label or f"\0{index}", len(known)) for index, label in enumerate(labels)
    ]
    return np.array(numbers, dtype=np.int64)


def slot_weights(slot_bytes: Floats | None, slots: int) -> Floats | None:
    """A slot's weight from its bytes, in means; None: all slots weigh the same."""
    if slot_bytes is None or not slot_bytes.any():
        return None
    weights = slot_bytes * (slots / slot_bytes.sum())
    return np.asarray(np.maximum(weights, EMPTY_SLOT_WEIGHT), dtype=np.float64)


def fair_shares(zones: Integers, copies: int, slots: int) -> Floats:
    """Replica-slots a node should have, (nodes,), all slots weighing the same.

    Equal for all, except where zones bind: a zone holds no slot twice as long as there are
    zones enough, and where there are too few each holds every slot at least once.
    """
    numbers, sizes = np.unique(zones, return_counts=True)
    least = np.where(len(numbers) <= copies, slots, 0) / sizes
    most = slots / sizes if len(numbers) >= copies else np.full(len(numbers), float(slots))
    low, high = 0.0, float(slots)
    for _ in range(64):
        level = (low + high) / 2
        if (np.clip(level, least, most) * sizes).sum() < slots * copies:
            low = level
        else:
            high = level
    shares = np.clip(high, least, most)
    return np.asarray(shares[np.searchsorted(numbers, zones)], dtype=np.float64)


def zones_of(owners: Integers, zones: Integers) -> Integers:
    """How many zones each slot's copies stand in, (slots,)."""
    standing = np.sort(zones[owners], axis=1)
    return np.asarray(1 + np.count_nonzero(np.diff(standing, axis=1), axis=1))


def owners_joined(
    owners: Integers, zones: Integers, *, replicas: int, weights: Floats | None, turn: int
) -> Integers:
    """`owners` with one more node, the last of `zones`, which alone gains slots."""
    slots, copies = owners.shape
    newcomer = len(zones) - 1
    firsts = _firsts_joined(owners, zones, weights=weights, turn=turn)
    widened = np.column_stack([owners, np.full(slots, newcomer)])
    if copies < replicas:  # nobody has to make room
        widened = np.column_stack([widened, np.full(slots, NOBODY)])
        dropped = np.full(slots, NOBODY)
    else:
        dropped = _dropped(widened, zones, firsts=firsts, weights=weights, turn=turn)
    first = np.where(firsts, newcomer, owners[:, 0])
    return _put_in_order(widened, first=first, dropped=dropped)


def owners_left(
    owners: Integers, zones: Integers, *, leaver: int, weights: Floats | None, turn: int
) -> Integers:
    """`owners` without node `leaver`, whose slots alone change; numbers above it fall by one."""
    copies = min(owners.shape[1], len(zones) - 1)
    held = np.flatnonzero((owners == leaver).any(axis=1))
    taken_in = np.full(len(owners), NOBODY)
    if copies == owners.shape[1]:
        taken_in[held] = _taken_in(owners, zones, held, leaver=leaver, weights=weights, turn=turn)
    widened = np.column_stack([owners, taken_in])
    first = owners[:, 0].copy()
    orphans = np.flatnonzero(first == leaver)
    first[orphans] = _heirs(
        widened, orphans, leaver=leaver, nodes=len(zones), weights=weights, turn=turn
    )
    # A slot that the leaver did not hold took nobody in: that column goes instead.
    dropped = np.where(taken_in == NOBODY, NOBODY, leaver)
    if copies < owners.shape[1]:
        widened, dropped = owners, np.full(len(owners), leaver)
    settled = _put_in_order(widened, first=first, dropped=dropped)
    return settled - (settled > leaver)


def _firsts_joined(
    owners: Integers, zones: Integers, *, weights: Floats | None, turn: int
) -> Bools:
    """The slots whose first replica the newcomer becomes, (slots,)."""
    slots, copies = owners.shape
    newcomer, first = len(zones) - 1, owners[:, 0]
    options = np.zeros((slots, newcomer + 1), dtype=np.bool_)
    options[np.arange(slots), first] = options[:, newcomer] = True
    in_zone = zones == zones[newcomer]
    if fair_shares(zones, copies, slots)[newcomer] * np.count_nonzero(in_zone) < slots - 1:
        # First there, it would push out the second of its own zone, which has its share to
        # keep. (A zone that must be in every slot has no choice.)
        seconds = np.flatnonzero(in_zone[owners[:, 1:]].any(axis=1))
        options[seconds, first[seconds]] = False
    weighed = np.ones(slots) if weights is None else weights
    loads = _loads(first[:, None], newcomer + 1, weighed)
    loads[newcomer] = weighed.sum()
    choice = Choice(
        options,
        -loads,
        weighed,
        fewest=_spared(slots, slots / (newcomer + 1)) if weights is not None else 0,
    )
    return np.asarray(even_out(choice, turn=turn) == first)


def _dropped(
    widened: Integers, zones: Integers, *, firsts: Bools, weights: Floats | None, turn: int
) -> Integers:
    """Which member each slot loses to the newcomer (or the newcomer itself), (slots,)."""
    slots, columns = widened.shape
    nodes, rows = len(zones), np.arange(slots)
    zones_wanted = min(columns - 1, len(np.unique(zones)))
    options = np.zeros((slots, nodes), dtype=np.bool_)
    for column in range(columns):
        rest = zones_of(np.delete(widened, column, axis=1), zones)
        options[rows, widened[:, column]] = rest >= zones_wanted
    # The newcomer stays where it is to be first; elsewhere the first replica stays.
    options[firsts, nodes - 1] = False
    options[~firsts, widened[~firsts, 0]] = False
    weighed = np.ones(slots) if weights is None else weights
    loads = _loads(widened, nodes, weighed)
    fewest = 0
    if weights is not None:
        fewest = _spared(slots, fair_shares(zones, columns - 1, slots)[-1])
    return even_out(Choice(options, -loads, weighed, fewest=fewest), turn=turn)


def _spared(slots: int, share: float) -> int:
    """How many slots at least the newcomer stays out of."""
    return max(0, slots - max(1, int(MOVED_LIMIT * share)))


def _taken_in(
    owners: Integers,
    zones: Integers,
    held: Integers,
    *,
    leaver: int,
    weights: Floats | None,
    turn: int,
) -> Integers:
    """Which node each slot of the leaver takes in, (held,)."""
    rows = np.arange(len(held))
    weighed = np.ones(len(owners)) if weights is None else weights
    remaining = np.delete(zones, leaver)
    zones_wanted = min(owners.shape[1], len(np.unique(remaining)))
    options = np.zeros((len(held), len(zones)), dtype=np.bool_)
    for node in range(len(zones)):
        trial = np.where(owners[held] == leaver, node, owners[held])
        options[:, node] = zones_of(trial, zones) >= zones_wanted
    for column in range(owners.shape[1]):
        options[rows, owners[held, column]] = False
    options[:, leaver] = False
    loads = _loads(owners, len(zones), weighed)
    return even_out(Choice(options, loads, weighed[held]), turn=turn)


def _heirs(
    widened: Integers,
    orphans: Integers,
    leaver: int,
    nodes: int,
    *,
    weights: Floats | None,
    turn: int,
) -> Integers:
    """The new first replica of each slot whose first was the leaver, (orphans,)."""
    rows = np.arange(len(orphans))
    weighed = np.ones(len(widened)) if weights is None else weights
    options = np.zeros((len(orphans), nodes + 1), dtype=np.bool_)
    for column in range(widened.shape[1]):
        options[rows, widened[orphans, column]] = True  # nobody, -1, is the last column
    options[:, [leaver, nodes]] = False
    loads = np.append(_loads(widened[:, :1], nodes, weighed), 0.0)
    return even_out(Choice(options, loads, weighed[orphans]), turn=turn)


def _loads(owners: Integers, nodes: int, weights: Floats) -> Floats:
    columns = owners.shape[1]
    loads = np.bincount(owners.ravel(), weights=np.repeat(weights, columns), minlength=nodes)
    return loads.astype(np.float64)


def _put_in_order(widened: Integers, *, first: Integers, dropped: Integers) -> Integers:
    """Rows without their dropped member, led by `first`, the rest in the order they had."""
    rank = np.full(widened.shape, 1)
    rank[widened == first[:, None]] = 0
    rank[widened == dropped[:, None]] = 2
    order = np.argsort(rank, axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(widened, order, axis=1)
