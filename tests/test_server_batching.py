"""Batches of concurrent requests, bounded queues, and cancelled callers."""

import asyncio
import threading

import pytest
from serving import CountingEncoder, make_shop
from serving import wait_until as block_until

from retrieval.catalog.search.request import SearchRequest
from retrieval.errors import QueryError
from retrieval.server.batching import Batcher, measure_batch_size
from retrieval.server.catalog_api import CatalogAPI
from retrieval.server.errors import BusyError
from retrieval.server.executors import BoundedExecutor


class GatedProcess:
    """Returns the requests in capitals once it is opened; fails for "break", and for each that begins with "bad"."""

    def __init__(self):
        """Begin closed."""
        self.open = threading.Event()
        self.begun = 0
        self.batches = []

    def __call__(self, asked):
        """Wait, then process a batch."""
        self.begun += 1
        self.open.wait(30)
        self.batches.append(list(asked))
        if "break" in asked:
            raise RuntimeError("broken")
        return [QueryError(one) if one.startswith("bad") else one.upper() for one in asked]


def make_batcher(size=8, queue=100):
    gate = GatedProcess()
    return gate, Batcher(gate, size=size, queue=queue)


async def gather_results(tasks):
    return await asyncio.gather(*tasks, return_exceptions=True)


async def wait_until(condition):
    await asyncio.to_thread(block_until, condition)


def test_requests_during_a_call_form_the_next_batch():
    async def main():
        gate, batcher = make_batcher(size=4)
        batcher.start()
        first = asyncio.create_task(batcher.submit("a"))
        await wait_until(lambda: gate.begun == 1)  # nothing else was there: it goes alone
        rest = [asyncio.create_task(batcher.submit(one)) for one in "bcdefg"]
        await wait_until(lambda: batcher.pending == 6)
        gate.open.set()
        assert await gather_results([first, *rest]) == list("ABCDEFG")
        assert gate.batches == [["a"], list("bcde"), ["f", "g"]]
        await batcher.stop()

    asyncio.run(main())


def test_simultaneous_requests_form_one_batch():
    async def main():
        gate, batcher = make_batcher()
        gate.open.set()
        batcher.start()
        sizes = []
        batcher.on_batch = sizes.append
        assert await gather_results([asyncio.create_task(batcher.submit(one)) for one in "abcde"]) == list("ABCDE")
        assert gate.batches == [list("abcde")]
        assert sizes == [5]
        await batcher.stop()

    asyncio.run(main())


def test_each_caller_gets_its_own_error_and_a_failed_call_fails_its_whole_batch():
    async def main():
        gate, batcher = make_batcher()
        gate.open.set()
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit(one)) for one in ("a", "bad b", "c")]
        one, two, three = await gather_results(tasks)
        assert (one, three) == ("A", "C")
        assert isinstance(two, QueryError)
        errors = await gather_results([asyncio.create_task(batcher.submit(one)) for one in ("x", "break")])
        assert [type(error) for error in errors] == [RuntimeError, RuntimeError]
        assert await batcher.submit("still there") == "STILL THERE"
        await batcher.stop()

    asyncio.run(main())


def test_a_cancelled_request_is_not_processed_and_does_not_affect_others():
    async def main():
        gate, batcher = make_batcher()
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit("a"))]
        await wait_until(lambda: gate.begun == 1)
        tasks += [asyncio.create_task(batcher.submit(one)) for one in "bcd"]
        await wait_until(lambda: batcher.pending == 3)
        tasks[0].cancel()  # its call runs
        tasks[2].cancel()  # its call has not begun
        await wait_until(lambda: batcher.pending == 2)
        gate.open.set()
        assert [type(answer) for answer in await gather_results(tasks)][::2] == [asyncio.CancelledError] * 2
        assert gate.batches == [["a"], ["b", "d"]]
        assert [task.result() for task in tasks[1::2]] == ["B", "D"]
        await batcher.stop()

    asyncio.run(main())


def test_a_full_queue_and_stopping_refuse_requests_as_busy():
    async def main():
        gate, batcher = make_batcher(size=1, queue=2)
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit("a"))]
        await wait_until(lambda: gate.begun == 1)
        tasks += [asyncio.create_task(batcher.submit(one)) for one in "bc"]
        await wait_until(lambda: batcher.pending == 2)
        with pytest.raises(BusyError):
            await batcher.submit("d")
        asyncio.get_running_loop().call_later(0.05, gate.open.set)
        await batcher.stop()
        assert [type(answer) for answer in await gather_results(tasks)] == [BusyError] * 3

    asyncio.run(main())


def test_executor_bounds_its_queue_and_survives_cancelled_callers():
    async def main():
        executor, gate = BoundedExecutor("reads", threads=1, queue=2), threading.Event()
        tasks = [asyncio.create_task(executor.run(gate.wait, 30)) for _ in range(2)]
        await wait_until(lambda: executor.pending == 2)
        with pytest.raises(BusyError, match="reads"):
            await executor.run(gate.wait)
        tasks[1].cancel()
        gate.set()
        assert await tasks[0] is True
        await wait_until(lambda: executor.pending == 0)
        assert await executor.run(len, "abc") == 3
        executor.close()

    asyncio.run(main())


QUERIES = [
    {"text": "something red"},
    {"text": "blue", "where": {"price": {"$gte": 10}}, "k": 2},
    {"text": "white", "minus": "green", "offset": 1},
    {"like": "black"},
    {"text": "green", "target": "captions"},
    {"text": "green", "sort": ["-price"], "facets": ["color"]},
    {"where": {}},
    {"like": "nobody"},
]


@pytest.fixture
def shop(tmp_path):
    with make_shop(tmp_path, encoder=CountingEncoder()) as catalog:
        yield catalog


def without_seconds(answer):
    return str(answer) if isinstance(answer, Exception) else {**answer, "seconds": {}}


def test_batched_searches_equal_single_ones_in_one_forward_pass(shop):
    engine = CatalogAPI(shop)
    requests = [SearchRequest(**query) for query in QUERIES]
    alone = [without_seconds(answer) for request in requests for answer in engine.search_many([request])]
    shop.encoder.passes = 0
    together = [without_seconds(answer) for answer in engine.search_many(requests)]
    assert together == alone
    assert "nobody" in together[-1]
    assert shop.encoder.passes == 1


def test_an_unexpected_error_fails_only_its_own_search(shop, monkeypatch):
    engine = CatalogAPI(shop)
    search_each = type(shop).search_each

    def failing(self, requests):
        if any(request.k == 3 for request in requests):
            raise KeyError("a mistake of ours")
        return search_each(self, requests)

    monkeypatch.setattr(type(shop), "search_each", failing)
    one, two = engine.search_many([SearchRequest(text="red", k=3), SearchRequest(text="red", k=2)])
    assert isinstance(one, KeyError)
    assert len(two["hits"]) == 2


@pytest.mark.parametrize(("each", "batch", "size"), [(0.0, 4.0, 64), (2.0, 0.0, 1)])
def test_measured_batch_size_is_the_largest_that_pays(each, batch, size):
    """One encoder takes as long for a batch as for one text, the other the same time for each text."""
    now = 0.0

    def encode(texts):
        nonlocal now
        now += batch + each * len(texts)

    assert measure_batch_size(encode, clock=lambda: now) == size
