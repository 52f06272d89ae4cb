import threading

import pytest
from PIL import Image

from retrieval.errors import CatalogError, ImageError
from retrieval.hashing import content_hash
from retrieval.images import ImageSource
from retrieval.images.pipeline import ReadImage, read_distinct_images, read_images


def save(path, color):
    Image.new("RGB", (8, 8), color).save(path)
    return ImageSource(path, path.name)


@pytest.fixture
def sources(tmp_path):
    """Red, a copy of red, green, no picture, a copy of that, a missing file, green's file under another name."""
    red, copy, green = (save(tmp_path / f"{name}.png", color) for name, color in COLORS.items())
    for name in ("text.png", "copy-of-text.png"):
        (tmp_path / name).write_bytes(b"no picture")
    bad = [ImageSource(tmp_path / name, name) for name in ("text.png", "copy-of-text.png", "missing.png")]
    return [red, copy, green, *bad, ImageSource(green.path, "also-green.png")]


COLORS = {"red": "red", "copy": "red", "green": "green"}


def center(image):
    return image.getpixel((4, 4))


@pytest.mark.parametrize("threads", [1, 4])
def test_each_distinct_picture_is_decoded_once_and_each_bad_file_is_named(sources, threads):
    received, steps = [], []
    images = read_distinct_images(
        sources,
        lambda files, wanted: read_images(files, center, size=8, wanted=wanted, threads=threads),
        receive=lambda content, color: received.append((content, color)),
        progress=lambda done, total: steps.append((done, total)),
    )
    red, green = content_hash(sources[0].read()), content_hash(sources[2].read())
    assert sorted(received) == sorted([(red, (255, 0, 0)), (green, (0, 128, 0))])
    assert images.contents == (red, green)
    assert images.sources == (sources[0], sources[2])
    assert images.numbers.tolist() == [0, 0, 1, -1, -1, -1, 1]
    assert [(source.name, reason.split(" (")[0]) for source, reason in images.failures] == [
        ("text.png", "is not an image"),
        ("copy-of-text.png", "is not an image"),
        ("missing.png", "there is no such file"),
    ]
    assert steps == [(done, 6) for done in range(1, 7)]


def test_pictures_are_numbered_in_the_order_of_their_sources_whichever_copy_is_decoded(sources):
    red, green = (content_hash(sources[number].read()) for number in (0, 2))

    def read(_files, wanted):
        assert wanted(2, green)
        assert wanted(1, red)
        assert not wanted(0, red)
        yield from [ReadImage(0, red), ReadImage(1, red, prepared="red"), ReadImage(2, green, prepared="green")]

    received = []
    images = read_distinct_images(sources[:3], read, receive=lambda *one: received.append(one))
    assert received == [(red, "red"), (green, "green")]
    assert images.contents == (red, green)
    assert images.sources == (sources[0], sources[2])
    assert images.numbers.tolist() == [0, 0, 1]


def test_a_failed_picture_fails_its_copies_and_takes_no_number(sources):
    red, green = (content_hash(sources[number].read()) for number in (0, 2))

    def read(_files, wanted):
        assert [wanted(1, red), wanted(0, red), wanted(2, green)] == [True, False, True]
        failed = ReadImage(1, red, error=ImageError("no direction"))
        yield from [ReadImage(0, red), failed, ReadImage(2, green, prepared="green")]

    images = read_distinct_images(sources[:3], read, receive=lambda *_: None)
    assert images.numbers.tolist() == [-1, -1, 0]
    assert [(source.name, reason) for source, reason in images.failures] == [
        ("red.png", "no direction"),
        ("copy.png", "no direction"),
    ]


def test_no_sources_are_no_pictures():
    images = read_distinct_images([], lambda *_: (_ for _ in ()), receive=lambda *_: None)
    assert (images.sources, images.contents, images.numbers.tolist(), images.failures) == ((), (), [], ())


def test_unwanted_pictures_are_hashed_and_not_decoded(sources):
    decoded = []
    images = list(read_images(sources[:3], decoded.append, size=8, wanted=lambda number, _: number == 2, threads=1))
    assert [image.content for image in images] == [content_hash(source.read()) for source in sources[:3]]
    assert len(decoded) == 1


def test_an_error_of_the_caller_ends_the_reading_and_its_threads(sources):
    def wanted(number, content):
        raise CatalogError(f"disk full at {number} {content}")

    with pytest.raises(CatalogError, match="disk full at 0"):
        list(read_images(sources, center, size=8, wanted=wanted))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
