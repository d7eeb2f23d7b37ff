"""From paths, folders and patterns to sources."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from geostore.errors import InvalidInputError, NotFoundError, UnreadableSourceError
from geostore.scenes import FoundSource, find_sources


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of all kinds; the working directory, so that paths can be given relative."""
    for name in (
        "b.tif",
        "a.tif",
        "a.tif.aux.xml",
        ".hidden.tif",
        ".git/x.tif",
        "deep/er/c.tif",
        "deep/d.jp2",
        "P.SAFE/MTD_MSIL1C.xml",
        "P.SAFE/GRANULE/G/IMG_DATA/x_B01.jp2",
        "renamed/MTD_MSIL2A.xml",
        "renamed/GRANULE/G/IMG_DATA/R10m/x_B02_10m.jp2",
        "broken.SAFE/manifest.safe",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as target:
        target.writestr("inside.tif", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


EVERYTHING = [
    "P.SAFE",
    "a.tif",
    "a.tif.aux.xml",
    "b.tif",
    "broken.SAFE",
    "deep/d.jp2",
    "deep/er/c.tif",
    "renamed",
    "z.zip",
]


def found(*paths: str) -> list[str]:
    return [one.path.removeprefix("./") for one in find_sources(paths)]


@pytest.mark.usefixtures("tree")
class TestFinding:
    def test_a_directory_is_walked_in_order_and_products_are_not(self) -> None:
        assert found(".") == EVERYTHING
        assert not any(one.named_outright for one in find_sources(["."]))

    def test_what_is_named_is_named_outright(self) -> None:
        assert list(find_sources(["b.tif", "P.SAFE", "z.zip"])) == [
            FoundSource("b.tif", named_outright=True),
            FoundSource("P.SAFE", named_outright=True),
            FoundSource("z.zip", named_outright=True),
        ]
        assert list(find_sources("b.tif")) == list(find_sources(Path("b.tif")))

    def test_patterns(self) -> None:
        assert found("*.tif") == ["a.tif", "b.tif"]
        assert found("**/*.tif") == ["a.tif", "b.tif", "deep/er/c.tif"]
        assert found("d*p/*.jp2") == ["deep/d.jp2"]
        assert found("*.SAFE") == ["P.SAFE", "broken.SAFE"]
        assert not any(one.named_outright for one in find_sources(["*.tif"]))

    def test_a_pattern_does_not_reach_into_products_that_it_fits(self) -> None:
        assert sorted(found("**")) == EVERYTHING

    def test_each_source_comes_once_where_it_was_first_named(self) -> None:
        assert found("deep", "b.tif", ".", "./b.tif")[:3] == [
            "deep/d.jp2",
            "deep/er/c.tif",
            "b.tif",
        ]
        assert sorted(found("deep", "b.tif", ".", str(Path("a.tif").absolute()))) == EVERYTHING

    def test_a_name_with_pattern_characters_is_a_name_first(self, tree: Path) -> None:
        (tree / "x[1].tif").write_bytes(b"")
        assert list(find_sources(["x[1].tif"])) == [FoundSource("x[1].tif", named_outright=True)]

    def test_loops_of_links_end(self, tree: Path) -> None:
        (tree / "deep" / "up").symlink_to(tree, target_is_directory=True)
        (tree / "deep" / "link.tif").symlink_to(tree / "a.tif")
        (tree / "deep" / "broken.tif").symlink_to(tree / "gone")
        assert found("deep") == ["deep/d.jp2", "deep/er/c.tif", "deep/link.tif"]

    @pytest.mark.parametrize("missing", ["gone.tif", "no*thing.tif", "deep/gone"])
    def test_a_missing_path_is_said_before_work_begins(self, missing: str) -> None:
        with pytest.raises(NotFoundError) as caught:
            find_sources(["a.tif", missing])
        assert missing in str(caught.value)

    def test_only_local_paths(self) -> None:
        with pytest.raises(InvalidInputError, match="does not open URLs"):
            find_sources(["ftp://example.com/a.tif"])

    def test_a_folder_that_may_not_be_read_is_not_passed_over(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scan = os.scandir

        def refusing(path: str) -> object:
            if Path(path).name == "er":
                raise PermissionError(13, "Permission denied")
            return scan(path)

        monkeypatch.setattr(os, "scandir", refusing)
        assert list(find_sources(["deep"])) == [
            FoundSource("deep/d.jp2", named_outright=False),
            # Opening it will say why it cannot be read.
            FoundSource("deep/er", named_outright=True),
        ]


class TestDocuments:
    """STAC documents that cannot be read are told of in their turn, and stop nobody else."""

    def open_error(self, found: FoundSource) -> str:
        with pytest.raises(UnreadableSourceError) as caught:
            found.open()
        return str(caught.value)

    def test_no_json(self, tmp_path: Path) -> None:
        (tmp_path / "item.json").write_bytes(b'{"type": "Feature", \xff')
        (tmp_path / "a.tif").write_bytes(b"x")
        found = list(find_sources([tmp_path / "item.json", tmp_path / "a.tif"]))
        assert [Path(one.path).name for one in found] == ["item.json", "a.tif"]
        assert "item.json: not readable as JSON" in self.open_error(found[0])

    def test_an_item_without_what_an_item_has(self, tmp_path: Path) -> None:
        item = {"type": "Feature", "stac_version": "1.0.0", "id": "good", "assets": {}}
        collection = {
            "type": "FeatureCollection", "stac_version": "1.0.0", "features": [item, 7],
        }  # fmt: skip
        path = tmp_path / "items.json"
        path.write_text(json.dumps(collection))
        *_, last = list(find_sources([path]))
        assert "items.json" in self.open_error(last)
