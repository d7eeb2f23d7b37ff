"""Room for tiles on their way in: how many bytes all puts of a call class hold together.

A node stores a call's tiles together, so it holds them together. What a geostore client puts
into one call (`PUT_BYTES_MAX`) is always let in: threads times that is bounded. A call that
brings more, which means one very large tile, takes its turn with others of the kind. So a
class holds at most

    threads * PUT_BYTES_MAX + CALL_BYTES_MAX     (16 * 16 MiB + 256 MiB = 512 MiB)

A byte budget for all calls was rejected: calls that hold a part of it and wait for more would
wait for each other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from geostore.errors import UnavailableError
from geostore.rpc.streams import PUT_BYTES_MAX
from geostore.server.call import Call, current_call

__all__ = ["Arrival", "Arrivals"]

TURN_WAIT_S = 10.0
"""How long a large call waits for its turn, on a thread that others could use."""
_RETRY_S = 1.0


class Arrivals:
    """The puts of one call class. Thread-safe.

    Classes have one each: a coordinated put waits for leaf puts on other nodes, which must
    not wait for coordinated ones.
    """

    def __init__(
        self, *, call_bytes_max: int = PUT_BYTES_MAX, turn_wait_s: float = TURN_WAIT_S
    ) -> None:
        self.call_bytes_max = call_bytes_max
        self._turn_wait_s = turn_wait_s
        self._changed = threading.Condition()
        self._is_taken = False

    @contextmanager
    def arrival(self) -> Iterator[Arrival]:
        """One call's tiles, until they are stored."""
        arrival = Arrival(self)
        try:
            yield arrival
        finally:
            arrival.end()

    def take_turn(self, call: Call) -> None:
        """Waits until no other large call is on its way.

        Raises:
            UnavailableError: one still was when the time was over, or the call was cancelled.
        """
        call.on_cancel(self._wake)
        with self._changed:
            self._changed.wait_for(
                lambda: not self._is_taken or call.is_cancelled(), self._turn_wait_s
            )
            call.check()
            if self._is_taken:
                raise UnavailableError(
                    f"another call with more than {self.call_bytes_max} bytes of tiles is being"
                    " taken: try again, or put fewer tiles in a call",
                    retry_after_s=_RETRY_S,
                )
            self._is_taken = True

    def give_back(self) -> None:
        """Ends a turn."""
        with self._changed:
            self._is_taken = False
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class Arrival:
    """What one call has announced so far. Of one thread."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._bytes = 0
        self._has_turn = False

    def expect(self, size: int) -> None:
        """A tile of `size` bytes is next. Raises UnavailableError: no room for it now."""
        self._bytes += size
        if self._bytes > self._arrivals.call_bytes_max and not self._has_turn:
            self._arrivals.take_turn(current_call())
            self._has_turn = True

    def end(self) -> None:
        """The call's tiles are stored, or given up."""
        if self._has_turn:
            self._has_turn = False
            self._arrivals.give_back()
