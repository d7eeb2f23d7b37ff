"""A store's states while it changes, and threads that change and ask at the same time.

Whoever changes says before what the store will be and after that it is. So an answer can be
checked against each state that the store may have been in while it was asked.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from tests.plain_records import Record

SEED: Final = int(os.environ.get("GEOSTORE_QUERIES_SEED", "1"))
"""Of everything random. Threads run as they like: the same seed asks the same, not at the same
moment."""
SWITCH_S: Final = 1e-4
"""How long a thread runs at most before another one does: fifty times less than usual."""

State = tuple[Record, ...]


def queries_asked(quick: int) -> int:
    """How many questions a suite asks: GEOSTORE_QUERIES, else as many as CI has time for."""
    return int(os.environ.get("GEOSTORE_QUERIES", str(quick)))


class History:
    """All states that a store, or a part of it that one writer changes, was in."""

    def __init__(self) -> None:
        self.states: list[State] = [()]
        self._done = 0

    def begin(self, state: State) -> None:
        """The store may be in this state from now on."""
        assert self._done == len(self.states) - 1
        self.states.append(state)

    def end(self) -> None:
        """It is, and in no earlier one."""
        self._done = len(self.states) - 1

    @property
    def first(self) -> int:
        """The earliest state that an answer to a question of now may show."""
        return self._done

    @property
    def last(self) -> int:
        """The latest that an answer of now may have shown."""
        return len(self.states) - 1

    @property
    def now(self) -> State:
        return self.states[self._done]


class Threads:
    """Writers, and askers who between them ask so many questions; all stop at the first error.

    Writers change the store whenever some questions were asked, just as the next is.
    """

    def __init__(self, questions: int, *, questions_a_change: int) -> None:
        self._lock = threading.Lock()
        self._left = questions
        self._asked = 0
        self._a_change = questions_a_change
        self._changes = threading.Semaphore(0)
        self._stopped = threading.Event()
        self.errors: list[str] = []
        self.counts: Counter[str] = Counter()
        """What was done, in words: for the last line of a long run."""

    def count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.counts[what] += number

    def takes_question(self) -> bool:
        """Whether there is another question to ask; then a writer may be woken."""
        with self._lock:
            if self._stopped.is_set() or not self._left:
                return False
            self._left -= 1
            self._asked += 1
            wakes = self._asked % self._a_change == 0
        if wakes:
            self._changes.release()
        return True

    def takes_change(self) -> bool:
        """Waits until a change is due; False when there will be none."""
        while not self._stopped.is_set():
            if self._changes.acquire(timeout=0.05):
                return True
        return False

    def run(
        self, writers: Sequence[Callable[[], None]], askers: Sequence[Callable[[], None]]
    ) -> None:
        """Until all is asked.

        Raises:
            AssertionError: what went wrong first, with the seed.
        """
        changing = [threading.Thread(target=self._guarded, args=(each,)) for each in writers]
        asking = [threading.Thread(target=self._guarded, args=(each,)) for each in askers]
        before_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        try:
            for thread in (*changing, *asking):
                thread.start()
            for thread in asking:
                thread.join()
            self._stopped.set()
            for thread in changing:
                thread.join()
        finally:
            self._stopped.set()
            sys.setswitchinterval(before_s)
        assert not self.errors, f"GEOSTORE_QUERIES_SEED={SEED}: {self.errors[0]}"

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - `run` raises it
            self.errors.append(f"{type(error).__name__}: {error}")
            self._stopped.set()


def random_of(*names: object) -> random.Random:
    """One's own sequence of random numbers, by the seed of the run."""
    return random.Random("/".join(map(str, (SEED, *names))))
