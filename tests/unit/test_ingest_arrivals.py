"""What is taken from a watched directory, and when: by looks and the clock alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from geostore.errors import InvalidInputError
from geostore.ingest import Arrivals, look

A = (1, 100, 5)


def test_an_entry_is_taken_once_it_looked_the_same_for_long_enough() -> None:
    arrivals = Arrivals(5.0)
    assert arrivals.take({"a": A}, 0.0) == []
    assert arrivals.take({"a": A}, 4.9) == []
    assert arrivals.waits
    assert arrivals.take({"a": A}, 5.0) == ["a"]
    assert not arrivals.waits
    assert arrivals.take({"a": A}, 100.0) == []


def test_a_copy_under_way_is_left_alone() -> None:
    arrivals = Arrivals(5.0)
    for second in range(20):
        assert arrivals.take({"a": (1, 100 * second, second)}, float(second)) == []
    assert arrivals.take({"a": (1, 1900, 19)}, 24.0) == ["a"]


def test_what_changed_is_taken_again_and_what_went_and_came_back_too() -> None:
    arrivals = Arrivals(0.0)
    arrivals.take({"a": A}, 0.0)
    assert arrivals.take({"a": A}, 1.0) == ["a"]
    assert arrivals.take({"a": (1, 200, 9)}, 2.0) == []
    assert arrivals.take({"a": (1, 200, 9)}, 3.0) == ["a"]
    assert arrivals.take({}, 4.0) == []
    assert arrivals.take({"a": (1, 200, 9)}, 5.0) == []
    assert arrivals.take({"a": (1, 200, 9)}, 6.0) == ["a"]


def test_a_look_sees_files_and_product_directories_whole(tmp_path: Path) -> None:
    (tmp_path / "scene.tif").write_bytes(b"12345")
    product = tmp_path / "X.SAFE" / "GRANULE" / "a"
    product.mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden.tif").write_bytes(b"1")
    (tmp_path / "half.zip.part").write_bytes(b"1")
    assert {Path(path).name for path in look(tmp_path)} == {"scene.tif"}
    (product / "b.jp2").write_bytes(b"123")
    (product / "c.xml").write_bytes(b"1234")
    looks = {Path(path).name: (files, size) for path, (files, size, _) in look(tmp_path).items()}
    assert looks == {"scene.tif": (1, 5), "X.SAFE": (2, 7)}
    before = look(tmp_path)
    (product / "c.xml").write_bytes(b"12345")
    assert look(tmp_path) != before


def test_what_cannot_be_watched_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"nowhere: cannot be watched"):
        look(tmp_path / "nowhere")
