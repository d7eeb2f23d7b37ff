"""How a query was answered, for people who ask why it was slow or what it looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Explain", "ExplainNode", "ExplainStep", "stage_of"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainNode:
    """What one node of a cluster was asked, and what came."""

    name: str
    slots: int
    """How many slots it was asked about."""
    rows: int
    """How many of its rows were taken; more than came out, where a limit cut them."""
    error: str | None = None
    """Why it failed and others were asked in its place."""


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
    """Rows among which the answer was looked for: all of a catalog, or those in the slots that a
    node was told, so that no row counts by two of its copies.
    """
    rows_matched: int | None = None
    ended_early: bool = False
    """Rows were walked in order, and the walk ended at the limit: more may match than were seen."""
    nodes_asked: list[str] = field(default_factory=list)
    nodes_skipped: list[str] = field(default_factory=list)
    nodes: list[ExplainNode] = field(default_factory=list)
    """Of a cluster: the nodes asked, in the ring's order."""
    slots_matched: int | None = None
    """Of a cluster: slots that were asked about, each at one node."""
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

    def absorb(self, part: Explain) -> None:
        """Adds what a node said of its share of the answer.

        Rows add up; steps are one where they do the same. Nodes work at once, so a stage took
        as long as at the slowest.
        """
        self.predicates.update(part.predicates)
        for name, rows in part.considered.items():
            self.considered[name] = self.considered.get(name, 0) + rows
        if part.structure is not None:
            same = self.structure in (None, part.structure)
            self.structure = part.structure if same else "several"
        self.rows_total = _sum(self.rows_total, part.rows_total)
        self.rows_matched = _sum(self.rows_matched, part.rows_matched)
        self.ended_early = self.ended_early or part.ended_early
        self._absorb_steps(part.steps)
        for name, ms in part.stages_ms.items():
            self.stages_ms[name] = max(self.stages_ms.get(name, 0.0), ms)

    def _absorb_steps(self, steps: Sequence[ExplainStep]) -> None:
        """Steps that are new go before the next one that is not: a node's plan stays together."""
        end = len(self.steps)
        for step in reversed(steps):
            place = self._place_of(step, end)
            if place is None:
                self.steps.insert(end, step)
                continue
            end, known = place, self.steps[place]
            self.steps[place] = ExplainStep(
                action=step.action,
                subject=step.subject,
                estimated_rows=_sum(known.estimated_rows, step.estimated_rows),
                actual_rows=_sum(known.actual_rows, step.actual_rows),
            )

    def _place_of(self, step: ExplainStep, end: int) -> int | None:
        """Where a step of the same action and subject stands before `end`."""
        wanted = step.action, step.subject
        places = (i for i in range(end) if wanted == (self.steps[i].action, self.steps[i].subject))
        return next(places, None)

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {
            "predicates": dict(self.predicates),
            "structure": self.structure,
            "considered": dict(self.considered),
            "rows_total": self.rows_total,
            "rows_matched": self.rows_matched,
            "ended_early": self.ended_early,
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
        if self.slots_matched is not None:  # a store without a ring has neither
            value["slots_matched"] = self.slots_matched
            value["nodes"] = [asdict(node) for node in self.nodes]
        return value

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
            early = "; the walk ended there, more may match" if self.ended_early else ""
            lines.append(f"matched {self.rows_matched:,}{total} tiles{early}")
        if self.nodes_asked or self.nodes_skipped:
            asked = ", ".join(self.nodes_asked) or "none"
            skipped = ", ".join(self.nodes_skipped) or "none"
            lines.append(f"nodes asked: {asked}; skipped: {skipped}")
        if self.slots_matched is not None:
            lines.append(f"slots asked about: {self.slots_matched:,}")
            width = max((len(node.name) for node in self.nodes), default=0)
            for node in self.nodes:
                failed = "" if node.error is None else f"  failed: {node.error}"
                lines.append(
                    f"  {node.name:<{width}}  {node.slots:>5,} slots  {node.rows:>9,} rows{failed}"
                )
        if self.stages_ms:
            spent = ", ".join(f"{name} {ms:.2f}" for name, ms in self.stages_ms.items())
            lines.append(f"ms: {spent}")
        return "\n".join(lines)


def stage_of(explain: Explain | None, name: str) -> AbstractContextManager[None]:
    """A stage of a query that is explained; of another one nobody looks at the clock."""
    return nullcontext() if explain is None else explain.stage(name)


def _sum(first: int | None, second: int | None) -> int | None:
    return second if first is None else first if second is None else first + second


def _rows_text(step: ExplainStep) -> str:
    parts = []
    if step.estimated_rows is not None:
        parts.append(f"estimated {step.estimated_rows:,}")
    if step.actual_rows is not None:
        parts.append(f"left {step.actual_rows:,}")
    return f"  ({', '.join(parts)})" if parts else ""
