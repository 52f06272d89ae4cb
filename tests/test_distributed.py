"""Several processes under torchrun train the same model as one process does on the joint batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from tiny_models import tiny_config

from retrieval.pairs import read_pairs
from retrieval.train import TrainConfig, train
from retrieval.train.distributed import ProcessGroup, join_process_group
from retrieval.train.run_folder import RunFolder

CONVOLUTIONS = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "patch_size": None}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(1, 9))
def test_shards_partition_the_batch_evenly(count, size):
    shares = [ProcessGroup(place, size).shard(count) for place in range(size)]
    assert [item for share in shares for item in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_group_of_one_process_communicates_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_process_group("cpu") as process_group:
        assert (process_group.is_main, process_group.world_size) == (True, 1)
        assert process_group.broadcast_values([3.5]) == [3.5]
        assert process_group.any(flag=True)
        rows = torch.rand(4, 2)
        assert process_group.all_gather(rows, 4) is rows


def write_shapes(folder: Path, count: int = 26) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    lines = []
    for number in range(count):
        pixels = random.integers(0, 60, (24, 24, 3), np.uint8)
        pixels[4:20, 4:20, number % 3] += 180
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(
            {"file_name": f"{number}.png", "text": f"a thing of colour {number % 5}", "weight": 1 + number % 2}
        )
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def launched(
    folder: Path, command: list[str], *, processes: int, restarts: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a Python command under torchrun, as users start it."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    torchrun += ["--max-restarts", str(restarts)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return subprocess.run(
        [*torchrun, *command], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize(("vision", "micro_batch"), [({}, None), (CONVOLUTIONS, 4)])
def test_two_processes_train_the_same_model_as_one(tmp_path, vision, micro_batch):
    """Uneven shards (batches of 9 and 8), another micro-batch, weights, and texts that several images share.

    With batch normalisation, one process alone has to take its batches in parts too, to keep its statistics.
    """
    pairs = write_shapes(tmp_path / "pairs")
    model = {"model_cfg": tiny_config(width=16, image_size=32, context_length=12)}
    model["model_cfg"]["vision_cfg"] |= vision
    (tmp_path / "tiny.json").write_text(json.dumps(model))
    config = TrainConfig(
        model=str(tmp_path / "tiny.json"),
        epochs=3,
        batch_size=9,
        device="cpu",
        precision="float32",
        weight_attribute="weight",
        validation_share=0.0,
        micro_batch=micro_batch,
    )
    train(read_pairs(pairs), tmp_path / "one", config=config)
    options = ["--model", config.model, "--epochs", "3", "--batch-size", "9", "--weight-attribute", "weight"]
    options += ["--device", "cpu", "--precision", "float32", "--micro-batch", "3"]
    told = launched(tmp_path, ["-m", "retrieval", "train", str(pairs), str(tmp_path / "two"), *options], processes=2)
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("9 steps on 26 images") == 1  # one process reports
    one, two = (RunFolder(tmp_path / name).read_log() for name in ("one", "two"))
    assert [row["step"] for row in two] == [row["step"] for row in one]
    losses, expected = ([float(row["loss"]) for row in rows] for rows in (two, one))
    assert losses == pytest.approx(expected, rel=1e-4)
    assert expected[0] != pytest.approx(expected[-1], rel=1e-2)
    mine, theirs = (load_file(tmp_path / name / "open_clip_model.safetensors") for name in ("two", "one"))
    for name, tensor in theirs.items():
        assert torch.allclose(mine[name], tensor, atol=2e-4), name


LEARN = """
import os, signal, sys
from retrieval.pairs import read_pairs
from retrieval.train import TrainConfig, train

def killed(step, *_):
    if step == 5 and os.environ["RANK"] == os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)

config, progress = TrainConfig.from_json(sys.argv[2]), killed if sys.argv[1] == "run" else None
train(read_pairs("pairs"), sys.argv[1], config=config, resume=True, progress=progress)
"""


@pytest.mark.usefixtures("no_export")
def test_a_killed_process_is_restarted_and_trains_the_same_model(tmp_path):
    """The main one, which writes. With --max-restarts torchrun restarts all; they resume from the checkpoint."""
    write_shapes(tmp_path / "pairs")
    (tmp_path / "learn.py").write_text(LEARN)
    model = {"model_cfg": tiny_config(width=16, image_size=32, context_length=12)}
    config = TrainConfig(
        model=model, epochs=20, batch_size=9, device="cpu", precision="float32", checkpoint_seconds=0
    ).to_json()
    whole = launched(tmp_path, ["learn.py", "whole", config], processes=2)
    assert whole.returncode == 0, whole.stderr
    told = launched(tmp_path, ["learn.py", "run", config], processes=2, restarts=1)
    assert told.returncode == 0, told.stderr
    assert "exitcode: -9) local_rank: 0" in told.stderr, told.stderr
    mine, theirs = (load_file(tmp_path / name / "open_clip_model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(mine[name], tensor) for name, tensor in theirs.items())
    resumed, undisturbed = ([row["step"] for row in RunFolder(tmp_path / name).read_log()] for name in ("run", "whole"))
    assert resumed == undisturbed
