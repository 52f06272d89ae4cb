"""Checkpoints: a loaded one continues exactly as the saved one."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from retrieval.errors import TrainingError
from retrieval.train.checkpoints import load_checkpoint, save_checkpoint

PROGRESS = {"step": 3, "best": {"mean_recall": 0.1 + 0.2}, "pairs": ["a", "b"]}


def network(seed=0):
    """A convolution with its channels last in memory, a norm with statistics, a scalar, and a weight never used."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    model.to(memory_format=torch.channels_last)
    model.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)


def learn(model, optimizer, *, steps):
    for step in steps:
        torch.manual_seed(step)
        (model.scale * model(torch.randn(5, 3, 8, 8))).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_training_resumes_from_a_checkpoint_bit_for_bit(tmp_path):
    model, optimizer = network()
    learn(model, optimizer, steps=range(3))
    save_checkpoint(tmp_path / "state", model=model, optimizer=optimizer, progress=PROGRESS)
    learn(model, optimizer, steps=range(3, 6))
    other, other_optimizer = network(seed=1)
    assert load_checkpoint(tmp_path / "state", model=other, optimizer=other_optimizer) == (PROGRESS, {})
    learn(other, other_optimizer, steps=range(3, 6))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_equal_states_give_equal_files(tmp_path):
    model, optimizer = network()
    learn(model, optimizer, steps=range(2))
    for name in ("one", "two"):
        save_checkpoint(tmp_path / name, model=model, optimizer=optimizer, progress=PROGRESS)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_optimizer_moments_are_saved_by_parameter_name(tmp_path):
    model, optimizer = network()
    learn(model, optimizer, steps=range(1))
    save_checkpoint(tmp_path / "state", model=model, optimizer=optimizer, progress=PROGRESS)
    tensors = load_file(tmp_path / "state")
    assert torch.equal(tensors["optimizer.exp_avg.0.weight"], optimizer.state[model[0].weight]["exp_avg"])
    assert "optimizer.exp_avg.unused" not in tensors


def damaged(path):
    path.write_bytes(path.read_bytes()[:-100])


def of_another_model(path):
    save_file({"model.x": torch.ones(1)}, path, metadata={"state": json.dumps({"format": 1, "facts": {}})})


def without_progress(path):
    save_file(load_file(path), path)


@pytest.mark.parametrize("spoil", [damaged, of_another_model, without_progress])
def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path, spoil):
    model, optimizer = network()
    path = tmp_path / "state"
    save_checkpoint(path, model=model, optimizer=optimizer, progress=PROGRESS)
    spoil(path)
    with pytest.raises(
        TrainingError, match=r"The checkpoint .*state cannot be read \(.*\)\. Train into another folder"
    ):
        load_checkpoint(path, model=model, optimizer=optimizer)


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path):
    model, optimizer = network()
    save_file({"model.x": torch.ones(1)}, tmp_path / "state", metadata={"state": json.dumps({"format": 2})})
    with pytest.raises(TrainingError, match="was written by a newer version"):
        load_checkpoint(tmp_path / "state", model=model, optimizer=optimizer)
