"""Swapping the text tower of a catalog embeds no image again and gives the hits of a fresh build."""

import random
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from crashes import contents
from fake_encoder import FakeEncoder
from PIL import Image
from safetensors.torch import load_file, save_file
from text_tower_swaps import STEPS, TunedEncoder, build, held, killed
from tiny_models import write_tiny_model

from retrieval.catalog import Catalog
from retrieval.cli import commands
from retrieval.encoder import load_encoder
from retrieval.errors import CatalogError
from retrieval.pairs import read_pairs


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A catalog built with the old encoder; copy it before changing it."""
    return build(tmp_path_factory.mktemp("old"))


@pytest.fixture
def catalog(old, tmp_path):
    shutil.copytree(old.parent / "photos", tmp_path / "photos")
    return shutil.copytree(old, tmp_path / "catalog")


@pytest.fixture(scope="module")
def adopted(old, tmp_path_factory):
    """The contents of the catalog after an undisturbed swap."""
    path = shutil.copytree(old, tmp_path_factory.mktemp("adopted") / "catalog")
    with Catalog.open(path) as opened:
        opened.adopt(TunedEncoder())
    return held(path)


def test_swap_keeps_image_vectors_and_embeds_each_distinct_caption_once(catalog):
    encoder = TunedEncoder()
    with Catalog.open(catalog) as opened:
        before = contents(opened)
        done = opened.adopt(encoder)
        after = contents(opened)
        assert opened.info()["encoder"] == "fake/tuned"
    assert encoder.images == 0
    assert len(encoder.texts) == len(set(encoder.texts)) == 67  # a text each picture, and one each of seven colours
    assert done.summary() == "adopted: 60 pictures kept, 67 captions embedded again"
    assert before.keys() == after.keys()
    for name, (attributes, images, captions) in before.items():
        assert after[name][:2] == (attributes, images)
        texts = [text for text, _ in captions]
        expected = TunedEncoder().encode_texts(texts)
        assert after[name][2] == [(text, row.tobytes()) for text, row in zip(texts, expected, strict=True)]


def test_same_text_tower_under_another_name_embeds_nothing(catalog):
    encoder = FakeEncoder(name="fake/renamed")
    with Catalog.open(catalog) as opened:
        assert opened.adopt(encoder).summary() == "adopted: 60 pictures kept, 0 captions embedded again"
        assert opened.info()["encoder"] == "fake/renamed"
    assert (encoder.images, encoder.texts) == (0, [])


def test_build_and_upsert_work_after_a_swap(catalog, tmp_path):
    encoder = TunedEncoder()
    with Catalog.open(catalog, encoder=FakeEncoder()) as opened:
        opened.adopt(encoder)
        report = opened.build(read_pairs(tmp_path / "photos"))
        assert (report.added, report.changed, report.dropped, report.unchanged) == (0, 0, 0, 60)
        opened.upsert([{"id": "new", "images": [tmp_path / "photos" / "00.png"], "captions": ["brand new"]}])
        assert opened.search("brand new", target="captions", k=1)[0].caption == "brand new"
    assert encoder.images == 0


def test_other_image_tower_or_dimension_raises_an_error_that_names_both(catalog):
    other = FakeEncoder(name="fake/two", fingerprint="another")
    wide = FakeEncoder(name="fake/wide")
    wide.dimension = 48
    before = held(catalog)
    with Catalog.open(catalog) as opened:
        with pytest.raises(
            CatalogError, match=r"built with the encoder fake/one, and fake/two embeds .*\(image towers"
        ):
            opened.adopt(other)
        with pytest.raises(CatalogError, match=r"fake/one, and fake/wide .*\(24 and 48 dimensions\)"):
            opened.adopt(wide)
    assert held(catalog) == before


def test_catalog_without_an_encoder_cannot_swap_towers(tmp_path):
    with Catalog.open(tmp_path / "catalog", create=True) as opened:
        opened.upsert([{"id": "a", "image_vectors": [[1.0, 0.0]], "captions": []}])
        with pytest.raises(CatalogError, match="has no encoder that fake/tuned could replace"):
            opened.adopt(TunedEncoder())


def test_reader_with_the_old_encoder_raises_after_a_swap(catalog):
    with Catalog.open(catalog, encoder=FakeEncoder()) as reader, Catalog.open(catalog) as writer:
        assert reader.search("picture 3", target="captions", k=1)[0].caption == "picture 3"
        writer.adopt(TunedEncoder())
        with pytest.raises(CatalogError, match="was built with the encoder fake/tuned, not with fake/one"):
            reader.search("picture 3", target="captions")
        assert writer.search("picture 3", target="captions", k=1)[0].score == pytest.approx(1, abs=1e-6)


def test_reader_by_record_reloads_the_new_encoder_after_a_swap(catalog, monkeypatch):
    known = {"fake/one": FakeEncoder(), "fake/tuned": TunedEncoder()}
    monkeypatch.setattr("retrieval.catalog.encoder.load_encoder", lambda name, **_: known[name])
    with Catalog.open(catalog) as reader, Catalog.open(catalog) as writer:
        for encoder in known.values():
            writer.adopt(encoder)
            assert reader.search("picture 3", target="captions", k=1)[0].score == pytest.approx(1, abs=1e-6)
            assert reader.encoder is encoder


def test_query_is_encoded_again_after_a_swap_during_its_search(catalog, monkeypatch):
    """The old text tower encoded the query before the captions changed."""
    known = {"fake/one": FakeEncoder(), "fake/tuned": TunedEncoder()}
    monkeypatch.setattr("retrieval.catalog.encoder.load_encoder", lambda name, **_: known[name])
    encode = FakeEncoder.encode_texts
    with Catalog.open(catalog) as reader, Catalog.open(catalog) as writer:

        def adopting(self, texts):
            rows = encode(self, texts)
            if self is known["fake/one"]:
                writer.adopt(known["fake/tuned"])
            return rows

        monkeypatch.setattr(FakeEncoder, "encode_texts", adopting)
        assert reader.search("picture 3", target="captions", k=1)[0].score == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("step", STEPS)
def test_kill_at_any_step_leaves_the_old_or_the_new_catalog(catalog, old, adopted, step):
    killed(catalog, step=step)
    assert held(catalog) == (adopted if step == "the old vectors are not yet removed" else held(old))
    with Catalog.open(catalog) as opened:
        opened.adopt(TunedEncoder())
    assert held(catalog) == adopted
    assert len(list(catalog.glob("captions-*.f32"))) == 1


@pytest.mark.parametrize("seed", range(3))
def test_kill_at_a_random_moment_leaves_the_old_or_the_new_catalog(catalog, old, adopted, seed):
    killed(catalog, delay=random.Random(seed).uniform(0, 0.03))
    assert held(catalog) in (held(old), adopted)
    with Catalog.open(catalog) as opened:
        opened.adopt(TunedEncoder())
    assert held(catalog) == adopted


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """A tiny model, and one that differs from it in the weights of the text tower."""
    folder = tmp_path_factory.mktemp("towers")
    start, other = (write_tiny_model(folder / f"{seed}", seed=seed) for seed in (0, 1))
    mixed = {
        name: tensor if name.startswith("visual.") else load_file(other / "open_clip_model.safetensors")[name]
        for name, tensor in load_file(start / "open_clip_model.safetensors").items()
    }
    shutil.copytree(start, folder / "run")
    save_file(mixed, folder / "run" / "open_clip_model.safetensors")
    return start, folder / "run", other


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_hits_after_a_swap_equal_a_fresh_build(tmp_path, towers, index):
    torch.set_num_threads(1)
    start, run, _ = towers
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text(f"picture {number}\nof group {number % 4}\n")
    pairs = read_pairs(photos)
    with Catalog.open(tmp_path / "adopted", encoder=load_encoder(start, device="cpu")) as switched:
        switched.build(pairs, index=index)
        switched.adopt(load_encoder(run, device="cpu"))
    with (
        Catalog.open(tmp_path / "adopted", device="cpu") as switched,
        Catalog.open(tmp_path / "fresh", encoder=load_encoder(run, device="cpu")) as fresh,
    ):
        fresh.build(pairs, index=index)
        queries = [
            {"text": "picture 7"},
            {"text": "of group 2", "target": "captions"},
            {"image": photos / "3.png"},
            {"like": "5.png", "minus": "of group 1"},
        ]
        for query in queries:
            ours, theirs = switched.search(**query, k=8), fresh.search(**query, k=8)
            assert [(hit.id, hit.image, hit.caption) for hit in ours] == [
                (hit.id, hit.image, hit.caption) for hit in theirs
            ]
            assert [hit.score for hit in ours] == pytest.approx([hit.score for hit in theirs], abs=1e-6)


@pytest.mark.usefixtures("no_export")
def test_adopt_command_reports_its_result_or_error_in_one_line(tmp_path, towers):
    start, run, other = towers
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "a.txt").write_text("a red picture\n")
    with Catalog.open(tmp_path / "c", encoder=load_encoder(start, device="cpu")) as opened:
        opened.build(read_pairs(tmp_path / "photos"))
    done = CliRunner().invoke(commands, ["adopt", str(tmp_path / "c"), str(run), "--device", "cpu"])
    assert (done.exit_code, done.stdout) == (0, "adopted: 1 pictures kept, 1 captions embedded again\n")
    refused = CliRunner().invoke(commands, ["adopt", str(tmp_path / "c"), str(other), "--device", "cpu"])
    assert isinstance(refused.exception, CatalogError)
    assert str(run) in str(refused.exception)
    assert str(other) in str(refused.exception)
