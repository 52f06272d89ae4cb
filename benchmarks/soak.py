"""Kill a process that builds, upserts and deletes at 50 random moments, and one that trains at 20; look what is left.

After each kill the database is whole, the catalog holds exactly what was acknowledged and of the unfinished operation
all, nothing, or (of a build) whole batches, each item is found by its vector, and the next build completes to the same
as in a catalog that was never disturbed. A training, half of the time killed in the middle of a save, is resumed: it
ends in the same weights, checkpoint and log, bit for bit, as one that nobody disturbed.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from common import write_results

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from crashes import Outcome, crash, random_moment, write_pictures
from training_crashes import killed


def main() -> None:
    """Kill, check, print and write the results; an assertion stops what lost something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--training-kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.kills:
        soak_catalog(options)
    if options.training_kills:
        soak_training(options)


def soak_training(options: argparse.Namespace) -> None:
    """Kill trainings, and write the results."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        told = killed(Path(name), kills=options.training_kills, seed=options.seed)
    counts = {
        "kills": sum(one["killed"] for one in told),
        "inside a save": sum(one["killed"] and one["inside a save"] for one in told),
        "before the first checkpoint": sum(one["killed"] and not one["there was a checkpoint"] for one in told),
        "ended before the kill": sum(not one["killed"] for one in told),
        "other weights after resuming": 0,
    }
    table = {"columns": list(counts), "rows": [list(counts.values())]}
    results = {"table": table, **counts, "seconds": round(time.perf_counter() - began, 1)}
    print(results)
    print(write_results("soak_training", results))


def soak_catalog(options: argparse.Namespace) -> None:
    """Kill builds, upserts and deletes, and write the results."""
    began = time.perf_counter()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as name:
        pictures = write_pictures(Path(name) / "photos")
        for number in range(options.seed, options.seed + options.kills):
            folder = Path(name) / str(number)
            folder.mkdir()
            outcomes.append(crash(folder, pictures, number, moment=random_moment(number)))
            print(f"{number}: {outcomes[-1]}")
    unfinished = dict(Counter(_applied(outcome) for outcome in outcomes))
    results = {
        "table": {
            "columns": ["kills", "acknowledged operations", "lost", *(f"unfinished: {what}" for what in unfinished)],
            "rows": [[len(outcomes), sum(outcome.acknowledged for outcome in outcomes), 0, *unfinished.values()]],
        },
        "kills": len(outcomes),
        "lost": 0,
        "during": dict(Counter(outcome.operation for outcome in outcomes)),
        "unfinished_operation": unfinished,
        "operations_acknowledged": sum(outcome.acknowledged for outcome in outcomes),
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(results)
    print(write_results("soak", results))


def _applied(outcome: Outcome) -> str:
    if outcome.operation == "nothing":
        return "there was none"
    return {True: "all there", False: "not there", None: "whole batches there"}[outcome.applied]


if __name__ == "__main__":
    main()
