"""Training from end to end on tiny models: it converges, stops, resumes exactly, and refuses invalid input."""

import json
import math
import os
import signal
import threading
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import random_model, tiny_config, write_model

from retrieval.encoder import load_encoder
from retrieval.errors import RetrievalError, TrainingError
from retrieval.evaluate import evaluate
from retrieval.pairs import Skipped, read_pairs
from retrieval.train import TrainConfig, train
from retrieval.train.defaults import apply_defaults
from retrieval.train.loop import gradcache as step_file
from retrieval.train.loop import trainer
from retrieval.train.loop.trainer import learning_rate
from retrieval.train.model.create import create_model
from retrieval.train.model.towers import encode_tokens
from retrieval.train.run_folder import RECALL_NAMES, RunFolder

COLORS = ("red", "lime", "blue", "yellow", "magenta", "cyan", "black", "white")
MODEL = {  # a convolutional image tower, so that batch normalisation and channels last take part
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
QUICK = TrainConfig(model=MODEL, epochs=2, batch_size=16, device="cpu", checkpoint_seconds=0, seed=1)


def draw(folder, name, color):
    """A colored square on gray, with its own noise."""
    noise = np.random.default_rng(sum(map(ord, name))).integers(0, 40, (40, 40, 3), np.uint8)
    image = Image.fromarray(noise + np.uint8(90))
    image.paste(color, (8, 8, 32, 32))
    image.save(folder / name)


@pytest.fixture(autouse=True)
def one_thread():
    """Such small models are slower on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """32 squares in eight colors; each has a caption with its color and one with color and number."""
    folder = tmp_path_factory.mktemp("squares")
    lines = []
    for number in range(32):
        color = COLORS[number % len(COLORS)]
        draw(folder, f"{number}.png", color)
        lines.append({"file_name": f"{number}.png", "captions": [f"a {color} square", f"{color}, number {number}"]})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return read_pairs(folder)


def weights(run):
    return (run / "open_clip_model.safetensors").read_bytes()


class KilledError(Exception):
    """Stands for a kill: nothing in the library catches it."""


def kill_at(wanted):
    def progress(step, *_):
        if step == wanted:
            raise KilledError

    return progress


def test_training_reaches_full_recall_on_colors_both_ways(squares, tmp_path):
    """Every text "a ... square" finds a square of its color first, and the other way round."""
    config = replace(QUICK, epochs=30, learning_rate=3e-3, checkpoint_seconds=1000)
    pairs = replace(squares, pairs=tuple(replace(pair, captions=pair.captions[:1]) for pair in squares))
    result = train(pairs, tmp_path / "run", config=config)
    report = evaluate(load_encoder(tmp_path / "run", device="cpu"), pairs, resamples=0)
    assert report.metrics["text_to_image_recall@1"] == 1
    assert report.metrics["image_to_text_recall@1"] == 1
    assert (result.steps, result.images, result.held_out) == (60, 32, 0)
    assert result.summary().startswith(f"{tmp_path / 'run'}: 60 steps on 32 images, loss ")
    assert "not validated" in result.summary()


def test_plain_open_clip_loads_the_run_with_the_same_embeddings(squares, tmp_path):
    train(squares, tmp_path, config=QUICK)
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    model.eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a red square", "blue"])
    picture = Image.open(squares[0].image.path).convert("RGB")
    with torch.inference_mode():
        theirs = [
            model.encode_text(tokens, normalize=True),
            model.encode_image(preprocess(picture)[None], normalize=True),
        ]
    encoder = load_encoder(tmp_path, device="cpu")
    assert encoder.encode_texts(["a red square", "blue"]) == pytest.approx(theirs[0].numpy(), abs=1e-5)
    assert encoder.encode_images([picture]) == pytest.approx(theirs[1].numpy(), abs=1e-5)


def test_a_run_killed_at_any_step_and_resumed_ends_in_the_same_bits(squares, tmp_path):
    torch.set_num_threads(2)
    train(squares, tmp_path / "whole", config=QUICK)
    for step in (1, 2, 3):
        with pytest.raises(KilledError):
            train(squares, tmp_path / "killed", config=QUICK, resume=True, progress=kill_at(step))
    train(squares, tmp_path / "killed", config=QUICK, resume=True)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert (
        RunFolder(tmp_path / "killed").checkpoint.read_bytes() == RunFolder(tmp_path / "whole").checkpoint.read_bytes()
    )
    steps = [[row["step"] for row in RunFolder(tmp_path / name).read_log()] for name in ("whole", "killed")]
    assert steps == [["1", "2", "3", "4"]] * 2


def test_micro_batches_start_with_batch_norm_statistics_that_separate_images(squares, tmp_path):
    """Batch normalization keeps fixed statistics then. Random weights have none, so those of the first batch are used.

    Without, the mean cosine is .9999. A run that is killed and resumed keeps them, to the bit.
    """
    config = replace(QUICK, micro_batch=5, ema=0.5)
    with pytest.raises(KilledError):
        train(squares, tmp_path / "killed", config=config, progress=kill_at(1))
    begun = load_file(tmp_path / "killed" / "open_clip_model.safetensors")
    rows = load_encoder(tmp_path / "killed", device="cpu").encode_images(
        [Image.open(pair.image.path) for pair in squares]
    )
    assert (rows @ rows.T)[~np.eye(len(rows), dtype=bool)].mean() < 0.6
    train(squares, tmp_path / "run", config=config)
    train(squares, tmp_path / "killed", config=config, resume=True)
    assert weights(tmp_path / "killed") == weights(tmp_path / "run")
    ended = load_file(tmp_path / "run" / "open_clip_model.safetensors")
    assert torch.equal(ended["visual.bn1.running_mean"], begun["visual.bn1.running_mean"])
    assert not torch.equal(ended["visual.conv1.weight"], begun["visual.conv1.weight"])


def test_a_kill_between_the_best_model_and_its_checkpoint_changes_nothing(squares, tmp_path, monkeypatch):
    """The model of the first epoch is already saved; the checkpoint is still that of the step before."""
    train(squares, tmp_path / "whole", config=QUICK, validation=squares)
    save = trainer.save_checkpoint

    def killed(path, *, progress, **parts):
        if progress["step"] == 2:
            raise KilledError
        save(path, progress=progress, **parts)

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "save_checkpoint", killed)
        with pytest.raises(KilledError):
            train(squares, tmp_path / "killed", config=QUICK, validation=squares)
    train(squares, tmp_path / "killed", config=QUICK, validation=squares, resume=True)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert (
        RunFolder(tmp_path / "killed").checkpoint.read_bytes() == RunFolder(tmp_path / "whole").checkpoint.read_bytes()
    )


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_stop_after_the_current_step_with_a_checkpoint(squares, tmp_path, kind):
    """A preempted machine sends SIGTERM."""

    def press(step, *_):
        if step == 2:
            os.kill(os.getpid(), kind)

    handler = signal.getsignal(kind)
    config = replace(QUICK, checkpoint_seconds=1000)
    with pytest.raises(KeyboardInterrupt):
        train(squares, tmp_path / "run", config=config, progress=press)
    assert signal.getsignal(kind) is handler
    assert [row["step"] for row in RunFolder(tmp_path / "run").read_log()] == ["1", "2"]
    later = []
    train(squares, tmp_path / "run", config=config, resume=True, progress=lambda step, *_: later.append(step))
    assert later == [3, 4]


def test_training_works_outside_the_main_thread(squares, tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(train(squares, tmp_path, config=replace(QUICK, epochs=1))))
    thread.start()
    thread.join()
    assert results[0].steps == 2


def test_resuming_a_finished_run_changes_nothing(squares, tmp_path):
    first = train(squares, tmp_path, config=QUICK)
    before = weights(tmp_path)
    again = train(squares, tmp_path, config=QUICK, resume=True)
    assert (again.steps, again.loss, again.best_step) == (first.steps, first.loss, first.best_step)
    assert weights(tmp_path) == before


def test_a_non_finite_loss_stops_with_the_step_and_keeps_the_last_good_model(squares, tmp_path, monkeypatch):
    whole = step_file.compute_loss
    calls = []

    def broken(*rows, **settings):
        calls.append(1)
        return whole(*rows, **settings) * (math.nan if len(calls) == 3 else 1)

    with monkeypatch.context() as patched:
        patched.setattr(step_file, "compute_loss", broken)
        with pytest.raises(TrainingError, match=r"The loss is no longer finite at step 3 of 4\. .* below 0\.001"):
            train(squares, tmp_path / "run", config=QUICK)
    kept = load_file(RunFolder(tmp_path / "run").checkpoint)
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())
    train(squares, tmp_path / "run", config=QUICK, resume=True)
    train(squares, tmp_path / "whole", config=QUICK)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_a_run_with_other_settings_or_pairs_is_refused(squares, tmp_path):
    train(squares, tmp_path / "run", config=QUICK)
    with pytest.raises(TrainingError, match=r"run already holds a training run\. Resume it, or choose another"):
        train(squares, tmp_path / "run", config=QUICK)
    with pytest.raises(TrainingError, match=r"was begun with seed 1, now 2\. Resume"):
        train(squares, tmp_path / "run", config=replace(QUICK, seed=2), resume=True)
    fewer = replace(squares, pairs=squares.pairs[:-1])
    with pytest.raises(TrainingError, match="was begun with other images or texts"):
        train(fewer, tmp_path / "run", config=QUICK, resume=True)


def test_a_second_training_in_the_same_folder_is_refused(squares, tmp_path):
    refused = []

    def meanwhile(step, *_):
        if step == 1:
            with pytest.raises(TrainingError, match=r"Another training is running in .*run .process [0-9]+.\. Wait"):
                train(squares, tmp_path / "run", config=QUICK, resume=True)
            refused.append(step)

    train(squares, tmp_path / "run", config=QUICK, progress=meanwhile)
    assert refused == [1]
    assert not (tmp_path / "run" / "training" / "lock").exists()
    train(squares, tmp_path / "run", config=QUICK, resume=True)


def test_a_balanced_run_shows_rare_classes_more_and_resumes_to_the_same_bits(squares, tmp_path):
    """28 squares of seven colors and one of the eighth; the classes of the images are their texts."""
    pairs = replace(squares, pairs=tuple(pair for place, pair in enumerate(squares) if place % 8 or place == 0))
    config = replace(QUICK, balance="text", word_dropout=0.2)
    train(pairs, tmp_path / "whole", config=config)
    with pytest.raises(KilledError):
        train(pairs, tmp_path / "killed", config=config, progress=kill_at(3))
    train(pairs, tmp_path / "killed", config=config, resume=True)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    train(pairs, tmp_path / "plain", config=replace(config, balance=""))
    assert weights(tmp_path / "plain") != weights(tmp_path / "whole")


def test_unreadable_images_are_named_and_skipped(tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in range(8):
        draw(folder, f"{number}.png", COLORS[number])
        (folder / f"{number}.txt").write_text(f"a {COLORS[number]} square")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "broken.txt").write_text("a broken picture")
    (folder / "silent.png").write_bytes((folder / "0.png").read_bytes())
    pairs = read_pairs(folder)
    missing, other = (Skipped(name, "there is no such file") for name in ("gone.png", "lost.png"))
    asked = replace(pairs, skipped=(other,))
    result = train(replace(pairs, skipped=(missing,)), tmp_path / "run", config=QUICK, validation=asked)
    assert result.images == 8
    names = [skipped.name for skipped in result.skipped]
    assert names == ["gone.png", "lost.png", "broken.png", "silent.png", "broken.png"]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert all(page.count(name) for name in names)


def test_unreadable_validation_pairs_are_an_error(squares, tmp_path):
    """Otherwise they would turn off validation, and with it the choice of the saved model."""
    missing = replace(squares, pairs=(), skipped=(Skipped("7.png", "there is no such file"),))
    with pytest.raises(TrainingError, match=r"to validate on\. .* skipped one, 7\.png, there is no such file"):
        train(squares, tmp_path / "run", config=QUICK, validation=missing)
    silent = replace(squares, pairs=tuple(replace(pair, captions=()) for pair in squares))
    with pytest.raises(TrainingError, match="has no readable images with a caption to validate on"):
        train(squares, tmp_path / "run", config=QUICK, validation=silent)


def test_fewer_than_two_images_are_an_error(squares, tmp_path):
    one = replace(squares, pairs=squares.pairs[:1])
    with pytest.raises(TrainingError, match="has 1 readable images with a caption, but training needs at least two"):
        train(one, tmp_path / "run", config=QUICK)
    silent = replace(squares, pairs=tuple(replace(pair, captions=()) for pair in squares))
    with pytest.raises(TrainingError, match=r"has 0 readable .* skipped one, 0\.png, has no caption to learn from"):
        train(silent, tmp_path / "run", config=QUICK)
    assert not (tmp_path / "run").exists()


def test_one_caption_for_all_images_gives_a_loss_of_zero(squares, tmp_path):
    """There are no negatives, and the weights stay finite."""
    same = replace(squares, pairs=tuple(replace(pair, captions=("a square",)) for pair in squares))
    assert train(same, tmp_path, config=QUICK).loss == 0
    assert all(torch.isfinite(tensor).all() for tensor in load_file(tmp_path / "open_clip_model.safetensors").values())


def test_the_best_validated_model_is_saved(squares, tmp_path):
    config = replace(QUICK, epochs=6, learning_rate=3e-3)
    result = train(squares, tmp_path, config=config, validation=squares)
    graded = {
        int(row["step"]): float(row["mean_recall"]) for row in RunFolder(tmp_path).read_log() if row["mean_recall"]
    }
    assert list(graded) == [2, 4, 6, 8, 10, 12]
    assert result.best["mean_recall"] == max(*graded.values(), result.before["mean_recall"])
    assert graded[result.best_step] == result.best["mean_recall"]
    figures = evaluate(load_encoder(tmp_path, device="cpu"), squares, resamples=0).metrics
    assert {name: figures[name] for name in RECALL_NAMES} == pytest.approx(
        {name: result.best[name] for name in RECALL_NAMES}
    )
    assert f"→ {100 * result.best['text_to_image_recall@10']:.1f}" in result.summary()


def test_the_start_is_saved_where_training_only_gets_worse(squares, tmp_path):
    """The start is a candidate: with a learning rate that makes the model diverge, step 0 wins."""
    good = replace(QUICK, epochs=12, learning_rate=3e-3, checkpoint_seconds=1000)
    train(squares, tmp_path / "good", config=good, validation=squares)
    ruin = TrainConfig(
        model=str(tmp_path / "good"),
        epochs=2,
        batch_size=16,
        learning_rate=10.0,
        freeze_bn_stats=False,  # else what grows is not divided by its own size, and the loss is soon no number
        device="cpu",
    )
    result = train(squares, tmp_path / "ruined", config=ruin, validation=squares)
    assert result.best_step == 0
    assert result.best == result.before
    kept, start = (load_file(tmp_path / name / "open_clip_model.safetensors") for name in ("ruined", "good"))
    assert all(torch.equal(kept[name], start[name]) for name in start)


def test_fine_tuning_starts_from_the_weights_and_temperature_of_the_model(squares, tmp_path):
    write_model(tmp_path / "start", tiny_config(width=16, image_size=32, context_length=12), seed=4)
    start = load_file(tmp_path / "start" / "open_clip_model.safetensors")
    config = TrainConfig(model=str(tmp_path / "start"), epochs=1, batch_size=16, device="cpu")
    train(squares, tmp_path / "run", config=config)
    tuned = load_file(tmp_path / "run" / "open_clip_model.safetensors")
    shifts = {name: (tuned[name] - start[name]).abs().max().item() for name in start}
    assert all(shift < 1e-3 for shift in shifts.values())  # two steps of at most 1e-4
    assert shifts["visual.proj"] > 0
    assert tuned["logit_scale"].item() == pytest.approx(math.log(1 / 0.07), abs=1e-3)


def test_resuming_does_not_need_the_starting_model(squares, tmp_path):
    write_model(tmp_path / "start", tiny_config(width=16, image_size=32, context_length=12))
    config = replace(QUICK, model=str(tmp_path / "start"))
    train(squares, tmp_path / "whole", config=config)
    with pytest.raises(KilledError):
        train(squares, tmp_path / "killed", config=config, progress=kill_at(3))
    (tmp_path / "start").rename(tmp_path / "elsewhere")
    (tmp_path / "start").mkdir()
    train(squares, tmp_path / "killed", config=config, resume=True)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def test_the_logit_scale_never_exceeds_100(squares, tmp_path):
    write_model(tmp_path / "start", tiny_config(width=16, image_size=32, context_length=12))
    path = tmp_path / "start" / "open_clip_model.safetensors"
    save_file({**load_file(path), "logit_scale": torch.tensor(9.0)}, path)
    config = TrainConfig(model=str(tmp_path / "start"), epochs=1, batch_size=16, device="cpu")
    train(squares, tmp_path / "run", config=config)
    assert float(RunFolder(tmp_path / "run").read_log()[-1]["scale"]) == pytest.approx(100, rel=1e-4)


def test_training_leaves_the_callers_random_state_and_torch_settings_unchanged(squares, tmp_path):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    train(squares, tmp_path, config=replace(QUICK, epochs=1))
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no-such-architecture", "There is no model 'no-such-architecture'. Name 'small', a folder"),
        (
            {**MODEL, "text_cfg": {"hf_tokenizer_name": "x/y", "tokenizer_kwargs": {"trust_remote_code": True}}},
            "config asks to run code",
        ),
        ("gone.json", "gone.json cannot be read as an open_clip config"),
        ({"embed_dim": 8}, "it lacks vision_cfg, text_cfg"),
        ({**MODEL, "vision_cfg": {"layer": 3}}, "open_clip cannot build the model"),
        ("ViT-B-32/no-such-tag", "no open_clip name/tag 'ViT-B-32/no-such-tag'"),
    ],
)
def test_an_unknown_or_invalid_model_is_an_error_that_names_it(squares, tmp_path, *, model, message):
    with pytest.raises(RetrievalError) as raised:
        train(squares, tmp_path / "run", config=replace(QUICK, model=model))
    assert message in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_model_config_file_may_have_either_form(squares, tmp_path):
    (tmp_path / "bare.json").write_text(json.dumps(MODEL))
    (tmp_path / "whole.json").write_text(json.dumps({"model_cfg": MODEL, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}}))
    for name in ("bare", "whole"):
        config = replace(QUICK, model=str(tmp_path / f"{name}.json"), epochs=1)
        train(squares, tmp_path / name, config=config)
    means = [
        json.loads((tmp_path / name / "open_clip_config.json").read_text())["preprocess_cfg"]["mean"]
        for name in ("bare", "whole")
    ]
    assert means == [list(open_clip.OPENAI_DATASET_MEAN), [0.5, 0.5, 0.5]]


def test_the_small_model_is_plain_open_clip_and_stays_small():
    checkpoint = create_model(TrainConfig(model="small"))
    assert checkpoint.name == "small"
    assert sum(parameter.numel() for parameter in checkpoint.model.parameters()) < 10e6
    assert type(checkpoint.model) is open_clip.CLIP


@pytest.mark.parametrize("config", [{}, {"custom_text": True}, {"custom_text": True, "no_causal_mask": True}])
def test_texts_without_padding_have_the_same_embeddings_and_gradients(config):
    """Cut and sorted by length or whole: equal within float error, in causal towers and in one that must not be cut."""
    tower = {name: value for name, value in config.items() if name != "custom_text"}
    config = tiny_config(width=16, context_length=20, **tower) | {"custom_text": "custom_text" in config}
    texts = ["a", "two words", "a longer text of eight words, it seems"] * 25
    tokens = open_clip.SimpleTokenizer(context_length=20)(texts)
    results = []
    for encode in (
        lambda model: encode_tokens(model, tokens.numpy(), device="cpu"),
        lambda model: model.encode_text(tokens),
    ):
        model = random_model(config)
        rows = torch.nn.functional.normalize(encode(model), dim=-1)
        (rows * torch.arange(16)).square().sum().backward()
        gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        results.append((rows.detach(), gradients))
    (ours, our_gradients), (theirs, their_gradients) = results
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in their_gradients.items():
        assert torch.allclose(our_gradients[name], gradient, atol=1e-4 * gradient.abs().max().item() + 1e-6), name


def test_the_learning_rate_warms_up_linearly_and_decays_along_a_cosine():
    config = apply_defaults(TrainConfig(learning_rate=1.0, warmup=0.1))
    rates = [learning_rate(step, config=config, steps=110) for step in range(110)]
    assert rates[:11] == pytest.approx([(step + 1) / 11 for step in range(11)])
    assert max(rates) == rates[10] == 1
    assert rates[11 + 99 // 3] == pytest.approx(0.75)
    assert rates[11:] == sorted(rates[11:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_progress_is_called_after_each_step(squares, tmp_path):
    told = []
    result = train(squares, tmp_path, config=QUICK, progress=lambda *facts: told.append(facts))
    assert [(step, steps) for step, steps, _, _ in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert told[-1][2] == result.loss
    assert all(speed > 0 for *_, speed in told)


def test_a_missing_gpu_is_an_error(squares, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(TrainingError, match="There is no usable GPU"):
        train(squares, tmp_path / "run", config=replace(QUICK, device="cuda"))


@pytest.mark.gpu
def test_training_on_a_gpu_gives_the_losses_of_the_cpu(squares, tmp_path):
    losses = [train(squares, tmp_path / name, config=replace(QUICK, device=name)).loss for name in ("cpu", "cuda")]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_resuming_keeps_the_resolved_epochs_and_learning_rate(tmp_path, squares):
    """From trained weights both depend on the model and the images where they are not set."""
    start = train(squares, tmp_path / "start", config=replace(QUICK, epochs=1)).run
    begun = replace(QUICK, model=str(start), epochs=1, learning_rate=1e-4, wise_ft="off")
    first = train(squares, tmp_path / "run", config=begun)
    before = weights(tmp_path / "run")
    again = train(squares, tmp_path / "run", config=replace(begun, epochs=None, learning_rate=None), resume=True)
    assert again.steps == first.steps
    assert weights(tmp_path / "run") == before


@pytest.mark.parametrize("validates", [False, True])
def test_a_diverged_model_is_not_saved_with_or_without_validation_pairs(tmp_path, squares, validates):
    """Only the last step makes it diverge: its loss was still finite."""
    config = replace(QUICK, epochs=1, batch_size=32, learning_rate=1e38, warmup=0.0, validation_share=0.0)
    with pytest.raises(TrainingError, match=r"no longer finite at step 1 of 1\. .* a learning rate below"):
        train(squares, tmp_path / "run", config=config, validation=squares if validates else None)
    assert np.isfinite(load_encoder(tmp_path / "run", device="cpu").encode_texts(["a"])).all()
