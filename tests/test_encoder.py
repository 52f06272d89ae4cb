"""Loading says at once what cannot be loaded; pictures on disk become rows in order, bad ones a line each."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from tiny_models import write_tiny_model

from retrieval import encoder as encoders
from retrieval.encoder import describe_encoder, embed_images, load_encoder
from retrieval.errors import EncoderError, ImageError
from retrieval.hashing import content_hash
from retrieval.images import ImageSource


class ColourEncoder:
    """A picture's row is the direction of its mean colour; black has none, so it is refused."""

    name, dimension, device, image_size, batch_size = "colour", 3, "cpu", 8, 4
    image_fingerprint = text_fingerprint = "0" * 32

    def __init__(self):
        self.sizes = []

    def prepare(self, image):
        """The mean colour."""
        return np.asarray(image, np.float32).mean(axis=(0, 1))

    def encode_prepared(self, prepared):
        """Its direction."""
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


def test_every_picture_gets_its_row_in_order_and_in_batches(pictures):
    sources, expected = pictures
    encoder = ColourEncoder()
    batches = list(embed_images(encoder, sources, threads=3))
    assert [batch.positions for batch in batches] == [tuple(range(start, start + 4)) for start in range(0, 20, 4)]
    assert encoder.sizes == [4] * 5
    np.testing.assert_allclose(np.concatenate([batch.rows for batch in batches]), expected, atol=1e-6)


def test_bad_pictures_are_named_and_take_no_other_with_them(pictures, tmp_path):
    sources, expected = pictures
    sources[3] = _source(tmp_path / "text.jpg", b"this is no picture at all")
    sources[4] = ImageSource(path=tmp_path / "gone.png", name="gone.png")
    sources[9] = _save(tmp_path / "black.png", "black")
    batches = list(embed_images(ColourEncoder(), sources))
    failures = dict(failure for batch in batches for failure in batch.failures)
    assert list(failures) == [3, 4, 9]
    assert all(isinstance(error, ImageError) for error in failures.values())
    assert "no direction" in str(failures[9])
    positions = [position for batch in batches for position in batch.positions]
    assert positions == [number for number in range(20) if number not in failures]
    np.testing.assert_allclose(np.concatenate([batch.rows for batch in batches]), expected[positions], atol=1e-6)


def test_unwanted_pictures_are_neither_decoded_nor_encoded(pictures):
    sources, expected = pictures
    seen, encoder = {}, ColourEncoder()

    def wanted(number, content):
        seen[number] = content
        return number % 2 == 0

    batches = list(embed_images(encoder, sources, wanted=wanted))
    assert seen == {number: content_hash(source.read()) for number, source in enumerate(sources)}
    assert [number for batch in batches for number in batch.unwanted] == list(range(1, 20, 2))
    assert [number for batch in batches for number in batch.positions] == list(range(0, 20, 2))
    np.testing.assert_allclose(np.concatenate([batch.rows for batch in batches]), expected[::2], atol=1e-6)
    assert [content for batch in batches for content in batch.contents] == [seen[number] for number in range(0, 20, 2)]
    assert sum(encoder.sizes) == 10


def test_known_pictures_alone_still_report_on_the_way(pictures, monkeypatch):
    monkeypatch.setattr(encoders, "_LONGEST_RUN", 6)
    batches = list(embed_images(ColourEncoder(), pictures[0], wanted=lambda *_: False))
    assert [len(batch.unwanted) for batch in batches] == [6, 6, 6, 2]
    assert all(batch.rows.shape == (0, 3) for batch in batches)


def test_a_batch_of_nothing_but_bad_pictures_has_no_rows(tmp_path):
    sources = [_save(tmp_path / f"{number}.png", "black") for number in range(3)]
    (batch,) = embed_images(ColourEncoder(), sources)
    assert batch.rows.shape == (0, 3)
    assert [number for number, _ in batch.failures] == [0, 1, 2]


def test_no_pictures_are_no_batches():
    assert list(embed_images(ColourEncoder(), [])) == []


def test_only_so_many_pictures_are_taken_ahead(pictures):
    """An endless stream of sources is fine: three batches are held at most."""
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield pictures[0][0]

    stream = embed_images(ColourEncoder(), endless())
    for number in range(1, 6):
        next(stream)
        assert len(taken) <= 4 * (number + 2)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_an_error_that_is_no_pictures_fault_is_raised(pictures):
    def broken(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(embed_images(ColourEncoder(), pictures[0], wanted=broken))


def test_a_real_encoder_gives_files_the_rows_of_its_pictures(tmp_path, pictures):
    encoder = load_encoder(write_tiny_model(tmp_path / "run"), device="cpu")
    expected = encoder.encode_images([Image.open(source.path).convert("RGB") for source in pictures[0]])
    rows = np.concatenate([batch.rows for batch in embed_images(encoder, pictures[0])])
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_an_encoder_is_loaded_again_by_its_name(tmp_path, monkeypatch):
    write_tiny_model(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    encoder = load_encoder("run", device="cpu")
    monkeypatch.chdir("/")
    again = load_encoder(encoder.name, device="cpu")
    assert (again.image_fingerprint, again.text_fingerprint) == (encoder.image_fingerprint, encoder.text_fingerprint)
    description = {"name": str(tmp_path / "run"), "dimension": 16, "image_size": 32}
    assert description.items() <= describe_encoder("/" + str((tmp_path / "run").relative_to("/"))).items()


REFUSED = {
    "./nothing": r"no model folder '\./nothing'; name starter, a run folder, an open_clip name/tag .*, or hf-hub:",
    "": "no model folder ''",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_loaded_is_said_in_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EncoderError, match=REFUSED[name]) as caught:
        load_encoder(name)
    assert "\n" not in str(caught.value)


def test_a_device_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(EncoderError, match="no device 'gpu'; take one of auto, cpu, cuda"):
        load_encoder(tmp_path, device="gpu")


def test_importing_and_refusing_load_no_torch():
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
