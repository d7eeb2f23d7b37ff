"""Another cloud rule for a dataset, and what it made of its tiles."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from geostore.errors import ConflictError, InvalidInputError

if TYPE_CHECKING:
    from geostore.backends import Backend
    from geostore.types import CloudRule

__all__ = ["RecloudReport", "recloud", "rule_of"]

TRIES_MAX = 20
"""Others may change the same definition; each try that loses has lost to one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecloudReport:
    """A dataset under the cloud rule that was asked for."""

    dataset: str
    rule: CloudRule
    tiles: int
    """Tiles of the dataset."""
    tiles_changed: int
    """Tiles whose cloud cover is another one since, by this call."""
    tiles_unknown: int
    """Tiles whose cloud cover is null: under a threshold those without a cloud likelihood."""


def rule_of(threshold: int | None, method: Literal["provider"] | None) -> CloudRule:
    """The rule that exactly one of the two asks for. Raises InvalidInputError."""
    from geostore.types import CloudRule

    if (threshold is None) == (method is None):
        raise InvalidInputError(
            "recloud: expected either threshold (percent of cloud likelihood) or"
            f" method='provider'; got threshold {threshold}, method {method!r}"
        )
    if threshold is not None:
        return CloudRule("likelihood", threshold)
    if method != "provider":
        raise InvalidInputError(f"method {method!r}: expected 'provider', or a threshold")
    return CloudRule()


def recloud(backend: Backend, name: str, rule: CloudRule) -> RecloudReport:
    """Puts all tiles of a dataset under a rule. Asked for again, it finishes what was cut short.

    Raises:
        NotFoundError: no such dataset.
        ConflictError: the definition is changed by others all the time.
        UnavailableError: not every node could be told; those hear of it when they are back.
        StoreLockedError: another process writes, and lets nobody in.
    """
    from geostore.query import PercentRange, Query

    # An ingest of another process lets this in between two of its scenes.
    with backend.writing_turns() as turn, turn(lambda: None):
        changed = _change(backend, name, rule)
    tiles = backend.count(Query(datasets=(name,)))
    known = backend.count(Query(datasets=(name,), cloud=PercentRange(0, 100)))
    return RecloudReport(
        dataset=name,
        rule=rule,
        tiles=tiles,
        tiles_changed=changed,
        tiles_unknown=max(0, tiles - known),
    )


def _change(backend: Backend, name: str, rule: CloudRule) -> int:
    """Sets the rule, whoever changes the definition meanwhile; how many covers changed."""
    for _ in range(TRIES_MAX - 1):
        old = backend.dataset(name)
        with suppress(ConflictError):
            return backend.replace_dataset(old, old.with_cloud_rule(rule))
    old = backend.dataset(name)
    return backend.replace_dataset(old, old.with_cloud_rule(rule))
