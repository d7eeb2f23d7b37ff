"""A verification as a stream of messages, and read back from it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from geostore.errors import CorruptDataError, UnavailableError
from geostore.rpc.reports import read_verification
from geostore.rpc.v1 import node_pb2
from geostore.server.verifying import Verifying
from geostore.types.report import Problem, ProblemKind, Progress, VerifyReport

WAIT_S = 30.0
PROBLEM = Problem(kind=ProblemKind.CORRUPT, path="tiles/a/b.zip", message="block 3 fails")
REPORT = VerifyReport(tiles=300, bytes=12_345, problems=(PROBLEM,))


class Answers:
    """A call's answers as gRPC gives them; once they are used up it hangs or ends."""

    def __init__(self, messages: Iterator[Any], *, hangs: bool = False) -> None:
        self._messages = messages
        self._hangs = hangs
        self.is_cancelled = threading.Event()

    def __iter__(self) -> Answers:
        return self

    def __next__(self) -> Any:
        for message in self._messages:
            return message
        if self._hangs:
            assert self.is_cancelled.wait(WAIT_S), "nobody ended the silent call"
            raise UnavailableError("cancelled")
        raise StopIteration

    def cancel(self) -> None:
        self.is_cancelled.set()


def nothing() -> None:
    pass


def reporting(progress: Progress) -> VerifyReport:
    progress(256, 300)
    progress(300, 300)
    return REPORT


def test_what_a_node_finds_is_read_with_its_name() -> None:
    told: list[tuple[int, int]] = []
    answers = Answers(Verifying().answer(reporting, nothing))
    report = read_verification(answers, "a:1", "n1", lambda *steps: told.append(steps))
    assert (report.tiles, report.bytes) == (300, 12_345)
    assert report.problems == (
        Problem(kind=ProblemKind.CORRUPT, path=PROBLEM.path, message=PROBLEM.message, node="n1"),
    )
    assert report.to_json()["problems"] == [
        {"node": "n1", "kind": "corrupt", "path": PROBLEM.path, "message": PROBLEM.message}
    ]
    assert "node n1" in str(report.problems[0])
    assert all(step in [(0, 0), (256, 300), (300, 300)] for step in told)
    assert answers.is_cancelled.is_set()


def test_a_quiet_verification_still_says_that_it_lives() -> None:
    may_end = threading.Event()

    def slow(_progress: Progress) -> VerifyReport:
        assert may_end.wait(WAIT_S)
        return REPORT

    messages = Verifying(heartbeat_s=0.001).answer(slow, nothing)
    assert [next(messages).WhichOneof("part") for _ in range(3)] == ["progress"] * 3
    may_end.set()
    assert [message.WhichOneof("part") for message in messages][-2:] == ["problem", "end"]


def test_one_at_a_time_and_again_after_it() -> None:
    verifying = Verifying(heartbeat_s=0.001)
    under_way, is_ended = hanging(verifying)
    with pytest.raises(UnavailableError, match="verified already"):
        next(verifying.answer(reporting, nothing))
    under_way.close()
    assert is_ended.wait(WAIT_S), "it reads on though nobody listens"
    assert len(list(verifying.answer(reporting, nothing))) >= 2


def hanging(verifying: Verifying) -> tuple[Any, threading.Event]:
    """A verification under way that goes on until it is told that it is not wanted."""
    is_ended = threading.Event()

    def endless(progress: Progress) -> VerifyReport:
        try:
            while True:
                progress(1, 2)
        finally:
            is_ended.set()

    messages = verifying.answer(endless, nothing)
    next(messages)
    return messages, is_ended


def test_it_ends_when_its_caller_is_gone() -> None:
    def check() -> None:
        raise UnavailableError("cancelled")

    verifying = Verifying(heartbeat_s=0.001)
    is_ended = threading.Event()

    def endless(progress: Progress) -> VerifyReport:
        try:
            while True:
                progress(1, 2)
        finally:
            is_ended.set()

    with pytest.raises(UnavailableError, match="cancelled"):
        list(verifying.answer(endless, check))
    assert is_ended.is_set()


def test_what_the_verification_raises_reaches_the_caller() -> None:
    def broken(_progress: Progress) -> VerifyReport:
        raise CorruptDataError("the catalog is gone")

    with pytest.raises(CorruptDataError, match="the catalog is gone"):
        list(Verifying().answer(broken, nothing))


def test_a_node_that_falls_silent_is_given_up() -> None:
    answers = Answers(iter([progress_message()]), hangs=True)
    with pytest.raises(UnavailableError, match=r"said nothing for 0\.05 s"):
        read_verification(answers, "a:1", "n1", silence_s=0.05)


def progress_message() -> node_pb2.VerifyNodeResponse:
    return node_pb2.VerifyNodeResponse(progress=node_pb2.VerifyProgress(tiles_done=1))


def problem_message(kind: str) -> node_pb2.VerifyNodeResponse:
    return node_pb2.VerifyNodeResponse(problem=node_pb2.VerifyProblem(kind=kind))


def end_message(problems: int) -> node_pb2.VerifyNodeResponse:
    return node_pb2.VerifyNodeResponse(end=node_pb2.VerifyEnd(problems_total=problems))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: [progress_message()], "before its end"),
        (lambda: [problem_message("orphan"), end_message(2)], "2 findings announced"),
        (lambda: [problem_message("strange")], "kind 'strange'"),
        (lambda: [node_pb2.VerifyNodeResponse()], "before its end"),
    ],
)
def test_a_broken_stream_is_no_report(make: Callable[[], list[Any]], text: str) -> None:
    with pytest.raises(UnavailableError, match=text):
        read_verification(Answers(iter(make())), "a:1", "n1")
