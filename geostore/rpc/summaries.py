"""Summaries as messages: groups as columns of little-endian numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from geostore.errors import CorruptDataError, InvalidInputError, UnavailableError
from geostore.query import Summary, SummaryKeys
from geostore.query.summary import COLUMNS, KeyColumn
from geostore.rpc.errors import raising_for
from geostore.rpc.v1 import common_pb2

__all__ = ["MESSAGE_GROUPS", "groups_from_wire", "groups_to_wire", "read_summary"]

MESSAGE_GROUPS: Final = 2048
"""Groups of a message: about 1 MB."""
_CODE: Final = np.dtype("<u4")


def groups_to_wire(summary: Summary) -> common_pb2.SummaryGroups:
    """All groups of a summary; `groups_from_wire` is its inverse."""
    return common_pb2.SummaryGroups(
        group_count=len(summary),
        keys=[
            common_pb2.SummaryKeyColumn(
                name=name, values=column.values, codes=column.codes.astype(_CODE).tobytes()
            )
            for name, column in summary.keys.items()
        ],
        **{
            name: summary.columns[name].astype(kind.dtype.newbyteorder("<")).tobytes()
            for name, kind in COLUMNS.items()
        },
    )


def groups_from_wire(groups: common_pb2.SummaryGroups, by: SummaryKeys) -> Summary:
    """The groups of a message, copied out of it.

    Raises:
        CorruptDataError: columns that do not fit each other or the keys asked for.
    """
    fields = [name for key in by for name in key.fields]
    said = [column.name for column in groups.keys]
    if said != fields:
        raise CorruptDataError(f"summary: keys {said}, expected {fields}")
    total = groups.group_count
    return Summary(
        by,
        {column.name: _key_column(column, total) for column in groups.keys},
        {
            name: _numbers(name, getattr(groups, name), kind.dtype, kind.shape(total))
            for name, kind in COLUMNS.items()
        },
    )


def _key_column(column: common_pb2.SummaryKeyColumn, total: int) -> KeyColumn:
    codes = _numbers(f"codes of {column.name}", column.codes, _CODE, (total,))
    values = tuple(column.values)
    if total and codes.max() > len(values):
        raise CorruptDataError(
            f"summary: {column.name} code {codes.max()}, of {len(values)} values"
        )
    return KeyColumn(values, codes.astype(np.int64))


def _numbers(
    name: str, data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    expected = int(np.prod(shape)) * dtype.itemsize
    if len(data) != expected:
        raise CorruptDataError(f"summary: {name} has {len(data)} bytes, expected {expected}")
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def read_summary(answers: Any, by: SummaryKeys, address: str) -> Summary:
    """The one summary of an answer's messages.

    Raises:
        UnavailableError: the stream broke off, or does not read.
        And what the node itself raises.
    """
    try:
        return Summary.merge(by, _parts(answers, by, address))
    finally:
        answers.cancel()


def _parts(answers: Iterator[Any], by: SummaryKeys, address: str) -> Iterator[Summary]:
    total = 0
    while True:
        with raising_for(address):
            answer = next(answers, None)
        if answer is None:
            raise _broken(address, "it ended before its end was said")
        if answer.WhichOneof("part") == "groups":
            try:
                part = groups_from_wire(answer.groups, by)
            except (CorruptDataError, InvalidInputError) as error:
                raise _broken(address, str(error)) from None
            total += len(part)
            yield part
            continue
        if answer.WhichOneof("part") != "end" or answer.end.groups_total != total:
            raise _broken(address, f"{total} groups came, not what its end says")
        with raising_for(address):
            if next(answers, None) is not None:
                raise _broken(address, "it goes on behind its end")
        return


def _broken(address: str, why: str) -> UnavailableError:
    return UnavailableError(f"node {address}: its summary is broken: {why}")
