"""What a store says of itself: its sizes, and what a check of it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from geostore.types.cluster import NodeStatus

__all__ = ["Problem", "ProblemKind", "Progress", "StoreStatus", "VerifyReport"]

Progress = Callable[[int, int], None]
"""Called with (tiles done, tiles in all) now and then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """Sizes and state of a store, as of the call."""

    path: str
    store_id: str
    format_version: int
    created_us: int
    datasets: int
    scenes: int
    tiles: int
    """Published tiles."""
    bytes: int
    """Of published tile files."""
    slots_used: int
    """Of the ring's 4096, how many hold tile files."""
    disk_free_bytes: int
    is_writer: bool
    """Whether this process holds the writer lock."""
    read_only_reason: str | None
    """Why nothing can be written; None where it can, or was not tried."""
    nodes: tuple[NodeStatus, ...] = ()
    """A cluster's, each as it says itself; none where the store is a directory."""
    slots_missing: int = 0
    """Slots of a cluster none of whose nodes answered: their tiles are not counted above."""

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        if not self.nodes:
            del value["nodes"], value["slots_missing"]
        return value


class ProblemKind(StrEnum):
    """What is wrong, by what it means."""

    CORRUPT = "corrupt"
    """A tile file's bytes are not those that were acknowledged."""
    MISSING = "missing"
    """A tile is listed whose file is not there."""
    ORPHAN = "orphan"
    """A file that no tile or attempt accounts for."""
    RECORD = "record"
    """Records and rows disagree."""
    CATALOG = "catalog"
    """The catalog's own structures disagree or cannot be read."""
    UNCHECKED = "unchecked"
    """A node of a cluster was not checked, or not to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding."""

    kind: ProblemKind
    path: str
    """The file or record concerned."""
    message: str
    node: str | None = None
    """The name of the node of a cluster that found it; None where the store is a directory."""

    def __str__(self) -> str:
        where = "" if self.node is None else f"node {self.node}: "
        return f"{self.kind}: {where}{self.path}: {self.message}"

    def to_json(self) -> dict[str, Any]:
        value = {"kind": str(self.kind), "path": self.path, "message": self.message}
        return value if self.node is None else {"node": self.node, **value}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a check read and found."""

    tiles: int
    """Tiles whose files were read and are as they should be."""
    bytes: int
    """Bytes read."""
    problems: tuple[Problem, ...]
    is_rebuilt: bool = False
    """Whether the catalog was made anew; what was found was then set right or aside."""

    @property
    def is_clean(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["problems"] = [problem.to_json() for problem in self.problems]
        return value
