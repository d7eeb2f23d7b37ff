"""Values that are worked out once an object, without a lock.

As `functools.cached_property`, whose lock (before Python 3.12 one for all objects) could be held
by another thread when a process forks, and would never be free in the child. Two threads may work
out a value at the same time; the last one stays: it is for what may be made twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

__all__ = ["once"]

Value = TypeVar("Value")


class once(Generic[Value]):  # noqa: N801 - a decorator
    """A property that is kept in the object's `__dict__` from its first use."""

    def __init__(self, make: Callable[[Any], Value]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any]) -> Value: ...
    def __get__(self, instance: object | None, owner: type[Any]) -> Self | Value:
        if instance is None:
            return self
        # Found here only while the object has none: what it keeps comes before this.
        value = instance.__dict__[self._name] = self._make(instance)
        return value
