"""A lock for many readers or one writer among threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class ReadWriteLock:
    """Any number of readers at a time, or one writer alone; not reentrant.

    A waiting writer goes before readers that come later, so readers cannot starve it. Readers that waited for one
    writer go before the next, so a long run of writes cannot starve them.
    """

    def __init__(self) -> None:
        self._condition = Condition()
        self._readers = 0
        self._waiting_readers = 0
        self._writing = False  # from the moment at which a writer waits for the last readers to leave

    @contextmanager
    def read(self) -> Iterator[None]:
        """Hold the lock together with other readers."""
        with self._condition:
            self._waiting_readers += 1
            try:
                self._condition.wait_for(lambda: not self._writing)
            finally:
                self._waiting_readers -= 1
                self._condition.notify_all()
            self._readers += 1
        try:
            yield
        finally:
            with self._condition:
                self._readers -= 1
                self._condition.notify_all()

    @contextmanager
    def write(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._condition:
            self._condition.wait_for(lambda: not self._writing and not self._waiting_readers)
            self._writing = True
        try:
            with self._condition:
                self._condition.wait_for(lambda: not self._readers)
            yield
        finally:
            with self._condition:
                self._writing = False
                self._condition.notify_all()
