"""Averages of weights: the moving one, mixes of start and end, which of them is kept, and stopping early."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_towers import CONVOLUTIONAL, TINY, config_of, one_thread, pairs, weights  # noqa: F401 (fixtures)
from tiny_models import random_model, write_model
from torch import nn

from retrieval.encoder import load_encoder
from retrieval.evaluate import evaluate
from retrieval.train import TrainConfig, train
from retrieval.train.model.averaging import Ema, interpolate_weights, temporary_weights, wise_ft_alphas
from retrieval.train.run_folder import RECALL_NAMES, RunFolder
from retrieval.train.validation.comparison import QueryRecalls
from retrieval.train.validation.model_selection import select_last_equal


def test_ema_is_the_closed_form():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 3.0)
    ema, values = Ema(model, decay=0.5), []
    expected = 3.0
    for step, value in enumerate((5.0, -1.0, 4.0), start=1):
        nn.init.constant_(model.weight, value)
        ema.update(model, step=step)
        decay = min(0.5, step / (step + 10))
        expected = decay * expected + (1 - decay) * value
        values.append(ema.weights["weight"].item())
    assert values[-1] == pytest.approx(expected)
    with temporary_weights(model, ema.weights):
        assert model.weight.item() == values[-1]
    assert model.weight.item() == 4.0


def test_frozen_weights_are_the_same_bits_in_every_interpolation():
    """Frozen weights in a mix, and in a model that had others for a while."""
    model = random_model(CONVOLUTIONAL)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    zero = {"weight": torch.tensor([-0.0, 0.0])}  # equal, in other bits
    for alpha in (0.1, 0.4, 0.6):
        assert all(
            torch.equal(tensor, state[name]) for name, tensor in interpolate_weights(state, state, alpha).items()
        )
        assert interpolate_weights(zero, zero, alpha)["weight"].numpy().tobytes() == zero["weight"].numpy().tobytes()
    with temporary_weights(model, {name: tensor + 1 for name, tensor in state.items()}):
        assert not torch.equal(model.logit_scale, state["logit_scale"])
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_interpolated_weights_lie_between_start_and_end():
    start = {"weight": torch.tensor([1.0, 2.0]), "count": torch.tensor(3)}
    tuned = {"weight": torch.tensor([3.0, 0.0]), "count": torch.tensor(9)}
    assert interpolate_weights(start, tuned, 0.25)["weight"].tolist() == [1.5, 1.5]
    assert torch.equal(interpolate_weights(start, tuned, 1.0)["weight"], tuned["weight"])
    assert interpolate_weights(start, tuned, 0.25)["count"] == 9


def marks_of(*found, count=200):
    """A model that finds these items, both ways."""
    right = np.repeat(np.isin(np.arange(count), np.concatenate(found))[:, None], 3, axis=1).astype(float)
    return QueryRecalls(((right, np.arange(count)), (right, np.arange(count))))


def test_the_greatest_alpha_that_is_as_good_as_the_best_is_selected():
    """Of 200 items two more, of which five went and seven came, are noise; twenty more, none of which went, are not."""
    low, noise, best = marks_of(range(100)), marks_of(range(118)), marks_of(range(5, 120), range(120, 125))
    assert select_last_equal([best, noise, low, low]) == 1
    assert select_last_equal([low, best, noise]) == 2
    assert select_last_equal([best, marks_of(range(110)), low]) == 0
    assert select_last_equal([best, best]) == 1


def graded(run, source):
    figures = evaluate(load_encoder(run, device="cpu"), source, resamples=0).metrics
    return {name: figures[name] for name in RECALL_NAMES}


def test_wise_ft_keeps_the_interpolation_of_start_and_end(pairs, tmp_path):  # noqa: F811
    start = write_model(tmp_path / "start", TINY)
    result = train(pairs, tmp_path / "run", config=config_of(start, wise_ft=0.25), validation=pairs)
    end = load_file(RunFolder(tmp_path / "run").checkpoint)
    old, kept = weights(start), weights(tmp_path / "run")
    for name, tensor in kept.items():
        assert torch.allclose(tensor, 0.75 * old[name] + 0.25 * end[f"model.{name}"], atol=1e-6), name
    assert result.alpha == 0.25
    assert graded(tmp_path / "run", pairs) == pytest.approx({name: result.best[name] for name in RECALL_NAMES})
    assert "25% of the way from the start, is kept" in result.summary()


def test_auto_keeps_an_interpolation_that_is_no_worse_than_the_start(pairs, tmp_path):  # noqa: F811
    start = write_model(tmp_path / "start", TINY)
    result = train(pairs, tmp_path / "run", config=config_of(start, epochs=10), validation=pairs)
    assert result.alpha in wise_ft_alphas(TrainConfig(image_blocks=0, tune="both"))
    assert result.best["mean_recall"] > result.before["mean_recall"]
    assert graded(tmp_path / "run", pairs) == pytest.approx({name: result.best[name] for name in RECALL_NAMES})


@pytest.mark.parametrize(
    ("settings", "boldest"),
    [
        ({"tune": "both", "image_blocks": 0}, 0.6),
        ({"tune": "heads"}, 0.6),
        ({"tune": "both"}, 0.4),
        ({"tune": "both", "image_blocks": 1}, 0.4),
        ({"tune": "image"}, 0.4),
        ({"tune": "text"}, 0.4),
    ],
)
def test_alphas_are_smaller_where_more_is_tuned(settings, boldest):
    assert max(wise_ft_alphas(TrainConfig(**settings))) == boldest


def test_without_validation_a_small_alpha_is_kept(pairs, tmp_path):  # noqa: F811
    """Of few pictures nothing is held out, and few pictures make a model forget most."""
    start = write_model(tmp_path / "start", TINY)
    result = train(pairs, tmp_path / "run", config=config_of(start, tune="both"))
    assert (result.held_out, result.alpha) == (0, 0.2)
    end = load_file(RunFolder(tmp_path / "run").checkpoint)
    old, kept = weights(start), weights(tmp_path / "run")
    for name, tensor in kept.items():
        assert torch.allclose(tensor, 0.8 * old[name] + 0.2 * end[f"model.{name}"], atol=1e-6), name
    assert "not validated: the last model, 20% of the way from the start, is kept" in result.summary()


def test_runs_from_random_weights_interpolate_nothing(pairs, tmp_path):  # noqa: F811
    start = write_model(tmp_path / "start", TINY)
    fresh = replace(config_of(start), model=TINY)
    assert train(pairs, tmp_path / "fresh", config=fresh, validation=pairs).alpha is None
    assert not RunFolder(tmp_path / "fresh").starting_weights.exists()


@pytest.mark.parametrize("settings", [{"ema": 0.9}, {"ema": 0.9, "wise_ft": "off"}, {"lora_rank": 2}, {"patience": 1}])
def test_a_run_with_averaging_resumes_to_the_same_bits(pairs, tmp_path, settings):  # noqa: F811
    start = write_model(tmp_path / "start", CONVOLUTIONAL)
    config = config_of(start, checkpoint_seconds=0, **settings)

    def kill(step, *_):
        if step in (2, 4, 7) and step not in seen:
            seen.append(step)
            raise ZeroDivisionError

    seen: list[int] = []
    train(pairs, tmp_path / "whole", config=config, validation=pairs)
    for _ in range(3):
        try:
            train(pairs, tmp_path / "killed", config=config, validation=pairs, progress=kill, resume=True)
        except ZeroDivisionError:
            continue
    train(pairs, tmp_path / "killed", config=config, validation=pairs, resume=True)
    train(pairs, tmp_path / "killed", config=config, validation=pairs, resume=True)
    assert seen
    for name in ("open_clip_model.safetensors", "training/state.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_ema_weights_are_evaluated_and_kept(pairs, tmp_path):  # noqa: F811
    start = write_model(tmp_path / "start", TINY)
    config = config_of(start, ema=0.999, wise_ft="off")
    train(pairs, tmp_path / "run", config=config)
    state = load_file(RunFolder(tmp_path / "run").checkpoint)
    kept = weights(tmp_path / "run")
    assert torch.equal(kept["visual.proj"], state["average.visual.proj"])
    assert not torch.equal(kept["visual.proj"], state["model.visual.proj"])


def test_training_stops_early_after_epochs_without_improvement(pairs, tmp_path):  # noqa: F811
    """A rate so low that no recall changes: after two epochs of that it is over, and stays so."""
    start = write_model(tmp_path / "start", TINY)
    config = config_of(start, epochs=9, patience=2, learning_rate=1e-12, wise_ft="off")
    assert train(pairs, tmp_path / "run", config=config, validation=pairs).steps == 6
    assert train(pairs, tmp_path / "run", config=config, validation=pairs, resume=True).steps == 6
    mixing = replace(config, wise_ft="auto")
    assert train(pairs, tmp_path / "mixed", config=mixing, validation=pairs).steps == 6
    assert train(pairs, tmp_path / "mixed", config=mixing, validation=pairs, resume=True).steps == 6
    assert train(pairs, tmp_path / "blind", config=config).steps == 27
