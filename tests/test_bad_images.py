import os
import subprocess
import sys
import warnings
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from hostile_files import encoded, picture, png, png_chunk, tiff, write_good_files, write_hostile_files
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retrieval.errors import ImageError
from retrieval.images import MAX_PIXELS, open_image
from retrieval.images.pipeline import read_images
from retrieval.images.sources import MAX_BYTES, ImageSource
from retrieval.pairs import read_pairs

LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "BMP": {}, "PPM": {}}


def pixels(data, **options) -> np.ndarray:
    return np.asarray(open_image(data, **options)).astype(int)


def reason(data, **options) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(data, **options)
    return str(caught.value)


def test_forty_hostile_files_are_refused_with_their_reasons_and_ten_good_ones_decode(tmp_path):
    expected, good = write_hostile_files(tmp_path), write_good_files(tmp_path)
    assert len(expected) == 40
    assert len(good) == 10
    reasons, opened = {}, []
    pairs = read_pairs(tmp_path)
    reasons = {skipped.name: skipped.reason for skipped in pairs.skipped}
    with closing(read_images([pair.image for pair in pairs], lambda image: image.mode, size=64, threads=2)) as images:
        for pair, image in zip(pairs, images, strict=True):
            if image.error is not None:
                reasons[pair.image.name] = str(image.error)
            else:
                assert image.prepared == "RGB"
                opened.append(pair.image.name)
    assert opened == good
    assert reasons.keys() == expected.keys()
    assert {name: why for name, why in reasons.items() if expected[name] not in why} == {}
    assert all(len(why) < 160 and "\n" not in why for why in reasons.values())


def test_hostile_files_take_little_memory(tmp_path):
    """Resident memory at its peak, in kB, with and without the forty: within 200 MB."""
    program = (
        "import resource, sys\n"
        "from retrieval.images.pipeline import read_images\n"
        "from retrieval.pairs import read_pairs\n"
        "sources = [pair.image for pair in read_pairs(sys.argv[1])]\n"
        "for _ in read_images(sources, lambda image: image.size, size=224, threads=4): pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for name in ("good", "hostile"):
        folder = tmp_path / name
        folder.mkdir()
        write_good_files(folder)
        if name == "hostile":
            write_hostile_files(folder)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, str(folder)], capture_output=True, check=True
        )
        assert done.stderr == b""
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 200_000


def test_pixels_are_capped_without_changing_pillows_global_cap(monkeypatch):
    before = Image.MAX_IMAGE_PIXELS
    data = encoded(Image.new("L", (1000, 100)), "PNG")
    assert reason(data, max_pixels=99_999) == "has 100,000 pixels; the cap is 99,999"
    assert open_image(data, max_pixels=100_000).size == (1000, 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert open_image(data).size == (1000, 100)
    monkeypatch.undo()
    assert before == Image.MAX_IMAGE_PIXELS
    assert f"the cap is {MAX_PIXELS:,}" in reason(png(20_000, 20_000, png_chunk(b"IDAT", b"")))


def test_the_cap_is_checked_before_decoding(monkeypatch):
    def decode(*_):
        raise AssertionError

    data = encoded(picture(), "JPEG")
    monkeypatch.setattr(Image.core, "new", decode)
    assert "the cap is 10" in reason(data, max_pixels=10)


def test_pillow_prints_nothing(capfd):
    """A TIFF with tags that make no sense warns in Pillow; here it opens or is refused, without a word."""
    odd = tiff({256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 279: 16, 700: 2**31, 34665: 2**30}, bytes(16))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in (odd, odd[:-30], encoded(picture(), "TIFF")[:-40]):
            with suppress(ImageError):
                open_image(data)
    assert caught == []
    assert capfd.readouterr() == ("", "")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP"]), st.data())
def test_any_damaged_file_decodes_or_gives_a_reason(kind, data):
    damaged = bytearray(encoded(picture(40, 30), kind))
    for _ in range(data.draw(st.integers(0, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    with suppress(ImageError):
        assert open_image(cut, size=8, max_pixels=10**6).mode == "RGB"


def test_a_source_reads_a_member_of_a_container(tmp_path):
    data = encoded(picture(), "PNG")
    path = tmp_path / "shard.tar"
    path.write_bytes(b"before" + data + b"after")
    assert ImageSource(path, "shard.tar/a.png", f"6:{len(data)}").read() == data
    with pytest.raises(ImageError, match="cut off"):
        ImageSource(path, "shard.tar/a.png", "6:99999").read()


def test_a_file_that_is_no_picture_is_read_no_further_than_its_head(tmp_path, monkeypatch):
    path = tmp_path / "zeros.jpg"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES)  # sparse
    monkeypatch.setattr("retrieval.images.sources._read_fully", lambda *_: pytest.fail("read on"))
    assert "is not an image" in reason(path)


def test_unreadable_paths_give_their_reasons(tmp_path):
    assert reason(tmp_path / "missing.jpg") == "there is no such file"
    assert reason(tmp_path) == "is a folder, not a file"
    assert reason(Path("/dev/zero")) == "is a device, not a file"
    assert "cannot be read" in reason(tmp_path / ("x" * 5000))
    os.mkfifo(tmp_path / "pipe")
    assert reason(tmp_path / "pipe") == "is a named pipe, not a file"
    assert reason(b"") == "is empty (0 bytes)"
