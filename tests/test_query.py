"""The parts of a query, and the one vector that they make."""

import math
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from index.vectors import unit_rows
from retrieval.errors import ImageError, QueryError
from retrieval.query import Part, make_query, mix, open_query_image, parse_vector


def rows_for(query, *, seed=0):
    made = unit_rows(np.random.default_rng(seed).normal(size=(len(query.parts), 5)))
    return {part.kind: made[[number]] for number, part in enumerate(query.parts)}


def test_weights_default_to_one_and_parts_have_a_fixed_order():
    query = make_query({"minus": "hood", "like": "MH01", "text": "jacket"}, {"like": 0.5})
    assert query.parts == (Part("text", "jacket", 1.0), Part("like", "MH01", 0.5), Part("minus", "hood", 1.0))
    assert query.like == "MH01"


def test_single_part_keeps_its_vector_bit_for_bit_at_any_weight():
    query = make_query({"text": "jacket"}, {"text": 7.3})
    rows = rows_for(query)
    assert mix(query, rows) is rows["text"]


@settings(deadline=None)
@given(
    weights=st.tuples(*[st.floats(0.01, 100)] * 3),
    scale=st.floats(0.01, 100),
    seed=st.integers(0, 1000),
)
def test_mix_is_the_normalized_weighted_sum_and_depends_only_on_ratios_of_weights(weights, scale, seed):
    def of(factor):
        text, image, minus = (weight * factor for weight in weights)
        return make_query({"text": "a", "image": b"", "minus": "b"}, {"text": text, "image": image, "minus": minus})

    query = of(1.0)
    rows = rows_for(query, seed=seed)
    total = weights[0] * rows["text"] + weights[1] * rows["image"] - weights[2] * rows["minus"]
    if np.linalg.norm(total) > 0.01 * sum(weights):
        np.testing.assert_allclose(mix(query, rows), total / np.linalg.norm(total), atol=2e-5)
        np.testing.assert_allclose(mix(of(scale), rows), mix(query, rows), atol=1e-6)


def test_a_greater_weight_moves_the_query_towards_that_part():
    def nearness(weight):
        query = make_query({"text": "a", "image": b""}, {"image": weight})
        rows = rows_for(query)
        return float((mix(query, rows) @ rows["image"].T)[0, 0])

    assert nearness(0.1) < nearness(1) < nearness(10)


def test_parts_that_cancel_are_an_error_instead_of_a_random_direction():
    query = make_query({"text": "red", "minus": "red"})
    row = unit_rows(np.ones((1, 4)))
    with pytest.raises(QueryError, match="cancel each other"):
        mix(query, {"text": row, "minus": row})


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "nothing to search for"),
        ({"minus": "red"}, "nothing to search for"),
        ({"text": ""}, "text of a query must be words"),
        ({"text": " \n"}, "text of a query must be words"),
        ({"text": 3}, "text of a query must be words"),
        ({"text": "a", "minus": ""}, "minus of a query must be words"),
        ({"text": "a", "weights": {"image": 1}}, "weight of 'image', which the query does not have; it has text"),
        ({"text": "a", "weights": {"text": 0}}, "positive number, not 0"),
        ({"text": "a", "weights": {"text": -1}}, "positive number, not -1"),
        ({"text": "a", "weights": {"text": math.nan}}, "positive number, not nan"),
        ({"text": "a", "weights": {"text": math.inf}}, "positive number, not inf"),
        ({"text": "a", "weights": {"text": True}}, "positive number, not True"),
        ({"text": "a", "weights": {"text": "2"}}, "positive number, not '2'"),
    ],
)
def test_invalid_parts_and_weights_are_refused_with_the_value(parts, message):
    with pytest.raises(QueryError, match=message):
        make_query({kind: value for kind, value in parts.items() if kind != "weights"}, parts.get("weights"))


def test_vector_may_be_a_list_or_one_row_and_is_normalized():
    for vector in ([3.0, 4.0], np.array([[3, 4]]), np.array([3, 4], np.float16)):
        np.testing.assert_allclose(parse_vector(vector, dimension=2), [[0.6, 0.8]], atol=1e-7)


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1.0, 2.0, 3.0], "dimension 3, and 2"),
        ([0.0, 0.0], "zeros"),
        ([math.nan, 0.0], "NaN"),
        ([[1.0, 0.0], [0.0, 1.0]], "one vector, not 2"),
        ("ab", "real numbers"),
        (3.0, "not \\(n, d\\)"),
    ],
)
def test_vector_of_another_shape_is_refused(vector, message):
    with pytest.raises(QueryError, match=message):
        parse_vector(vector, dimension=2)


def test_query_image_may_be_a_path_bytes_or_a_pillow_image(tmp_path):
    image = Image.new("RGBA", (20, 10), (255, 0, 0, 0))
    buffer = BytesIO()
    image.save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    for given_picture in (tmp_path / "a.png", str(tmp_path / "a.png"), buffer.getvalue(), image):
        opened = open_query_image(given_picture, size=8)
        assert (opened.mode, opened.size, opened.getpixel((0, 0))) == ("RGB", (20, 10), (255, 255, 255))


def test_pillow_image_is_rotated_by_its_exif_as_its_file_is_and_is_not_modified(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.linear_gradient("L").resize((40, 20)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as given_picture:
        from_file, opened = open_query_image(tmp_path / "a.jpg", size=64), open_query_image(given_picture, size=64)
        assert (from_file.mode, from_file.size) == (opened.mode, opened.size) == ("RGB", (20, 40))
        assert np.array_equal(np.asarray(from_file), np.asarray(opened))
        assert (given_picture.mode, given_picture.size, given_picture.getexif()[0x0112]) == ("L", (40, 20), 6)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "F", "I", "PA", "La", "RGBa"])
def test_pillow_image_of_any_usual_mode_is_converted_to_rgb(mode):
    white = Image.new("L", (4, 4), 255)
    image = white.convert("LA").convert(mode) if mode in {"La", "PA"} else white.convert("RGBA").convert(mode)
    assert open_query_image(image, size=2).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["LAB", "HSV"])
def test_pillow_image_of_an_unsupported_mode_is_an_image_error_that_names_it(mode):
    with pytest.raises(ImageError, match=f"kind {mode}, which is not read; convert it to RGB"):
        open_query_image(Image.new(mode, (4, 4)), size=2)


def test_unreadable_query_image_is_an_image_error_with_name_and_reason(tmp_path):
    (tmp_path / "no.png").write_bytes(b"text")
    with pytest.raises(ImageError, match=r"no\.png: is not an image"):
        open_query_image(tmp_path / "no.png", size=8)
    with pytest.raises(ImageError, match="there is no such file"):
        open_query_image(tmp_path / "missing.png", size=8)
