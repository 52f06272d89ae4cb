"""A catalog whose pictures are embedded in 8-bit integers: what it finds, what it records, and when it is refused."""

import json
import shutil
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper
from PIL import Image
from tiny_models import write_tiny_model

from retrieval.catalog import Catalog
from retrieval.catalog.write import precision
from retrieval.cli import commands
from retrieval.encoder import load_encoder
from retrieval.encoder.onnx.encoder import open_session
from retrieval.encoder.onnx.int8 import reduce_image_tower
from retrieval.encoder.onnx.reduced import ReducedEncoder
from retrieval.encoder.onnx.tower_record import REDUCED_FILE, ReducedTower
from retrieval.encoder.preprocessing import Preprocessing
from retrieval.errors import CatalogError, EncoderError, MissingPackageError
from retrieval.pairs import read_pairs
from retrieval.testing.encoders import check_encoder
from retrieval.types import Agreement


def draw_blocks(number):
    colours = np.random.default_rng(number).integers(0, 256, (3, 3, 3), np.uint8)
    return Image.fromarray(colours).resize((48, 40), Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """45 pictures of nine blocks of colour, each with a caption; `more` has one picture more."""
    folder = tmp_path_factory.mktemp("blocks")
    lines = [json.dumps({"file_name": f"{number}.png", "captions": [f"number {number}"]}) for number in range(46)]
    for number in range(46):
        draw_blocks(number).save(folder / f"{number}.png")
    (folder / "metadata.jsonl").write_text("\n".join(lines[:45]))
    (folder / "more.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny transformer with its export."""
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny") / "run")
    load_encoder(folder, device="cpu", engine="onnx", export=True)
    return folder


def run(*arguments):
    return CliRunner().invoke(commands, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def built(pictures, model, tmp_path_factory):
    catalog = tmp_path_factory.mktemp("int8") / "catalog"
    arguments = ("build", pictures / "metadata.jsonl", catalog, "--model", model, "--precision", "int8", "--force")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "int8: searched by 45 pictures and 45 texts of this source, " in result.stderr
    return catalog


@pytest.fixture
def catalog(built, tmp_path):
    return shutil.copytree(built, tmp_path / "catalog")


def operators(path):
    return {node.op_type for node in onnx.load(path).graph.node}


def test_transformer_s_products_are_of_integers_and_its_rows_close_to_float32(model, tmp_path):
    encoder = load_encoder(model, device="cpu")
    images = [draw_blocks(number) for number in range(20)]
    tower = reduce_image_tower(encoder.export, [], tmp_path)
    assert tower.method == "dynamic"
    assert "MatMulInteger" in operators(tmp_path / REDUCED_FILE)
    reduced = ReducedEncoder(encoder, tower, tmp_path)
    assert (reduced.encode_images(images) * encoder.encode_images(images)).sum(axis=1).min() > 0.995
    assert reduced.encode_texts(["a ball"]).tobytes() == encoder.encode_texts(["a ball"]).tobytes()
    check_encoder(lambda: ReducedEncoder(encoder, tower, tmp_path), tolerance=1e-5, by_name=False)
    other = reduce_image_tower(encoder.export, [], tmp_path)
    assert other.fingerprint == tower.fingerprint != encoder.image_fingerprint


def write_convolutions(path):
    """Two convolutions, the mean of each channel, a rectifier between: a tower of pictures of 16 pixels."""
    random = np.random.default_rng(0)
    shapes = {"first": (8, 3, 3, 3), "second": (6, 8, 3, 3)}
    weights = [numpy_helper.from_array(random.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    steps = [("Conv", ["input", "first"]), ("Relu", ["0"]), ("Conv", ["1", "second"]), ("GlobalAveragePool", ["2"])]
    nodes = [helper.make_node(kind, inputs, [str(number)]) for number, (kind, inputs) in enumerate(steps)]
    nodes.append(helper.make_node("Flatten", ["3"], ["output"]))
    sides = [
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)]
        for name, shape in (("input", ["n", 3, 16, 16]), ("output", ["n", 6]))
    ]
    graph = helper.make_graph(nodes, "tower", *sides, initializer=weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def test_convolutions_are_calibrated_and_their_rows_close_to_float32(tmp_path):
    write_convolutions(tmp_path / "float32.onnx")
    preprocess = {"size": 16, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    export = SimpleNamespace(path=lambda _: tmp_path / "float32.onnx", preprocess=preprocess, image_fingerprint="f")
    images = [np.asarray(draw_blocks(number).resize((16, 16))) for number in range(40)]
    tower = reduce_image_tower(export, images[:30], tmp_path)
    assert tower.method == "static"
    assert {"QuantizeLinear", "DequantizeLinear"} < operators(tmp_path / REDUCED_FILE)
    base = SimpleNamespace(name="n", dimension=6, image_size=16, prepare=None, encode_texts=None)
    rows = ReducedEncoder(base, tower, tmp_path).encode_prepared(images)
    expected = open_session(tmp_path / "float32.onnx", threads=1).run(
        None, {"input": Preprocessing.from_config(preprocess).normalize(np.stack(images))}
    )[0]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert 0.99 < (rows * expected).sum(axis=1).min() < 0.99999


def test_catalog_has_the_rows_of_the_reduced_tower_and_texts_in_float32(catalog, model):
    encoder = load_encoder(model, device="cpu")
    with Catalog.open(catalog) as opened:
        items = opened.get(opened.ids(), vectors=True)
        info = opened.info()
    rows = np.concatenate([items[name]["image_vectors"] for name in sorted(items)])
    captions = np.concatenate([items[name]["caption_vectors"] for name in sorted(items)])
    images = [draw_blocks(int(items[name]["captions"][0].split()[1])) for name in sorted(items)]
    record = json.loads(json.dumps(info))
    assert info["image_fingerprint"] != encoder.image_fingerprint
    assert info["text_fingerprint"] == encoder.text_fingerprint
    assert record["precision"].startswith("int8: searched by 45 pictures and 45 texts")
    assert not np.allclose(rows, encoder.encode_images(images), atol=1e-4)
    np.testing.assert_allclose(
        captions, encoder.encode_texts([items[n]["captions"][0] for n in sorted(items)]), atol=1e-5
    )


def test_catalog_that_was_moved_is_searched_and_built_without_a_flag(catalog, pictures):
    moved = catalog.rename(catalog.with_name("moved"))
    found = run("search", moved, "--image", pictures / "7.png", "--images", "-k", 1)
    assert found.exit_code == 0, found.output
    assert found.stdout.split()[:2] == ["1.0000", "7.png"]
    result = run("build", pictures / "more.jsonl", moved, "--images", pictures)
    assert "added 1" in result.stdout or "added 46" in result.stdout, result.output
    assert run("search", moved, "--image", pictures / "45.png", "--images", "-k", 1).stdout.split()[:2] == [
        "1.0000",
        "45.png",
    ]


def test_float32_encoder_of_the_same_model_is_reduced_when_it_is_given(catalog, model, pictures):
    result = run("build", pictures / "metadata.jsonl", catalog, "--model", model)
    assert result.stdout.strip() == "added 0, changed 0, dropped 0, unchanged 45", result.output


def test_precision_of_a_catalog_stays(catalog, pictures, model, tmp_path):
    before = (catalog / REDUCED_FILE).read_bytes()
    source = read_pairs(pictures / "metadata.jsonl")
    with Catalog.open(catalog) as opened:
        assert opened.set_precision(source, "int8").pictures == 45
        with pytest.raises(CatalogError, match="holds vectors of pictures in int8, and those in float32 cannot be"):
            opened.set_precision(source, "float32")
        with pytest.raises(CatalogError, match=r"no precision 'int4'. Use one of float32, int8\."):
            opened.set_precision(source, "int4")
    assert (catalog / REDUCED_FILE).read_bytes() == before
    with Catalog.open(tmp_path / "plain", encoder=load_encoder(model, device="cpu")) as opened:
        assert opened.set_precision(source, "float32") is None
        opened.build(source)
        assert opened.info()["precision"] == "float32"
        with pytest.raises(CatalogError, match="holds vectors of pictures in float32"):
            opened.set_precision(source, "int8")
    assert not (tmp_path / "plain" / REDUCED_FILE).exists()


def test_too_low_an_agreement_is_refused_and_leaves_no_catalog(pictures, model, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "MIN_BEST", 1.01)
    arguments = ("build", pictures / "metadata.jsonl", tmp_path / "catalog", "--model", model, "--precision", "int8")
    result = run(*arguments)
    assert result.exit_code == 1
    assert "int8 was not accepted" in str(result.exception)
    assert not (tmp_path / "catalog").exists()
    (tmp_path / "empty").mkdir()
    run(*arguments[:2], tmp_path / "empty", *arguments[3:])
    assert list((tmp_path / "empty").iterdir()) == []


def test_too_few_pictures_are_refused(pictures, model, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "MIN_MEASURED", 46)
    opened = Catalog.open(tmp_path / "catalog", encoder=load_encoder(model, device="cpu"))
    with opened, pytest.raises(CatalogError, match="45 readable pictures are too few to measure it by, which takes 46"):
        opened.set_precision(read_pairs(pictures / "metadata.jsonl"), "int8")


def test_a_missing_or_changed_tower_is_an_error_of_image_searches_only(catalog, pictures):
    (catalog / REDUCED_FILE).write_bytes((catalog / REDUCED_FILE).read_bytes() + b"\0")
    with Catalog.open(catalog) as opened:
        assert len(opened.search("number 3", k=2)) == 2
        with pytest.raises(CatalogError, match=r"int8\.onnx, the image tower in 8 bits, has changed. Restore it"):
            opened.search(image=pictures / "3.png")
    (catalog / REDUCED_FILE).unlink()
    with Catalog.open(catalog) as opened, pytest.raises(CatalogError, match="cannot be read: No such file"):
        opened.search(image=pictures / "3.png")


def test_another_text_tower_is_adopted_and_the_reduced_image_tower_stays(catalog, model, pictures):
    class Tuned(type(load_encoder(model, device="cpu"))):
        def encode_texts(self, texts):
            return -super().encode_texts(texts)

    base = load_encoder(model, device="cpu")
    tuned = Tuned(base.name, base.export)
    tuned.text_fingerprint = "f" * 32
    with Catalog.open(catalog) as opened:
        before = opened.info()["image_fingerprint"]
        assert opened.adopt(tuned).captions == 45
        assert opened.info()["image_fingerprint"] == before
        assert opened.search(image=pictures / "5.png", target="images", k=1)[0].score == pytest.approx(1, abs=1e-5)


def test_torch_s_encoder_is_not_reduced(pictures, model, tmp_path):
    encoder = load_encoder(model, device="cpu", engine="torch")
    opened = Catalog.open(tmp_path / "catalog", encoder=encoder)
    with opened, pytest.raises(EncoderError, match="Use engine onnx and device cpu"):
        opened.set_precision(read_pairs(pictures / "metadata.jsonl"), "int8")


def test_the_package_that_reduces_is_named_where_it_is_missing(pictures, model, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "retrieval.encoder.onnx.int8")
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    opened = Catalog.open(tmp_path / "catalog", encoder=load_encoder(model, device="cpu"))
    with opened, pytest.raises(MissingPackageError, match=r"pip install 'crossmodal-retrieval\[train\]'"):
        opened.set_precision(read_pairs(pictures / "metadata.jsonl"), "int8")


class GivenRows:
    """An encoder that returns given rows."""

    def __init__(self, pictures, texts):
        self.pictures, self.texts = pictures, texts

    def encode_prepared(self, prepared):  # noqa: D102
        return np.array(self.pictures, np.float32)[: len(prepared)]

    def encode_texts(self, texts):  # noqa: D102
        return np.array(self.texts, np.float32).reshape(len(texts), -1)


def test_agreement_is_that_of_hits_by_pictures_and_by_texts():
    """Three pictures on a circle at 0, 50 and 90 degrees, reduced at 0, 130 and 90; texts of the second and third."""

    def at(*degrees):
        return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)

    sample = precision._Sample([], [None] * 3, ["second", "third"], np.array([1, 2]))
    texts = at(10, 66)
    found = precision._measure(GivenRows(at(0, 50, 90), texts), GivenRows(at(0, 130, 90), texts), sample)
    # The two best by the pictures: 12 20 10, reduced 21 20 10; by the texts 01 12, reduced 02 21.
    assert found == Agreement("int8", 3, 2, best=3 / 5, ten=4.5 / 5, recall_at_1=(0.0, 0.5), recall_at_10=(1.0, 0.5))


def test_agreement_goes_through_json_and_back():
    agreement = Agreement("int8", 3, 2, best=0.5, ten=0.75, recall_at_1=(0.5, 1.0), recall_at_10=(1.0, 1.0))
    tower = ReducedTower("aa", "bb", "cc", {"size": [4, 4]}, "static", agreement)
    again = ReducedTower.from_record(json.loads(json.dumps(asdict(tower))))
    assert again == replace(tower, agreement=replace(agreement))
    assert agreement.summary() == (
        "int8: searched by 3 pictures and 2 texts of this source, 50.0% of the best hits and 75.0% of the ten best are "
        "the same as in float32, recall@1 1.000 (float32 0.500), recall@10 1.000 (float32 1.000)"
    )
