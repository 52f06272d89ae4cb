"""The recall plot: well-formed SVG that shows the curves handed in, in the reader's colours."""

import xml.etree.ElementTree as ET

import pytest

from retrieval.plots import recall_plot

pytest.importorskip("matplotlib")
CURVES = {"text → image": {1: 0.5, 5: 0.8, 10: 0.9}, "image → text": {1: 0.4, 5: 0.7, 10: 0.85}}
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def svg():
    return recall_plot(CURVES, random_baseline={1: 0.01, 5: 0.05, 10: 0.1})


def test_the_svg_is_well_formed_and_labels_curves_baseline_and_ks(svg):
    root = ET.fromstring(svg)  # noqa: S314 - our own text
    texts = {"".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")}
    assert root.tag == f"{SVG}svg"
    assert {"text → image", "image → text", "random", "1", "5", "10", "K", "recall@K"} <= texts


def test_a_curve_rises_with_its_values(svg):
    """SVG's y grows downwards; the first three points of each line are its own."""
    root = ET.fromstring(svg)  # noqa: S314 - our own text
    lines = [path for path in root.iter(f"{SVG}path") if "stroke: #4c78d6" in path.get("style", "")]
    words = lines[0].get("d").split()
    heights = [float(words[place + 2]) for place, word in enumerate(words) if word in "ML"]
    assert len(heights) == 3
    assert heights == sorted(heights, reverse=True)
    assert (heights[0] - heights[1]) / (heights[1] - heights[2]) == pytest.approx(3, rel=1e-3)  # .3 and .1 of recall


def test_the_plot_uses_the_readers_text_color_in_light_and_dark(svg):
    assert "currentColor" in svg
    assert "prefers-color-scheme:dark" in svg
    assert "#717273" not in svg


def test_equal_curves_give_equal_svg(svg):
    assert recall_plot(CURVES, random_baseline={1: 0.01, 5: 0.05, 10: 0.1}) == svg


def test_the_random_baseline_is_optional():
    assert "random" not in recall_plot({"text → image": {1: 1.0}})


def test_an_axis_of_many_ks_has_few_labels():
    root = ET.fromstring(recall_plot({"text → image": {k: 1 - 1 / k for k in range(1, 51)}}))  # noqa: S314 - our own
    texts = {"".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")}
    assert {text for text in texts if text.isdigit()} - {"0"} == {"1", "2", "5", "10", "20", "50"}
