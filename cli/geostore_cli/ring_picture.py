"""The ring as a picture for terminals: a circle of slots, each in its node's colour, and a table.

The circle goes clockwise from the top, slot 0 to 4095, and is drawn in half-block characters:
two nearly square pixels a cell. Its pixels are numbered by angle and each stands for as many
slots in a row as there are to a pixel, so a node's arc is solid where its slots are
neighbours and a mosaic where they are scattered. Without colours, letters stand for nodes.
"""

from __future__ import annotations

import io
import math
import os
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING, Protocol

from geostore_cli.listing import bytes_text

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["RingRow", "ring_picture"]

SLOTS = 4096
NARROW_COLUMNS = 60
DIAMETERS = (44, 36, 28, 24)
"""Of the circle in pixels, which are columns; what leaves room for the table is taken."""
CROWD = 14
"""More nodes than this get the largest circle: their table is tall anyway."""
HOLE = 0.62
"""Radius of the hole over that of the circle."""
GAP = 3
NAME_COLUMNS_MAX = 18
BAR_COLUMNS_MAX = 12
BAR_COLUMNS_MIN = 3
GLYPHS = string.digits[1:] + string.ascii_lowercase + string.ascii_uppercase
EIGHTHS = " ▏▎▍▌▋▊▉"
DEAD_COLOUR = "#4a4a4a"
TRACK_COLOUR = "#333333"
PALETTE = (
    "#4e9ff5", "#f5a742", "#4fc98a", "#e8617c", "#a98bf0", "#3fc6d0", "#e6d04c", "#f08fd0",
)  # fmt: skip
GOLDEN_ANGLE = 137.508


class RingRow(Protocol):
    """What the picture needs to know of a node."""

    @property
    def name(self) -> str: ...
    @property
    def slots(self) -> int: ...
    @property
    def slots_first(self) -> int: ...
    @property
    def tiles(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def state(self) -> str: ...


def ring_picture(
    nodes: Sequence[RingRow],
    owners: Sequence[int] | None,
    *,
    width: int,
    color: bool,
    utf8: bool = True,
    totals: tuple[str, ...] | None = None,
) -> str:
    """The picture as lines of text, each ended by a line break, none wider than `width`.

    `totals` are the lines in the circle's middle that tell what the whole store holds; by
    default the sums over `nodes`, which count every copy.

    `owners` has for each of the 4096 slots the index in `nodes` of its first replica; None,
    where it is not known, leaves the circle out unless there is only one node. A terminal
    narrower than 60 columns, or one that does not show UTF-8, gets a strip in the circle's
    place.
    """
    if owners is None and len(nodes) == 1:
        owners = [0] * SLOTS
    drawing = _Drawing(
        nodes=tuple(nodes), owners=owners, width=width, color=color, utf8=utf8, totals=totals
    )
    return drawing.rendered()


@dataclass(frozen=True, kw_only=True)
class _Drawing:
    nodes: tuple[RingRow, ...]
    owners: Sequence[int] | None
    width: int
    color: bool
    utf8: bool
    totals: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.owners is not None:
            assert len(self.owners) == SLOTS, f"{len(self.owners)} owners, expected {SLOTS}"
            assert 0 <= min(self.owners) <= max(self.owners) < len(self.nodes)

    def rendered(self) -> str:
        from rich.console import Console

        rich = os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit")
        out = io.StringIO()
        console = Console(
            file=out,
            width=max(self.width, 1),
            force_terminal=self.color,
            color_system=("truecolor" if rich else "256") if self.color else None,
            no_color=not self.color,
            legacy_windows=False,
            highlight=False,
        )
        for line in self.lines():
            line.truncate(self.width)
            if not self.color:  # with colours, spaces are the rest of a bar's track
                line.rstrip()
            console.print(line, no_wrap=True, overflow="crop", crop=True)
        return out.getvalue()

    def lines(self) -> list[Text]:
        from rich.text import Text

        if self.owners is None:
            return self._table(self.width)
        diameter = self._diameter
        if diameter is None:
            return [*self._strip(), Text(), *self._table(self.width)]
        circle = self._circle(diameter)
        table = self._table(self.width - diameter - GAP)
        # The shorter of the two stands in the middle of a small picture, on top of a tall one.
        above = max(0, (len(circle) - len(table)) // 2)
        table = [Text()] * above + table
        lines = []
        for left, right in zip_longest(circle, table):
            line = left.copy() if left is not None else Text(" " * diameter)
            lines.append(line + Text(" " * GAP) + right if right is not None else line)
        return lines

    # ------------------------------------------------------------ colours

    @cached_property
    def colours(self) -> tuple[str, ...]:
        """One a node; the dead are all of one grey, so that what is missing shows."""
        few = len(self.nodes) <= len(PALETTE)
        return tuple(
            DEAD_COLOUR if _is_dead(node) else PALETTE[i] if few else _hue(i)
            for i, node in enumerate(self.nodes)
        )

    @cached_property
    def _diameter(self) -> int | None:
        """Of the circle that leaves the table its least width; None: there is no room."""
        if self.width < NARROW_COLUMNS or not self.utf8:
            return None
        sizes = DIAMETERS if len(self.nodes) > CROWD else DIAMETERS[1:]
        bars = self._bars_columns(BAR_COLUMNS_MIN)
        for least in (bars, self._bars_columns(0)):
            for diameter in sizes:
                if self.width - diameter - GAP >= least:
                    return diameter
        return None

    # ------------------------------------------------------------ circle and strip

    def _majority(self, start: float, end: float) -> int:
        """The node that owns most of the slots in [start, end), the first among equals."""
        assert self.owners is not None
        first = min(int(start), SLOTS - 1)
        return Counter(self.owners[first : max(first + 1, int(end))]).most_common(1)[0][0]

    def _circle(self, diameter: int) -> list[Text]:
        from rich.text import Text

        # Without colours a cell is one letter, else two pixels: letters take every second row.
        height = diameter if self.color else diameter // 2
        owner = self._pixels(diameter, height)
        lines = []
        for row in range(diameter // 2):
            line = Text()
            for column in range(diameter):
                if not self.color:
                    one = owner.get((row, column))
                    line.append(" " if one is None else self._glyph(one))
                    continue
                pair = owner.get((2 * row, column)), owner.get((2 * row + 1, column))
                line.append(*self._half_blocks(*pair))
            lines.append(line)
        return self._with_centre(lines, diameter)

    def _pixels(self, diameter: int, height: int) -> dict[tuple[int, int], int]:
        """Row and column of the circle's pixels → node."""
        radius, aspect = diameter / 2, diameter / height
        places = []
        for row in range(height):
            for column in range(diameter):
                x, y = column + 0.5 - radius, (row + 0.5) * aspect - radius
                distance = math.hypot(x, y)
                if HOLE * radius <= distance <= radius:
                    angle = math.atan2(x, -y) % (2 * math.pi)  # clockwise from the top
                    places.append((angle, distance, row, column))
        places.sort()
        each = SLOTS / len(places)
        return {
            (row, column): self._majority(i * each, (i + 1) * each)
            for i, (_, _, row, column) in enumerate(places)
        }

    def _half_blocks(self, top: int | None, bottom: int | None) -> tuple[str, str]:
        if top is None and bottom is None:
            return " ", ""
        if top is None or bottom is None:
            one = bottom if top is None else top
            assert one is not None
            return ("▄" if top is None else "▀"), self.colours[one]
        return "▀", f"{self.colours[top]} on {self.colours[bottom]}"

    def _with_centre(self, lines: list[Text], diameter: int) -> list[Text]:
        """What the whole store holds, written in the hole."""
        from rich.text import Text

        many = len(self.nodes)
        dead = sum(map(_is_dead, self.nodes))
        totals = self.totals or (
            f"{sum(node.tiles for node in self.nodes):,} tiles",
            bytes_text(sum(node.bytes for node in self.nodes)),
        )
        texts = [
            (f"{many:,} node{'s' if many != 1 else ''}", "bold"),
            (f"{SLOTS:,} slots", "dim"),
            *((text, "dim") for text in totals),
            *([(f"{dead:,} down", "bold red")] if dead else []),
        ]
        first = len(lines) // 2 - (len(texts) + 1) // 2
        for row, (text, style) in enumerate(texts, start=first):
            begin = (diameter - len(text)) // 2
            line = lines[row]
            middle = Text(text, style=style)
            lines[row] = line[:begin] + middle + line[begin + len(text) :]
        return lines

    def _strip(self) -> list[Text]:
        """Four lines of slots, read like text."""
        from rich.text import Text

        columns = 1 << int(math.log2(max(1, min(64, self.width))))
        each = SLOTS // (4 * columns)
        lines = []
        for row in range(4):
            line = Text()
            for column in range(columns):
                start = (row * columns + column) * each
                node = self._majority(start, start + each)
                shown = "█" if self.color and self.utf8 else self._glyph(node)
                line.append(shown, self.colours[node] if self.color else "")
            lines.append(line)
        return lines

    @property
    def _unknown(self) -> str:
        """Stands for what a node that is down would have said."""
        return "–" if self.utf8 else "-"

    def _glyph(self, node: int) -> str:
        if _is_dead(self.nodes[node]):
            return "·" if self.utf8 else "."
        return GLYPHS[node % len(GLYPHS)]

    # ------------------------------------------------------------ table

    @cached_property
    def _measures(self) -> list[tuple[str, list[int], Callable[[int], str], bool]]:
        """Heading, values, their text, and whether bars are drawn for them."""

        def count(value: int) -> str:
            return f"{value:,}"

        slots = [node.slots for node in self.nodes]
        firsts = [node.slots_first for node in self.nodes]
        first = [("first", firsts, count, False)] if firsts != slots else []
        return [
            ("slots", slots, count, True),
            *first,
            ("tiles", [node.tiles for node in self.nodes], count, True),
            ("size", [node.bytes for node in self.nodes], bytes_text, True),
        ]

    @cached_property
    def _name_columns(self) -> int:
        longest = max((len(_marked(node)) for node in self.nodes), default=4)
        return max(4, min(longest, NAME_COLUMNS_MAX))

    def _bars_columns(self, bar: int) -> int:
        """Width of the table with bars of `bar` columns."""
        total = 2 + self._name_columns
        for heading, values, show, has_bar in self._measures:
            total += 2 + max(len(heading), *(len(show(value)) for value in values), 0)
            total += 1 + bar if has_bar and bar else 0
        return total

    def _table(self, width: int) -> list[Text]:
        from rich.text import Text

        bar = next(
            (
                columns
                for columns in range(BAR_COLUMNS_MAX, BAR_COLUMNS_MIN - 1, -1)
                if self._bars_columns(columns) <= width
            ),
            0,
        )
        heading = Text("  " + "node".ljust(self._name_columns), style="bold")
        lines = [heading]
        for index, node in enumerate(self.nodes):
            lines.append(self._named(index, node))
        for title, values, show, has_bar in self._measures:
            texts = [
                self._unknown if _is_dead(node) and has_bar and value == 0 else show(value)
                for node, value in zip(self.nodes, values, strict=True)
            ]
            columns = max(len(title), *map(len, texts), 0)
            own_bar = bar if has_bar else 0
            heading.append("  " + title.rjust(columns) + " " * (own_bar + 1 if own_bar else 0))
            most = max(values, default=0)
            for index, (line, value, text) in enumerate(zip(lines[1:], values, texts, strict=True)):
                line.append("  " + text.rjust(columns))
                if own_bar:
                    line.append(" ")
                    self._draw_bar(line, value / most if most else 0.0, own_bar, index)
        return lines

    def _named(self, index: int, node: RingRow) -> Text:
        from rich.text import Text

        mark = ("●" if self.utf8 else "*") if self.color else self._glyph(index)
        name = _marked(node)
        if len(name) > NAME_COLUMNS_MAX:
            name = name[: NAME_COLUMNS_MAX - 1] + ("…" if self.utf8 else "~")
        line = Text()
        line.append(mark + " ", self.colours[index] if self.color else "")
        style = "bold red" if _is_dead(node) else "" if node.state == "serving" else "yellow"
        line.append(name.ljust(self._name_columns), style)
        return line

    def _draw_bar(self, line: Text, share: float, columns: int, index: int) -> None:
        """A bar as exact as an eighth of a column; whatever is not nothing shows."""
        eighths = round(share * columns * 8) or int(share > 0)
        full, part = divmod(eighths, 8)
        if not self.utf8:
            line.append(("#" * round(share * columns)).ljust(columns), "")
            return
        drawn = "█" * full + (EIGHTHS[part] if part else "")
        track = f" on {TRACK_COLOUR}" if self.color else ""
        line.append(drawn.ljust(columns), f"{self.colours[index]}{track}" if self.color else "")


def _is_dead(node: RingRow) -> bool:
    return node.state in ("unreachable", "down")


def _marked(node: RingRow) -> str:
    """The name, and the state where it is not the usual one."""
    name = "".join(char if char.isprintable() else "?" for char in node.name)
    if node.state == "serving":
        return name
    return f"{name} down" if _is_dead(node) else f"{name} {node.state}"


def _hue(index: int) -> str:
    """Colours for any number of nodes: neighbours in the list are far apart.

    Hue by the golden angle and lightness in three steps, in OKLCH (B. Ottosson, "A perceptual
    color space for image processing", 2020), where equal numbers look equally bright.
    """
    lightness = (0.76, 0.66, 0.84)[index % 3]
    angle = math.radians(index * GOLDEN_ANGLE + 250)
    a, b = 0.13 * math.cos(angle), 0.13 * math.sin(angle)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    bytes_ = (round(255 * _gamma(min(1.0, max(0.0, value)))) for value in linear)
    return "#" + "".join(f"{value:02x}" for value in bytes_)


def _gamma(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
