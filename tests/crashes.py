"""Kill a process that builds, upserts and deletes at any moment, and check what it leaves.

The process follows a seeded plan and reports the begin and the end of each operation on stdout. Its killer replays the
acknowledged operations in a second catalog and compares the contents of both.

    python tests/crashes.py CATALOG PICTURES SEED [STEP]   is the process that dies; at STEP it kills itself
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from fake_encoder import FakeEncoder
from PIL import Image

from retrieval.catalog import Catalog
from retrieval.catalog.write import commit, maintenance, sync
from retrieval.catalog.write.commit import ItemCommitter, VectorAppender
from retrieval.pairs import Pairs, read_pairs
from retrieval.records import slots, vector_store

PICTURES = 60
OPERATIONS = {"build": 0.04, "upsert": 0.02, "delete": 0.012}  # and about how many seconds each takes
BATCH = 10

Contents = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one killed process.

    Attributes:
        operation: What it was doing; "nothing" between two operations or when it was already done.
        acknowledged: Operations that it had finished.
        applied: Whether the unfinished operation is there (True), not there (False) or there in part (None).
    """

    operation: str
    acknowledged: int
    applied: bool | None


def write_pictures(folder: Path) -> Path:
    """Write small pictures with captions; some share their content."""
    folder.mkdir(parents=True)
    for number in range(PICTURES):
        color = tuple(np.random.default_rng(number % 50).integers(0, 256, 3).tolist())
        Image.new("RGB", (16, 16), color).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(f"picture {number}\nof color {number % 7}\n")
    return folder


@dataclass(frozen=True)
class Moment:
    """When a process is killed: so many seconds after its operation number `turn` began."""

    turn: int
    delay: float


def random_moment(seed: int) -> Moment:
    """Return a moment in one of the first 40 operations, about as often in each kind."""
    chance = random.Random(seed)
    turn = chance.randrange(40)
    return Moment(turn, chance.uniform(0, OPERATIONS[kind_of(seed, turn)]))


def kind_of(seed: int, turn: int) -> str:
    """Return the kind of an operation of a plan: all kinds in turn, the first one by the seed."""
    return list(OPERATIONS)[(seed + turn) % len(OPERATIONS)]


def plan(seed: int, pairs: Pairs) -> Iterator[tuple[str, Any]]:
    """Operations without end: the kind, and what it is done with."""
    chance = random.Random(seed)
    for turn in range(10_000):
        kind = kind_of(seed, turn)
        if kind == "build":
            yield kind, _some_pairs(pairs, chance)
        elif kind == "upsert":
            yield kind, [_item(pairs, chance) for _ in range(chance.randint(1, 6))]
        else:
            yield kind, [f"{chance.randrange(PICTURES):02d}.png" for _ in range(chance.randint(1, 8))]


def _some_pairs(pairs: Pairs, chance: random.Random) -> Pairs:
    chosen = [pair for pair in pairs if chance.random() < 0.9]
    changed = [
        replace(pair, captions=(f"changed {chance.randrange(9)}",), attributes={"n": chance.randrange(5)})
        if chance.random() < 0.3
        else pair
        for pair in chosen
    ]
    return replace(pairs, pairs=tuple(changed))


def _item(pairs: Pairs, chance: random.Random) -> dict[str, Any]:
    images = [pair.image.path for pair in chance.sample(pairs.pairs, chance.randint(1, 3))]
    return {
        "id": chance.choice([f"{chance.randrange(PICTURES):02d}.png", f"item {chance.randrange(20)}"]),
        "images": images,
        "captions": [f"text {chance.randrange(30)}" for _ in range(chance.randint(0, 3))],
        "attributes": {"n": chance.randrange(5), "tags": ["a", "b"][: chance.randrange(3)]},
    }


def work(catalog: Catalog, kind: str, what: Any) -> None:
    """Do one operation."""
    if kind == "build":
        catalog.build(what, prune=True, restore=True)
    elif kind == "upsert":
        catalog.upsert(what)
    else:
        catalog.delete(what)


def contents(catalog: Catalog) -> Contents:
    """All that a catalog holds, by id: attributes, and each picture's and caption's content and vector."""
    found: Contents = {}
    with catalog._database.reading() as records:
        names = [name for (name,) in records.connection.execute("SELECT id FROM items")]
        images, captions = catalog._sides["images"], catalog._sides["captions"]
        images.refresh(records)
        captions.refresh(records)
        for item in records.items(names).values():
            found[item.id] = (
                item.attributes,
                [(image.hash, images.rows[image.slot].tobytes()) for image in item.images],
                [(text, captions.rows[slot].tobytes()) for text, slot in item.captions],
            )
    return found


def crash(folder: Path, pictures: Path, seed: int, *, moment: Moment | None = None, step: str | None = None) -> Outcome:
    """Let a process work in a new catalog under `folder`, kill it, and check what it leaves.

    Args:
        folder: Where the catalogs go.
        pictures: What `write_pictures` wrote.
        seed: Of the plan.
        moment: When it is killed.
        step: The step at which it kills itself instead.

    Raises:
        AssertionError: something was lost, half there, or the next build does not mend it.
    """
    lines = _killed(folder / "crashed", pictures, seed, moment=moment, step=step)
    begun = [line for line in lines if line["say"] == "begin"]
    ended = [line for line in lines if line["say"] == "end"]
    pairs = read_pairs(pictures)
    operations = plan(seed, pairs)
    _check_database(folder / "crashed")
    with (
        Catalog.open(folder / "crashed", encoder=FakeEncoder()) as crashed,
        Catalog.open(folder / "replayed", encoder=FakeEncoder()) as replayed,
    ):
        for _ in ended:
            work(replayed, *next(operations))
        kind, applied = "nothing", True
        before, left = contents(replayed), contents(crashed)
        if len(begun) > len(ended):
            kind, what = next(operations)
            batches = [line["ids"] for line in lines[lines.index(begun[-1]) :] if line["say"] == "batch"]
            work(replayed, kind, what)
            acknowledged = {one for ids in batches for one in ids}
            applied = _check_unfinished(kind, left, before=before, after=contents(replayed), batches=acknowledged)
        else:
            assert left == before, "what was acknowledged is not what is there"
        _check_search(crashed, left)
        for catalog in (crashed, replayed):
            catalog.build(pairs, prune=True, restore=True)
        if kind == "upsert" and applied is False:
            work(crashed, kind, what)
            crashed.build(pairs, prune=True, restore=True)
        assert contents(crashed) == contents(replayed), "the next build does not complete to the same"
    return Outcome(kind, len(ended), applied)


def _killed(
    catalog: Path, pictures: Path, seed: int, *, moment: Moment | None, step: str | None
) -> list[dict[str, Any]]:
    command = [sys.executable, __file__, str(catalog), str(pictures), str(seed), *([step] if step else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout is not None
        said = [process.stdout.readline()]
        if moment is not None:
            while json.loads(said[-1]) != {"say": "begin", "turn": moment.turn}:
                said.append(process.stdout.readline())
            time.sleep(moment.delay)
            process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
        assert process.wait(timeout=300) == -signal.SIGKILL, said[-3:]
    return [json.loads(line) for line in said if line.endswith("\n")]


def _check_database(catalog: Path) -> None:
    connection = sqlite3.connect(catalog / "catalog.sqlite")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        connection.close()


def _check_unfinished(
    kind: str, left: Contents, *, before: Contents, after: Contents, batches: set[str]
) -> bool | None:
    """An upsert or a delete is there or not; of a build each batch is there or not, and the acknowledged ones are."""
    if left == after:
        return True
    if left == before:
        assert not batches, "a batch that was committed is lost"
        return False
    assert kind == "build", f"half a {kind} is there"
    for name in before.keys() | after.keys():
        assert left.get(name) in (before.get(name), after.get(name)), f"{name} is neither as it was nor as it will be"
    for name in batches:
        assert left.get(name) == after.get(name), f"{name} was committed and is lost"
    return None


def _check_search(catalog: Catalog, left: Contents) -> None:
    """Every item that is there is found, by its own vector, and nothing else."""
    if left:
        row = np.frombuffer(next(iter(left.values()))[1][0][1], np.float32)
        assert {hit.id for hit in catalog.search(vector=row, k=1000)} == left.keys()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at(step: str) -> None:
    """Kill this process at the third time that the step is reached."""
    places = {
        "the vectors are not synced yet": (commit, "append_rows"),
        "the vectors are written": (VectorAppender, "record"),
        "the compacted vectors are written": (slots.Slots, "renumber"),
        "the compacted vectors are not synced yet": (maintenance, "copy_rows"),
        "the old vectors are not yet removed": (maintenance, "remove_other_generations"),
    }
    owner, name = places[step]
    original = getattr(owner, name)
    reached = []

    def dying(*arguments: Any, **options: Any) -> Any:
        reached.append(1)
        if len(reached) >= (3 if owner in (commit, VectorAppender) else 1) and _is_due(step, arguments):
            if step.endswith("not synced yet"):
                vector_store.os.fsync = lambda _descriptor: _die()
            else:
                _die()
        return original(*arguments, **options)

    setattr(owner, name, dying)


def _is_due(step: str, arguments: tuple[Any, ...]) -> bool:
    """The old generation is only there to be removed when a compaction has just made the next one."""
    if step != "the old vectors are not yet removed":
        return True
    folder, side = arguments
    return len(list(folder.glob(f"{side}-*.f32"))) > 1


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Work until somebody kills this process."""
    catalog_path, pictures, seed, *step = sys.argv[1:]
    sync.BATCH_ITEMS = BATCH
    original = ItemCommitter.commit

    def commit_and_report(self: ItemCommitter, items: Any) -> None:
        original(self, items)
        _say(say="batch", ids=[one.item.id for one in items])

    ItemCommitter.commit = commit_and_report  # type: ignore[method-assign]
    if step:
        _die_at(step[0])
    pairs = read_pairs(pictures)
    with Catalog.open(catalog_path, encoder=FakeEncoder()) as catalog:
        for turn, (kind, what) in enumerate(plan(int(seed), pairs)):
            _say(say="begin", turn=turn)
            work(catalog, kind, what)
            _say(say="end")


if __name__ == "__main__":
    main()
