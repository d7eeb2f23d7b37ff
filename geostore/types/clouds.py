"""What in a band means cloud, as a value: read from a reader, kept in tiles as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError

__all__ = ["BitTest", "CloudLayer", "likelihood_cover"]

BITS_MAX = 64

# A band, then class codes (`SCL 8,9,10`), bits (`QA_PIXEL bits 1,3,8-9=3`: bit 1 or 3 is set,
# or bits 8 to 9 hold 3), or the lowest percent that is cloud (`CLDPRB >= 50`).
_METHOD = re.compile(
    r"^(?P<band>\S(?:.*?\S)?)(?<! bits)(?<! >=) "  # MOD13's bands have blanks in their names
    r"(?:bits (?P<bits>\d[\d,=/-]*)|>= ?(?P<least>\d+)|(?P<codes>\d+(?:, ?\d+)*))$"
)
_TEST = re.compile(r"^(?P<low>\d+)(?:-(?P<high>\d+)=(?P<values>\d+(?:/\d+)*))?$")


@dataclass(frozen=True, slots=True)
class BitTest:
    """Bits `low` to `high` of a bit field (0 is the least), read as one number, are in `values`.

    Raises:
        InvalidInputError: bits or values that no such field has.
    """

    low: int
    high: int
    values: frozenset[int] = frozenset({1})

    def __post_init__(self) -> None:
        largest = (1 << (self.high - self.low + 1)) - 1 if 0 <= self.low <= self.high else -1
        if not (self.high < BITS_MAX and self.values and min(self.values) >= 0) or (
            max(self.values) > largest
        ):
            raise InvalidInputError(
                f"bits {self.low}-{self.high} in {sorted(self.values)}: expected bits"
                f" 0..{BITS_MAX - 1}, low before high, and numbers that fit in them"
            )

    def __str__(self) -> str:
        if self.low == self.high and self.values == {1}:
            return str(self.low)
        return f"{self.low}-{self.high}={'/'.join(map(str, sorted(self.values)))}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The test of that text.

        >>> BitTest.parse("8-9=2/3") == BitTest(8, 9, frozenset({2, 3}))
        True
        """
        match = _TEST.match(text)
        if match is None:
            raise InvalidInputError(f"bits {text!r}: expected as `3` or `8-9=2/3`")
        low = int(match["low"])
        if match["high"] is None:
            return cls(low, low)
        return cls(low, int(match["high"]), frozenset(map(int, match["values"].split("/"))))


@dataclass(frozen=True, slots=True)
class CloudLayer:
    """Which band of a scene tells cloud, and how.

    `kind` says where to look: class codes that are cloud (`classes`, in `values`), the lowest
    percent that is cloud (`likelihood`, one value), or bit fields of which any passing test
    means cloud (`bits`, in `tests`). Pixels equal to one of `nodata_values` count neither way.

    Raises:
        InvalidInputError: not what the kind needs.
    """

    band: str
    kind: Literal["classes", "likelihood", "bits"]
    values: frozenset[int] = frozenset()
    tests: tuple[BitTest, ...] = ()
    nodata_values: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not self.band or (self.kind == "bits") != bool(self.tests):
            raise InvalidInputError(f"cloud layer {self.band!r}: tests go with bits, and only so")
        if (self.kind == "bits") == bool(self.values) or (
            self.kind == "likelihood" and len(self.values) != 1
        ):
            raise InvalidInputError(
                f"cloud layer {self.band!r} by {self.kind}: values {sorted(self.values)}"
            )

    @property
    def method(self) -> str:
        """How cloud was told, as every tile records it; `parse` reads it back."""
        if self.kind == "bits":
            return f"{self.band} bits {','.join(map(str, self.tests))}"
        codes = ",".join(map(str, sorted(self.values)))
        return f"{self.band} >= {codes}" if self.kind == "likelihood" else f"{self.band} {codes}"

    @classmethod
    def parse(cls, method: str) -> Self:
        """The layer that `method` names, without its nodata values.

        >>> CloudLayer.parse("SCL 8,9,10").kind
        'classes'

        Raises:
            InvalidInputError: not a method's text.
        """
        match = _METHOD.match(method)
        if match is None:
            raise InvalidInputError(
                f"cloud method {method!r}: expected as `SCL 8,9,10`, `QA_PIXEL bits 1,8-9=3` or"
                " `CLDPRB >= 50`"
            )
        if match["bits"]:
            tests = tuple(BitTest.parse(text) for text in match["bits"].split(","))
            return cls(match["band"], "bits", tests=tests)
        if match["least"]:
            return cls(match["band"], "likelihood", frozenset({int(match["least"])}))
        return cls(match["band"], "classes", frozenset(map(int, match["codes"].split(","))))


def likelihood_cover(histograms: npt.NDArray[np.uint64], threshold: int) -> npt.NDArray[np.float32]:
    """Percent of the pixels whose likelihood is `threshold` percent or more, one a histogram.

    The same number, to the last bit, as counting the pixels themselves gives.

    Args:
        histograms: (n, 101) pixel counts by likelihood in percent.

    Returns:
        (n,), NaN for a histogram without pixels.

    >>> likelihood_cover(np.eye(101, dtype=np.uint64)[[10, 60]], 50).tolist()
    [0.0, 100.0]
    """
    totals = histograms.sum(axis=1).astype(np.float64)
    cloudy = histograms[:, threshold:].sum(axis=1).astype(np.float64)
    covers = np.full(len(histograms), np.nan, dtype=np.float32)
    known = totals > 0
    covers[known] = 100.0 * cloudy[known] / totals[known]
    return covers
