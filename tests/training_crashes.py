"""Kill trainings at any moment, resume them, and compare the outcome with an undisturbed training.

    python tests/training_crashes.py FOLDER KILLS SEED   kills so many; each is a line of JSON, also what ended before

All trainings are forks of one process that has done no more than import: that takes longer than a training here.
"""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from retrieval import files
from retrieval.pairs import read_pairs
from retrieval.train import TrainConfig, train

MODEL = {  # a convolutional image tower, so that batch normalisation takes part
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
CONFIG = TrainConfig(
    model=MODEL, epochs=3, batch_size=8, learning_rate=3e-3, device="cpu", checkpoint_seconds=0, word_dropout=0.1
)
PICTURES = 24


@dataclass(frozen=True)
class Moment:
    """When a training is killed: at the n-th time that it waits for the disk, or so long after it began.

    Attributes:
        sync: counted from 0, in the middle of writing a file; None for a matter of time.
        share: of the time that an undisturbed training takes.
    """

    sync: int | None
    share: float


def random_moment(seed: int) -> Moment:
    """Half of the moments are inside of a save, as a kill seldom hits one by chance on a fast disk."""
    chance = random.Random(seed)
    return Moment(chance.randrange(60) if seed % 2 else None, chance.random())


def write_pictures(folder: Path) -> Path:
    """Write squares of a colour on noise, with captions."""
    folder.mkdir(parents=True)
    for number in range(PICTURES):
        generator = np.random.default_rng(number)
        image = Image.fromarray(generator.integers(90, 130, (40, 40, 3), np.uint8))
        image.paste(tuple(generator.integers(0, 256, 3).tolist()), (8, 8, 32, 32))
        image.save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(f"a square, number {number}\nanother text of {number % 5}\n")
    return folder


def killed(folder: Path, *, kills: int, seed: int = 0) -> list[dict[str, Any]]:
    """Kill so many trainings in processes of their own, and say what became of each.

    Raises:
        AssertionError: one of them does not end in the weights, the checkpoint and the log of an undisturbed one.
    """
    command = [sys.executable, __file__, str(folder), str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def _forked(run: Path, pictures: Path, *, sync: int | None = None) -> int:
    """Start a training as a process of its own, which dies at a sync if that is asked for."""
    process = os.fork()
    if process:
        return process
    try:
        torch.set_num_threads(1)
        if sync is not None:
            _die_at(sync)
        pairs = read_pairs(pictures)
        train(pairs, run, config=CONFIG, validation=pairs, resume=True)
    except BaseException:  # noqa: BLE001 (it must not go on in the parent's program)
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _die_at(sync: int) -> None:
    """Kill this process at the n-th time that it waits for the disk: what it writes is neither whole nor in place."""
    waits = iter(range(10_000))
    real = files.os.fsync

    def fsync(descriptor: int) -> None:
        if next(waits) == sync:
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)

    files.os.fsync = fsync


def _wait(process: int) -> int:
    """The exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _outcome(run: Path) -> dict[str, Any]:
    """All that a run leaves that must be the same, but for how fast it was."""
    log = [line.split(",") for line in (run / "training" / "log.csv").read_text().splitlines()]
    return {
        "weights": (run / "open_clip_model.safetensors").read_bytes(),
        "state": (run / "training" / "state.safetensors").read_bytes(),
        "log": [[cell for place, cell in enumerate(line) if log[0][place] != "pairs_per_second"] for line in log],
        "files": sorted(str(path.relative_to(run)) for path in run.rglob("*")),
    }


def main() -> None:
    """Train undisturbed once, then kill, resume and compare."""
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    pictures = write_pictures(folder / "pictures")
    began = time.perf_counter()
    assert _wait(_forked(folder / "whole", pictures)) == 0
    seconds, whole = time.perf_counter() - began, _outcome(folder / "whole")
    met = 0
    for number in itertools.count(seed):
        if met == kills:
            break
        moment, run = random_moment(number), folder / str(number)
        process = _forked(run, pictures, sync=moment.sync)
        if moment.sync is None:
            time.sleep(moment.share * seconds)
            os.kill(process, signal.SIGKILL)
        code = _wait(process)
        state = run / "training" / "state.safetensors"
        told = {"seed": number, "killed": code == -signal.SIGKILL, "inside a save": moment.sync is not None}
        told["there was a checkpoint"] = state.is_file()
        met += told["killed"]
        assert code in {0, -signal.SIGKILL}, f"the training ended by itself with {code}"
        assert _wait(_forked(run, pictures)) == 0
        left = _outcome(run)
        assert left.keys() == whole.keys()
        assert not [name for name in whole if left[name] != whole[name]], f"{number}: not the same after a kill"
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
