"""One path, however it is packed, seen as members; and where what is unpacked goes."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geostore.errors import InvalidInputError, NotFoundError, UnreadableSourceError
from geostore.scenes import Source, source
from geostore.scenes.source import check_path

MakeRaster = Callable[..., Path]


@pytest.fixture
def product(make_raster: MakeRaster, tmp_path: Path) -> Path:
    """A folder with two rasters, metadata, and things that do not belong to it."""
    for number, name in enumerate(("GRANULE/b1.tif", "GRANULE/b2.tif"), start=1):
        make_raster(f"product/{name}", np.full((1, 300, 300), number, "uint16"))
    folder = tmp_path / "product"
    (folder / "about.xml").write_text("<a/>")
    (folder / ".hidden").write_text("x")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.tif").write_text("x")
    return folder


def packed(folder: Path, kind: str) -> Path:
    """The folder as an archive that holds it, with the folder itself as first level."""
    made = shutil.make_archive(str(folder) + f"-{kind}", kind, folder.parent, folder.name)
    return Path(made)


@pytest.mark.parametrize(
    "path",
    [
        "/vsicurl/http://example.com/a.tif",
        "/vsizip/a.zip/b.tif",
        "/vsis3/bucket/a.tif",
        "//vsimem/a.tif",
        "/./vsimem/a.tif",
        "http://example.com/a.tif",
        "s3://bucket/a.tif",
        "zip://a.zip!b.tif",
        "",
        "a\nb",
        "a\0b",
    ],
)
def test_only_local_paths(path: str) -> None:
    with pytest.raises(InvalidInputError):
        check_path(path)


def test_a_path_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"gone\.tif: no such file"):
        Source(tmp_path / "gone.tif")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_no_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableSourceError, match="neither a file nor a directory"):
        Source(tmp_path / "pipe")


def test_members_of_a_directory(product: Path) -> None:
    (product / "loop").symlink_to(product, target_is_directory=True)
    with Source(product) as opened:
        assert (opened.is_dir, opened.is_archive) == (True, False)
        assert opened.names() == ["GRANULE/b1.tif", "GRANULE/b2.tif", "about.xml"]
        assert opened.root_names() == [".hidden", "about.xml"]
        assert opened.shown("about.xml") == str(product / "about.xml")


def test_a_directory_that_is_no_product_is_not_walked_for_ever(
    product: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MEMBERS_MAX", 2)
    with Source(product) as opened, pytest.raises(UnreadableSourceError, match="more than 2 files"):
        opened.names()


def test_a_file_is_its_own_member(make_raster: MakeRaster) -> None:
    path = make_raster("a.tif", np.ones((1, 4, 4), "uint8"))
    with Source(path) as opened:
        assert opened.names() == opened.root_names() == ["a.tif"]
        assert opened.shown("a.tif") == str(path)


def test_metadata_has_a_size_limit(product: Path) -> None:
    with (
        Source(product) as opened,
        pytest.raises(UnreadableSourceError, match=r"about\.xml: 4 bytes, expected at most 3"),
    ):
        opened.open_bytes("about.xml", 3)


class TestFingerprint:
    @pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
    def test_equal_for_an_archive_and_its_folder(self, product: Path, kind: str) -> None:
        members = ["GRANULE/b1.tif", "about.xml"]
        with Source(product) as opened:
            expected = opened.fingerprint(members)
        with Source(packed(product, kind)) as opened:
            inside = [f"product/{member}" for member in members]
            assert opened.fingerprint(reversed(inside), "product") == expected

    def test_covers_names_and_contents_of_just_those_files(self, product: Path) -> None:
        def fingerprint() -> str:
            with Source(product) as opened:
                return opened.fingerprint(["GRANULE/b1.tif", "about.xml"])

        first = fingerprint()
        (product / "GRANULE" / "b2.tif").write_bytes(b"another")
        assert fingerprint() == first
        (product / "about.xml").write_text("<b/>")
        changed = fingerprint()
        assert changed != first
        with Source(product) as opened:
            assert opened.fingerprint(["GRANULE/b1.tif"]) not in (first, changed)


class TestBands:
    @pytest.mark.parametrize("kind", ["folder", "zip", "tar", "gztar"])
    def test_outlive_their_source(self, product: Path, kind: str) -> None:
        path = product if kind == "folder" else packed(product, kind)
        prefix = "" if kind == "folder" else "product/"
        opened = Source(path)
        bands = [opened.band(f"{prefix}GRANULE/b{number}.tif") for number in (1, 2)]
        opened.close()
        for number, band in enumerate(bands, start=1):
            pixels, valid = band.read(100, 100, 50, 50)
            assert (pixels == number).all()
            assert valid is None
            band.close()

    def test_leave_no_file_open_and_none_behind(
        self, product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        room = tmp_path / "room"
        room.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(room))
        path = packed(product, "zip")
        before = open_files()
        opened = Source(path)
        band = opened.band("product/GRANULE/b1.tif")
        band.read(0, 0, 10, 10)
        if before is not None:
            # Unlinked from the start: even a killed process leaves nothing.
            assert list(room.iterdir()) == []
            assert open_files() > before
        opened.close()
        band.close()
        assert list(room.iterdir()) == []
        assert open_files() == before

    def test_are_closed_when_the_reader_fails(self, product: Path) -> None:
        path = packed(product, "zip")
        before = open_files()
        opened = Source(path)
        opened.band("product/GRANULE/b1.tif").read(0, 0, 10, 10)
        opened.band("product/GRANULE/b2.tif")
        opened.discard()
        assert open_files() == before

    def test_are_unpacked_again_rather_than_kept_beyond_the_bound(
        self, product: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copies: list[str] = []
        copy = Source.copy

        def counting(self: Source, member: str, target: object) -> str:
            copies.append(member)
            return copy(self, member, target)  # type: ignore[arg-type]

        monkeypatch.setattr(Source, "copy", counting)
        size = (product / "GRANULE" / "b1.tif").stat().st_size
        monkeypatch.setattr(source, "UNPACKED_KEPT_BYTES_MAX", size)
        names = [f"product/GRANULE/b{number}.tif" for number in (1, 2)]
        opened = Source(packed(product, "zip"))
        bands = [opened.band(name) for name in names]
        opened.fingerprint(names)
        assert copies == names
        for band in bands * 2:
            band.read(0, 0, 300, 300)
        assert copies == [*names, names[1]]
        opened.close()
        for band in bands:
            band.close()

    def test_a_raster_that_is_none(self, product: Path, tmp_path: Path) -> None:
        (product / "GRANULE" / "b3.tif").write_bytes(b"not a raster")
        with Source(product) as opened, pytest.raises(UnreadableSourceError, match=r"b3\.tif"):
            opened.band("GRANULE/b3.tif")
        before = open_files()
        with (
            Source(packed(product, "zip")) as opened,
            pytest.raises(UnreadableSourceError, match=r"product-zip\.zip!product/GRANULE/b3\.tif"),
        ):
            opened.band("product/GRANULE/b3.tif")
        assert open_files() == before

    def test_several_open_in_parallel_and_are_shared(self, product: Path) -> None:
        opened = Source(packed(product, "zip"))
        names = [f"product/GRANULE/b{number}.tif" for number in (1, 2)]
        files = opened.rasters(names * 3)
        assert list(files) == names
        assert opened.raster(names[0]) is files[names[0]]
        opened.close()


def open_files() -> int | None:
    """How many files this process has open; None where the system does not say."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else None


def test_a_zip_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("a.xml", "one")
    opened = Source(path)
    opened.sha256("a.xml")
    opened._hashes["a.xml"] = "0" * 64
    with pytest.raises(UnreadableSourceError, match="changed while it was read"):
        opened.open_bytes("a.xml", 100)
    opened.close()
