"""An exported model gives torch's rows without torch, and is not used where it no longer fits the weights."""

import json
import os
import shutil
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import tiny_config, write_tiny_model

from retrieval.encoder import load_encoder
from retrieval.encoder.model_folders import EXPORT_FILE, STARTER, WEIGHTS_FILE, cache_folder, find_model_folder
from retrieval.encoder.onnx import export as export_module
from retrieval.encoder.onnx import files
from retrieval.encoder.onnx.encoder import OnnxEncoder, part_size
from retrieval.encoder.onnx.export import export_model
from retrieval.encoder.onnx.files import TOWERS, Export, FileStamp, find_export, graph_path
from retrieval.encoder.open_clip_encoder import OpenClipEncoder, open_checkpoint
from retrieval.errors import EncoderError
from retrieval.images import open_image
from retrieval.pairs import read_pairs
from retrieval.testing.encoders import check_encoder

TEXTS = ["a red ball", "", "x " * 200, "two dogs run", "日本語のテキスト", "RED\tball &amp; co.", "👟"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path_factory.mktemp("cache")))
    files._log_outdated.cache_clear()


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A tiny model with its export."""
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny") / "run")
    export_model(str(folder))
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "run"))


def draw_noise(count, *, size=40):
    noise = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    return [Image.fromarray(pixels) for pixels in noise]


def torch_encoder(name):
    return OpenClipEncoder(open_checkpoint(str(name)), device="cpu")


def torch_rows(encoder, images):
    """In batches that are not full, which are always encoded in float32."""
    size = encoder.batch_size - 1
    return np.concatenate([encoder.encode_prepared(images[at : at + size]) for at in range(0, len(images), size)])


def assert_rows_are_those_of_torch(encoder, expected, *, count=33, atol=1e-5):
    """In batches of 1, 7 and 32, and from eight threads at once."""
    images = [expected.prepare(image) for image in draw_noise(count, size=expected.image_size + 9)]
    texts = [f"{TEXTS[number % len(TEXTS)]} {number}" for number in range(count)]
    for encode, inputs, rows in (
        (encoder.encode_prepared, images, torch_rows(expected, images)),
        (encoder.encode_texts, texts, expected.encode_texts(texts)),
    ):
        for size in (1, 7, 32):
            found = np.concatenate([encode(inputs[start : start + size]) for start in range(0, count, size)])
            np.testing.assert_allclose(found, rows, rtol=0, atol=atol)
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(encode, [inputs] * 8):
                np.testing.assert_allclose(found, rows, rtol=0, atol=atol)


def test_export_fulfils_the_contract_of_an_encoder(folder):
    encoder = load_encoder(folder, device="cpu")
    assert isinstance(encoder, OnnxEncoder)
    check_encoder(lambda: load_encoder(folder, device="cpu"), tolerance=1e-5)


def test_export_has_the_rows_and_the_fingerprints_of_torch(folder):
    encoder, expected = load_encoder(folder, device="cpu"), torch_encoder(folder)
    for name in ("name", "dimension", "image_size", "image_fingerprint", "text_fingerprint"):
        assert getattr(encoder, name) == getattr(expected, name)
    assert_rows_are_those_of_torch(encoder, expected)


def test_starter_ships_an_export_of_its_weights_with_torch_s_rows():
    export = find_export(STARTER)
    folder = find_model_folder(STARTER)
    assert export.folder == folder
    assert export.weights == FileStamp.of(folder / WEIGHTS_FILE, in_package=True)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 45e6
    assert all(graph_path(folder, tower).stat().st_size < 200_000 for tower in TOWERS)
    assert_rows_are_those_of_torch(load_encoder(device="cpu"), torch_encoder(STARTER))


@pytest.mark.parametrize(("name", "table"), [("coco_open", "captions.json"), ("luma", "products.csv")])
def test_top_ten_of_real_pictures_are_those_of_torch(shared_data, name, table):
    """But for the order of those whose scores are equal to a millionth."""
    folder = shared_data(name)
    pairs = read_pairs(folder / table, images=folder / "images").pairs[:120]
    encoders = [load_encoder(device="cpu", engine=engine) for engine in ("onnx", "torch")]
    texts = [caption for pair in pairs for caption in pair.captions[:2]]
    images = [open_image(pair.image, size=encoders[0].image_size) for pair in pairs]
    scores, expected = (encoder.encode_texts(texts) @ encoder.encode_images(images).T for encoder in encoders)
    for found, right in ((scores, expected), (scores.T, expected.T)):
        order = np.argsort(-found, axis=1)[:, :10]
        best = -np.sort(-right, axis=1)[:, :10]
        np.testing.assert_allclose(np.take_along_axis(right, order, axis=1), best, rtol=0, atol=1e-6)


def test_no_batch_normalization_of_the_starter_stays_unfused(tmp_path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(find_export(STARTER).path("image"), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph.node
    assert Counter(node.op_type for node in nodes).keys() & {"BatchNormalization", "Clip"} == set()


def test_linear_layers_take_their_weights_as_they_are_stored(original):
    for tower in TOWERS:
        graph = onnx.load(graph_path(original, tower), load_external_data=False).graph
        stored = {one.name for one in graph.initializer if one.external_data}
        assert not [node.name for node in graph.node if node.op_type == "Transpose" and node.input[0] in stored]
        assert sum(node.op_type == "Gemm" and node.input[1] in stored for node in graph.node) >= 6


CUSTOM = {"custom_text": True}
SIGLIP = {**tiny_config(no_causal_mask=True, pool_type="last", proj_bias=True), **CUSTOM}
RESNET = tiny_config()
RESNET["vision_cfg"] = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 8, "image_size": 32}
CONVNEXT = {**tiny_config(), **CUSTOM}
CONVNEXT["vision_cfg"] = {"timm_model_name": "test_convnext", "timm_proj": "linear", "timm_pool": "", "image_size": 64}
LSTM = tiny_config()
LSTM["text_cfg"] = {"context_length": 20, "vocab_size": 49408, "lstm": {"width": 32, "embedding": 16}}
OBLONG = {**tiny_config(pool_type="eos"), **CUSTOM}
OBLONG["vision_cfg"] |= {"image_size": [32, 48], "pool_type": "avg"}


@pytest.mark.parametrize(
    "config",
    [SIGLIP, RESNET, CONVNEXT, LSTM, OBLONG],
    ids=["siglip", "resnet", "convnext", "lstm", "eos"],
)
def test_every_kind_of_tower_is_exported_with_torch_s_rows(tmp_path, config):
    folder = write_architecture(tmp_path, config)
    export = export_model(str(folder))
    assert max(export.deviation.values()) <= export_module.MAX_DEVIATION
    assert_rows_are_those_of_torch(load_encoder(folder, device="cpu"), torch_encoder(folder))


def write_architecture(folder, config):
    from dataclasses import asdict

    from open_clip.transform import PreprocessCfg

    from retrieval.encoder.architectures import build_model
    from retrieval.encoder.open_clip_models import save_run

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(config).eval()
    save_run(model, folder, config=config, preprocess=asdict(PreprocessCfg(size=model.visual.image_size)))
    return folder


def test_weights_of_16_bits_are_widened_exactly(folder):
    """The table of tokens after its rows are gathered, the others whole."""
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(folder / WEIGHTS_FILE).items()}
    save_file(weights, folder / WEIGHTS_FILE)
    export_model(str(folder))
    assert_rows_are_those_of_torch(load_encoder(folder, device="cpu"), torch_encoder(folder), count=8, atol=1e-6)


# --- weights and graphs that are no longer those of the export


def replace_weights(folder):
    """Other values in a file of the same size."""
    weights = load_file(folder / WEIGHTS_FILE)
    save_file(
        {name: tensor + 0.01 for name, tensor in weights.items()}, folder / WEIGHTS_FILE, metadata={"format": "pt"}
    )


def cut_graph(folder):
    path = graph_path(folder, "text")
    path.write_bytes(path.read_bytes()[:-100])


def change_manifest(folder, **changes):
    content = json.loads((folder / EXPORT_FILE).read_text(encoding="utf-8"))
    (folder / EXPORT_FILE).write_text(json.dumps(content | changes), encoding="utf-8")


def change_config(folder):
    path = folder / "open_clip_config.json"
    path.write_text(path.read_text(encoding="utf-8").replace("shortest", "squash"), encoding="utf-8")


OUTDATED = {
    replace_weights: "open_clip_model.safetensors has changed",
    change_config: "the configuration or the tokenizer has changed",
    cut_graph: "open_clip_text.onnx has changed",
    lambda folder: graph_path(folder, "image").unlink(): "open_clip_image.onnx cannot be read",
    lambda folder: (folder / EXPORT_FILE).write_text('"x"', encoding="utf-8"): "open_clip_onnx.json cannot be read",
    lambda folder: (folder / EXPORT_FILE).write_text(
        "[" * 9999, encoding="utf-8"
    ): "open_clip_onnx.json cannot be read",
    partial(change_manifest, dimension=17): "open_clip_onnx.json has changed",
    partial(change_manifest, preprocess=None): "open_clip_onnx.json has changed",
    partial(change_manifest, format=0): "another version",
}


@pytest.mark.parametrize(("damage", "reason"), OUTDATED.items())
def test_torch_runs_a_model_whose_export_does_not_fit_and_says_so_once(folder, caplog, damage, reason):
    damage(folder)
    for _ in range(2):
        encoder = load_encoder(folder, device="cpu")
        assert isinstance(encoder, OpenClipEncoder)
    assert [reason in record.getMessage() for record in caplog.records] == [True]
    assert encoder.image_fingerprint == torch_encoder(folder).image_fingerprint


def test_outdated_export_is_renewed_where_exporting_is_allowed(folder):
    before = torch_encoder(folder).text_fingerprint
    replace_weights(folder)
    encoder = load_encoder(folder, device="cpu", export=True)
    assert isinstance(encoder, OnnxEncoder)
    assert encoder.text_fingerprint == torch_encoder(folder).text_fingerprint != before
    assert_rows_are_those_of_torch(encoder, torch_encoder(folder), count=3)


def test_saving_new_weights_drops_the_export(folder):
    write_tiny_model(folder, seed=1)
    assert find_export(str(folder)) is None
    assert not (folder / EXPORT_FILE).exists()


def test_cut_or_missing_weights_are_the_error_that_torch_reports(folder):
    size = (folder / WEIGHTS_FILE).stat().st_size
    os.truncate(folder / WEIGHTS_FILE, size - 1000)
    with pytest.raises(EncoderError, match="cannot be loaded"):
        load_encoder(folder, device="cpu")
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(EncoderError, match="holds no weights"):
        load_encoder(folder, device="cpu")


def test_weights_replaced_while_a_model_is_open_are_not_taken_for_its_own(folder):
    encoder = load_encoder(folder, device="cpu")
    encoder.encode_texts(TEXTS)
    replace_weights(folder)
    with pytest.raises(EncoderError, match=r"has changed since it was opened: .*Open it again"):
        encoder.encode_images(draw_noise(1))


def test_copied_weights_are_recognised_by_content_once(folder, monkeypatch):
    """A copy of a run has another time: its weights are hashed, and their time is noted for the next start."""
    os.utime(folder / WEIGHTS_FILE, ns=(1, 1))
    assert find_export(str(folder)) is not None
    assert Export.read(folder).weights.mtime_ns == 1
    monkeypatch.setattr(FileStamp, "of", None)
    assert find_export(str(folder)) is not None


# --- where an export goes


def export_files(folder):
    return sorted(file.name for file in folder.iterdir() if "onnx" in file.name)


def test_linked_weights_are_exported_into_the_cache(original, tmp_path, caplog):
    """ONNX Runtime follows no link out of a model's folder."""
    folder = tmp_path / "linked"
    folder.mkdir()
    for file in original.iterdir():
        if "onnx" not in file.name:
            (folder / file.name).symlink_to(file)
    export = export_model(str(folder))
    assert (export_files(folder), export.folder.parent) == ([], cache_folder() / "onnx")
    assert (export.folder / WEIGHTS_FILE).stat().st_nlink > 1  # no second copy of the weights
    encoder = load_encoder(folder, device="cpu")
    assert (type(encoder), encoder.name) == (OnnxEncoder, str(folder))
    assert_rows_are_those_of_torch(encoder, torch_encoder(folder), count=3)
    shutil.copy(original / WEIGHTS_FILE, tmp_path / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).unlink()
    (folder / WEIGHTS_FILE).symlink_to(tmp_path / WEIGHTS_FILE)
    assert isinstance(load_encoder(folder, device="cpu"), OnnxEncoder)
    replace_weights(tmp_path)
    assert isinstance(load_encoder(folder, device="cpu"), OpenClipEncoder)
    assert "has changed" in caplog.text


def test_weights_replaced_during_an_export_into_the_cache_are_noticed(original, tmp_path, monkeypatch):
    folder = tmp_path / "linked"
    folder.mkdir()
    for file in original.iterdir():
        if "onnx" not in file.name:
            (folder / file.name).symlink_to(shutil.copy(file, tmp_path))

    def compare(export, _checkpoint):
        replace_weights(tmp_path)
        return export

    monkeypatch.setattr(export_module, "compare_with_torch", compare)
    monkeypatch.setattr(export_module, "_write_graph", lambda *_: "")
    with pytest.raises(EncoderError, match=r"has changed while it was exported: open_clip_model.safetensors"):
        export_model(str(folder))
    assert find_export(str(folder)) is None


def test_weights_of_another_format_are_exported_into_the_cache(folder):
    """As open_clip_pytorch_model.bin, which ONNX Runtime cannot read."""
    weights = load_file(folder / WEIGHTS_FILE)
    for name in (WEIGHTS_FILE, EXPORT_FILE):
        (folder / name).unlink()
    torch.save(weights, folder / "open_clip_pytorch_model.bin")
    assert isinstance(load_encoder(folder, device="cpu", export=True), OnnxEncoder)
    assert_rows_are_those_of_torch(load_encoder(folder, device="cpu"), torch_encoder(folder), count=3)
    torch.save({name: tensor + 1 for name, tensor in weights.items()}, folder / "open_clip_pytorch_model.bin")
    assert find_export(str(folder)) is None


def test_model_of_a_hub_is_exported_into_the_cache(original):
    """Whatever form its weights have there: they are saved anew."""
    checkpoint = open_checkpoint(str(original))
    assert export_model("hf-hub:shop/tiny", checkpoint).folder.parent == cache_folder() / "onnx"
    encoder = load_encoder("hf-hub:shop/tiny", device="cpu")
    assert (type(encoder), encoder.name) == (OnnxEncoder, "hf-hub:shop/tiny")
    assert_rows_are_those_of_torch(encoder, torch_encoder(original), count=3)
    assert find_export("hf-hub:shop/other") is None


def test_folder_that_cannot_be_written_to_holds_no_export(folder, monkeypatch):
    assert export_module._can_hold_export(folder)

    def refuse(*, dir):  # noqa: A002
        raise PermissionError(f"{dir} is read-only")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)  # root may write anywhere
    assert not export_module._can_hold_export(folder)


def test_two_that_export_at_once_make_one_export(folder, monkeypatch):
    (folder / EXPORT_FILE).unlink()
    made = []
    export = export_module._export
    monkeypatch.setattr(export_module, "_export", lambda *args: made.append(export(*args)) or made[-1])
    with ThreadPoolExecutor(2) as pool:
        exports = list(pool.map(export_model, [str(folder)] * 2))
    assert (len(made), exports[0].graphs) == (1, exports[1].graphs)


def test_export_whose_rows_differ_is_removed_and_torch_stays(folder, caplog, monkeypatch):
    (folder / EXPORT_FILE).unlink()
    monkeypatch.setattr(export_module, "MAX_DEVIATION", 0.0)
    assert isinstance(load_encoder(folder, device="cpu", export=True), OpenClipEncoder)
    assert export_files(folder) == []
    assert "gives other rows than torch" in caplog.text


# --- the choice of the engine


def test_engine_is_the_named_one(folder, monkeypatch):
    assert isinstance(load_encoder(folder, device="cpu", engine="torch"), OpenClipEncoder)
    assert isinstance(load_encoder(folder, engine="onnx"), OnnxEncoder)
    monkeypatch.setenv("RETRIEVAL_ENGINE", "torch")
    assert isinstance(load_encoder(folder, device="cpu"), OpenClipEncoder)
    assert isinstance(load_encoder(folder, engine="onnx"), OnnxEncoder)
    monkeypatch.setenv("RETRIEVAL_ENGINE", "tensorrt")
    with pytest.raises(EncoderError, match="There is no engine 'tensorrt'"):
        load_encoder(folder)


def test_onnx_without_an_export_is_refused_with_the_command(folder):
    (folder / EXPORT_FILE).unlink()
    with pytest.raises(EncoderError, match=f"Run `retrieval model export {folder}`"):
        load_encoder(folder, engine="onnx")
    with pytest.raises(EncoderError, match="runs on the CPU"):
        load_encoder(folder, device="cuda", engine="onnx")


def test_torch_decides_where_there_is_a_gpu(folder, monkeypatch):
    monkeypatch.setattr("retrieval.encoder.count_gpus", lambda: 1)
    assert isinstance(load_encoder(folder), OpenClipEncoder)
    assert isinstance(load_encoder(folder, device="cpu"), OnnxEncoder)


# --- threads


@pytest.mark.parametrize("threads", [1, 3])
def test_images_keep_their_order_and_rows_however_many_threads_share_them(folder, threads):
    one = load_encoder(folder, device="cpu")
    encoder = OnnxEncoder("tiny", find_export(str(folder)), threads=threads)
    images = draw_noise(2 * encoder.batch_size + 1)
    alone = np.concatenate([one.encode_images([image]) for image in images])
    prepared = [encoder.prepare(image) for image in images]
    for count in (0, 1, 2, encoder.batch_size, len(images)):
        np.testing.assert_allclose(encoder.encode_images(images[:count]), alone[:count], rtol=0, atol=1e-6)
        np.testing.assert_allclose(encoder.encode_prepared(prepared[:count]), alone[:count], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "threads", "size"),
    [(0, 2, 1), (1, 2, 1), (3, 2, 2), (16, 2, 8), (17, 2, 5), (40, 1, 8), (3, 16, 1), (129, 16, 5)],
)
def test_threads_share_images_evenly_and_take_eight_at_a_time_at_most(count, threads, size):
    assert part_size(count, threads=threads) == size
