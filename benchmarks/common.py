"""What every benchmark shares: fair timing, and results that carry the machine, the versions and the command."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REST = 0.03  # seconds
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("crossmodal-retrieval", "numpy", "faiss-cpu", "faiss-gpu", "torch", "open_clip_torch", "pillow")


def environment() -> dict[str, object]:
    """Return the machine, the versions and the command of this run, as every committed result carries them."""
    return {"machine": _machine(), "versions": _versions(), "command": _command()}


def write_results(name: str, results: object) -> Path:
    """Write `results` to `results/<name>.json` beside this file, under the environment of the run; return the path.

    A NaN or an infinity is a ValueError: JSON has none, and other readers than Python's refuse the file.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps({**environment(), "results": results}, indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def read_results(name: str) -> dict[str, Any]:
    """Return what `write_results` wrote; empty where it wrote nothing yet."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else {}


def interleaved(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time every function once a round, in turn, and return the seconds of each round by name.

    A noisy neighbour then slows all of them alike: compare within a round (`median_ratio`), never across runs.
    Each function runs once before the clock starts, and the order turns by one from round to round. A rest before
    each lets the threads of the one before fall asleep: those of OpenBLAS spin for 20 ms after their work.
    """
    names = list(functions)
    for name in names:
        functions[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(REST)
            seconds[name].append(seconds_of(functions[name]))
    return seconds


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """Return how many times faster `fast` is: the median over the rounds of slow / fast."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def seconds_of(function: Callable[[], object]) -> float:
    """How long a function takes, once."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _machine() -> dict[str, object]:
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _gpu() -> str | None:
    """Name the GPU only where the benchmark itself has loaded torch: loading it here would cost seconds."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _command() -> str:
    """Return the command as one types it in the checkout, without the paths of one machine."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
