"""Answers on what tiles cover together, as messages of bounded size and back.

First the groups, then the scenes of their tiles, the rows of those
that were asked for with their members, and the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.query import CoverageAnswer, CoverageGroups
from geostore.query.coverage import NUMBER_COLUMNS, TEXT_COLUMNS, groups_of
from geostore.rpc.messages import dump_json, load_json
from geostore.rpc.row_batches import STREAM_ROWS, BatchDecoder, BatchEncoder
from geostore.rpc.v1 import common_pb2
from geostore.types import RowBatch

__all__ = ["coverage_messages", "read_coverage"]

GROUPS_MAX = 4096
"""Groups, or scenes of tiles, of a message."""

_Response_co = TypeVar("_Response_co", covariant=True)


class _MakeResponse(Protocol[_Response_co]):
    def __call__(
        self,
        *,
        groups: common_pb2.CoverageGroupsChunk = ...,
        members: common_pb2.CoverageMembersChunk = ...,
        end: common_pb2.CoverageEnd = ...,
    ) -> _Response_co: ...


def coverage_messages(
    make: _MakeResponse[_Response_co], answer: CoverageAnswer, check: Callable[[], object]
) -> Iterator[_Response_co]:
    """An answer's messages; `check` is called before each and ends them by raising."""
    groups = answer.groups
    for start in range(0, len(groups), GROUPS_MAX):
        check()
        yield make(groups=_groups_chunk(groups, slice(start, start + GROUPS_MAX)))
    for start in range(0, len(groups.scene), GROUPS_MAX):
        check()
        texts = _Texts()
        scene = texts.codes(groups.scene[start : start + GROUPS_MAX])
        chunk = common_pb2.CoverageGroupsChunk(texts_json=texts.to_json(), scene=scene)
        yield make(groups=chunk)
    rows = 0
    if answer.members is not None:
        encoder = BatchEncoder()
        rows = len(answer.members)
        for start in range(0, rows, STREAM_ROWS):
            check()
            part = slice(start, start + STREAM_ROWS)
            yield make(
                members=common_pb2.CoverageMembersChunk(
                    rows=encoder.encode(answer.members.take(part)),
                    group=answer.member_group[part].astype("<i8").tobytes(),
                )
            )
    yield make(end=common_pb2.CoverageEnd(groups_total=len(answer.groups), members_total=rows))


def _groups_chunk(groups: CoverageGroups, part: slice) -> common_pb2.CoverageGroupsChunk:
    texts = _Texts()
    said = {name: texts.codes(getattr(groups, name)[part]) for name in TEXT_COLUMNS}
    for name in NUMBER_COLUMNS:
        said[name] = getattr(groups, name)[part].astype("<i8").tobytes()
    return common_pb2.CoverageGroupsChunk(texts_json=texts.to_json(), **said)


class _Texts:
    """The distinct texts of a message, numbered as they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def codes(self, values: npt.NDArray[np.object_]) -> bytes:
        known = self._numbers
        numbers = [known.setdefault(text, len(known)) for text in values.tolist()]
        return np.array(numbers, dtype="<u4").tobytes()

    def to_json(self) -> bytes:
        return dump_json({"texts": list(self._numbers)})


def read_coverage(messages: Iterable[Any]) -> CoverageAnswer:
    """The answer of `coverage_messages`.

    Raises:
        InvalidInputError, CorruptDataError: cut short, or no such answer.
    """
    chunks: dict[str, list[npt.NDArray[Any]]] = {
        name: [] for name in (*TEXT_COLUMNS, "scene", *NUMBER_COLUMNS)
    }
    decoder = BatchDecoder()
    members: list[RowBatch] = []
    member_group = [np.empty(0, dtype=np.int64)]
    end = None
    for message in messages:
        kind = message.WhichOneof("part")
        if end is not None or kind is None:
            raise InvalidInputError(f"coverage: {kind} where its end was due or over")
        if kind == "groups":
            for name, column in _read_groups(message.groups).items():
                chunks[name].append(column)
        elif kind == "members":
            members.append(decoder.decode(message.members.rows))
            member_group.append(np.frombuffer(message.members.group, "<i8").astype(np.int64))
        else:
            end = message.end
    groups = groups_of(chunks)
    number = np.concatenate(member_group)
    rows = sum(len(batch) for batch in members)
    if end is None or (end.groups_total, end.members_total) != (len(groups), rows):
        raise InvalidInputError(f"coverage: {len(groups)} groups came, not what its end says")
    if int(groups.tiles.sum()) != len(groups.scene):
        raise InvalidInputError(f"coverage: scenes of {len(groups.scene)} tiles, not of all")
    in_order = len(number) == rows and (np.diff(number) >= 0).all()
    if not in_order or (rows and not 0 <= number[0] <= number[-1] < len(groups)):
        raise InvalidInputError("coverage: rows of groups that are not there, or out of order")
    return CoverageAnswer(
        groups=groups,
        members=RowBatch.concatenate(members) if members else None,
        member_group=number,
    )


def _read_groups(chunk: common_pb2.CoverageGroupsChunk) -> dict[str, npt.NDArray[Any]]:
    texts = load_json(chunk.texts_json, "coverage: texts").get("texts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidInputError("coverage: names that are no text")
    known = np.empty(len(texts), dtype=np.object_)
    known[:] = texts
    columns: dict[str, npt.NDArray[Any]] = {}
    try:
        for name in (*TEXT_COLUMNS, "scene"):
            columns[name] = known[np.frombuffer(getattr(chunk, name), "<u4")]
        for name in NUMBER_COLUMNS:
            columns[name] = np.frombuffer(getattr(chunk, name), "<i8").astype(np.int64)
    except (ValueError, IndexError) as error:
        raise InvalidInputError(f"coverage: groups that do not read: {error}") from None
    sizes = {len(column) for name, column in columns.items() if name != "scene"}
    if len(sizes) > 1 or (columns["tiles"] < 1).any() or (columns["total"] < 1).any():
        raise InvalidInputError(f"coverage: columns of {sorted(sizes)} groups that do not agree")
    return columns
