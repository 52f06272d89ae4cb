"""An encoder gives open_clip's own vectors, of unit length, whatever the batches, threads and lengths of texts."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tiny_models import tiny_config, write_model, write_tiny_model

from retrieval.encoder.open_clip_encoder import OpenClipEncoder, fastest_dtype, open_checkpoint, resolve_device
from retrieval.errors import EncoderError

TEXTS = ["a red ball", "", "x " * 200, "two dogs run", "日本語のテキスト", "RED\tball &amp; co.", "👟"]


def draw_pictures(count, *, seed=0):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(20, 90, (count, 2))
    return [Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def encoder(folder):
    return OpenClipEncoder(open_checkpoint(str(folder)), device="cpu")


@pytest.fixture(scope="module")
def oracle(folder):
    """open_clip alone: its own loader, transform, tokenizer and full padding."""
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    return model.eval(), transform, open_clip.get_tokenizer(f"local-dir:{folder}")


@torch.inference_mode()
def test_image_rows_are_those_of_open_clip(encoder, oracle):
    model, transform, _ = oracle
    pictures = draw_pictures(40)
    expected = model.encode_image(torch.stack([transform(picture) for picture in pictures]), normalize=True)
    np.testing.assert_allclose(encoder.encode_images(pictures), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_prepare_equals_the_preprocessing_of_open_clip(folder, resize_mode):
    """Bit for bit, though the last two steps are done to whole batches."""
    opened = open_checkpoint(str(folder))
    encoder = OpenClipEncoder(replace(opened, preprocess={**opened.preprocess, "resize_mode": resize_mode}))
    encoder._model.encode_image = lambda values: values.flatten(1)
    transform = open_clip.image_transform(32, is_train=False, resize_mode=resize_mode)
    pictures = draw_pictures(5)
    values = encoder._forward(encoder._encode_pixels, np.stack([encoder.prepare(picture) for picture in pictures]))
    assert np.array_equal(values, torch.stack([transform(picture) for picture in pictures]).flatten(1).numpy())


@pytest.mark.parametrize("size", [32, (32, 48)])
def test_models_of_non_square_images_are_supported(tmp_path, size):
    config = tiny_config()
    config["vision_cfg"]["image_size"] = size
    encoder = OpenClipEncoder(open_checkpoint(str(write_model(tmp_path, config))))
    assert encoder.image_size == np.max(size)
    assert encoder.encode_images(draw_pictures(3)).shape == (3, 16)


@torch.inference_mode()
def test_text_rows_are_those_of_open_clip_with_padding(encoder, oracle):
    model, _, tokenizer = oracle
    expected = model.encode_text(tokenizer(TEXTS), normalize=True)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, rtol=0, atol=1e-5)


KINDS = {
    "SigLIP": {**tiny_config(no_causal_mask=True, pool_type="last", proj_bias=True), "custom_text": True},
    "CoCa": {**tiny_config(embed_cls=True, output_tokens=True, context_length=76), "custom_text": True},
}
KINDS["CoCa"]["vision_cfg"] |= {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
KINDS["CoCa"]["multimodal_cfg"] = {"context_length": 76, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1}


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_siglip_and_coca_rows_are_those_of_open_clip(tmp_path, kind):
    opened = open_checkpoint(str(write_model(tmp_path, KINDS[kind])))
    encoder, pictures = OpenClipEncoder(opened), draw_pictures(3)
    prepared = torch.stack([open_clip.image_transform(32, is_train=False)(picture) for picture in pictures])
    texts = opened.model.encode_text(opened.tokenizer(TEXTS), normalize=True)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts, rtol=0, atol=1e-6)
    images = opened.model.encode_image(prepared, normalize=True)
    np.testing.assert_allclose(encoder.encode_images(pictures), images, rtol=0, atol=1e-6)


def test_channels_last_changes_no_row_of_a_convolutional_tower(tmp_path):
    config = tiny_config()
    config["vision_cfg"] = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 8, "image_size": 32}
    opened = open_checkpoint(str(write_model(tmp_path, config)))
    pictures = torch.stack([open_clip.image_transform(32, is_train=False)(picture) for picture in draw_pictures(3)])
    with torch.inference_mode():
        expected = opened.model.eval().encode_image(pictures, normalize=True)
    encoder = OpenClipEncoder(opened)
    assert opened.model.visual.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(encoder.encode_images(draw_pictures(3)), expected, rtol=0, atol=1e-5)


def test_rows_do_not_depend_on_their_batch(encoder):
    pictures, texts = draw_pictures(37), TEXTS * 20
    alone = np.concatenate([encoder.encode_images([picture]) for picture in pictures])
    np.testing.assert_allclose(encoder.encode_images(pictures), alone, rtol=0, atol=1e-5)
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode_texts(texts), np.tile(alone, (20, 1)), rtol=0, atol=1e-5)


def test_rows_are_float32_of_unit_length_and_own_their_memory(encoder):
    for rows in (encoder.encode_images(draw_pictures(3)), encoder.encode_texts(TEXTS)):
        assert rows.dtype == np.float32
        assert rows.flags.owndata
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)


def test_empty_inputs_give_no_rows(encoder):
    for rows in (encoder.encode_images([]), encoder.encode_texts([]), encoder.encode_prepared([])):
        assert rows.shape == (0, 16)


def test_short_texts_are_encoded_without_padding(encoder):
    seen = []
    encoder._model.transformer.register_forward_hook(lambda *call: seen.append(tuple(call[1][0].shape)))
    encoder.encode_texts(["a red ball"] * 64 + ["word " * 100] + ["a cat"] * 3)
    assert sorted({shape[1] for shape in seen}) == [5, 77]
    assert [shape for shape in seen if shape[1] == 77] == [(4, 77, 32)]


def test_texts_are_tokenised_a_window_at_a_time(encoder, monkeypatch):
    tokenizer, sizes = encoder._checkpoint.tokenizer, []

    def counting(texts):
        sizes.append(len(texts))
        return tokenizer(texts)

    monkeypatch.setattr("retrieval.encoder.features._TEXT_WINDOW", 50)
    encoder._checkpoint = replace(encoder._checkpoint, tokenizer=counting)
    rows = encoder.encode_texts([f"{number} balls" for number in range(120)])
    assert sizes == [50, 50, 20]
    np.testing.assert_allclose(
        rows[[0, 77, 119]], encoder.encode_texts(["0 balls", "77 balls", "119 balls"]), atol=1e-5
    )


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_vector_without_a_direction_is_an_error_that_names_the_image(encoder, bad):
    encode = encoder._model.encode_image
    encoder._model.encode_image = lambda values: (
        encode(values) * torch.where(values.amax((1, 2, 3)) < 0, bad, 1)[:, None]
    )
    pictures = draw_pictures(20)
    pictures[18] = Image.new("RGB", (40, 40), "black")
    with pytest.raises(EncoderError, match="image 19 of 20"):
        encoder.encode_images(pictures)


def test_single_string_is_refused(encoder):
    with pytest.raises(EncoderError, match="takes a list of texts"):
        encoder.encode_texts("a red ball")


def test_threads_may_share_an_encoder(encoder):
    pictures, expected = draw_pictures(8), encoder.encode_texts(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda _: (encoder.encode_images(pictures), encoder.encode_texts(TEXTS)), range(16)))
    for images, texts in rows:
        np.testing.assert_allclose(images, rows[0][0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(texts, expected, rtol=0, atol=1e-6)


@pytest.fixture
def halving(encoder, monkeypatch):
    """The encoder, its image tower taken for a large one and its device for one that is fast in bfloat16."""
    monkeypatch.setattr("retrieval.encoder.open_clip_encoder._LARGE", 1)
    monkeypatch.setattr("retrieval.encoder.open_clip_encoder.fastest_dtype", lambda _: torch.bfloat16)
    return encoder


def test_fingerprints_do_not_change_while_other_threads_encode(folder):
    """A text is encoded with the positions cut to its length, which a fingerprint must not see."""
    alone = OpenClipEncoder(open_checkpoint(str(folder)), device="cpu").text_fingerprint
    over = threading.Event()

    def encode(encoder):
        while not over.is_set():
            encoder.encode_texts(["red"])

    with ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            shared = OpenClipEncoder(open_checkpoint(str(folder)), device="cpu")
            over.clear()
            running = [pool.submit(encode, shared) for _ in range(2)]
            found = shared.text_fingerprint
            over.set()
            assert all(one.result() is None for one in running)
            assert found == alone


def test_half_precision_rows_are_close_to_float32(halving):
    pictures = draw_pictures(halving.batch_size)
    rows = halving.encode_images(pictures)
    exact = halving._forward(halving._encode_pixels, np.stack([halving.prepare(picture) for picture in pictures]))
    cosines = (rows * exact).sum(axis=1) / np.linalg.norm(exact, axis=1)
    assert cosines.min() > 0.999
    assert cosines.max() < 1 - 1e-7  # it was half precision


def test_partial_batches_and_texts_are_encoded_in_float32(halving, oracle):
    model, transform, tokenizer = oracle
    pictures = draw_pictures(halving.batch_size - 1)
    with torch.inference_mode():
        images = model.encode_image(torch.stack([transform(picture) for picture in pictures]), normalize=True)
        texts = model.encode_text(tokenizer(TEXTS * 20), normalize=True)
    np.testing.assert_allclose(halving.encode_images(pictures), images, rtol=0, atol=1e-6)
    np.testing.assert_allclose(halving.encode_texts(TEXTS * 20), texts, rtol=0, atol=1e-5)


def test_overflow_in_half_precision_is_encoded_again_in_float32(halving):
    encode, kinds = halving._model.encode_image, []

    def overflowing(values):
        kinds.append(torch.is_autocast_enabled("cpu"))
        return encode(values) * (float("inf") if kinds[-1] else 1)

    halving._model.encode_image = overflowing
    assert np.isfinite(halving.encode_images(draw_pictures(halving.batch_size))).all()
    assert kinds == [True, False]


@pytest.mark.parametrize(("half_seconds", "kind"), [(0.4, torch.bfloat16), (0.6, torch.float32), (8.0, torch.float32)])
def test_half_precision_is_used_where_at_least_twice_as_fast(monkeypatch, half_seconds, kind):
    seconds = {torch.float32: 1.0, torch.bfloat16: half_seconds}
    monkeypatch.setattr("retrieval.encoder.open_clip_encoder._time_product", lambda _, asked: seconds[asked])
    assert fastest_dtype.__wrapped__("cpu") == kind


def test_frozen_tower_is_encoded_in_float32(halving):
    """Half precision would make it slower, not faster."""
    assert halving._full_batch_dtype() == torch.bfloat16
    halving._model.visual.proj.requires_grad = False
    assert halving._full_batch_dtype() == torch.float32


def test_small_tower_is_encoded_in_float32_without_timing(encoder, monkeypatch):
    monkeypatch.setattr("retrieval.encoder.open_clip_encoder.fastest_dtype", None)
    assert len(encoder.encode_images(draw_pictures(encoder.batch_size))) == encoder.batch_size


def test_cuda_without_a_gpu_is_an_error_with_the_reason(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(EncoderError, match=r"no usable GPU: .+\. Use device cpu or auto"):
        resolve_device("cuda")


@pytest.mark.gpu
def test_gpu_rows_are_close_to_cpu_rows(folder):
    here, there = (OpenClipEncoder(open_checkpoint(str(folder)), device=device) for device in ("cpu", "cuda"))
    for rows, others in (
        (here.encode_images(draw_pictures(40)), there.encode_images(draw_pictures(40))),
        (here.encode_texts(TEXTS), there.encode_texts(TEXTS)),
    ):
        assert (rows * others).sum(axis=1).min() > 0.999
    assert here.image_fingerprint == there.image_fingerprint
    assert here.text_fingerprint == there.text_fingerprint
