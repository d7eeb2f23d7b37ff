from __future__ import annotations

from pathlib import Path

import pytest

from geostore.config import (
    HostPort,
    Settings,
    Target,
    load_settings,
    parse_bytes,
    parse_listen,
    parse_target,
)
from geostore.errors import InvalidInputError, NotFoundError


def test_a_path_is_an_embedded_store() -> None:
    target = parse_target("./data")
    assert target == Target(path=Path("data"))
    assert not target.is_cluster
    assert parse_target(Path("/a/b")).path == Path("/a/b")
    assert parse_target("~/x").path == Path.home() / "x"


def test_a_url_is_a_cluster() -> None:
    target = parse_target("geostore://a.example:7440,10.0.0.2:7441,[::1]:1,a.example:7440")
    assert target.hosts == (
        HostPort("a.example", 7440),
        HostPort("10.0.0.2", 7441),
        HostPort("::1", 1),
    )
    assert target.is_cluster
    assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a directory or geostore://"),
        ("  ", "expected a directory"),
        ("a\0b", "expected a directory"),
        ("geostore://", "HOST:PORT"),
        ("geostore://host", "HOST:PORT"),
        ("geostore://host:0", "1..65535"),
        ("geostore://host:65536", "1..65535"),
        ("geostore://a:1,,b:2", "HOST:PORT"),
        ("geostore://user@host:1", "HOST:PORT"),
        ("geostore://::1:80", "HOST:PORT"),
        ("geostore://h:1/path", "HOST:PORT"),
        ("s3://bucket/x", "scheme s3: is not known"),
        ("file:///tmp/x", "scheme file: is not known"),
    ],
)
def test_a_wrong_target_is_refused_with_the_form_expected(text: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        parse_target(text)


def test_a_target_is_one_of_the_two() -> None:
    with pytest.raises(InvalidInputError):
        Target()
    with pytest.raises(InvalidInputError):
        Target(path=Path("x"), hosts=(HostPort("h", 1),))


def test_flags_win_over_variables_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "geostore.toml"
    file.write_text('store = "geostore://file:1"\nworkers = 2\nmemory_bytes = "1GiB"\n')
    assert load_settings() == Settings()
    assert load_settings().store == "./geostore-data"
    assert load_settings(config_file=file).workers == 2
    assert load_settings(config_file=file).memory_bytes == 1 << 30
    environment = {"GEOSTORE_STORE": "geostore://variable:2", "GEOSTORE_WORKERS": "3"}
    settings = load_settings(environment=environment, config_file=file)
    assert (settings.store, settings.workers) == ("geostore://variable:2", 3)
    settings = load_settings({"store": "d", "workers": None}, environment=environment)
    assert (settings.store, settings.workers) == ("d", 3)
    assert settings.target.path == Path("d")


def test_the_file_may_be_named_by_a_variable_and_its_store_lies_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('store = "data"\nformat = "csv"\n')
    settings = load_settings(environment={"GEOSTORE_CONFIG": str(file)})
    assert settings.store == str(tmp_path / "data")
    assert settings.format == "csv"


def test_what_is_no_setting_of_ours_in_the_environment_is_ignored() -> None:
    environment = {"GEOSTORE_STORE": "", "GEOSTORE_SOMETHING": "x", "HOME": "/"}
    assert load_settings(environment=environment) == Settings()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stor = 'x'", "'stor' is not a setting; expected one of store, workers"),
        ("workers = 0", "1..1024"),
        ("insecure = 'perhaps'", "expected true or false"),
        ("insecure = 1.0", "insecure is 1.0"),
        ("tls_ca = ''", "expected a path"),
        ("tls_ca = true", "tls_ca is True, expected text"),
        ("workers = true", "expected text or a whole number"),
        ("workers = 1.5", "expected text or a whole number"),
        ("format = 'xml'", "table, jsonl, csv"),
        ("memory_bytes = 'lots'", "number of bytes"),
        ("store = ''", "expected a directory"),
        ("= 1", "not TOML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=says) as caught:
        load_settings(config_file=file)
    assert "wrong.toml" in str(caught.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"absent.toml"):
        load_settings(config_file=tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match=r"binary.toml"):
        load_settings(config_file=tmp_path / "binary.toml")
    with pytest.raises(InvalidInputError, match=tmp_path.name):
        load_settings(config_file=tmp_path)


def test_a_wrong_variable_or_flag_is_named() -> None:
    with pytest.raises(InvalidInputError, match="variable GEOSTORE_WORKERS: workers 'many'"):
        load_settings(environment={"GEOSTORE_WORKERS": "many"})
    with pytest.raises(InvalidInputError, match="--memory-bytes"):
        load_settings({"memory_bytes": "-1"})
    with pytest.raises(InvalidInputError, match="'colour' is not a setting"):
        load_settings({"colour": "red"})


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), (4096, 4096), ("2GB", 2 * 10**9), ("512MiB", 512 << 20), ("1.5 KiB", 1536),
     ("3t", 3 * 10**12)],
)  # fmt: skip
def test_sizes(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1XB", "GB", "1e9", "0.1"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_bytes(text)


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7440", HostPort("127.0.0.1", 7440)),
        ("node-1.example:0", HostPort("node-1.example", 0)),
        ("[::]:65535", HostPort("::", 65535)),
        (" 0.0.0.0:1 ", HostPort("0.0.0.0", 1)),
    ],
)
def test_where_a_node_listens(text: str, address: HostPort) -> None:
    assert parse_listen(text) == address
    assert parse_listen(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", ":7440", "host", "host:", "host:65536", "host:-1", "::1:80", "a b:1", "h:1/x", "h:\u0667"],
)
def test_where_no_node_can_listen(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"expected HOST:PORT with a port of 0\.\.65535"):
        parse_listen(text)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "::1", "0:0:0:0:0:0:0:1", "LocalHost", "::ffff:127.0.0.1"]
)
def test_loopback_is_this_machine_only(host: str) -> None:
    assert HostPort(host, 1).is_loopback


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "::ffff:10.0.0.1", "localhost.example", "127"],
)
def test_what_others_may_reach_is_no_loopback(host: str) -> None:
    assert not HostPort(host, 1).is_loopback


# ---------------------------------------------------------------- TLS


def test_tls_files_come_by_flag_variable_and_file(tmp_path: Path) -> None:
    file = tmp_path / "geostore.toml"
    file.write_text('tls_ca = "ca.pem"\ntls_cert = "/etc/n1.pem"\ntls_key = "keys/n1.pem"\n')
    settings = load_settings(config_file=file)
    assert settings.tls_ca == str(tmp_path / "ca.pem")
    assert (settings.tls_cert, settings.tls_key) == (
        "/etc/n1.pem",
        str(tmp_path / "keys" / "n1.pem"),
    )
    environment = {"GEOSTORE_TLS_CA": "of-variable.pem", "GEOSTORE_TLS_KEY": "~/k.pem"}
    settings = load_settings({"tls_cert": "flag.pem"}, environment=environment, config_file=file)
    assert (settings.tls_ca, settings.tls_cert) == ("of-variable.pem", "flag.pem")
    assert settings.tls_key == str(Path.home() / "k.pem")


@pytest.mark.parametrize(("given", "missing"), [("tls_cert", "tls_key"), ("tls_key", "tls_cert")])
def test_a_certificate_and_its_key_go_together(given: str, missing: str) -> None:
    says = f"{given} 'x.pem' is given without {missing}.*--{missing.replace('_', '-')}"
    with pytest.raises(InvalidInputError, match=says):
        load_settings(environment={f"GEOSTORE_{given.upper()}": "x.pem"})


def test_plaintext_beyond_this_machine_must_be_asked_for(tmp_path: Path) -> None:
    assert load_settings().insecure is False
    file = tmp_path / "geostore.toml"
    file.write_text("insecure = true\n")
    assert load_settings(config_file=file).insecure is True
    environment = {"GEOSTORE_INSECURE": "0"}
    assert load_settings(environment=environment, config_file=file).insecure is False
    assert load_settings({"insecure": True}, environment=environment).insecure is True
    assert load_settings({"insecure": None}, environment={"GEOSTORE_INSECURE": "on"}).insecure
    with pytest.raises(InvalidInputError, match="variable GEOSTORE_INSECURE: switch 'maybe'"):
        load_settings(environment={"GEOSTORE_INSECURE": "maybe"})


def test_the_cache_of_fetched_files(tmp_path: Path) -> None:
    assert (load_settings().cache, load_settings().cache_bytes) == (None, None)
    file = tmp_path / "geostore.toml"
    file.write_text('cache = "fetched"\ncache_bytes = "5GiB"\n')
    settings = load_settings(config_file=file)
    assert (settings.cache, settings.cache_bytes) == (str(tmp_path / "fetched"), 5 << 30)
    settings = load_settings(environment={"GEOSTORE_CACHE": "/x"}, config_file=file)
    assert settings.cache == "/x"
    with pytest.raises(InvalidInputError, match="--cache-bytes"):
        load_settings({"cache_bytes": "-1"})
