"""Values as plain dicts, without the deep copies of `dataclasses.asdict`.

Records, definitions and schemas become JSON several times a scene: copying what is only read
was a tenth of a small scene's ingest.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

__all__ = ["plain_fields"]


class _DataclassInstance(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


def plain_fields(value: _DataclassInstance) -> dict[str, Any]:
    """The fields by name, in order, as they are: what is in them is shared, not copied."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}
