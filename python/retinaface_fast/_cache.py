"""A small cache of things that are expensive to build."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class LeastRecentCache(Generic[T]):
    """What was built for the last few keys; safe to use from many threads.

    However many threads ask for a key at once, its value is built once, and those that want another key do
    not wait for it: each key has a lock of its own. (`functools.lru_cache` builds in every thread.) A build
    that fails is an error of the thread that built, and each of the others tries for itself; some may then
    build at once, and the last value is kept.

    Examples:
        >>> cache = LeastRecentCache(capacity=2)
        >>> [cache.get((number,), lambda: object()) for number in range(5)] and len(cache)
        2
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._values: OrderedDict[tuple[object, ...], T] = OrderedDict()
        self._building: dict[tuple[object, ...], threading.Lock] = {}

    def get(self, key: tuple[object, ...], build: Callable[[], T]) -> T:
        """Return the value of a key, building it if it is not here; what `build` raises is passed on."""
        value = self._find(key)
        if value is not None:
            return value
        with self._lock:
            lock = self._building.setdefault(key, threading.Lock())
        with lock:
            value = self._find(key)
            if value is None:
                try:
                    value = build()
                    self._keep(key, value)
                finally:
                    # After the value is kept: whoever comes now finds it, or builds anew after an error.
                    with self._lock:
                        self._building.pop(key, None)
        return value

    def _keep(self, key: tuple[object, ...], value: T) -> None:
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._capacity:
                self._values.popitem(last=False)

    def _find(self, key: tuple[object, ...]) -> T | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def __len__(self) -> int:
        return len(self._values)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
