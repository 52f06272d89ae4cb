"""Concurrent searches in one call; bounds on what waits; and who goes away takes no other along."""

import asyncio
import threading

import pytest
from serving import CountingEncoder, make_shop
from serving import until as comes

from retrieval.catalog.search.request import SearchRequest
from retrieval.errors import QueryError
from retrieval.server.batching import Batcher, measure_batch_size
from retrieval.server.catalog_api import CatalogAPI
from retrieval.server.errors import BusyError
from retrieval.server.executors import BoundedExecutor


class Gate:
    """Answers with what was asked, once it is opened."""

    def __init__(self):
        """Begin closed, with nothing asked."""
        self.open = threading.Event()
        self.begun = 0
        self.batches = []

    def __call__(self, asked):
        """Wait, then answer; errors where errors were asked for."""
        self.begun += 1
        self.open.wait(30)
        self.batches.append(list(asked))
        if "break" in asked:
            raise RuntimeError("broken")
        return [QueryError(one) if one.startswith("bad") else one.upper() for one in asked]


def collected(size=8, queue=100):
    gate = Gate()
    return gate, Batcher(gate, size=size, queue=queue)


async def settled(tasks):
    return await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition):
    await asyncio.to_thread(comes, condition)


def test_what_comes_while_a_call_runs_goes_together_in_the_next():
    async def main():
        gate, batcher = collected(size=4)
        batcher.start()
        first = asyncio.create_task(batcher.submit("a"))
        await until(lambda: gate.begun == 1)  # nothing else was there: it goes alone
        rest = [asyncio.create_task(batcher.submit(one)) for one in "bcdefg"]
        await until(lambda: batcher.pending == 6)
        gate.open.set()
        assert await settled([first, *rest]) == list("ABCDEFG")
        assert gate.batches == [["a"], list("bcde"), ["f", "g"]]
        await batcher.stop()

    asyncio.run(main())


def test_what_comes_at_once_goes_in_one_call():
    async def main():
        gate, batcher = collected()
        gate.open.set()
        batcher.start()
        sizes = []
        batcher.on_batch = sizes.append
        assert await settled([asyncio.create_task(batcher.submit(one)) for one in "abcde"]) == list("ABCDE")
        assert gate.batches == [list("abcde")]
        assert sizes == [5]
        await batcher.stop()

    asyncio.run(main())


def test_each_caller_gets_its_own_error_and_a_broken_call_is_everyones():
    async def main():
        gate, batcher = collected()
        gate.open.set()
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit(one)) for one in ("a", "bad b", "c")]
        one, two, three = await settled(tasks)
        assert (one, three) == ("A", "C")
        assert isinstance(two, QueryError)
        found = await settled([asyncio.create_task(batcher.submit(one)) for one in ("x", "break")])
        assert [type(error) for error in found] == [RuntimeError, RuntimeError]
        assert await batcher.submit("still there") == "STILL THERE"
        await batcher.stop()

    asyncio.run(main())


def test_who_goes_away_takes_no_other_along_and_is_not_asked_for():
    async def main():
        gate, batcher = collected()
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit("a"))]
        await until(lambda: gate.begun == 1)
        tasks += [asyncio.create_task(batcher.submit(one)) for one in "bcd"]
        await until(lambda: batcher.pending == 3)
        tasks[0].cancel()  # its call runs
        tasks[2].cancel()  # its call has not begun
        await until(lambda: batcher.pending == 2)
        gate.open.set()
        assert [type(answer) for answer in await settled(tasks)][::2] == [asyncio.CancelledError] * 2
        assert gate.batches == [["a"], ["b", "d"]]
        assert [task.result() for task in tasks[1::2]] == ["B", "D"]
        await batcher.stop()

    asyncio.run(main())


def test_more_than_may_wait_is_refused_at_once_and_stopping_refuses_the_rest():
    async def main():
        gate, batcher = collected(size=1, queue=2)
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit("a"))]
        await until(lambda: gate.begun == 1)
        tasks += [asyncio.create_task(batcher.submit(one)) for one in "bc"]
        await until(lambda: batcher.pending == 2)
        with pytest.raises(BusyError):
            await batcher.submit("d")
        asyncio.get_running_loop().call_later(0.05, gate.open.set)
        await batcher.stop()
        assert [type(answer) for answer in await settled(tasks)] == [BusyError] * 3

    asyncio.run(main())


def test_a_lane_bounds_what_waits_and_goes_on_after_who_went_away():
    async def main():
        executor, gate = BoundedExecutor("reads", threads=1, queue=2), threading.Event()
        tasks = [asyncio.create_task(executor.run(gate.wait, 30)) for _ in range(2)]
        await until(lambda: executor.pending == 2)
        with pytest.raises(BusyError, match="reads"):
            await executor.run(gate.wait)
        tasks[1].cancel()
        gate.set()
        assert await tasks[0] is True
        await until(lambda: executor.pending == 0)
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


def test_a_batch_gives_the_answers_of_one_by_one_in_one_forward_pass(shop):
    engine = CatalogAPI(shop)
    requests = [SearchRequest(**query) for query in QUERIES]
    alone = [without_seconds(answer) for request in requests for answer in engine.search_many([request])]
    shop.encoder.passes = 0
    together = [without_seconds(answer) for answer in engine.search_many(requests)]
    assert together == alone
    assert "nobody" in together[-1]
    assert shop.encoder.passes == 1


def test_one_that_nobody_foresaw_takes_no_other_with_it(shop, monkeypatch):
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
def test_the_size_of_batches_is_what_pays_here(each, batch, size):
    """One encoder takes as long for many texts as for one, the other so long for each."""
    now = 0.0

    def encode(texts):
        nonlocal now
        now += batch + each * len(texts)

    assert measure_batch_size(encode, clock=lambda: now) == size
