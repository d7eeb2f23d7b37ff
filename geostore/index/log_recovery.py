"""Where a log ends: found by reading it, after a crash or where the head does not say.

A frame that does not hold ends the log, or is damage. It is the end where a crash explains
it: the system writes pages back in any order, so of what was appended since the last sync
any part may be missing, also in front of whole frames. It is damage where the frame had
been synced, and there is proof of that:

- the head says so;
- a later frame does: each carries the number of the last one that was synced before it;
- a later segment exists: a segment is synced before the next is made.

Where the head is missing or damaged, any later frame counts as proof: rather an error than
acknowledged frames cut off in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from geostore.errors import CorruptDataError
from geostore.index.log_disk import translate
from geostore.index.log_frames import (
    ReadBytes,
    damaged,
    frame_end,
    headers_after,
    read_frame,
)
from geostore.index.log_layout import REBUILD, HeadSlot, Position
from geostore.index.log_segments import Segments

__all__ = ["Recovery", "Survey", "problems", "survey"]


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening a log for writing found and did."""

    end: Position
    """Of the last whole frame: durable now."""
    frames: int
    """Read to find it, from where the caller's snapshot ends."""
    unsynced_frames: int
    """Whole frames beyond what the head called durable: kept, and synced now."""
    cut_bytes: int
    """Of torn frames after the last whole one, cut off; 0 where there was nothing."""
    at: Position | None
    """Where they were cut off."""


class Survey(NamedTuple):
    """The log from a position to its end."""

    end: Position
    frames: int
    torn_bytes: int
    """Bytes after the end that are not zero, up to the last such."""


class _Scan(NamedTuple):
    end: Position
    frames: int
    reason: str
    """Why the next frame does not hold."""


def _scan(source: ReadBytes, position: Position, size: int) -> _Scan:
    frames = 0
    while True:
        header = read_frame(source, position, size)
        if isinstance(header, str):
            return _Scan(position, frames, header)
        position = frame_end(position, header)
        frames += 1


def _proof(source: ReadBytes, end: Position, size: int, head: HeadSlot | None) -> str | None:
    """What shows that the frame after `end` was acknowledged; None where nothing does."""
    if head is not None and head.position.sequence > end.sequence:
        return f"the log's head says that frames up to {head.position.sequence} are durable"
    for later in headers_after(source, end.offset + 8, size):
        if later.synced > end.sequence:
            return f"frame {later.sequence} after it says that it was durable"
        if head is None and later.sequence > end.sequence + 1:
            return f"frame {later.sequence} comes after it, and the log has no sound head"
    return None


def _end_of_last(source: ReadBytes, scan: _Scan, size: int, head: HeadSlot | None) -> Survey:
    """Judges what comes after the last whole frame of the last segment."""
    while True:
        torn = source.used(scan.end.offset, size) - scan.end.offset
        proof = _proof(source, scan.end, size, head) if torn else None
        if proof is None:
            return Survey(scan.end, scan.frames, torn)
        # A writer beside us may have finished that frame, and synced it, since it was read.
        source.forget()
        again = _scan(source, scan.end, size)
        if not again.frames:
            raise damaged(source, scan.end, f"{scan.reason}; {proof}", size)
        scan = _Scan(again.end, scan.frames + again.frames, again.reason)


def _survey_segment(
    segments: Segments, position: Position, head: HeadSlot | None, *, is_last: bool
) -> Survey:
    descriptor = segments.opened(position.segment)
    try:
        source = segments.reading(position.segment, descriptor)
        size = segments.disk.size(descriptor)
        scan = _scan(source, position, size)
        if is_last:
            return _end_of_last(source, scan, size, head)
        if scan.end.offset != size:
            raise damaged(source, scan.end, scan.reason, size)
        return Survey(scan.end, scan.frames, 0)
    except OSError as error:
        raise translate(error, segments.where(position.segment)) from error
    finally:
        segments.disk.close(descriptor)


def survey(segments: Segments, after: Position, head: HeadSlot | None) -> Survey:
    """Reads on from `after` to the last whole frame. Changes nothing.

    May run beside a writer: what is appended meanwhile may or may not be found.

    Raises:
        LogDroppedError: the frame after `after` was dropped.
        CorruptDataError: frames that were acknowledged are missing or damaged.
    """
    numbers = segments.numbers()
    position = segments.locate(after, numbers)
    segments.header(position.segment)
    frames = torn = 0
    for number in range(position.segment, numbers[-1] + 1):
        if number != position.segment:
            position = segments.following(position)
        part = _survey_segment(segments, position, head, is_last=number == numbers[-1])
        position, torn = part.end, part.torn_bytes
        frames += part.frames
    if head is not None and head.position.sequence > position.sequence:
        raise CorruptDataError(
            f"{segments.where(position.segment)}: the log ends at offset {position.offset} with"
            f" frame {position.sequence}, but its head says that frames up to"
            f" {head.position.sequence} are durable: frames from {position.sequence + 1} on are"
            f" lost; {REBUILD}"
        )
    return Survey(position, frames, torn)


def problems(segments: Segments, head: HeadSlot | None) -> list[str]:
    """What is wrong with the files, one sentence each; goes on behind what is."""
    found: list[str] = []
    try:
        numbers = segments.numbers()
    except CorruptDataError as error:
        return [str(error)]
    position: Position | None = None
    for number in numbers:
        try:
            header = segments.read_header(number)
            if position is not None and position.segment == number - 1:
                segments.following(position)
            position = header.start
            is_last = number == numbers[-1]
            position = _survey_segment(segments, position, head, is_last=is_last).end
        except CorruptDataError as error:
            found.append(str(error))
    if not numbers:
        found.append(f"log {segments.directory}: there is no segment.")
    elif head is None:
        found.append(f"log {segments.directory}: the head is missing or damaged.")
    elif not found and position is not None and head.position.sequence > position.sequence:
        found.append(
            f"log {segments.directory}: it ends with frame {position.sequence}, but its head says"
            f" that frames up to {head.position.sequence} are durable."
        )
    return found
