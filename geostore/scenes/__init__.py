"""Scenes: readers of providers' formats, one file a provider, and safe access to sources.

Names are imported on first use, so that `import geostore` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geostore.scenes.ahead import Ahead
    from geostore.scenes.find import FoundSource, find_sources
    from geostore.scenes.registry import detect, open_source, reader_named, readers
    from geostore.scenes.remote import Remote
    from geostore.scenes.scene import (
        Reader,
        ReaderDefaults,
        ReaderFamily,
        ReadOptions,
        Scene,
        SceneBand,
    )
    from geostore.scenes.source import Source

_MODULES = {
    "Ahead": "ahead",
    "FoundSource": "find",
    "ReadOptions": "scene",
    "Reader": "scene",
    "ReaderDefaults": "scene",
    "ReaderFamily": "scene",
    "Remote": "remote",
    "Scene": "scene",
    "SceneBand": "scene",
    "Source": "source",
    "detect": "registry",
    "find_sources": "find",
    "open_source": "registry",
    "reader_named": "registry",
    "readers": "registry",
}

__all__ = [
    "Ahead",
    "FoundSource",
    "ReadOptions",
    "Reader",
    "ReaderDefaults",
    "ReaderFamily",
    "Remote",
    "Scene",
    "SceneBand",
    "Source",
    "detect",
    "find_sources",
    "open_source",
    "reader_named",
    "readers",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"geostore.scenes.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
