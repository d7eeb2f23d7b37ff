"""A node's verification on the wire: its findings, and the stream they come in."""

from __future__ import annotations

import threading
from typing import Any

from geostore.errors import InvalidInputError, UnavailableError
from geostore.rpc.errors import raising_for
from geostore.rpc.v1 import node_pb2
from geostore.types.report import Problem, ProblemKind, Progress, VerifyReport

__all__ = ["SILENCE_S", "problem_from_wire", "problem_to_wire", "read_verification"]

SILENCE_S = 60.0
"""A node that says nothing for so long is given up: it means to speak every few seconds."""
PROBLEMS_MAX = 1_000_000
"""More are not kept of one node."""


def problem_to_wire(problem: Problem) -> node_pb2.VerifyProblem:
    """`problem_from_wire` is its inverse. Odd bytes of a file's name are shown escaped."""
    path, message = (
        text.encode(errors="backslashreplace").decode() for text in (problem.path, problem.message)
    )
    return node_pb2.VerifyProblem(kind=str(problem.kind), path=path, message=message)


def problem_from_wire(said: node_pb2.VerifyProblem, node: str) -> Problem:
    """One finding of a node. Raises InvalidInputError: a kind that is none."""
    try:
        kind = ProblemKind(said.kind)
    except ValueError:
        raise InvalidInputError(
            f"problem of kind {said.kind!r}: expected one of {', '.join(ProblemKind)}"
        ) from None
    return Problem(kind=kind, path=said.path, message=said.message, node=node)


def read_verification(
    answers: Any,
    address: str,
    name: str,
    progress: Progress | None = None,
    *,
    silence_s: float = SILENCE_S,
) -> VerifyReport:
    """The report that a stream of `VerifyNodeResponse` brings, of the node called `name`.

    The call has no deadline, for nobody can say how long a node's disk takes. It is ended
    when nothing came for `silence_s`, and when this raises.

    Raises:
        UnavailableError: it broke off, fell silent, or does not read.
    """
    reading = _Reading(address, name, progress)
    watch = _Watch(answers, silence_s)
    watch.thread.start()
    try:
        while (report := reading.take(_next(answers, address))) is None:
            watch.hear()
    except UnavailableError:
        if watch.was_silent:
            raise UnavailableError(
                f"node {address}: it said nothing for {silence_s:g} s while it was verified"
            ) from None
        raise
    finally:
        watch.end()
        answers.cancel()
    return report


def _next(answers: Any, address: str) -> node_pb2.VerifyNodeResponse | None:
    with raising_for(address):
        answer: node_pb2.VerifyNodeResponse | None = next(answers, None)
    return answer


class _Reading:
    """What was said so far."""

    def __init__(self, address: str, name: str, progress: Progress | None) -> None:
        self._address = address
        self._name = name
        self._progress = progress
        self._problems: list[Problem] = []

    def take(self, answer: node_pb2.VerifyNodeResponse | None) -> VerifyReport | None:
        """The report, when `answer` is its end. Raises UnavailableError: the stream is broken."""
        part = None if answer is None else answer.WhichOneof("part")
        if answer is None or part is None or len(self._problems) > PROBLEMS_MAX:
            raise self._broken("it ended before its end was said")
        if part == "progress":
            if self._progress is not None:
                self._progress(answer.progress.tiles_done, answer.progress.tiles_total)
            return None
        if part == "problem":
            try:
                self._problems.append(problem_from_wire(answer.problem, self._name))
            except InvalidInputError as error:
                raise self._broken(str(error)) from None
            return None
        end = answer.end
        if end.problems_total != len(self._problems):
            raise self._broken(f"{end.problems_total} findings announced")
        return VerifyReport(tiles=end.tiles, bytes=end.bytes, problems=tuple(self._problems))

    def _broken(self, why: str) -> UnavailableError:
        return UnavailableError(
            f"node {self._address}: its verification is broken after {len(self._problems)}"
            f" findings: {why}"
        )


class _Watch:
    """Ends a call whose answers stay away."""

    def __init__(self, answers: Any, silence_s: float) -> None:
        self._answers = answers
        self._silence_s = silence_s
        self._heard = threading.Event()
        self._is_over = False
        self.was_silent = False
        self.thread = threading.Thread(target=self._run, name="geostore-watch", daemon=True)

    def hear(self) -> None:
        self._heard.set()

    def end(self) -> None:
        self._is_over = True
        self._heard.set()
        self.thread.join()

    def _run(self) -> None:
        while self._heard.wait(self._silence_s):
            if self._is_over:
                return
            self._heard.clear()
        self.was_silent = True
        self._answers.cancel()
