"""The picture of the ring, for eyes: what must be readable in it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore_cli.ring_picture import DEAD_COLOUR, _Drawing, _hue, ring_picture

ANSI = re.compile(r"\x1b\[([0-9;]*)m")


@dataclass(frozen=True)
class Row:
    name: str
    slots: int
    slots_first: int
    tiles: int = 0
    bytes: int = 0
    state: str = "serving"


def rows(count: int, *, dead: tuple[int, ...] = ()) -> list[Row]:
    return [
        Row(
            name=f"n{i + 1}",
            slots=4096 // count,
            slots_first=4096 // count,
            tiles=1000 + i,
            bytes=10**6 * (i + 1),
            state="unreachable" if i in dead else "serving",
        )
        for i in range(count)
    ]


def arcs(count: int) -> list[int]:
    return [slot * count // 4096 for slot in range(4096)]


def rgb(colour: str) -> str:
    return ";".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))


@pytest.fixture(autouse=True)
def _all_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")


def test_three_nodes_as_letters() -> None:
    picture = ring_picture(rows(3, dead=(1,)), arcs(3), width=80, color=False)
    lines = picture.splitlines()
    assert "\x1b" not in picture
    assert len(lines) == 14
    circle = [line[:28] for line in lines]
    # Clockwise from the top: node 1 at the right, node 2, which is dead, below, 3 at the left.
    assert circle[3].strip()[0] == "3"
    assert circle[3].strip()[-1] == "1"
    assert set(circle[-1].strip()) == {"·"}
    for row, text in enumerate(("3 nodes", "4,096 slots", "3,003 tiles", "6.0 MB", "1 down")):
        assert text in circle[4 + row]
    table = [line[31:].split() for line in lines if line[31:].strip()]
    assert table[0] == ["node", "slots", "tiles", "size"]
    assert [row[:2] for row in table[1:]] == [["1", "n1"], ["·", "n2"], ["3", "n3"]]
    assert table[2][2] == "down"


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("height", [44, 22])
def test_each_node_has_its_share_of_the_circle(count: int, height: int) -> None:
    drawing = _Drawing(
        nodes=tuple(rows(count)), owners=arcs(count), width=140, color=True, utf8=True
    )
    pixels = drawing._pixels(44, height)
    shares = Counter(pixels.values())
    assert set(shares) == set(range(count))
    for node in range(count):
        assert shares[node] == pytest.approx(len(pixels) / count, abs=2)
    # An arc is one piece: clockwise from the top, no node comes twice.
    right = [pixels[row, 43] for row in range(height) if (row, 43) in pixels]
    assert right == sorted(right)


def test_colours_are_the_nodes_own_and_the_dead_are_grey() -> None:
    picture = ring_picture(rows(50, dead=(7,)), arcs(50), width=110, color=True)
    used = {
        style for styles in ANSI.findall(picture) for style in re.findall(r"38;2;([0-9;]+)", styles)
    }
    used = {";".join(style.split(";")[:3]) for style in used}
    alive = {rgb(_hue(i)) for i in range(50) if i != 7}
    assert len(alive) == 49
    assert alive <= used
    assert rgb(_hue(7)) not in used
    assert rgb(DEAD_COLOUR) in used
    plain = ANSI.sub("", picture)
    assert "n8 down" in plain
    assert "50 nodes" in plain
    assert "1 down" in plain


def test_a_terminal_of_256_colours_gets_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLORTERM")
    picture = ring_picture(rows(3), arcs(3), width=80, color=True)
    assert "38;5;" in picture
    assert "38;2;" not in picture


@pytest.mark.parametrize(("width", "utf8"), [(59, True), (120, False)])
def test_a_strip_where_there_is_no_room_for_a_circle(width: int, utf8: bool) -> None:
    picture = ring_picture(rows(4), arcs(4), width=width, color=False, utf8=utf8)
    lines = picture.splitlines()
    columns = 32 if width == 59 else 64
    assert lines[:5] == ["1" * columns, "2" * columns, "3" * columns, "4" * columns, ""]
    assert lines[5].split() == ["node", "slots", "tiles", "size"]
    assert lines[6].split()[:2] == ["1", "n1"]
    assert picture.isascii() is not utf8 or width == 59
    if not utf8:
        assert picture.isascii()
        assert "#" in picture


def test_first_replicas_are_told_where_they_are_not_all() -> None:
    nodes = [Row("a", 4096, 2048), Row("b", 4096, 2048)]
    picture = ring_picture(nodes, arcs(2), width=80, color=False)
    assert re.search(r"node +slots +first +tiles +size", picture)
    assert re.search(r"1 a +4,096 .*2,048", picture)


def test_without_owners_only_one_node_has_a_circle() -> None:
    assert "1 node" in ring_picture(rows(1), None, width=80, color=False)
    lines = ring_picture(rows(3), None, width=80, color=False).splitlines()
    assert len(lines) == 4


def test_names_cannot_break_the_picture() -> None:
    row = Row("evil\x1b[2J\nname" + "x" * 50, 4096, 4096, state="draining")
    picture = ring_picture([row], None, width=80, color=False)
    assert "\x1b" not in picture
    assert "evil?[2J?namexxxx…" in picture


@given(
    count=st.integers(1, 64),
    width=st.integers(1, 200),
    color=st.booleans(),
    utf8=st.booleans(),
    tiles=st.integers(0, 10**9),
    data=st.data(),
)
def test_no_line_is_wider_than_the_terminal(
    count: int, width: int, color: bool, utf8: bool, tiles: int, data: st.DataObject
) -> None:
    nodes = [Row(f"node-{i}", 4096, i, tiles, tiles * 1000) for i in range(count)]
    turn = data.draw(st.integers(0, 4095))
    owners = arcs(count)[turn:] + arcs(count)[:turn]
    picture = ring_picture(nodes, owners, width=width, color=color, utf8=utf8)
    lines = ANSI.sub("", picture).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) > count
