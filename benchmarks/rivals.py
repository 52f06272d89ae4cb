"""How do indexing, syncing and a cold search compare with rclip's and clip-retrieval's own commands?

    python benchmarks/rivals_setup.py rivals --data FOLDER_OF_PHOTOS
    python3.12 -m venv rivals/rclip-env
    rivals/rclip-env/bin/pip install "rclip>=4,<5"
    python3.11 -m venv rivals/clip-retrieval-env
    rivals/clip-retrieval-env/bin/pip install clip-retrieval "setuptools<81"
    python benchmarks/rivals.py [rivals] [--rounds 3] [--searches 5]

Every program searches the same photos by the same random weights of a ViT-B-32-256, with its own default settings, and
each command is a fresh process. The programs take turns within a round, and a ratio is the median over the rounds of
theirs / ours. rclip syncs whenever it searches, so its one command stands beside `retrieval build && retrieval search`,
for the first sync (indexing) and for one without changes. clip-retrieval's `inference` embeds only.
"""

import argparse
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common import write_results

ROOT = Path(__file__).parents[1]
TEXT = "a red bus in the street"
SAMPLING = 0.25  # seconds between two looks at the memory of a command of several processes
DROPPED = {"PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"}  # an installed program runs without them
INT8 = ", int8"
TARGETS = {  # the least that rclip / ours is to be in seconds
    "indexing": 1.3,
    f"indexing{INT8}": 3.0,
    "sync without changes, then search": 1.0,
    "search": 1.0,
}
UNITS = {"seconds": "s", "processor": "processor s", "memory": "peak MB"}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one command took."""

    seconds: float  # of the wall clock
    processor: float  # seconds, of all its processes
    memory: float  # MB at the peak; pages that its processes share count once


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs' commands on the same photos."""

    work: Path
    photos: Path
    scratch: Path

    def index(self, catalog: str, *options: str) -> Cost:
        """Build a catalog from nothing and search it."""
        shutil.rmtree(self.scratch / catalog, ignore_errors=True)
        return self.sync(catalog, "--model", str(self.work / "model"), *options)

    def sync(self, catalog: str, *options: str) -> Cost:
        """Sync a catalog with the photos, then search it."""
        build = retrieval("build", str(self.photos), str(self.scratch / catalog), *options)
        search = retrieval("search", str(self.scratch / catalog), TEXT)
        return measure(["sh", "-c", f"{shlex.join(build)} && {shlex.join(search)}"])

    def search(self, catalog: str) -> Cost:
        """Search a catalog."""
        return measure(retrieval("search", str(self.scratch / catalog), TEXT))

    def rclip(self, *options: str, fresh: bool = False) -> Cost:
        """Search with rclip, which syncs its index first; from nothing where it is to be fresh."""
        if fresh:
            (self.work / "rclip" / "db.sqlite3").unlink(missing_ok=True)
        return measure([str(self.work / "rclip-env/bin/rclip"), *options, TEXT], folder=self.photos)

    def clip_retrieval(self) -> Cost:
        """Embed the photos with clip-retrieval."""
        output = self.scratch / "clip-retrieval"
        shutil.rmtree(output, ignore_errors=True)
        model = f"open_clip:ViT-B-32-256/{self.work}/model/open_clip_model.safetensors"
        options = [f"--input_dataset={self.photos}", f"--output_folder={output}", f"--clip_model={model}"]
        program = str(self.work / "clip-retrieval-env/bin/clip-retrieval")
        return measure([program, "inference", *options, "--enable_text=False"])

    def same_hits(self, catalog: str) -> int:
        """Return how many of rclip's best ten hits are among ours: 10 where both encode alike."""
        ours, theirs = self.scratch / "ours.txt", self.scratch / "theirs.txt"
        measure(retrieval("search", str(self.scratch / catalog), TEXT), output=ours)
        rclip = str(self.work / "rclip-env/bin/rclip")
        measure([rclip, "--no-indexing", "--filepath-only", TEXT], folder=self.photos, output=theirs)
        names = [{Path(line).name for line in file.read_text(encoding="utf-8").split()} for file in (ours, theirs)]
        return len(names[0] & names[1])


def main() -> None:
    """Measure the programs in turn, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, nargs="?", default=Path("rivals"))
    parser.add_argument("--rounds", type=int, default=3, help="how often each program indexes")
    parser.add_argument("--searches", type=int, default=5, help="how often each syncs and searches in a round")
    parser.add_argument(
        "--skip", nargs="*", default=[], help="leave out commands with this in their name, such as int8"
    )
    options = parser.parse_args()
    work = options.work.resolve()
    os.environ["RCLIP_DATADIR"] = str(work / "rclip")
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["RETRIEVAL_ENGINE"] = "onnx"  # float32 on both sides, also where torch would take bfloat16
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        programs = Programs(work, work / "photos", Path(scratch))
        costs = compare(programs, rounds=options.rounds, searches=options.searches, skip=options.skip)
        same_hits = programs.same_hits("float32")
    photos = len(list((work / "photos").iterdir()))
    versions = {name: version_in(work / f"{name}-env", name) for name in ("rclip", "clip-retrieval")}
    runs = {name: [asdict(cost) for cost in taken] for name, taken in costs.items()}
    rows = table(costs, photos=photos, versions=versions)
    for row in rows["rows"]:
        print(*row, sep="  ")
    results = {"photos": photos, "versions": versions, "same_of_ten_hits": same_hits, "runs": runs, "table": rows}
    print(write_results("rivals", results))


def compare(programs: Programs, *, rounds: int, searches: int, skip: Sequence[str] = ()) -> dict[str, list[Cost]]:
    """Return what each command took each time, by its name."""
    indexing: dict[str, Callable[[], Cost]] = {
        "ours: indexing": partial(programs.index, "float32"),
        "rclip: indexing": partial(programs.rclip, fresh=True),
        "ours: indexing, int8": partial(programs.index, "int8", "--precision", "int8", "--force"),
        "clip-retrieval: indexing": programs.clip_retrieval,
    }
    searching: dict[str, Callable[[], Cost]] = {
        "ours: sync without changes, then search": partial(programs.sync, "float32"),
        "rclip: sync without changes, then search": programs.rclip,
        "ours: search": partial(programs.search, "float32"),
        "rclip: search": partial(programs.rclip, "--no-indexing"),
    }
    for name in [name for name in indexing if any(part in name for part in skip)]:
        del indexing[name]
    costs: dict[str, list[Cost]] = {name: [] for name in (*indexing, *searching)}
    for turn in range(rounds):
        for name, run in rotated(indexing, turn):
            if turn and name.startswith("clip-retrieval"):
                continue  # one run, of minutes, tells enough: it is no target
            costs[name].append(run())
            print(name, costs[name][-1], flush=True)
        for _, run in rotated(searching, turn):  # not counted: it reads the files into memory
            run()
        for repeat in range(searches):
            for name, run in rotated(searching, repeat):
                costs[name].append(run())
    return costs


def rotated(functions: Mapping[str, Callable[[], Cost]], turn: int) -> Iterator[tuple[str, Callable[[], Cost]]]:
    """Yield the functions with their names, from another one on at each turn."""
    names = list(functions)
    first = turn % len(names)
    yield from ((name, functions[name]) for name in names[first:] + names[:first])


def retrieval(*arguments: str) -> list[str]:
    """Return a command of this project."""
    return [sys.executable, "-m", "retrieval", *arguments]


def measure(command: Sequence[str], *, folder: Path | None = None, output: Path | None = None) -> Cost:
    """Run a command and return what it took; where it fails, what it said is printed."""
    environment = {name: value for name, value in os.environ.items() if name not in DROPPED}
    with tempfile.TemporaryFile() as messages, (output or Path(os.devnull)).open("wb") as lines:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=lines, stderr=messages)
        memory = PeakMemory(process.pid)
        memory.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        memory.ended.set()
        memory.join()
        if process.returncode:
            messages.seek(0)
            sys.exit(f"{shlex.join(command)} failed:\n{messages.read().decode()}")
    largest = usage.ru_maxrss * 1024  # of its largest process, exactly
    return Cost(seconds, usage.ru_utime + usage.ru_stime, max(largest, memory.peak) / 1e6)


class PeakMemory(threading.Thread):
    """Samples the memory of a process with its descendants, where it has any; the most so far, in bytes, is `peak`."""

    def __init__(self, process: int) -> None:
        super().__init__()
        self.peak = 0
        self.ended = threading.Event()
        self._process = process

    def run(self) -> None:
        """Sample until the process has ended."""
        while not self.ended.wait(SAMPLING):
            processes = with_descendants(self._process)
            if len(processes) > 1:
                self.peak = max(self.peak, sum(map(proportional_memory, processes)))


def with_descendants(process: int) -> list[int]:
    """Return the ids of a process and of those that it started."""
    found = [process]
    for one in found:  # grows on the way
        for file in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, read(file).split())
    return found


def proportional_memory(process: int) -> int:
    """Return the bytes that a process holds, of a page that n processes share one nth."""
    lines = read(Path(f"/proc/{process}/smaps_rollup")).splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def read(file: Path) -> str:
    """Return the text of a file of /proc; empty where its process has ended."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


def version_in(environment: Path, package: str) -> str:
    """Return the version of a package in another environment."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run(
        [environment / "bin/python", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def ratio(costs: Mapping[str, Sequence[Cost]], name: str, quantity: str) -> float | None:
    """Return rclip / ours: the median over the rounds; None where one was left out."""
    theirs, ours = costs.get(f"rclip: {name.removesuffix(INT8)}"), costs.get(f"ours: {name}")
    if theirs is None or ours is None:
        return None
    pairs = zip(theirs, ours, strict=True)
    return round(statistics.median(getattr(rclip, quantity) / getattr(own, quantity) for rclip, own in pairs), 2)


def table(costs: Mapping[str, Sequence[Cost]], *, photos: int, versions: Mapping[str, str]) -> dict[str, Any]:
    """Return the medians as the README's table: a row for each quantity of each measure."""
    rows = []
    for name, target in TARGETS.items():
        for quantity, unit in UNITS.items():
            shown = [median(costs.get(f"{program}: {name}", ()), quantity) for program in ("ours", *versions)]
            rows.append(
                [f"{name}, {unit}", *shown, ratio(costs, name, quantity), target if quantity == "seconds" else None]
            )
    columns = [f"{photos:,} photos", "ours", *(f"{name} {version}" for name, version in versions.items())]
    return {"columns": [*columns, "rclip / ours", "target (at least)"], "rows": rows}


def median(costs: Sequence[Cost], quantity: str) -> float | None:
    """Return the median of a quantity; None where nothing was measured."""
    return round(statistics.median(getattr(cost, quantity) for cost in costs), 2) if costs else None


if __name__ == "__main__":
    main()
