"""ReadWriteLock: readers together, a writer alone, and neither starves the other."""

import threading
import time

import pytest

from index.rwlock import ReadWriteLock


def test_readers_share_the_lock_and_a_writer_waits_for_them():
    lock, log = ReadWriteLock(), []
    with lock.read(), lock.read():
        writer = threading.Thread(target=lambda: enter(lock.write, log, "writer"))
        writer.start()
        time.sleep(0.05)
        assert log == []
    writer.join()
    assert log == ["writer"]


def test_a_reader_that_waited_for_a_writer_goes_before_the_next_writer():
    """Otherwise a long run of writes, one chunk after the other, would keep searches out until its end."""
    lock, log = ReadWriteLock(), []
    with lock.write():
        reader = threading.Thread(target=lambda: enter(lock.read, log, "reader"))
        reader.start()
        while not lock._waiting_readers:
            time.sleep(0.001)
        log.append("first writer")
    enter(lock.write, log, "second writer")
    reader.join()
    assert log == ["first writer", "reader", "second writer"]


def test_a_waiting_writer_goes_before_readers_that_come_later():
    """Otherwise searches that overlap would keep a refresh out for ever."""
    lock, log = ReadWriteLock(), []
    with lock.read():
        writer = threading.Thread(target=lambda: enter(lock.write, log, "writer"))
        writer.start()
        while not lock._writing:
            time.sleep(0.001)
        reader = threading.Thread(target=lambda: enter(lock.read, log, "later reader"))
        reader.start()
        while not lock._waiting_readers:
            time.sleep(0.001)
    writer.join()
    reader.join()
    assert log == ["writer", "later reader"]


def test_an_error_releases_the_lock():
    lock, log = ReadWriteLock(), []
    for acquire in (lock.write, lock.read):
        with pytest.raises(ZeroDivisionError), acquire():
            raise ZeroDivisionError
    enter(lock.write, log, "writer")
    enter(lock.read, log, "reader")
    assert log == ["writer", "reader"]


def test_a_writer_meets_no_reader_and_no_other_writer():
    lock, inside, others = ReadWriteLock(), [], []

    def read():
        for _ in range(200):
            with lock.read():
                inside.append("reader")
                others.append(inside.count("writer"))
                inside.remove("reader")

    def write():
        for _ in range(200):
            with lock.write():
                inside.append("writer")
                others.append(len(inside) - 1)
                inside.remove("writer")

    threads = [threading.Thread(target=work) for work in (read, read, read, write, write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(others) == 0


def enter(acquire, log, name):
    with acquire():
        log.append(name)
