"""Which reader reads what; plug-ins, among them the one that docs/readers.md shows."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import geostore
from geostore.errors import InvalidInputError, UnreadableSourceError
from geostore.scenes import detect, open_source, readers
from geostore.scenes.registry import _ANY_RASTER, _BUILT_IN, ENTRY_POINT_GROUP, _plug_ins

MakeRaster = Callable[..., Path]

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "tests" / "plugins" / "geostore_example_reader"
COMPLETE = """
class Plug:
    name = {!r}; defaults = None; bands = ()
    def claims(self, source): return False
    def open(self, source, options): ...
"""
BUILT_IN = [reader.name for reader in (*_BUILT_IN, *_ANY_RASTER)]


@pytest.fixture(autouse=True)
def _fresh_registry() -> Iterator[None]:
    _plug_ins.cache_clear()
    yield
    _plug_ins.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that makes entry points visible as an installed distribution does."""

    def run(entries: dict[str, str], code: Path, name: str = "a-plug-in") -> None:
        site = tmp_path / f"site-{name}"
        metadata = site / f"{name.replace('-', '_')}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{key} = {value}" for key, value in entries.items()]
        (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n" + "\n".join(lines))
        monkeypatch.syspath_prepend(str(code))
        monkeypatch.syspath_prepend(str(site))

    return run


@pytest.fixture
def example(install: Callable[..., None]) -> None:
    """The example plug-in, installed with the entry points of its own pyproject.toml."""
    about = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(about["entry-points"][ENTRY_POINT_GROUP], EXAMPLE, about["name"])


@pytest.fixture
def capture(make_raster: MakeRaster, tmp_path: Path) -> Path:
    make_raster("capture/green.tif", np.full((1, 8, 8), 5, "uint16"))
    about = {
        "id": "C-0042",
        "time": "2024-05-01T10:30:00Z",
        "platform": "drone-7",
        "bands": {"green": "green.tif", "nir": "gone.tif"},
    }
    (tmp_path / "capture" / "capture.json").write_text(json.dumps(about))
    return tmp_path / "capture"


def test_without_plug_ins() -> None:
    assert list(readers()) == BUILT_IN
    assert BUILT_IN[-1] == "geotiff"  # which claims any raster
    assert len(set(BUILT_IN)) == len(BUILT_IN)
    assert {reader.name for reader in readers().values()} == set(BUILT_IN)


def test_what_no_reader_claims(tmp_path: Path) -> None:
    for name in ("notes.txt", "a.tif.aux.xml", "b.json", "c.hdf"):
        path = tmp_path / name
        path.write_text("no raster")
        assert detect(path) is None
        with pytest.raises(UnreadableSourceError, match=rf"{name}: no reader claims it.*geotiff"):
            open_source(path)
    assert detect(tmp_path) is None


def test_an_unknown_reader_is_told_the_known_ones(make_raster: MakeRaster) -> None:
    path = make_raster("a.tif", np.ones((1, 4, 4), "uint8"))
    with pytest.raises(InvalidInputError, match=r"reader 'no-such'.*sentinel-2-l1c.*geotiff"):
        open_source(path, reader="no-such")


def test_a_named_reader_says_why_it_cannot(make_raster: MakeRaster) -> None:
    path = make_raster("a.tif", np.ones((1, 4, 4), "uint8"))
    with pytest.raises(UnreadableSourceError, match=r"a\.tif: .*expected MTD_MSIL1C"):
        open_source(path, reader="sentinel-2-l1c")


@pytest.mark.usefixtures("example")
class TestExamplePlugIn:
    def test_is_known_before_the_reader_of_any_raster(self) -> None:
        assert list(readers()) == [*BUILT_IN[:-2], "example-capture", "netcdf", "geotiff"]

    def test_opens_what_it_claims(self, capture: Path) -> None:
        reader = detect(capture)
        assert reader is not None
        assert reader.name == "example-capture"
        (scene,) = open_source(capture)
        with scene:
            assert (scene.id, scene.reader, scene.platform) == (
                "C-0042",
                "example-capture",
                "drone-7",
            )
            assert scene.time_us == scene.time_end_us == 1_714_559_400_000_000
            assert scene.missing == ("nir",)
            (band,) = scene.bands
            assert (band.info.name, band.info.dtype) == ("green", "uint16")
            assert (band.source.read(0, 0, 8, 8)[0] == 5).all()

    def test_leaves_what_it_does_not_claim(self, make_raster: MakeRaster) -> None:
        reader = detect(make_raster("a.tif", np.ones((1, 4, 4), "uint8")))
        assert reader is not None
        assert reader.name == "geotiff"

    def test_is_ingested_with_its_own_defaults(self, capture: Path, tmp_path: Path) -> None:
        with geostore.open(str(tmp_path / "store")) as store:
            (result,) = store.ingest([str(capture)])
            assert (result.status, result.dataset, result.scene, result.missing) == (
                "ingested",
                "example-capture",
                "C-0042",
                ("nir",),
            )
            tiles = list(store.query(scene="C-0042"))
            assert tiles
            assert all(len(tile.geocode) == 6 for tile in tiles)
            assert {tile.platform for tile in tiles} == {"drone-7"}

    def test_errors_close_what_it_opened(self, capture: Path) -> None:
        (capture / "capture.json").write_text('{"id": "x", "time": "2024", "bands": {}}')
        with pytest.raises(UnreadableSourceError, match="no band's file is there"):
            open_source(capture)
        (capture / "capture.json").write_text("{")
        with pytest.raises(UnreadableSourceError, match=r"capture\.json: expected id, time"):
            open_source(capture)


def test_the_page_shows_the_plug_in_that_runs() -> None:
    page = (REPOSITORY / "docs" / "readers.md").read_text()
    (python,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert python == (EXAMPLE / "geostore_example_reader.py").read_text()
    (toml,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    shown = tomllib.loads(toml)["project"]["entry-points"]
    about = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    assert shown == about["entry-points"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise RuntimeError('no licence')", "no licence"),
        ("class Plug:\n    name = 'x'", "it has no 'defaults'"),
        ("class Plug:\n    def __init__(self, key): ...", "TypeError"),
        ("Other = 1", "AttributeError"),
        (
            COMPLETE.format("geotiff"),
            "a reader 'geotiff' is there already",
        ),
        (
            COMPLETE.format("a/b"),
            "reader name 'a/b'",
        ),
    ],
)
def test_a_broken_plug_in_is_named_where_it_may_be_missed(
    install: Callable[..., None], tmp_path: Path, make_raster: MakeRaster, code: str, why: str
) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    module = f"broken_plug_in_{hashlib.sha256(code.encode()).hexdigest()[:8]}"
    (folder / f"{module}.py").write_text(code)
    install({"my-plug": f"{module}:Plug"}, folder)
    # Others read on.
    open_source(make_raster("a.tif", np.ones((1, 4, 4), "uint8")))[0].close()
    path = tmp_path / "x.bin"
    path.write_bytes(b"?")
    with pytest.raises(
        UnreadableSourceError, match="plug-in my-plug could not be loaded"
    ) as caught:
        open_source(path)
    assert why in str(caught.value)


def test_plug_ins_are_asked_by_name(install: Callable[..., None], tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "two_plug_ins.py").write_text(
        "class Plug:\n"
        "    defaults = None; bands = ()\n"
        "    def __init__(self, name='b'): self.name = name\n"
        "    def claims(self, source): return False\n"
        "    def open(self, source, options): ...\n"
        "instance = Plug('a')\n"
    )
    install({"zz": "two_plug_ins:Plug", "aa": "two_plug_ins:instance"}, folder)
    assert list(readers()) == [*BUILT_IN[:-2], "a", "b", "netcdf", "geotiff"]
