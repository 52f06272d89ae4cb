"""Loaders find an encoder by its name or refuse it at once; files become rows in order, bad ones an error each."""

import subprocess
import sys
import threading
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_models import write_tiny_model

from retrieval.encoder import describe_encoder, embedding, load_encoder
from retrieval.encoder.embedding import embed_images
from retrieval.errors import EncoderError, ImageError
from retrieval.hashing import content_hash
from retrieval.images import ImageSource


class ColorEncoder:
    """An image's row is the direction of its mean color; black has none, so it is refused."""

    name, dimension, device, image_size, batch_size = "color", 3, "cpu", 8, 4
    image_fingerprint = text_fingerprint = "0" * 32

    def __init__(self):
        self.sizes = []

    def prepare(self, image):
        """Return the mean color."""
        return np.asarray(image, np.float32).mean(axis=(0, 1))

    def encode_prepared(self, prepared):
        """Return its direction."""
        self.sizes.append(len(prepared))
        colours = np.array(prepared, np.float32).reshape(-1, 3)
        lengths = np.linalg.norm(colours, axis=1, keepdims=True)
        if not lengths.all():
            raise EncoderError(f"no direction for picture {np.flatnonzero(lengths == 0)[0] + 1}")
        return colours / lengths


@pytest.fixture
def pictures(tmp_path):
    """Twenty pictures of one colour each, and the rows that they must get."""
    colours = np.random.default_rng(0).integers(50, 256, (20, 3), np.uint8)
    sources = [_save(tmp_path / f"{number}.png", tuple(map(int, colour))) for number, colour in enumerate(colours)]
    return sources, colours / np.linalg.norm(colours, axis=1, keepdims=True)


def _save(path, colour):
    Image.new("RGB", (30, 20), colour).save(path)
    return ImageSource(path=path, name=path.name)


def _source(path, data):
    path.write_bytes(data)
    return ImageSource(path=path, name=path.name)


def test_embed_images_yields_rows_in_order_and_in_batches(pictures):
    sources, expected = pictures
    encoder = ColorEncoder()
    batches = list(embed_images(encoder, sources, threads=3))
    assert [[image.number for image in batch] for batch in batches] == np.arange(20).reshape(5, 4).tolist()
    assert encoder.sizes == [4] * 5
    np.testing.assert_allclose(rows_of(batches), expected, atol=1e-6)


def rows_of(batches):
    return np.stack([image.prepared for batch in batches for image in batch if image.prepared is not None])


def numbers_of(batches, condition):
    return [image.number for batch in batches for image in batch if condition(image)]


def test_bad_images_become_errors_and_affect_no_other(pictures, tmp_path):
    sources, expected = pictures
    sources[3] = _source(tmp_path / "text.jpg", b"this is no picture at all")
    sources[4] = ImageSource(path=tmp_path / "gone.png", name="gone.png")
    sources[9] = _save(tmp_path / "black.png", "black")
    batches = list(embed_images(ColorEncoder(), sources))
    errors = {image.number: image.error for batch in batches for image in batch if image.error is not None}
    assert list(errors) == [3, 4, 9]
    assert all(isinstance(error, ImageError) for error in errors.values())
    assert "no direction" in str(errors[9])
    encoded = numbers_of(batches, lambda image: image.prepared is not None)
    assert encoded == [number for number in range(20) if number not in errors]
    np.testing.assert_allclose(rows_of(batches), expected[encoded], atol=1e-6)


def test_unwanted_images_are_neither_decoded_nor_encoded(pictures):
    sources, expected = pictures
    seen, encoder = {}, ColorEncoder()

    def wanted(number, content):
        seen[number] = content
        return number % 2 == 0

    batches = list(embed_images(encoder, sources, wanted=wanted))
    assert seen == {number: content_hash(source.read()) for number, source in enumerate(sources)}
    assert numbers_of(batches, lambda image: image.prepared is None) == list(range(1, 20, 2))
    assert numbers_of(batches, lambda image: image.prepared is not None) == list(range(0, 20, 2))
    np.testing.assert_allclose(rows_of(batches), expected[::2], atol=1e-6)
    assert [image.content for batch in batches for image in batch if image.prepared is not None] == [
        seen[number] for number in range(0, 20, 2)
    ]
    assert sum(encoder.sizes) == 10


def test_unwanted_images_alone_are_yielded_in_lists(pictures, monkeypatch):
    monkeypatch.setattr(embedding, "_MAX_LIST", 6)
    batches = list(embed_images(ColorEncoder(), pictures[0], wanted=lambda *_: False))
    assert [len(batch) for batch in batches] == [6, 6, 6, 2]
    assert not numbers_of(batches, lambda image: image.prepared is not None or image.error is not None)


def test_batch_of_bad_images_has_errors_only(tmp_path):
    sources = [_save(tmp_path / f"{number}.png", "black") for number in range(3)]
    (batch,) = embed_images(ColorEncoder(), sources)
    assert [(image.number, image.prepared is None, image.error is None) for image in batch] == [
        (number, True, False) for number in range(3)
    ]


def test_no_images_yield_no_batches():
    assert list(embed_images(ColorEncoder(), [])) == []


def test_at_most_three_batches_are_read_ahead(pictures):
    """An endless stream of sources is fine: three batches are held at most."""
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield pictures[0][0]

    stream = embed_images(ColorEncoder(), endless())
    for number in range(1, 6):
        next(stream)
        assert len(taken) <= 4 * (number + 2)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_error_of_the_callback_is_raised(pictures):
    def broken(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(embed_images(ColorEncoder(), pictures[0], wanted=broken))


def test_open_clip_encoder_gives_files_the_rows_of_their_images(tmp_path, pictures):
    encoder = load_encoder(write_tiny_model(tmp_path / "run"), device="cpu")
    expected = encoder.encode_images([Image.open(source.path).convert("RGB") for source in pictures[0]])
    np.testing.assert_allclose(rows_of(embed_images(encoder, pictures[0])), expected, atol=1e-5)


def test_encoder_is_loaded_again_by_its_name(tmp_path, monkeypatch):
    write_tiny_model(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    encoder = load_encoder("run", device="cpu")
    monkeypatch.chdir("/")
    again = load_encoder(encoder.name, device="cpu")
    assert (again.image_fingerprint, again.text_fingerprint) == (encoder.image_fingerprint, encoder.text_fingerprint)
    description = {"name": str(tmp_path / "run"), "dimension": 16, "image_size": 32}
    assert description.items() <= describe_encoder("/" + str((tmp_path / "run").relative_to("/"))).items()


REFUSED = {
    "./nothing": r"no model folder '\./nothing'\. Name starter, a run folder, an open_clip name/tag .*, or hf-hub:",
    "": "no model folder ''",
}


@pytest.mark.parametrize("name", REFUSED)
def test_impossible_names_are_refused_in_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EncoderError, match=REFUSED[name]) as caught:
        load_encoder(name)
    assert "\n" not in str(caught.value)


def test_name_with_a_scheme_is_loaded_by_the_entry_point_of_that_name(monkeypatch):
    """An installed package declares it in the group `retrieval.encoders`."""
    declare_plugin(monkeypatch, "color", "fake_plugin:load")
    plugin = SimpleNamespace(load=lambda name, device: (name, device))
    monkeypatch.setitem(sys.modules, "fake_plugin", plugin)
    assert load_encoder("color:any/thing/", device="cpu") == ("color:any/thing/", "cpu")


def test_plugin_that_cannot_be_imported_is_an_error_that_names_it(monkeypatch):
    declare_plugin(monkeypatch, "color", "no_such_module:load")
    with pytest.raises(EncoderError, match=r"plugin no_such_module:load cannot be imported: No module"):
        load_encoder("color:x")


def declare_plugin(monkeypatch, name, value):
    """Let Python find an entry point as of an installed package."""
    point = metadata.EntryPoint(name, value, "retrieval.encoders")
    monkeypatch.setattr(metadata, "entry_points", metadata.EntryPoints([point]).select)


def test_unknown_device_is_an_error(tmp_path):
    with pytest.raises(EncoderError, match=r"no device 'gpu'\. Use one of auto, cpu, cuda"):
        load_encoder(tmp_path, device="gpu")


def test_importing_and_refusing_a_name_load_no_torch():
    script = (
        "import sys\n"
        "from retrieval.encoder import EncoderError, load_encoder\n"
        "try:\n    load_encoder('./nothing')\n"
        "except EncoderError:\n    print({'torch', 'faiss', 'open_clip'} & set(sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_loading_and_encoding_write_nothing_to_the_terminal(tmp_path):
    write_tiny_model(tmp_path)
    script = f"from retrieval import load_encoder; load_encoder({str(tmp_path)!r}).encode_texts(['a', 'b'])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")
