"""What does a cold `retrieval search` from the shell take, and what of it are the imports and the model?

    python benchmarks/cold_search.py [--model demo/run] [--catalog demo/catalog] [--rounds 5]

Each row is a fresh process. The steps of the last one are timed inside; the whole is timed from outside, the start of
Python included.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from common import write_results

STEPS = """
import json, os, sys, time
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
marks = [("start", time.perf_counter())]
def mark(name): marks.append((name, time.perf_counter()))
import retrieval.cli
from retrieval import Catalog, load_encoder
mark("import retrieval")
import torch
mark("import torch")
import open_clip
mark("import open_clip, torchvision")
encoder = load_encoder(sys.argv[2], device="cpu")
mark("load the model")
catalog = Catalog.open(sys.argv[1], encoder=encoder, read_only=True)
mark("open the catalog")
row = encoder.encode_texts(["red striped mug"])
mark("encode the text")
hits = catalog.search(vector=row[0])
mark("search, fetch the records")
print(json.dumps({name: after - before for (_, before), (name, after) in zip(marks, marks[1:])}))
"""


def main() -> None:
    """Time whole commands and their steps, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo/run")
    parser.add_argument("--catalog", type=Path, default=Path("demo/catalog"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    where = [str(arguments.catalog), arguments.model]
    commands = {
        "python -c pass": ["-c", "pass"],
        "retrieval --help": ["-m", "retrieval", "--help"],
        "retrieval search, a text": ["-m", "retrieval", "search", where[0], "red striped mug"],
        "retrieval search --like, no model": ["-m", "retrieval", "search", where[0], "--like", "p0001"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    steps: list[dict[str, float]] = []
    for _ in range(arguments.rounds):
        for name, command in commands.items():
            seconds[name].append(timed(command))
        steps.append(json.loads(run(["-c", STEPS, *where])))
    rows = [[name, f"{median(taken):.2f}"] for name, taken in seconds.items()]
    rows += [[f"of a text search: {name}", f"{median(step[name] for step in steps):.2f}"] for name in steps[0]]
    for row in rows:
        print(*row)
    print(write_results("cold_search", {"table": {"columns": ["fresh process", "seconds"], "rows": rows}}))


def timed(command: list[str]) -> float:
    """Return the seconds of a whole process."""
    start = time.perf_counter()
    run(command)
    return time.perf_counter() - start


def run(command: list[str]) -> str:
    """Return what a Python process prints."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True, env=environment)
    return done.stdout


if __name__ == "__main__":
    main()
