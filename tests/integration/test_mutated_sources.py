"""Damaged copies of every file kind: no crash, no hang, bounded memory, one clear line each.

CI runs 300 cases of one seed. By hand `MUTATIONS=5000 MUTATION_SEED=7` runs more, and a fault
tells the command that repeats its case alone.
"""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio

import geostore
from tests.conftest import SHARED_DATA
from tests.integration import mutated_sources
from tests.integration.mutated_cases import Case, all_originals, draw
from tests.integration.mutations import changes_for
from tests.integration.mutations_any import BILLION_LAUGHS
from tests.integration.mutations_rasters import TIFF, tiff_entries
from tests.integration.mutations_texts import XML
from tests.integration.stocked_store import StockedStore

COUNT = int(os.environ.get("MUTATIONS", "300"))
SEED = int(os.environ.get("MUTATION_SEED", "20261121"))
TREE = SHARED_DATA if SHARED_DATA.is_dir() else None
"""Without it, only what is made here is damaged: every format that the tests can write."""


@pytest.mark.slow
def test_damaged_sources_end_in_one_clear_line_each() -> None:
    report = mutated_sources.run(seed=SEED, count=COUNT, tree=TREE, jobs=2)
    print(report)
    assert report.faults == [], "\n".join(report.faults)
    assert report.cases == COUNT
    # A campaign in which everything fails, or nothing, would show little.
    assert report.statuses["failed"] > COUNT // 10
    assert report.statuses["ingested"] > COUNT // 10


PLANTS = {
    "crash": "killed by SIGSEGV",
    "hang": "hangs",
    "memory": " MB of memory",
    "leaving": "temporary files left",
    "stderr": "written to stderr",
    "open": "files still open",
    "raise": "RuntimeError left ingest",
}


def test_every_kind_of_fault_is_noticed_and_the_rest_goes_on() -> None:
    report = mutated_sources.run(
        seed=1,
        count=len(PLANTS) + 1,
        tree=None,
        jobs=1,
        plant=",".join(f"{plant}@{case}" for case, plant in enumerate(PLANTS)),
        limit_s=5.0,
        bytes_max=600 << 20,
    )
    assert report.cases == len(PLANTS) + 1
    assert len(report.faults) == len(PLANTS)
    by_case = dict(zip(PLANTS.values(), sorted(report.faults), strict=True))
    for case, (says, fault) in enumerate(by_case.items()):
        assert fault.startswith(f"case {case}: made/")
        assert says in fault
        assert f"--seed 1 --only {case}" in fault


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    originals = all_originals(None, tmp_path_factory.mktemp("originals"))
    return [draw(5, number, originals) for number in range(60)]


def test_the_command_line_says_one_line_for_each_failure(
    cases: list[Case], stocked: StockedStore, tmp_path: Path
) -> None:
    """As in the campaign, by `geostore ingest`: what it prints, how it exits, what it leaves."""
    stored = 0
    for case in cases[:12]:
        place = tmp_path / f"case-{case.number}"
        place.mkdir()
        source = case.make(place, tmp_path / "work")
        ran = stocked.run("ingest", source, "--dataset", f"case-{case.number}", code=None)
        failed = [line for line in ran.lines if line["status"] == "failed"]
        assert ran.code == (1 if failed else 0), ran
        errors = [line for line in ran.stderr.splitlines() if line.startswith("geostore: error: ")]
        assert len(errors) == len(failed), ran.stderr
        assert "Traceback" not in ran.stderr
        for line, error in zip(failed, errors, strict=True):
            assert line["error"] in error
            assert Path(line["path"]).name in error
        stored += sum(line["status"] == "ingested" for line in ran.lines)
    assert stored > 0
    stocked.check_unharmed(others=stored)


class TestCases:
    def test_are_the_same_bytes_when_repeated(
        self, cases: list[Case], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        work = tmp_path_factory.mktemp("work")
        again = all_originals(None, tmp_path_factory.mktemp("again"))
        for case in cases[:25]:
            places = [tmp_path_factory.mktemp("place") for _ in range(2)]
            case.make(places[0], work)
            draw(5, case.number, again).make(places[1], work)
            assert digest(places[0]) == digest(places[1]), str(case)

    def test_are_of_many_kinds(self, cases: list[Case]) -> None:
        assert len({case.original.kind for case in cases}) > 8
        assert len({case.how for case in cases}) > 8


def digest(folder: Path) -> str:
    """Of the names and contents of a folder; times in archives left out."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(path.relative_to(folder).as_posix().encode())
        if path.is_file() and path.suffix not in (".zip", ".gz", ".xz", ".tar"):
            found.update(path.read_bytes())
    return found.hexdigest()


def test_changes_fit_the_format(make_raster: Callable[..., Path]) -> None:
    data = make_raster("a.tif", np.ones((1, 32, 32), "uint8")).read_bytes()
    _, _, entries, _ = tiff_entries(data)
    assert {256, 257, 273, 33550} <= {entry[0] for entry in entries}
    assert set(TIFF) <= set(changes_for(data))
    assert set(XML) <= set(changes_for(b'<?xml version="1.0"?><a/>'))
    assert not set(TIFF) & set(changes_for(b""))


# ---------------------------------------------------------------- entities and networks


class Listener(http.server.BaseHTTPRequestHandler):
    heard: list[str]

    def do_GET(self) -> None:
        self.heard.append(self.path)
        self.send_error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """An address on this machine, and the paths that somebody asked there for."""
    handler = type("Handler", (Listener,), {"heard": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler.heard  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


def jp2_with_gml(path: Path, gml: bytes) -> Path:
    """A JPEG 2000 file whose GML, as long as it was, is another."""
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", height=64, width=64, count=1, dtype="uint8",
        crs="EPSG:32618", transform=rasterio.Affine(10, 0, 500_000, 0, -10, 4_200_000),
    ) as target:  # fmt: skip
        target.write(np.ones((1, 64, 64), "uint8"))
    data = path.read_bytes()
    start = data.index(b"<gml:FeatureCollection")
    end = data.index(b"</gml:FeatureCollection>") + len(b"</gml:FeatureCollection>")
    assert len(gml) <= end - start
    path.write_bytes(data[:start] + gml.ljust(end - start) + data[end:])
    return path


def outcome(store: Path, source: Path) -> str:
    with geostore.open(store) as opened:
        (result,) = opened.ingest(source)
    return f"{result.status}: {result.error}"


def test_nothing_is_fetched_for_a_local_file(
    tmp_path: Path, listener: tuple[str, list[str]]
) -> None:
    """Entities and links in metadata, rasters that point elsewhere."""
    address, heard = listener
    gml = f'<!DOCTYPE x SYSTEM "{address}/dtd" [<!ENTITY e SYSTEM "{address}/entity">]><x>&e;</x>'
    linked = (
        '<gml:FeatureCollection xmlns:gml="http://www.opengis.net/gml"'
        f' xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="{address}/link"/>'
    )
    sources = [
        jp2_with_gml(tmp_path / "entity.jp2", gml.encode()),
        jp2_with_gml(tmp_path / "link.jp2", linked.encode()),
        jp2_with_gml(tmp_path / "laughs.jp2", BILLION_LAUGHS.encode()),
    ]
    for name, text in {
        "a.vrt": f'<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand><SimpleSource>'
        f"<SourceFilename>/vsicurl/{address}/vrt</SourceFilename></SimpleSource>"
        "</VRTRasterBand></VRTDataset>",
        "wms.tif": f"<GDAL_WMS><Service name='TMS'><ServerUrl>{address}/wms</ServerUrl></Service>"
        "</GDAL_WMS>",
        "a.xml": f'<!DOCTYPE x SYSTEM "{address}/xml"><x/>',
    }.items():
        (tmp_path / name).write_text(text)
        sources.append(tmp_path / name)
    product = tmp_path / "S2A_MSIL1C_x.SAFE"
    (product / "GRANULE").mkdir(parents=True)
    (product / "MTD_MSIL1C.xml").write_text(
        f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "{address}/mtd">]><x>&e;</x>'
    )
    sources.append(product)
    for source in sources:
        text = outcome(tmp_path / "store", source)
        assert text.startswith("ingested") or source.name in text
    assert heard == []
