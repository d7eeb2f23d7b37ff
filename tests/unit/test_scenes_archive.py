"""Archives: hostile and damaged ones are refused whole, in a sentence that names them."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from geostore.errors import StorageFullError, UnreadableSourceError
from geostore.scenes import Source, archive

CONTENT = {"p.SAFE/a.xml": b"<a/>", "p.SAFE/GRANULE/x.jp2": bytes(range(256)) * 40}


def make_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return path


def make_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as target:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            target.addfile(info, io.BytesIO(content))
    return path


def refused(path: Path, match: str) -> None:
    with pytest.raises(UnreadableSourceError, match=match) as caught:
        Source(path)
    assert path.name in str(caught.value)


PACKERS: dict[str, Callable[[Path], Path]] = {
    "deflated zip": lambda path: make_zip(path, CONTENT),
    "stored zip": lambda path: make_zip(path, CONTENT, zipfile.ZIP_STORED),
    "bzip2 zip": lambda path: make_zip(path, CONTENT, zipfile.ZIP_BZIP2),
    "tar": lambda path: make_tar(path, CONTENT),
    "tar.gz": lambda path: make_tar(path, CONTENT, "w:gz"),
    "tar.bz2": lambda path: make_tar(path, CONTENT, "w:bz2"),
    "tar.xz": lambda path: make_tar(path, CONTENT, "w:xz"),
}


@pytest.mark.parametrize("packer", PACKERS)
def test_members_come_out_as_they_went_in(tmp_path: Path, packer: str) -> None:
    # By content, not by name.
    with Source(PACKERS[packer](tmp_path / "product.bin")) as source:
        assert source.is_archive
        assert source.names() == sorted(CONTENT)
        for name, content in CONTENT.items():
            assert source.size(name) == len(content)
            assert source.open_bytes(name, 20_000) == content
            assert source.head(name, 7) == content[:7]
        with pytest.raises(UnreadableSourceError, match=r"no member 'p\.SAFE'"):
            source.size("p.SAFE")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../evil.txt", r"\.\."),
        ("p/../../evil.txt", r"\.\."),
        ("..\\evil.txt", r"\.\."),
        ("/etc/passwd", "absolute"),
        ("\\\\server\\share", "absolute"),
        ("C:/windows/x", "absolute"),
        ("c:x", "absolute"),
        ("a\nb", "printable"),
        ("x" * 5000, "1..4096 characters"),
    ],
)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_names_that_would_escape(
    tmp_path: Path, make: Callable[..., Path], name: str, why: str
) -> None:
    refused(make(tmp_path / "evil.bin", {"good.xml": b"<a/>", name: b"x"}), why)


def test_the_same_name_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as target:
        target.writestr("a.xml", "1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            target.writestr("a.xml", "2")
    refused(tmp_path / "twice.zip", "'a.xml' is there twice")
    path = tmp_path / "twice.tar"
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("a.xml"))
    refused(path, "'a.xml' is there twice")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("link.jp2")
    info.type, info.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "link.tar", "w") as target:
        target.addfile(info)
    refused(tmp_path / "link.tar", r"'link\.jp2' is a link")


def test_a_symbolic_link_in_a_zip(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link.jp2")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as target:
        target.writestr(info, "/etc/passwd")
    refused(tmp_path / "link.zip", r"'link\.jp2' is a link")


def test_an_encrypted_member(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "secret.zip", {"a.xml": b"<a/>"})
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(content))
    refused(path, r"'a\.xml' is encrypted")


class TestBombs:
    def test_a_member_that_inflates_two_hundredfold(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make_zip(tmp_path / "bomb.zip", {"a.xml": b"<a/>", "zeros.tif": bytes(3 << 20)})
        # Small ones pass, as an empty mask must.
        Source(path).close()
        monkeypatch.setattr(archive, "RATIO_FREE_BYTES", 1 << 20)
        refused(path, r"'zeros\.tif' would inflate \d+ bytes to 3145728.*bomb")

    @pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
    def test_a_compressed_tar(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        path = make_tar(tmp_path / "bomb.tgz", {"zeros.tif": bytes(3 << 20)}, mode)
        monkeypatch.setattr(archive, "RATIO_FREE_BYTES", 1 << 20)
        monkeypatch.setattr(archive, "RATIO_MAX", 2)
        refused(path, "inflates to more than 1048576 bytes.*bomb")

    def test_a_declared_size_beyond_all_reason(self, tmp_path: Path) -> None:
        path = tmp_path / "huge.tar"
        info = tarfile.TarInfo("huge.tif")
        info.size = 1 << 40
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
        refused(path, r"'huge\.tif' would inflate to 1099511627776 bytes")

    def test_members_that_share_their_bytes(self, tmp_path: Path) -> None:
        """A table of members that lists one deflated kernel under many names."""
        path = make_zip(tmp_path / "kernel.zip", {"a": bytes(1 << 16), "b": b"x"})
        content = bytearray(path.read_bytes())
        second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)
        content[second + 42 : second + 46] = struct.pack("<L", 10)
        path.write_bytes(bytes(content))
        refused(path, "overlaps another")

    def test_too_many_members(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive, "MEMBERS_MAX", 3)
        many = {f"{number}.xml": b"" for number in range(4)}
        refused(make_zip(tmp_path / "many.zip", many), "more than 3 members")
        refused(make_tar(tmp_path / "many.tar", many), "more than 3 members")

    @pytest.mark.parametrize("zip64", [False, True])
    def test_a_table_of_members_that_would_fill_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zip64: bool
    ) -> None:
        path = make_zip(tmp_path / "table.zip", {f"{number}.xml": b"" for number in range(30)})
        if zip64:
            content = path.read_bytes()
            at = content.rindex(b"PK\x05\x06")
            size, offset = struct.unpack_from("<2L", content, at + 12)
            end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 30, 30, size, offset)
            locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)
            last = struct.pack(
                "<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0
            )
            path.write_bytes(content[:at] + end + locator + last)
        assert len(Source(path).names()) == 30
        monkeypatch.setattr(archive, "DIRECTORY_BYTES_MAX", 1000)
        refused(path, r"a table of members of \d+ bytes")

    def test_archives_inside_are_not_opened(self, tmp_path: Path) -> None:
        inner = make_zip(tmp_path / "inner.zip", {"zeros": bytes(1 << 20)})
        path = make_zip(tmp_path / "outer.zip", {"inner.zip": inner.read_bytes()})
        with Source(path) as source:
            assert source.names() == ["inner.zip"]


class TestDamage:
    @pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
    def test_truncated_zip(self, tmp_path: Path, share: float) -> None:
        path = make_zip(tmp_path / "cut.zip", {"a.jp2": os.urandom(5000)})
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        refused(path, "damaged or truncated zip archive")

    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
    def test_truncated_tar(self, tmp_path: Path, mode: str) -> None:
        path = make_tar(tmp_path / "cut.tar", {"a.jp2": os.urandom(50_000)}, mode)
        path.write_bytes(path.read_bytes()[:30_000])
        refused(path, "truncated|damaged")

    def test_a_tar_whose_second_header_is_damaged(self, tmp_path: Path) -> None:
        """Python's tarfile would end the list there without a word."""
        path = make_tar(tmp_path / "bad.tar", {"a.jp2": bytes(1024), "b.jp2": bytes(1024)})
        content = bytearray(path.read_bytes())
        content[1536 + 148 : 1536 + 156] = b"7777777\0"
        path.write_bytes(bytes(content))
        refused(path, "no valid header at byte 1536")

    def test_damage_inside_a_member_is_found_by_its_crc(self, tmp_path: Path) -> None:
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            path = make_zip(tmp_path / "bad.zip", {"a.jp2": os.urandom(5000)}, method)
            content = bytearray(path.read_bytes())
            content[2000] ^= 0xFF
            path.write_bytes(bytes(content))
            with (
                Source(path) as source,
                pytest.raises(UnreadableSourceError, match=r"bad\.zip.*a\.jp2"),
            ):
                source.sha256("a.jp2")

    @pytest.mark.parametrize("change", [-100, 100])
    def test_a_size_that_is_not_the_members(self, tmp_path: Path, change: int) -> None:
        path = make_zip(tmp_path / "lie.zip", {"a.xml": b"y" * 5000})
        content = bytearray(path.read_bytes())
        for at in (22, content.index(b"PK\x01\x02") + 24):
            content[at : at + 4] = struct.pack("<L", 5000 + change)
        path.write_bytes(bytes(content))
        with Source(path) as source, pytest.raises(UnreadableSourceError, match=r"lie\.zip"):
            source.open_bytes("a.xml", 10_000)

    def test_a_plain_compressed_file_is_not_an_archive(self, tmp_path: Path) -> None:
        path = tmp_path / "a.gz"
        path.write_bytes(gzip.compress(b"no tar in here" * 100))
        with Source(path) as source:
            assert not source.is_archive
        path.write_bytes(bz2.compress(b"")[:10])
        with Source(path) as source:
            assert not source.is_archive


def test_a_member_whose_own_header_names_no_text(tmp_path: Path) -> None:
    """The table of members is sound; the copy of the name before the bytes is not UTF-8."""
    path = make_zip(tmp_path / "a.zip", {"é.xml": b"<a/>"})
    data = path.read_bytes()
    at = data.index("é.xml".encode())
    path.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    with Source(path) as source, pytest.raises(UnreadableSourceError, match=r"a\.zip: member 'é"):
        source.open_bytes("é.xml", 100)


def test_a_member_whose_own_header_has_a_name_of_thousands_of_letters(tmp_path: Path) -> None:
    """zipfile's message would quote them all."""
    path = make_zip(tmp_path / "a.zip", {"x.xml": b"<a/>" * 9000}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, 26, 30_000)
    path.write_bytes(data)
    with Source(path) as source, pytest.raises(UnreadableSourceError) as caught:
        source.open_bytes("x.xml", 40_000)
    assert str(caught.value).startswith(f"{path}: member 'x.xml': ")
    assert len(str(caught.value)) < len(str(path)) + 300


def test_no_room_to_unpack_is_not_the_sources_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tar(tmp_path / "a.tgz", CONTENT, "w:gz")

    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "temporary_file", full)
    with pytest.raises(StorageFullError, match=r"a\.tgz: cannot unpack.*No space left.*TMPDIR"):
        Source(path)
