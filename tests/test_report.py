"""The report of a training run: conclusion, examples and leakage; the same after a kill."""

import base64
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_config, write_model

from retrieval.encoder import load_encoder
from retrieval.evaluate import evaluate
from retrieval.pairs import read_pairs
from retrieval.train import Callbacks, TrainConfig, train

COLORS = ("red", "lime", "blue", "yellow", "magenta", "cyan", "black", "white")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_squares(folder, seeds, *, quality=None):
    """Squares in eight colors on noise; their captions have characters that HTML must escape."""
    folder.mkdir()
    lines = []
    for seed in seeds:
        color = COLORS[seed % len(COLORS)]
        image = Image.fromarray(np.random.default_rng(seed).integers(90, 130, (8, 8, 3), np.uint8)).resize((40, 40))
        image.paste(color, (8 + seed % 5, 8, 30, 32))
        name = f"{seed}.png" if quality is None else f"{seed}.jpg"
        image.save(folder / name, quality=quality or 95, subsampling=0)
        lines.append({"file_name": name, "text": f"a {color} <square> {seed}"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return read_pairs(folder)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("squares")
    return write_squares(folder / "learn", range(48)), write_squares(folder / "ask", range(100, 148))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    start = tmp_path_factory.mktemp("start")
    write_model(start, tiny_config(width=16, image_size=32, context_length=12))
    return TrainConfig(
        model=str(start), epochs=8, batch_size=16, learning_rate=3e-3, device="cpu", checkpoint_seconds=0, seed=1
    )


class Page(HTMLParser):
    """Its text, and its pictures."""

    def __init__(self, html):
        super().__init__()
        self.texts, self.images = [], []
        self.feed(html)

    def handle_data(self, data):
        """Note a text."""
        self.texts += [" ".join(data.split())] if data.strip() else []

    def handle_starttag(self, tag, attrs):
        """Note a picture."""
        self.images += [dict(attrs)["src"]] if tag == "img" else []


def test_the_report_shows_the_conclusion_the_curves_and_examples(sets, config, tmp_path):
    learn, ask = sets
    graded = []
    result = train(
        learn,
        tmp_path / "run",
        config=replace(config, wise_ft="off"),
        validation=ask,
        callbacks=Callbacks(on_validation=graded.append),
    )
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert result.summary().splitlines()[-1] == result.conclusion
    assert result.conclusion in page.texts
    assert "<square>" not in html
    assert any(re.fullmatch(r"a \w+ <square> 1\d\d", text) for text in page.texts)
    assert any("optimistic" in text or "too good" in text for text in page.texts)
    assert {"Loss", "Learning rate", "Recall on the validation pairs", "learning_rate", "0.003"} <= set(page.texts)
    photos = [uri for uri in page.images if uri.startswith("data:image/webp;base64,")]
    assert len(page.images) - len(photos) == 3
    assert all(Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (40, 40) for uri in photos)
    assert len(photos) >= 6
    assert len(graded) == 9
    assert result.best == graded[[one["mean_recall"] for one in graded].index(result.best["mean_recall"])]


def test_the_saved_model_is_evaluated_on_the_validation_pairs(sets, config, tmp_path):
    learn, ask = sets
    result = train(learn, tmp_path / "run", config=config, validation=ask)
    before, after = (
        evaluate(load_encoder(folder, device="cpu"), ask, resamples=0).metrics
        for folder in (config.model, tmp_path / "run")
    )
    for name, change in result.comparisons.items():
        assert change.before.value == pytest.approx(before[name])
        assert change.after.value == pytest.approx(after[name])
        assert change.difference.value == pytest.approx(after[name] - before[name])
        assert change.difference.low <= change.difference.value <= change.difference.high


class KilledError(Exception):
    """Stands for a kill: nothing in the library catches it."""


def test_a_resumed_run_has_the_same_conclusion(sets, config, tmp_path):
    learn, ask = sets

    def killed(step, *_):
        if step == 14:
            raise KilledError

    whole = train(learn, tmp_path / "whole", config=config, validation=ask)
    with pytest.raises(KilledError):
        train(learn, tmp_path / "killed", config=config, validation=ask, progress=killed)
    resumed = train(learn, tmp_path / "killed", config=config, validation=ask, resume=True)
    assert resumed.conclusion == whole.conclusion
    assert resumed.comparisons == whole.comparisons
    again = train(learn, tmp_path / "killed", config=config, validation=ask, resume=True)
    assert again.comparisons == whole.comparisons


def test_without_validation_pairs_the_conclusion_is_unknown(sets, config, tmp_path):
    result = train(sets[0], tmp_path / "run", config=replace(config, epochs=1))
    assert result.conclusion.startswith("It is unknown whether training helped: nothing was held out")
    assert result.conclusion in Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8")).texts


def test_leakage_is_counted_and_reported(sets, config, tmp_path):
    """Of 16 validation images 4 are training images, 4 are saved again, and 3 texts recur in other case."""
    learn, _ = sets
    same = write_squares(tmp_path / "same", range(4))
    again = write_squares(tmp_path / "again", range(4, 8), quality=95)
    fresh = write_squares(tmp_path / "fresh", range(200, 208))
    known = [pair.captions[0].upper() for pair in learn.pairs[10:13]]
    told = [
        replace(pair, id=f"v{place}", captions=(known[place] if place < 3 else f"new {place}",))
        for place, pair in enumerate((*same, *again, *fresh))
    ]
    validation = replace(fresh, pairs=tuple(told))
    result = train(learn, tmp_path / "run", config=replace(config, epochs=1), validation=validation)
    assert (result.leakage.images, result.leakage.near_duplicates, result.leakage.texts) == (4, 4, 3)
    line = "Validation shares 4 images, 4 near-duplicates of images and 3 texts with training"
    assert line in result.summary()
    assert result.summary().splitlines()[-1] == result.conclusion


def test_reading_images_calls_the_progress_callback(sets, config, tmp_path):
    told = []
    callbacks = Callbacks(on_images_read=lambda done, total: told.append((done, total)))
    train(sets[0], tmp_path / "run", config=replace(config, epochs=1), validation=sets[1], callbacks=callbacks)
    assert told == [(done, 48) for done in range(1, 49)] * 2


def test_a_report_without_the_package_that_plots_says_so_and_has_everything_else(sets, config, tmp_path, caplog):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.figure", None)
        run = train(sets[0], tmp_path / "run", config=replace(config, epochs=1), validation=sets[1]).run
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "This page has no plots. Plotting needs the package matplotlib" in html
    assert "Lost most" in html or "Gained most" in html
    assert "image/svg+xml" not in html
    assert "has no plots. Plotting needs" in caplog.messages[-1]
