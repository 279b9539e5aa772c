"""Results that are worth keeping, as many as fit in a number of bytes.

``functools.lru_cache`` counts entries, whatever their size: a thousand tables of a long sequence are gigabytes.
"""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class ByteCache(Generic[Result]):
    """The results used last, ``most_bytes`` of them together; what takes more than an eighth of that is not kept.

    Args:
        most_bytes: the limit.
        size_of: how many bytes a result takes.
    Example:
        >>> kept = ByteCache(most_bytes=80, size_of=len)
        >>> kept.get("a", lambda: b"ten bytes!"), kept.get("a", lambda: b"not called")
        (b'ten bytes!', b'ten bytes!')
        >>> len(kept.get("b", lambda: bytes(11))), kept.num_bytes  # more than an eighth: made, but not kept
        (11, 10)
    """

    def __init__(self, most_bytes: int, size_of: Callable[[Result], int]) -> None:
        """Begin empty."""
        self.most_bytes, self.size_of = most_bytes, size_of
        self.num_bytes = 0
        self.results: dict[Hashable, Result] = {}  # the one used last comes last
        self.lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Result]) -> Result:
        """Return what was kept under a key, or make it."""
        with self.lock:
            if key in self.results:
                self.results[key] = result = self.results.pop(key)
                return result
        result = make()  # without the lock: two threads may make the same
        size = self.size_of(result)
        with self.lock:
            if size <= self.most_bytes // 8 and key not in self.results:
                self.results[key] = result
                self.num_bytes += size
                while self.num_bytes > self.most_bytes:
                    self.num_bytes -= self.size_of(self.results.pop(next(iter(self.results))))
        return result

    def cache_clear(self) -> None:
        """Forget everything, as the caches of functools do."""
        with self.lock:
            self.results.clear()
            self.num_bytes = 0
