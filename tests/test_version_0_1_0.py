"""A catalog and a run that version 0.1.0 left on disk open, search and resume: made by data/make_version_0_1_0.py."""

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from index.vector_index import VectorIndex
from retrieval import Catalog, load_encoder, read_pairs
from retrieval.cli import commands
from retrieval.train import TrainConfig, train
from retrieval.train.run_folder import RunFolder


@pytest.fixture
def old(tmp_path, monkeypatch):
    """The folder that version 0.1.0 left, as the current folder: its run names its model by a relative path."""
    with zipfile.ZipFile(Path(__file__).parent / "data" / "version_0_1_0.zip") as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def expected(old):
    return json.loads((old / "expected.json").read_text())


def answer(hits):
    return [(hit.id, pytest.approx(hit.score, abs=1e-4)) for hit in hits]


@pytest.mark.parametrize("read_only", [True, False])
def test_the_catalog_opens_and_answers_as_version_0_1_0_did(expected, read_only):
    with Catalog.open("catalog", read_only=read_only) as catalog:
        assert {name: catalog.info()[name] for name in expected["info"]} == expected["info"]
        for text, hits in expected["images"].items():
            assert list(map(tuple, hits)) == answer(catalog.search(text, mode="vectors", k=4))
        captions = catalog.search(image="photos/2.png", k=4)
        assert list(map(tuple, expected["captions"])) == answer(captions)
        where = {"price": {"$lt": 40}, "color": {"$in": ["red", "blue"]}}
        assert list(map(tuple, expected["cheap"])) == answer(catalog.search("red", mode="vectors", k=4, where=where))
        assert list(map(tuple, expected["words"])) == answer(catalog.search("number 7", mode="words", k=4))


def test_the_saved_index_is_used_and_a_build_finds_nothing_to_do(expected, monkeypatch):
    monkeypatch.setattr(VectorIndex, "build", lambda *_, **__: pytest.fail("built an index that was there"))
    with Catalog.open("catalog", encoder=load_encoder("model", device="cpu")) as catalog:
        assert catalog.info()["index"].startswith("images: hnsw (asked for)")
        assert [hit.id for hit in catalog.search("red", mode="vectors", k=1)]
        report = catalog.build(read_pairs("photos"))
    assert (report.added, report.changed, report.dropped, report.unchanged) == (0, 0, 0, expected["info"]["items"])


def test_the_run_resumes_with_the_settings_it_was_begun_with_and_ends_as_version_0_1_0_ended_it(old, expected):
    """Losses and the final text rows are those of the run that nobody killed, but for the rounding of other kernels."""
    config = RunFolder(old / "run").read_config()
    train(read_pairs("photos"), "run", config=config, resume=True)
    with (old / "run" / "training" / "log.csv").open(newline="") as log:
        losses = [float(row["loss"]) for row in csv.DictReader(log)]
    assert losses == pytest.approx(expected["losses"], abs=2e-3)
    rows = load_encoder("run", device="cpu").encode_texts(["a red square", "blue, number 8", "yellow"])
    np.testing.assert_allclose(rows, expected["rows"], atol=5e-3)
    assert len(RunFolder(old / "run").read_held_out()) == 24


@pytest.mark.usefixtures("no_export")
def test_the_command_line_resumes_the_run(old, runner):
    result = runner("train", "photos", "run", "--resume")
    assert result.exit_code == 0, result.output
    assert (old / "run" / "report.html").is_file()


def test_settings_of_version_0_1_0_keep_their_meaning(old):
    config = TrainConfig.from_json((old / "run" / "training" / "config.json").read_text())
    assert (config.epochs, config.hard_negatives, config.ema, config.validation_share) == (3, 0.5, 0.5, 0.4)


@pytest.fixture
def runner():
    from click.testing import CliRunner

    return lambda *arguments: CliRunner().invoke(commands, arguments)
