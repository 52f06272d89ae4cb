"""What does a cold `retrieval search` from the shell take, in processor time, seconds and memory?

    python benchmarks/cold_search.py --earlier ../earlier [--rounds 9]

Every row is a fresh process, and the rows take turns. The catalog is of a drawn shop, built with the starter; with
--earlier, a checkout of an earlier commit, its own commands search the same catalog. The starter's text tower runs on
ONNX Runtime, or on torch where that is forced.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from common import write_results

HERE = Path(__file__).resolve().parents[1]
COLUMNS = ["fresh process", "processor s", "seconds", "peak MB", "torch loaded"]
DRAW = "import sys; from retrieval.demo.sample_shop import draw_shop; draw_shop(sys.argv[1], count=int(sys.argv[2]))"
REPORT = """
import sys
from retrieval.cli import commands
commands(sys.argv[1:], standalone_mode=False)
print("torch" in sys.modules)
"""


@dataclass(frozen=True, slots=True)
class Command:
    """What Python runs, by the code of a checkout."""

    arguments: Sequence[str]
    checkout: Path = HERE
    engine: str = ""

    def environment(self) -> dict[str, str]:
        """Variables of the process; bytecode is written, as an installation does."""
        environment = {**os.environ, "PYTHONPATH": str(self.checkout), "OMP_WAIT_POLICY": "PASSIVE"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment | ({"RETRIEVAL_ENGINE": self.engine} if self.engine else {})

    def output(self) -> str:
        """Return what it prints."""
        command, where = [sys.executable, *self.arguments], self.checkout  # `-m` looks in the current folder first
        done = subprocess.run(command, env=self.environment(), cwd=where, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout

    def loads_torch(self) -> bool:
        """Whether the command, which is one of `retrieval`, has loaded torch by its end."""
        reporting = Command(["-c", REPORT, *self.arguments[2:]], self.checkout, self.engine)
        return reporting.output().split()[-1] == "True"


@dataclass(frozen=True, slots=True)
class Run:
    """What one process took."""

    processor: float  # seconds, user and system
    seconds: float
    megabytes: float  # at its peak, resident


def main() -> None:
    """Run all commands in turn, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--earlier", type=Path, help="checkout of an earlier commit")
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands = list_commands(make_catalog(Path(folder), given.items), given.earlier)
        for command in commands.values():
            measure(command)
        runs = [{name: measure(command) for name, command in commands.items()} for _ in range(given.rounds)]
        searches = {name: command for name, command in commands.items() if "retrieval" in command.arguments}
        loaded = {name: command.loads_torch() for name, command in searches.items()}
    ratios = compare(runs, earlier=given.earlier is not None)
    results = {"items": given.items, "rounds": given.rounds, "ratios": ratios, "torch_loaded": loaded}
    rows = [format_row(name, [one[name] for one in runs], loaded.get(name)) for name in commands]
    rows += [[f"ratio: {name}", f"{ratio:.2f}", "", "", ""] for name, ratio in ratios.items()]
    for row in rows:
        print(*row, sep=" | ")
    table = {"columns": COLUMNS, "rows": rows}
    print("wrote", write_results("cold_search", {**results, "table": table}))


def make_catalog(folder: Path, items: int) -> Path:
    """Draw a shop into `folder/shop` and build its catalog with the starter, all in other processes."""
    Command(["-c", DRAW, str(folder / "shop"), str(items)]).output()
    built = ["-m", "retrieval", "build", str(folder / "shop" / "products.csv"), str(folder / "catalog")]
    Command([*built, "--model", "starter"]).output()
    return folder


def list_commands(folder: Path, earlier: Path | None) -> dict[str, Command]:
    """Return the commands by the names of their rows."""
    search = ["-m", "retrieval", "search", str(folder / "catalog")]
    like, text = [*search, "--like", "p0001"], [*search, "red striped mug"]
    picture = [*search, "--image", str(next((folder / "shop" / "images").iterdir()))]
    before = {} if earlier is None else {"`--like`, at the earlier commit": Command(like, checkout=earlier.resolve())}
    return {
        "`python -c pass`": Command(["-c", "pass"]),
        "`import numpy`": Command(["-c", "import numpy"]),
        "`import torch`": Command(["-c", "import torch"]),
        "`retrieval search --like`, no model": Command(like),
        **before,
        "a text": Command(text),
        "a Chinese text": Command([*search, "红色条纹杯子"]),
        "a picture": Command(picture),
        "a text, by torch": Command(text, engine="torch"),
    }


def measure(command: Command) -> Run:
    """Run the command once."""
    since = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command.arguments],
        env=command.environment(),
        cwd=command.checkout,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - since
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command.arguments} ended with {process.returncode}.")
    return Run(usage.ru_utime + usage.ru_stime, seconds, usage.ru_maxrss / 1024)


def compare(runs: Sequence[dict[str, Run]], *, earlier: bool) -> dict[str, float]:
    """Return ratios of processor time, each command's the least of all rounds: what a neighbour adds is not its own."""
    least = {name: min(one[name].processor for one in runs) for name in runs[0]}
    like = least["`retrieval search --like`, no model"]
    ratios = {
        "(text - like) / import torch": (least["a text"] - like) / least["`import torch`"],
        "text / text by torch": least["a text"] / least["a text, by torch"],
    }
    if earlier:
        ratios["like / like at the earlier commit"] = like / least["`--like`, at the earlier commit"]
    return {name: round(ratio, 3) for name, ratio in ratios.items()}


def format_row(name: str, runs: Sequence[Run], torch_loaded: bool | None) -> list[str]:  # noqa: FBT001
    """Return the cells of a row: the least processor time, the median of the seconds, the greatest memory."""
    processor, seconds = min(run.processor for run in runs), median(run.seconds for run in runs)
    loaded = "" if torch_loaded is None else "yes" if torch_loaded else "no"
    return [name, f"{processor:.2f}", f"{seconds:.2f}", f"{max(run.megabytes for run in runs):.0f}", loaded]


if __name__ == "__main__":
    main()
