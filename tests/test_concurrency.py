import gc
import threading
import time
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.concurrency import prefetch_map


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(), max_size=40), st.integers(1, 4), st.integers(1, 9))
def test_results_are_yielded_in_order_for_any_number_of_threads(numbers, threads, depth):
    results = prefetch_map(lambda number: number * 2, numbers, threads=threads, depth=depth)
    assert list(results) == [number * 2 for number in numbers]


def test_an_error_is_raised_in_place_of_its_result_and_ends_the_threads():
    def divide(number):
        return 6 // (2 - number)

    results = prefetch_map(divide, range(5), threads=2)
    assert [next(results), next(results)] == [3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert _own_threads() == 0


def test_at_most_depth_items_are_taken_ahead_and_closing_ends_the_threads():
    taken = []

    def items():
        for number in count():
            taken.append(number)
            yield number

    results = prefetch_map(lambda number: number, items(), threads=2, depth=5)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert len(taken) <= 10 + 5
    assert _own_threads() > 0
    results.close()
    assert _own_threads() == 0


def test_dropping_the_iterator_ends_its_threads():
    results = prefetch_map(time.sleep, [0.001] * 50, threads=3)
    next(results)
    del results
    gc.collect()
    assert _own_threads() == 0


def _own_threads() -> int:
    return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())
