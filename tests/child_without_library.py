"""A child process whose library is not there."""

from __future__ import annotations

from geostore.scenes.isolated_process import serve
from tests.misbehaving_children import load_nothing


def main(memory_bytes_max: int) -> int:
    return serve(load_nothing, memory_bytes_max)
