"""Addresses: what is sent, what is shown, what is remembered."""

from __future__ import annotations

import pytest

from geostore.errors import InvalidInputError
from geostore.scenes.remote_url import RemoteUrl, is_remote

SIGNED = (
    "https://user:pass@host.example:8443/a%20b/c.tif?id=7&X-Amz-Signature=5ec&X-Amz-Date=1"
    "&sig=5ec&se=2026#frag"
)


def test_secrets_are_sent_and_neither_shown_nor_remembered() -> None:
    url = RemoteUrl(SIGNED)
    assert url.request == SIGNED
    for text in (url.shown, url.identity, str(url), repr(url), url.origin, url.name):
        assert "5ec" not in text
        assert "pass" not in text
        assert "user" not in text
    assert url.shown == "https://host.example:8443/a%20b/c.tif"
    assert url.identity == "https://host.example:8443/a%20b/c.tif?id=7"


def test_signed_anew_it_is_the_same_object() -> None:
    one = RemoteUrl("https://h/a.tif?id=1&X-Amz-Signature=1&X-Amz-Date=2")
    other = RemoteUrl("https://h/a.tif?X-Amz-Signature=8&id=1")
    assert one.identity == other.identity
    assert one.identity != RemoteUrl("https://h/a.tif?id=2").identity


@pytest.mark.parametrize(
    ("text", "name", "is_folder", "origin"),
    [
        ("https://h/a/b%20c.tif", "b c.tif", False, "https://h"),
        ("http://[::1]:80/x.zip?q=/y", "x.zip", False, "http://[::1]:80"),
        ("https://h", "", True, "https://h"),
        ("https://h/", "", True, "https://h"),
        ("https://h/a/", "a", True, "https://h"),
        ("s3://bucket/a/50%.tif", "50%.tif", False, "s3://bucket"),
        ("s3://bucket/a/b?c#d.tif", "b?c#d.tif", False, "s3://bucket"),
        ("s3://bucket", "", True, "s3://bucket"),
        ("S3://bucket/a.SAFE/", "a.SAFE", True, "s3://bucket"),
    ],
)
def test_parts(text: str, name: str, is_folder: bool, origin: str) -> None:
    url = RemoteUrl(text)
    assert (url.name, url.is_folder, url.origin) == (name, is_folder, origin)


@pytest.mark.parametrize(
    "text",
    [
        "ftp://h/a",
        "file:///etc/passwd",
        "https://",
        "https:///a",
        "http://h:99999/a",
        "http://h:x/a",
        "http://[::1/a",
        "s3://",
        "s3:///key",
        "s3://b ucket/key",
        "https://h/\n",
        'https://h"/a',
        "https://h{/a",
        "https://h`:80/a",
        "https://h/\ud800",
        "s3://bucket/\ud800",
        "https://h/" + "a" * 9000,
        "a.tif",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        RemoteUrl(text)
    assert len(str(caught.value)) < 600


def test_a_refused_address_keeps_its_secrets_too() -> None:
    with pytest.raises(InvalidInputError) as caught:
        RemoteUrl("ftp://user:pass@h/a?sig=5ec")
    assert "pass" not in str(caught.value)
    assert "5ec" not in str(caught.value)


@pytest.mark.parametrize("text", ["https://h/" + "a" * 300, "https://h/%0a", "https://h/a/.."])
def test_names_that_no_file_can_have(text: str) -> None:
    with pytest.raises(InvalidInputError, match="file's name"):
        _ = RemoteUrl(text).name


@pytest.mark.parametrize(
    ("base", "reference", "is_at"),
    [
        ("https://h/a/item.json?x=1", "./B04.tif", "https://h/a/B04.tif"),
        ("https://h/a/item.json", "../b/B04.tif", "https://h/b/B04.tif"),
        ("https://h/a/item.json", "/etc/passwd", "https://h/etc/passwd"),
        ("https://h/a/item.json", "s3://b/k.tif", "s3://b/k.tif"),
        ("https://h/search?token=1", "?token=2", "https://h/search?token=2"),
        ("s3://bucket/a/item.json", "./x y.tif", "s3://bucket/a/x y.tif"),
        ("s3://bucket/a/item.json", "../../../x.tif", "s3://bucket/x.tif"),
    ],
)
def test_references(base: str, reference: str, is_at: str) -> None:
    assert RemoteUrl(base).joined(reference) == is_at


def test_which_paths_are_addresses() -> None:
    assert is_remote("HTTPS://h/a")
    assert is_remote("s3://b/k")
    assert not is_remote("a/b.tif")
    assert not is_remote("zip://a.zip!b.tif")
    assert not is_remote("https:/h/a")
