"""The starter: the model that comes with the package, what it finds, and that it is taken where none is named."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open

from retrieval import Catalog, load_encoder
from retrieval.cli import commands
from retrieval.demo.sample_shop import draw_shop
from retrieval.encoder import STARTER
from retrieval.evaluate import evaluate
from retrieval.pairs import read_pairs

FOLDER = Path(str(files("retrieval") / STARTER))


@pytest.fixture(scope="module")
def starter():
    return load_encoder(STARTER, device="cpu")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return draw_shop(tmp_path_factory.mktemp("shop"), count=240)


def test_starter_is_at_most_50_mb_in_half_precision_with_a_model_card():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) <= 50e6
    with safe_open(FOLDER / "open_clip_model.safetensors", framework="pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys() if "num_batches" not in name}  # noqa: SIM118
    assert kinds == {"F16"}
    assert "licence" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_plain_open_clip_loads_the_starter_with_the_same_rows(starter):
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{FOLDER}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{FOLDER}")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 260, 3), np.uint8))
    with torch.inference_mode():
        image = model.eval().encode_image(preprocess(picture)[None], normalize=True)
        text = model.encode_text(tokenizer(["a red bicycle"]), normalize=True)
    np.testing.assert_allclose(starter.encode_images([picture]), image, atol=1e-5)
    np.testing.assert_allclose(starter.encode_texts(["a red bicycle"]), text, atol=1e-5)


def test_starter_is_the_default_even_beside_a_folder_of_its_name(tmp_path, monkeypatch, starter):
    (tmp_path / "starter").mkdir()
    monkeypatch.chdir(tmp_path)
    encoder = load_encoder(device="cpu")
    assert (encoder.name, encoder.image_fingerprint) == (STARTER, starter.image_fingerprint)


def test_starter_finds_drawn_things_by_their_names(shop, starter):
    """Chance for the first hit to be of the right kind is one in thirty."""
    pairs = read_pairs(shop)
    kinds = sorted({pair.attributes["kind"] for pair in pairs})
    with Catalog.open(shop.parent / "catalog", encoder=starter) as catalog:
        catalog.build(pairs)
        found = [catalog.search(kind, k=1)[0].attributes["kind"] == kind for kind in kinds]
    assert sum(found) / len(kinds) >= 0.5


@pytest.mark.parametrize(
    ("name", "pairs", "images", "least"),
    [("coco_open", "captions.json", "images", (0.76, 0.60)), ("luma", "products.csv", None, (0.10, 0.10))],
)
def test_starter_reaches_its_recall_on_photos_and_products(shared_data, starter, name, pairs, images, least):
    """Recall@10 text to image and image to text, over sets that took no part in its training."""
    folder = shared_data(name)
    report = evaluate(starter, read_pairs(folder / pairs, images=images and folder / images), resamples=0)
    assert report.metrics["text_to_image_recall@10"] >= least[0]
    assert report.metrics["image_to_text_recall@10"] >= least[1]


def test_build_and_evaluate_use_the_starter_by_default_with_a_notice(shop, tmp_path):
    built = CliRunner().invoke(commands, ["build", str(shop), str(tmp_path / "c"), "--device", "cpu"])
    assert built.exit_code == 0
    said = [line for line in built.stderr.splitlines() if "starter" in line]
    assert len(said) == 1
    assert "--model" in said[0]
    assert CliRunner().invoke(commands, ["info", str(tmp_path / "c"), "--json"]).exit_code == 0
    measured = CliRunner().invoke(commands, ["evaluate", str(shop), "--json", "--resamples", "0", "--device", "cpu"])
    assert json.loads(measured.stdout)["encoder"] == STARTER


def test_new_catalog_without_an_encoder_uses_the_starter(tmp_path, shop):
    picture = next(shop.parent.rglob("*.webp"), None) or next(shop.parent.rglob("*.png"))
    with Catalog.open(tmp_path / "c", create=True, device="cpu") as catalog:
        catalog.upsert([{"id": "a", "images": [str(picture)], "captions": ["a thing"]}])
        assert catalog.info()["encoder"] == STARTER


def test_info_shows_the_model_card_of_the_starter():
    told = json.loads(CliRunner().invoke(commands, ["info", STARTER, "--json"]).stdout)
    assert told["name"] == STARTER
    assert "everyday things" in told["about"]
