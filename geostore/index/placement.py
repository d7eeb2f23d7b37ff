"""Where on the ring the rows of a catalog lie: each row's slot, and who holds that.

A row's slot follows from its geocode and its dataset's placement length, which the dataset's
record tells. Neither ever changes, so slots are worked out once a cell and placement length
and kept in an array beside the columns; a filter by slots is then one lookup a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.index.columns import Columns, Interner
from geostore.index.environment import Databases, Transaction
from geostore.index.face import NodesOfSlot
from geostore.index.operations import read_definition
from geostore.ring import SLOTS_TOTAL, placement_key, slot_of

__all__ = ["NO_SLOT", "NodeNames", "RowSlots", "read_placement", "slot_table"]

NO_SLOT = SLOTS_TOTAL
"""Stands for the slot of a row whose dataset has no definition here."""

Slots = npt.NDArray[np.uint16]
PlacementOf = Callable[[str, str], int | None]
"""(dataset id, dataset name) to the placement length; None: no such definition."""


def read_placement(
    txn: Transaction[bytes], db: Databases, dataset_id: str, dataset: str
) -> int | None:
    """The placement length in a dataset's record; None where there is none of that id.

    Raises:
        CorruptDataError: the record does not read.
    """
    definition = read_definition(txn, db, dataset_id, dataset)
    placement = None if definition is None else definition["placement"]
    return placement if isinstance(placement, int) else None


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
    """The slot of each row, by position. The caller holds the catalog's lock."""

    def __init__(self) -> None:
        self._slots: Slots = np.empty(0, dtype=np.uint16)
        self._count = 0
        self._has_unplaced = False
        self._placements: dict[int, int] = {}
        self._cells: dict[int, Slots] = {}
        """Placement length to the slot of each cell's code."""

    def extend(self, columns: Columns, placement_of: PlacementOf) -> Slots:
        """The slots of all rows, new ones included: a view that stays as it is.

        The first call works out 100,000 cells in about 0.1 s; later ones only what is new.
        """
        if self._has_unplaced:  # a definition may have come since
            self._slots = np.empty(0, dtype=np.uint16)
            self._count, self._has_unplaced = 0, False
        first, end = self._count, columns.count
        if first < end:
            if end > len(self._slots):
                grown = np.empty(max(end, 2 * len(self._slots), 1024), dtype=np.uint16)
                grown[:first] = self._slots[:first]
                self._slots = grown
            self._slots[first:end] = self._of_rows(columns, first, placement_of)
            self._count = end
        return self._slots[:end]

    def _of_rows(self, columns: Columns, first: int, placement_of: PlacementOf) -> Slots:
        arrays = columns.snapshot().columns
        ids, names, cells = (arrays[name][first:] for name in ("dataset_id", "dataset", "cell"))
        found = np.full(len(cells), NO_SLOT, dtype=np.uint16)
        for code in np.unique(ids).tolist():
            own = np.flatnonzero(ids == code)
            placement = self._placements.get(code)
            if placement is None:
                values = columns.interners
                placement = placement_of(
                    str(values["dataset_id"].values()[code]),
                    str(values["dataset"].values()[names[own[0]]]),
                )
            if placement is None:
                self._has_unplaced = True
                continue
            self._placements[code] = placement
            found[own] = self._of_cells(columns.interners["cell"], placement)[cells[own]]
        return found

    def _of_cells(self, interner: Interner, placement: int) -> Slots:
        known = self._cells.get(placement, np.empty(0, dtype=np.uint16))
        if len(known) < len(interner):
            slots: dict[str, int] = {}
            # Cells of other datasets may be shorter than this one's placement length.
            new = np.full(len(interner) - len(known), NO_SLOT, dtype=np.uint16)
            for i, geocode in enumerate(interner.values()[len(known) :].tolist()):
                if len(geocode) >= placement:
                    key = placement_key(geocode, placement)
                    slot = slots.get(key)
                    if slot is None:
                        slot = slots[key] = slot_of(key)
                    new[i] = slot
            known = self._cells[placement] = np.concatenate([known, new])
        return known


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
