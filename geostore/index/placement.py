"""Where on the ring the rows of a catalog lie: each row's slot, and who holds that.

A row's slot follows from its geocode and its dataset's placement length, which the dataset's
record tells. Neither ever changes, so slots are worked out once a cell and placement length
and kept in an array beside the columns; a filter by slots is then one lookup a row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.index.columns import Snapshot
from geostore.index.face import NodesOfSlot
from geostore.index.geocodes import PackedCells, packing_of
from geostore.ring import SLOTS_TOTAL, slot_of
from geostore.types import SchemeName

__all__ = ["NO_SLOT", "NodeNames", "RowSlots", "slot_table"]

NO_SLOT = SLOTS_TOTAL
"""Stands for the slot of a row whose dataset has no definition here."""

Slots = npt.NDArray[np.uint16]
PlacementOf = Callable[[str, str], int | None]
"""(dataset id, dataset name) to the placement length; None: no such definition."""


def slot_table(slots: Iterable[int]) -> npt.NDArray[np.bool_]:
    """Slot to whether it is among `slots`; `NO_SLOT` is, so that it can be complained of.

    Raises:
        InvalidInputError: a number that is no slot.
    """
    wanted = np.fromiter(slots, dtype=np.int64)
    if len(wanted) and not (wanted.min() >= 0 and wanted.max() < SLOTS_TOTAL):
        raise InvalidInputError(
            f"slots {wanted.min()}..{wanted.max()}: expected numbers in 0..{SLOTS_TOTAL - 1}"
        )
    table = np.zeros(SLOTS_TOTAL + 1, dtype=np.bool_)
    table[wanted] = True
    table[NO_SLOT] = True
    return table


class RowSlots:
    """The slot of each row, by position."""

    def __init__(self, slots: Slots | None = None) -> None:
        """`slots`: those of the first rows, where they are known."""
        self.lock = threading.Lock()
        self._slots: Slots = np.empty(0, dtype=np.uint16) if slots is None else slots
        self._count = len(self._slots)
        self._has_unplaced = bool((self._slots == NO_SLOT).any())
        self._placements: dict[int, int] = {}
        self._cells: dict[tuple[SchemeName, int], dict[int, int]] = {}
        """Of a scheme and placement length: placement key, as a number, to slot."""

    def of(self, snapshot: Snapshot, placement_of: PlacementOf) -> Slots:
        """The slots of a snapshot's rows: a view that stays as it is.

        The first call works out 100,000 cells in about 0.5 s; later ones only what is new.
        """
        end = snapshot.count
        with self.lock:
            if self._has_unplaced:  # a definition may have come since
                self._slots = np.empty(0, dtype=np.uint16)
                self._count, self._has_unplaced = 0, False
            first = self._count
            if first < end:
                if end > len(self._slots):
                    grown = np.empty(max(end, 2 * len(self._slots), 1024), dtype=np.uint16)
                    grown[:first] = self._slots[:first]
                    self._slots = grown
                self._slots[first:end] = self._of_rows(snapshot, first, placement_of)
                self._count = end
            return self._slots[:end]

    def known(self) -> Slots:
        """The slots of the first rows, as far as they were asked for."""
        with self.lock:
            return self._slots[: self._count]

    def _of_rows(self, snapshot: Snapshot, first: int, placement_of: PlacementOf) -> Slots:
        groups = snapshot.columns["group"][first:]
        ids = snapshot.group_codes["dataset_id"][groups]
        names = snapshot.group_codes["dataset"]
        grids, cells = snapshot.columns["grid"][first:], snapshot.columns["cell"][first:]
        found = np.full(len(ids), NO_SLOT, dtype=np.uint16)
        for code in np.unique(ids).tolist():
            own = np.flatnonzero(ids == code)
            placement = self._placements.get(code)
            if placement is None:
                name = snapshot.values["dataset"][names[groups[own[0]]]]
                placement = placement_of(str(snapshot.values["dataset_id"][code]), str(name))
            if placement is None:
                self._has_unplaced = True
                continue
            self._placements[code] = placement
            for grid in np.unique(grids[own]).tolist():
                # Cells may be shorter than the placement length only where something is wrong.
                scheme_name, length = snapshot.grids[grid]
                if length >= placement:
                    rows = own[grids[own] == grid]
                    known = self._cells.setdefault((scheme_name, placement), {})
                    found[rows] = _slots_of(scheme_name, cells[rows], placement, known)
        return found


def _slots_of(
    scheme_name: SchemeName, cells: PackedCells, placement: int, known: dict[int, int]
) -> Slots:
    """The slots of cells; each placement key is hashed once and then `known`."""
    packing = packing_of(scheme_name)
    keys, inverse = np.unique(cells >> np.uint64(packing.shift(placement)), return_inverse=True)
    new = [key for key in keys.tolist() if key not in known]
    packed = np.array(new, dtype=np.uint64) << np.uint64(packing.shift(placement))
    texts = packing.unpack(packed | np.uint64(placement)).tolist()
    known.update(zip(new, map(slot_of, texts), strict=True))
    slots = np.array([known[key] for key in keys.tolist()], dtype=np.uint16)
    of_cells: Slots = slots[inverse]
    return of_cells


class NodeNames:
    """Who holds the tiles of each slot, asked once a slot and then looked up.

    Equal answers are one tuple, so that whoever encodes rows can tell them by identity.
    """

    def __init__(self, nodes_of: NodesOfSlot) -> None:
        distinct: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._names = np.empty(SLOTS_TOTAL + 1, dtype=np.object_)
        for slot in range(SLOTS_TOTAL):
            names = nodes_of(slot)
            self._names[slot] = distinct.setdefault(names, names)
        self._names[NO_SLOT] = ()

    def of(self, slots: Slots) -> npt.NDArray[np.object_]:
        """A column of names for rows of these slots."""
        found: npt.NDArray[np.object_] = self._names[slots]
        return found
