"""Every loss, hard negatives, parts, precisions and compiled towers, from end to end on tiny models."""

import json
from dataclasses import replace
from functools import partialmethod

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_models import tiny_config, write_model

from retrieval.errors import TrainingError
from retrieval.pairs import read_pairs
from retrieval.train import TrainConfig, train
from retrieval.train.loop import hard_negatives
from retrieval.train.losses import sigmoid
from retrieval.train.model.create import INIT_LOGIT_BIAS, fit_logit_bias
from retrieval.train.run_folder import RunFolder

CONFIG = TrainConfig(
    model=tiny_config(width=16, image_size=16, context_length=10),
    epochs=3,
    batch_size=8,
    learning_rate=3e-3,
    device="cpu",
    checkpoint_seconds=0,
    validation_share=0.0,
)
COLORS = ("red", "lime", "blue", "yellow", "magenta", "cyan")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """24 squares of six colours in four sizes; each caption says both."""
    folder = tmp_path_factory.mktemp("squares")
    lines = []
    for number in range(24):
        image = Image.fromarray(np.random.default_rng(number).integers(90, 120, (24, 24, 3), np.uint8))
        color, edge = COLORS[number % 6], number // 6
        image.paste(color, (edge, edge, 24 - 3 * edge, 24 - 3 * edge))
        image.save(folder / f"{number}.png")
        lines.append({"file_name": f"{number}.png", "text": f"a {color} square {edge}", "fame": number % 3})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return read_pairs(folder)


class KilledError(Exception):
    """Stands for a kill."""


def kill_at(wanted):
    def progress(step, *_):
        if step == wanted:
            raise KilledError

    return progress


def weights(run):
    return (run / "open_clip_model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "contrastive", "positives": "share", "label_smoothing": 0.1, "weight_attribute": "fame"},
        {"loss": "sigmoid", "micro_batch": 3},
        {"loss": "triplet"},
        {"precision": "bfloat16"},
        {"precision": "float16", "micro_batch": 5},
        {"hard_negatives": 0.5},
    ],
    ids="-".join,
)
def test_a_run_learns_and_resumes_to_the_same_bits(pairs, tmp_path, settings):
    config = replace(CONFIG, **settings)
    train(pairs, tmp_path / "whole", config=config)
    for step in (2, 3, 5):
        with pytest.raises(KilledError):
            train(pairs, tmp_path / "killed", config=config, resume=True, progress=kill_at(step))
    train(pairs, tmp_path / "killed", config=config, resume=True)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert (
        RunFolder(tmp_path / "killed").checkpoint.read_bytes() == RunFolder(tmp_path / "whole").checkpoint.read_bytes()
    )
    losses = [float(row["loss"]) for row in RunFolder(tmp_path / "whole").read_log()]
    assert losses[-1] < losses[0]


def test_a_sigmoid_run_has_a_logit_bias_that_open_clip_loads(pairs, tmp_path):
    train(pairs, tmp_path / "run", config=replace(CONFIG, loss="sigmoid"))
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'run'}")
    assert model.logit_bias.item() == load_file(tmp_path / "run" / "open_clip_model.safetensors")["logit_bias"].item()
    assert model.logit_bias.item() != INIT_LOGIT_BIAS
    assert model.logit_scale.exp().item() == pytest.approx(10, rel=0.2)


def test_the_fitted_logit_bias_predicts_as_many_matches_as_pairs():
    """Orthogonal pairs at temperature 1: b σ(1 + x) + b (b - 1) σ(x) = b."""
    bias = fit_logit_bias((torch.eye(6), torch.eye(6)), torch.tensor(1.0))
    right, wrong = (1 / (1 + np.exp(-score - bias)) for score in (1.0, 0.0))
    assert 6 * right + 30 * wrong == pytest.approx(6, abs=1e-6)


def test_the_fitted_logit_bias_minimises_the_loss():
    random = torch.Generator().manual_seed(3)
    rows = [torch.nn.functional.normalize(torch.randn(20, 6, generator=random), dim=1) for _ in range(2)]
    scale = torch.tensor(12.0)
    bias = fit_logit_bias(rows, scale)
    losses = [sigmoid(*rows, scale=scale, bias=torch.tensor(bias + shift)).item() for shift in (-0.2, 0.0, 0.2)]
    assert losses[1] < min(losses[0], losses[2])


def test_a_pretrained_model_without_a_logit_bias_starts_from_the_fitted_one(pairs, tmp_path):
    start = write_model(tmp_path / "start", tiny_config(width=16, image_size=16, context_length=10))
    config = replace(CONFIG, model=str(start), loss="sigmoid", epochs=1, learning_rate=1e-6, wise_ft="off")
    train(pairs, tmp_path / "run", config=config)
    bias = load_file(tmp_path / "run" / "open_clip_model.safetensors")["logit_bias"].item()
    assert -19 < bias < 4  # of a temperature of 14, whose scores are hardly told apart yet
    assert abs(bias - INIT_LOGIT_BIAS) > 1e-3


def test_mined_negatives_meet_in_the_next_batches_and_are_never_positives(pairs, tmp_path, monkeypatch):
    """Of every batch but the last of each epoch, pictures beyond the anchors are hard for one of these."""
    tables, met = [], []
    mine, teach = hard_negatives.mine_hard_negatives, hard_negatives.prefetch_map

    def spied_mining(images, texts, *, captions, positives):
        hard = mine(images, texts, captions=captions, positives=positives)
        for place, others in enumerate(hard.images.tolist()):
            pairs = zip(others, hard.captions[place].tolist(), strict=True)
            assert not {captions[other][which] for other, which in pairs if other >= 0} & set(positives[place])
        tables.append(hard)
        return hard

    def spied(work, items, **threads):
        for batch in teach(work, items, **threads):
            if tables and hasattr(batch, "images"):
                met.append((tables[-1], batch.step, batch.images.tolist()))
            yield batch

    monkeypatch.setattr(hard_negatives, "mine_hard_negatives", spied_mining)
    monkeypatch.setattr(hard_negatives, "prefetch_map", spied)
    train(pairs, tmp_path / "run", config=replace(CONFIG, hard_negatives=0.5))
    assert len(tables) == 2  # none before the first epoch of a model that knows nothing
    assert len(met) == 6
    for hard, step, pictures in met:
        hard_ones = [one for one in pictures[4:] if one in set(hard.images[pictures[:4]].flat)]
        assert len(hard_ones) == 4 or step % 3 or not (hard.images >= 0).any()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # while torch compiles
def test_compiled_towers_give_the_same_training(pairs, tmp_path, monkeypatch):
    """Traced as for the compiler, with gradients, but run by torch: the compiler itself takes 40 s even for these."""
    compiles = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(compiles, backend="aot_eager"))
    model = tiny_config(width=16, image_size=16, context_length=10, layers=1)
    model["vision_cfg"]["layers"] = 1
    config = replace(CONFIG, model=model, epochs=1, batch_size=24)
    plain = train(pairs, tmp_path / "plain", config=config)
    compiled = train(pairs, tmp_path / "compiled", config=replace(config, compile=True))
    assert compiled.loss == pytest.approx(plain.loss, rel=1e-4)
    assert load_file(tmp_path / "compiled" / "open_clip_model.safetensors").keys() == (
        load_file(tmp_path / "plain" / "open_clip_model.safetensors").keys()
    )


@pytest.mark.parametrize("value", [None, "much", -1])
def test_a_missing_or_invalid_weight_is_named(pairs, tmp_path, value):
    first = replace(pairs[0], attributes={"fame": value})
    broken = replace(pairs, pairs=(first, *pairs.pairs[1:]))
    with pytest.raises(TrainingError, match=r"The weight_attribute 'fame' of 0\.png is .*\. Give every pair a number"):
        train(broken, tmp_path / "run", config=replace(CONFIG, weight_attribute="fame"))
