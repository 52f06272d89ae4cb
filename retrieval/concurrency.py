"""Work ahead of a consumer on threads, in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

Input = TypeVar("Input")
Output = TypeVar("Output")


def available_cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prefetch_map(
    function: Callable[[Input], Output], items: Iterable[Input], *, threads: int | None = None, depth: int | None = None
) -> Generator[Output, None, None]:
    """Yield `function(item)` for each item, in order, computed ahead of the consumer by threads.

    An error is raised in place of its result. Closing or dropping the iterator stops its threads once they have
    finished the items they are working on.

    Args:
        function: Called on the threads, with one item at a time.
        items: Taken one by one on the consumer's thread, at most `depth` ahead.
        threads: One a core where it is None.
        depth: The most results, finished or in progress, to hold at a time. Four a thread where it is None.
    """
    from concurrent.futures import ThreadPoolExecutor

    threads = threads or available_cores()
    depth = depth or 4 * threads
    pending: deque[Future[Output]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
