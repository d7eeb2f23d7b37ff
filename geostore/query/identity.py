"""Object columns seen as runs of one object.

Columns hold interned values: rows of a scene, of a dataset, of a node share one object. So
most of what is asked of a column can be asked once a run and not once a row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["addresses_of", "object_runs"]


class _Addresses:
    """A column's pointers, as numpy's array interface describes memory.

    numpy will not view objects as integers itself. `id(value)` of each row would give the
    same numbers at thirty times the time.
    """

    def __init__(self, column: npt.NDArray[np.object_]) -> None:
        self.column = column  # the array made of this keeps this, and this the objects
        self.__array_interface__ = {
            "version": 3,
            "shape": column.shape,
            "typestr": np.dtype(np.intp).str,
            "data": (column.__array_interface__["data"][0], True),
        }


def object_runs(
    column: npt.NDArray[np.object_],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """(where each run of one object starts, `id` of that object); O(n), a few ns a row.

    An id means its object only as long as that lives.

    >>> column = np.array(["a", "a", "b"], dtype=object)
    >>> object_runs(column)[0].tolist()
    [0, 2]
    """
    if not len(column):
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
    addresses = addresses_of(column)
    changes = np.flatnonzero(addresses[1:] != addresses[:-1]) + 1
    starts = np.concatenate([np.zeros(1, dtype=np.intp), changes])
    return starts, addresses[starts]


def addresses_of(column: npt.NDArray[np.object_]) -> npt.NDArray[np.intp]:
    """`id` of each row's object, as a view where the column lies in one piece."""
    return np.asarray(_Addresses(np.ascontiguousarray(column)))
