"""Kill a process that builds, upserts and deletes at 50 random moments, and look each time at what it leaves.

After each kill the database is whole, the catalog holds exactly what was acknowledged and of the unfinished operation
all, nothing, or (of a build) whole batches, each item is found by its vector, and the next build completes to the same
as in a catalog that was never disturbed.
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


def main() -> None:
    """Kill, check, print and write the results; an assertion stops the run where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
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
