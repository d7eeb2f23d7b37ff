"""docs/formats.md: the readers there are, and the table of real products that is tested."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from geostore.scenes import Reader, readers
from tests.integration.whole_tree import TREE, page_rows

PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
HEADINGS = ("| reader |", "| product |")


def table(heading: str) -> list[str]:
    """The rows of the table that begins so."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(heading))
    rows = lines[start + 2 :]
    return rows[: next(index for index, line in enumerate(rows) if not line.startswith("|"))]


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


MATRIX = {cells(row)[0]: cells(row)[1:] for row in table(HEADINGS[0])}


def named(reader: str) -> str:
    return "`modis-<product>`" if reader.startswith("modis") else f"`{reader}`"


def test_every_reader_is_there_in_the_order_in_which_they_are_asked() -> None:
    assert list(MATRIX) == [named(name) for name in readers()]


@pytest.mark.parametrize("reader", readers().values(), ids=lambda reader: reader.name)
def test_groups_and_cells(reader: Reader) -> None:
    *_, groups, lengths, _ = MATRIX[named(reader.name)]
    if reader.defaults.resolutions_m is not None:
        assert groups == ", ".join(f"{size:g}" for size in reader.defaults.resolutions_m) + " m"
    else:
        assert groups in {"the first scene's pixel", "the product's own"}
    if reader.defaults.lengths is not None:
        ours = reader.defaults.lengths
        assert lengths == f"{ours['geohash']} / {ours['quadtile']}"
    else:
        assert lengths == "by pixel size"


def test_the_scenes_that_are_counted_are_those_that_are_tested() -> None:
    scenes: Counter[str] = Counter()
    for row in TREE:
        if row.reader is None or (row.status != "ingested" and row.again is None):
            continue
        empty = row.again.empty if row.again is not None else 0
        scenes[named(row.reader)] += row.sources * row.scenes - empty
    assert {name: int(row[-1]) for name, row in MATRIX.items()} == {
        name: scenes[name] for name in MATRIX
    }


def test_the_table_of_products_is_the_one_that_is_tested() -> None:
    assert table(HEADINGS[1]) == page_rows()
