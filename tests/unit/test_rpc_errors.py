from __future__ import annotations

import logging

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore import errors
from geostore.errors import (
    ConflictError,
    GeostoreError,
    InternalError,
    InvalidInputError,
    NotFoundError,
    ProtocolVersionError,
    StaleRingError,
    StorageFullError,
    UnavailableError,
    WrongClusterError,
)
from geostore.rpc.errors import (
    ERROR_METADATA_KEY,
    MESSAGE_CHARACTERS_MAX,
    error_from_failure,
    failure_of,
)
from geostore.rpc.v1 import common_pb2

KINDS = [getattr(errors, name) for name in errors.__all__]


def cross(error: BaseException) -> GeostoreError:
    failure = failure_of(error)
    [(key, value)] = failure.metadata
    assert key == ERROR_METADATA_KEY
    return error_from_failure(failure.status, failure.message, value, "a:1")


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_comes_back_as_itself(kind: type[GeostoreError]) -> None:
    back = cross(kind("scene 'x': é"))
    assert type(back) is kind
    who = "node a:1: " if kind in (ProtocolVersionError, WrongClusterError) else ""
    assert str(back) == f"{who}scene 'x': é"
    assert str(cross(kind("node b:2: x"))) == "node b:2: x"
    assert failure_of(kind("x")).status is not grpc.StatusCode.OK


def test_codes_differ() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)


def test_when_to_come_back_and_the_epoch_cross() -> None:
    full = cross(StorageFullError("full", retry_after_s=2.5))
    assert isinstance(full, StorageFullError)
    assert full.retry_after_s == 2.5
    stale = cross(StaleRingError("old", epoch=7))
    assert isinstance(stale, StaleRingError)
    assert (stale.epoch, stale.retry_after_s) == (7, None)


def test_a_bug_is_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "geostore.rpc.errors"):
        back = cross(RuntimeError("secret /path"))
    assert type(back) is InternalError
    assert "RuntimeError" in str(back)
    assert "secret" not in str(back)
    assert "secret" in caplog.text


@given(text=st.text())
def test_any_message_crosses_whole_or_cut(text: str) -> None:
    back = str(cross(NotFoundError(text)))
    assert back == text or len(text) > MESSAGE_CHARACTERS_MAX or not text


def test_names_that_are_not_unicode_cross() -> None:
    assert str(cross(NotFoundError("scene \udcff"))) == r"scene \udcff"


def test_long_messages_are_cut() -> None:
    failure = failure_of(NotFoundError("x" * 100_000))
    assert len(failure.message) <= MESSAGE_CHARACTERS_MAX


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, UnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, UnavailableError),
        (grpc.StatusCode.CANCELLED, UnavailableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, UnavailableError),
        (grpc.StatusCode.UNIMPLEMENTED, ConflictError),
        (grpc.StatusCode.UNAUTHENTICATED, ConflictError),
        (grpc.StatusCode.INTERNAL, UnavailableError),
        (grpc.StatusCode.UNKNOWN, UnavailableError),
        (None, UnavailableError),
    ],
)
def test_statuses_of_grpc_itself_name_the_address(
    status: grpc.StatusCode | None, kind: type[GeostoreError]
) -> None:
    error = error_from_failure(status, "what it said", None, "far:7440")
    assert type(error) is kind
    assert "far:7440" in str(error)
    assert "what it said" in str(error)


@pytest.mark.parametrize(
    ("details", "hint"),
    [
        ("SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED: certificate has expired", "in date and signed"),
        ("failed: Hostname Verification Check failed.", "for other hosts than this address"),
        ("Tls handshake failed: WRONG_VERSION_NUMBER", "it speaks no TLS, this side does"),
        ("failed to connect to all addresses; last error: Socket closed", "it wants TLS"),
        ("failed to connect to all addresses: Connection refused", "nothing listens there"),
    ],
)
def test_what_kept_a_connection_from_coming_about_is_said(details: str, hint: str) -> None:
    error = error_from_failure(grpc.StatusCode.UNAVAILABLE, details, None, "a:1")
    assert type(error) is UnavailableError
    assert hint in str(error)
    assert details in str(error)


def test_a_message_over_the_limit_is_the_callers_to_change() -> None:
    said = "SERVER: Received message larger than max (9000000 vs. 8388608)"
    error = error_from_failure(grpc.StatusCode.RESOURCE_EXHAUSTED, said, None, "a:1")
    assert type(error) is InvalidInputError
    assert "larger than the 8388608 bytes" in str(error)


def test_a_newer_nodes_code_is_kept_readable() -> None:
    detail = common_pb2.ErrorDetail(code="too_new", message="hm").SerializeToString()
    error = error_from_failure(grpc.StatusCode.UNKNOWN, "", detail, "a:1")
    assert type(error) is GeostoreError
    assert "too_new" in str(error)
    assert "hm" in str(error)


@given(detail=st.binary(max_size=200), status=st.sampled_from([None, *grpc.StatusCode]))
def test_hostile_details_give_geostores_errors(
    detail: bytes, status: grpc.StatusCode | None
) -> None:
    assert isinstance(error_from_failure(status, "x", detail, "a:1"), GeostoreError)
