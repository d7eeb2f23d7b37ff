"""How a query was answered, for people who ask why it was slow or what it looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Explain", "ExplainStep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainStep:
    """One step of a plan."""

    action: str
    """`walk` a structure, `scan` the columns, `filter` by a predicate, `sort`, `limit`."""
    subject: str
    """The structure or predicate, as a person reads it."""
    estimated_rows: int | None = None
    """What the planner expected to be left after the step."""
    actual_rows: int | None = None
    """What was left."""


@dataclass(slots=True)
class Explain:
    """A record that whoever answers a query fills in; pass an empty one to a query.

    `clock` returns seconds; it is an argument so that tests need no real time.
    """

    clock: Callable[[], float] = time.perf_counter
    predicates: dict[str, str] = field(default_factory=dict)
    steps: list[ExplainStep] = field(default_factory=list)
    considered: dict[str, int] = field(default_factory=dict)
    """Structure to the number of rows it would have given."""
    structure: str | None = None
    """The structure that was walked."""
    rows_total: int | None = None
    """Rows that the answering catalog holds."""
    rows_matched: int | None = None
    nodes_asked: list[str] = field(default_factory=list)
    nodes_skipped: list[str] = field(default_factory=list)
    stages_ms: dict[str, float] = field(default_factory=dict)
    """Milliseconds by stage, in the order the stages first ran."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to a stage."""
        start = self.clock()
        try:
            yield
        finally:
            elapsed_ms = (self.clock() - start) * 1e3
            self.stages_ms[name] = self.stages_ms.get(name, 0.0) + elapsed_ms

    def add(
        self,
        action: str,
        subject: str,
        *,
        estimated_rows: int | None = None,
        actual_rows: int | None = None,
    ) -> None:
        self.steps.append(
            ExplainStep(
                action=action,
                subject=subject,
                estimated_rows=estimated_rows,
                actual_rows=actual_rows,
            )
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "predicates": dict(self.predicates),
            "structure": self.structure,
            "considered": dict(self.considered),
            "rows_total": self.rows_total,
            "rows_matched": self.rows_matched,
            "steps": [
                {
                    "action": step.action,
                    "subject": step.subject,
                    "estimated_rows": step.estimated_rows,
                    "actual_rows": step.actual_rows,
                }
                for step in self.steps
            ],
            "nodes_asked": list(self.nodes_asked),
            "nodes_skipped": list(self.nodes_skipped),
            "stages_ms": {name: round(ms, 3) for name, ms in self.stages_ms.items()},
        }

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self) -> str:
        """The same for a person: a few aligned lines, no trailing newline."""
        lines = ["query"]
        if not self.predicates:
            lines.append("  all tiles")
        lines += [f"  {name} {text}" for name, text in self.predicates.items()]
        if self.considered:
            lines.append("structures that could be walked (rows each would give)")
            width = max(len(name) for name in self.considered)
            for name, rows in sorted(self.considered.items(), key=lambda item: item[1]):
                chosen = "  <- walked" if name == self.structure else ""
                lines.append(f"  {name:<{width}}  {rows:>9,}{chosen}")
        lines.append("plan")
        for step in self.steps:
            lines.append(f"  {step.action} {step.subject}{_rows_text(step)}")
        if self.rows_matched is not None:
            total = "" if self.rows_total is None else f" of {self.rows_total:,}"
            lines.append(f"matched {self.rows_matched:,}{total} tiles")
        if self.nodes_asked or self.nodes_skipped:
            asked = ", ".join(self.nodes_asked) or "none"
            skipped = ", ".join(self.nodes_skipped) or "none"
            lines.append(f"nodes asked: {asked}; skipped: {skipped}")
        if self.stages_ms:
            spent = ", ".join(f"{name} {ms:.2f}" for name, ms in self.stages_ms.items())
            lines.append(f"ms: {spent}")
        return "\n".join(lines)


def _rows_text(step: ExplainStep) -> str:
    parts = []
    if step.estimated_rows is not None:
        parts.append(f"estimated {step.estimated_rows:,}")
    if step.actual_rows is not None:
        parts.append(f"left {step.actual_rows:,}")
    return f"  ({', '.join(parts)})" if parts else ""
