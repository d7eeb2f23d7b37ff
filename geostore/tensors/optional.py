"""Packages that only some calls need: imported here, and named well where they are absent."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from geostore.errors import MissingDependencyError

__all__ = ["require"]


def require(module: str, *, needed_for: str, extra: str) -> Any:
    """The imported module.

    Raises:
        MissingDependencyError: it is not installed; says what needs it and how to get it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = error.name or module
        raise MissingDependencyError(
            f"{needed_for} needs the package {missing}: pip install 'geostore[{extra}]'"
        ) from error
