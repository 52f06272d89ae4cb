"""evaluate, its report and the gap of an index: what is asked, what is right, and what each figure then is."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from index.exact import exact_search
from retrieval.errors import EvaluationError
from retrieval.evaluate import collection, evaluate
from retrieval.evaluate.collection import build_collection, caption_key
from retrieval.images import ImageSource
from retrieval.pairs import Pair, Pairs, Skipped

RECALLS = [f"{way}_recall@{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)]


class TableEncoder:
    """Looks vectors up: of a picture by its red value, of a text by its spelling."""

    name, device, image_size, batch_size = "table", "cpu", 1, 2
    image_fingerprint = text_fingerprint = "0" * 16

    def __init__(self, images, texts):
        self.images, self.texts = ({key: unit(row) for key, row in table.items()} for table in (images, texts))
        self.dimension = len(next(iter(self.images.values())))
        self.asked_images, self.asked_texts = [], []

    def prepare(self, image):  # noqa: D102 - the protocol says what its methods do
        return image.getpixel((0, 0))[0]

    def encode_prepared(self, prepared):  # noqa: D102 - as above
        self.asked_images += prepared
        return self._rows(self.images[red] for red in prepared)

    def encode_images(self, images):  # noqa: D102 - as above
        return self.encode_prepared([self.prepare(image) for image in images])

    def encode_texts(self, texts):  # noqa: D102 - as above
        self.asked_texts += texts
        return self._rows(self.texts[text] for text in texts)

    def _rows(self, rows):
        return np.array(list(rows), np.float32).reshape(-1, self.dimension)


def unit(row):
    row = np.asarray(row, np.float32)
    return row / np.linalg.norm(row)


def axis(number, count=6):
    return np.eye(count)[number]


@pytest.fixture
def picture(tmp_path):
    """Make a picture of one red value; pictures of one value have the same bytes."""

    def draw(red, name=None):
        path = tmp_path / (name or f"{red}.png")
        Image.new("RGB", (2, 2), (red, 0, 0)).save(path)
        return ImageSource(path, path.name)

    return draw


def pairs_of(*pairs, skipped=()):
    source = pairs[0].image.path.parent if pairs else "/nowhere"
    return Pairs(source, source, "folder", tuple(pairs), skipped)


def perfect(picture, count=6):
    """As many pictures as axes, each with its own text at the same axis."""
    pairs = pairs_of(*(Pair(f"i{n}", picture(n), (f"text {n}",)) for n in range(count)))
    images, texts = {n: axis(n, count) for n in range(count)}, {f"text {n}": axis(n, count) for n in range(count)}
    return TableEncoder(images, texts), pairs


def test_a_perfect_encoder_finds_everything_first(picture):
    report = evaluate(*perfect(picture), resamples=50)
    assert report.as_json()["metrics"] | dict.fromkeys(RECALLS, 1.0) == report.as_json()["metrics"]
    assert report.figures["rsum"] == pytest.approx(600)
    assert report.as_json()["median_rank"] == {"text_to_image": 1.0, "image_to_text": 1.0}
    assert all(one.low == one.high == one.value for one in report.intervals.values())


def test_known_ranks_give_known_figures(picture):
    """Three pictures; the texts rank their own picture 1st, 2nd and 3rd: R@1 1/3, MRR 11/18, median rank 2."""
    images = {n: axis(n, 3) for n in range(3)}
    texts = {"a": [3, 2, 1], "b": [3, 2, 1], "c": [3, 2, 1]}
    pairs = pairs_of(*(Pair(text, picture(n), (text,)) for n, text in enumerate("abc")))
    figures = evaluate(TableEncoder(images, texts), pairs, resamples=0).figures
    assert figures["text_to_image_recall@1"] == pytest.approx(1 / 3)
    assert figures["text_to_image_recall@5"] == 1.0
    assert figures["text_to_image_mrr"] == pytest.approx(11 / 18)
    assert figures["text_to_image_map@r"] == pytest.approx(1 / 3)
    assert figures["text_to_image_median_rank"] == 2.0
    # Every image gives its three texts one score each: the right one is among three tied.
    assert figures["image_to_text_recall@1"] == pytest.approx(1 / 3)
    assert figures["image_to_text_median_rank"] == 2.0


def test_one_item_has_figures_but_no_intervals(picture):
    """Every resample would be that item again."""
    encoder, pairs = perfect(picture)
    report = evaluate(encoder, replace(pairs, pairs=pairs.pairs[:1]), resamples=50)
    assert report.as_json()["intervals"] == {}
    line = next(line for line in report.table().splitlines() if line.startswith("R@1 "))
    assert line.split() == ["R@1", *["100.0", "%", "100.0", "%"] * 2]


def test_a_collapsed_encoder_reports_exactly_its_chance(picture):
    encoder, pairs = perfect(picture)
    encoder.images = dict.fromkeys(encoder.images, unit([1, 2, 3, 4, 5, 6]))
    encoder.texts = dict.fromkeys(encoder.texts, unit([6, 5, 4, 3, 2, 1]))
    report = evaluate(encoder, pairs, resamples=0)
    assert report.figures == report.chance
    assert report.chance["text_to_image_recall@5"] == pytest.approx(5 / 6)


def test_equal_files_are_one_image_and_equal_texts_one_text_embedded_once(picture):
    """Two items with the same bytes under two names, and one caption twice: two images, two texts; five queries."""
    encoder = TableEncoder({1: axis(0), 2: axis(1)}, {"x": axis(0), "y": axis(1)})
    pairs = pairs_of(
        Pair("a", picture(1), ("x",)), Pair("b", picture(1, "copy.png"), ("x",)), Pair("c", picture(2), ("y",))
    )
    report = evaluate(encoder, pairs, resamples=0)
    assert (report.items, report.images, report.texts) == (3, 2, 2)
    assert (sorted(encoder.asked_images), sorted(encoder.asked_texts)) == ([1, 2], ["x", "y"])
    assert report.as_json()["queries"] == {"text_to_image": 3, "image_to_text": 3}
    assert report.figures["rsum"] == pytest.approx(600)


def test_a_file_that_two_pairs_name_is_read_once(picture):
    """One picture shared by two items has the captions of both."""
    shared = picture(1)
    encoder = TableEncoder({1: axis(0), 2: axis(1)}, {"x": axis(0), "y": axis(0), "z": axis(1)})
    pairs = pairs_of(Pair("a", shared, ("x",)), Pair("b", shared, ("y",)), Pair("c", picture(2), ("z",)))
    report = evaluate(encoder, pairs, resamples=0)
    assert encoder.asked_images.count(1) == 1
    assert report.image_to_text.ranks.answers.tolist() == [2, 2, 1]


def test_items_with_an_equal_caption_are_all_right_whatever_its_case_and_spacing(picture):
    """Three mugs said to be a red mug: each text finds any of the three, and each mug any of the spellings."""
    encoder = TableEncoder({n: axis(n) for n in range(4)}, {"Red mug": axis(0), "red  MUG": axis(0), "plate": axis(3)})
    pairs = pairs_of(
        Pair("a", picture(0), ("Red mug",)),
        Pair("b", picture(1), ("red  MUG",)),
        Pair("c", picture(2), ("Red mug",)),
        Pair("d", picture(3), ("plate",)),
    )
    report = evaluate(encoder, pairs, resamples=0)
    assert report.text_to_image.ranks.answers.tolist() == [3, 3, 3, 1]
    assert report.image_to_text.ranks.answers.tolist() == [2, 2, 2, 1]
    assert report.figures["text_to_image_recall@1"] == 1.0


@pytest.mark.parametrize(("one", "other"), [("Straße", "STRASSE"), (" a\tb ", "A b"), ("ÀÉ", "àé")])
def test_texts_are_the_same_but_for_case_and_spacing(one, other):
    assert caption_key(one) == caption_key(other)


def test_all_captions_of_an_item_are_right_for_all_its_images(picture):
    encoder = TableEncoder({1: axis(0), 2: axis(1), 3: axis(2)}, {"x": axis(0), "y": axis(1), "z": axis(2)})
    pairs = pairs_of(Pair("a", picture(1), ("x",)), Pair("a", picture(2), ("y",)), Pair("b", picture(3), ("z",)))
    report = evaluate(encoder, pairs, resamples=0)
    assert report.items == 2
    assert report.text_to_image.ranks.answers.tolist() == [2, 2, 1]
    assert report.text_to_image.items.tolist() == [0, 0, 1]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("xyz"), st.integers(-1, 3), st.sets(st.sampled_from(["a", "A", "b", " b", "c"])))
    )
)
def test_an_image_is_right_for_a_text_where_an_item_of_it_says_the_same(rows):
    """Against the definition, pair by pair; an image of -1 could not be read."""
    nowhere = ImageSource("/nowhere", "nowhere")
    pairs = [Pair(item, nowhere, tuple(sorted(captions))) for item, _, captions in rows]
    found = build_collection(pairs, np.array([image for _, image, _ in rows], np.int64), images=4)
    readable = [(item, image, captions) for item, image, captions in rows if image >= 0]
    assert sorted(found.texts) == sorted(set().union(*(captions for _, _, captions in readable)))
    right = found.relevant_images()
    for number, text in enumerate(found.texts):
        items = {item for item, _, captions in readable if caption_key(text) in map(caption_key, captions)}
        expected = {image for item, image, _ in readable if item in items}
        assert right.ids[right.offsets[number] : right.offsets[number + 1]].tolist() == sorted(expected)


def test_one_id_for_very_many_images_is_refused(picture, monkeypatch):
    monkeypatch.setattr(collection, "MAX_RELEVANT_PAIRS", 8)
    encoder, _ = perfect(picture)
    pairs = pairs_of(*(Pair("same", picture(n), (f"text {n}",)) for n in range(3)))
    with pytest.raises(EvaluationError, match=r"9 pairs .* one item has 3 images"):
        evaluate(encoder, pairs)


def test_an_image_without_a_caption_is_ranked_and_never_asked(picture):
    encoder = TableEncoder({1: axis(0), 2: axis(0)}, {"x": axis(0)})
    report = evaluate(encoder, pairs_of(Pair("a", picture(1), ("x",)), Pair("b", picture(2))), resamples=0)
    assert report.figures["text_to_image_recall@1"] == pytest.approx(0.5)
    assert report.as_json()["queries"] == {"text_to_image": 1, "image_to_text": 1}


def test_bad_pictures_are_named_with_their_reasons_and_their_captions_left_out(picture, tmp_path):
    """A file that is no picture, its copy, one that is missing; what the reader skipped comes first."""
    encoder, good = perfect(picture)
    for name in ("bad.png", "bad too.png"):
        (tmp_path / name).write_text("no picture")
    names = ["bad.png", "bad too.png", "missing.png", "bad.png"]
    bad = [Pair(f"bad {n}", ImageSource(tmp_path / name, name), ("never",)) for n, name in enumerate(names)]
    report = evaluate(
        encoder, pairs_of(*bad[:2], *good, *bad[2:], skipped=(Skipped("row 7", "no image"),)), resamples=0
    )
    assert [one.name for one in report.skipped] == ["row 7", "bad.png", "bad too.png", "missing.png"]
    assert all(one.reason for one in report.skipped)
    assert "never" not in encoder.asked_texts
    assert (report.items, report.images, report.figures["rsum"]) == (6, 6, pytest.approx(600))
    assert report.as_json()["skipped"][0] == {"name": "row 7", "reason": "no image"}


def test_a_single_pair_is_measured(picture):
    encoder = TableEncoder({1: axis(0)}, {"x": axis(1)})
    report = evaluate(encoder, pairs_of(Pair("a", picture(1), ("x",))), resamples=20)
    assert report.figures["rsum"] == report.chance["rsum"] == pytest.approx(600)
    assert "1 item, 1 image, 1 distinct text" in report.table()


def test_nothing_to_measure_says_why(picture, tmp_path):
    encoder, _ = perfect(picture)
    with pytest.raises(EvaluationError, match=r"None of the 1 pictures .* has a caption"):
        evaluate(encoder, pairs_of(Pair("a", picture(1))))
    with pytest.raises(EvaluationError, match=r"1 skipped rows or files; the first, gone\.png: "):
        evaluate(encoder, pairs_of(Pair("a", ImageSource(tmp_path / "gone.png", "gone.png"), ("x",))))
    with pytest.raises(EvaluationError, match="None of the 0 pictures"):
        evaluate(encoder, pairs_of())
    with pytest.raises(EvaluationError, match="-1 resamples"):
        evaluate(*perfect(picture), resamples=-1)


def test_vectors_that_are_no_numbers_are_refused(picture):
    encoder, pairs = perfect(picture)
    encoder.texts["text 3"] = np.full(6, np.nan)
    with pytest.raises(EvaluationError, match="NaN"):
        evaluate(encoder, pairs)


def random_case(picture, items=12, captions=3):
    """Texts near their pictures, not always nearest."""
    random = np.random.default_rng(5)
    images = {n: random.standard_normal(6) for n in range(items)}
    pairs = [Pair(str(n), picture(n), tuple(f"{n} {c}" for c in range(captions))) for n in range(items)]
    texts = {text: images[int(pair.id)] + random.standard_normal(6) for pair in pairs for text in pair.captions}
    return TableEncoder(images, texts), pairs_of(*pairs)


def test_json_says_fractions_by_both_names_intervals_around_them_and_chance(picture):
    report = evaluate(*random_case(picture), resamples=200, seed=1)
    shown = json.loads(json.dumps(report.as_json(), allow_nan=False))
    metrics = shown["metrics"]
    assert all(0 <= value <= 1 for value in metrics.values())
    for k in (1, 5, 10):
        assert metrics[f"image_retrieval_recall@{k}"] == metrics[f"text_to_image_recall@{k}"]
        assert metrics[f"text_retrieval_recall@{k}"] == metrics[f"image_to_text_recall@{k}"]
    assert set(shown["intervals"]) == set(report.figures) == set(shown["chance"])
    for name, (low, high) in shown["intervals"].items():
        assert low <= report.figures[name] <= high
    assert shown["intervals"]["text_to_image_recall@1"][0] < shown["intervals"]["text_to_image_recall@1"][1]
    assert shown["rsum"] == pytest.approx(100 * sum(metrics[name] for name in RECALLS))
    assert shown["chance"]["text_to_image_recall@1"] == pytest.approx(1 / 12)
    assert shown["chance"]["image_to_text_recall@1"] == pytest.approx(3 / 36)


def test_the_same_seed_gives_the_same_report_and_no_resamples_no_intervals(picture):
    once, again = (evaluate(*random_case(picture), resamples=30, seed=3).as_json() for _ in range(2))
    assert once == again
    without = evaluate(*random_case(picture), resamples=0)
    assert without.as_json()["intervals"] == {}
    assert without.as_json()["metrics"] == once["metrics"]
    assert "interval" not in without.table().lower()


def test_samples_that_hold_no_query_leave_valid_json(picture):
    """Two captions among six items and one resample, which may miss both."""
    encoder, pairs = perfect(picture)
    few = pairs_of(*pairs.pairs[:2], *(Pair(f"other {n}", picture(n)) for n in range(2, 6)))
    shown = [evaluate(encoder, few, resamples=1, seed=seed).as_json() for seed in range(30)]
    assert {len(one["intervals"]) for one in shown} == {0, 13}
    assert all(json.dumps(one, allow_nan=False) for one in shown)


def test_the_table_shows_both_ways_with_intervals_and_chance_under_80_columns(picture):
    report = evaluate(*random_case(picture), resamples=100)
    lines = report.table().splitlines()
    assert max(map(len, lines[2:])) < 80  # after the names of the model and the source
    first = report.intervals["text_to_image_recall@1"]
    row = next(line for line in lines if line.startswith("R@1 "))
    assert f"{100 * first.value:.1f} %" in row
    assert f"{100 * first.low:.1f} – {100 * first.high:.1f}" in row
    assert "8.3 %" in row  # chance: 1 of 12
    assert any(line.startswith("R@K") and "at least one right answer" in line for line in lines)
    assert any(line.startswith("RSUM") and f"{report.figures['rsum']:.1f}" in line for line in lines)


def test_the_curve_rises_to_one_and_chance_is_k_of_n(picture):
    curve = evaluate(*random_case(picture), resamples=0).recall_curve(range(1, 13))
    assert list(curve) == ["text_to_image", "text_to_image_chance", "image_to_text", "image_to_text_chance"]
    assert list(curve["text_to_image"].values()) == sorted(curve["text_to_image"].values())
    assert curve["text_to_image"][12] == 1.0
    assert [curve["text_to_image_chance"][k] for k in range(1, 13)] == pytest.approx([k / 12 for k in range(1, 13)])


def test_progress_counts_every_picture_and_text(picture):
    seen = []
    evaluate(*random_case(picture), resamples=0, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (48, 48)


def side_of(rows, contents, *, search=None):
    """A side of a catalog over these rows, in an order of its own: the slot of content i is its place backwards."""
    slots = {content: len(contents) - 1 - place for place, content in enumerate(contents)}
    stored = rows[::-1].copy()

    def exact(queries, k):
        return exact_search(queries, stored, k)

    return SimpleNamespace(
        kind="hnsw",
        search=search or exact,
        exact=exact,
        slots_of=lambda asked: np.array([slots.get(content, -1) for content in asked]),
    )


def captions_side(encoder, pairs, search=None):
    texts = [text for pair in pairs for text in pair.captions]
    return side_of(np.stack([encoder.texts[text] for text in texts]), texts, search=search)


def test_an_index_that_is_exact_loses_nothing(picture):
    """Recall through it is the report's own, though the catalog numbers its captions otherwise."""
    encoder, pairs = random_case(picture)
    report = evaluate(encoder, pairs, served=SimpleNamespace(images=None, captions=captions_side(encoder, pairs)))
    gap = report.gaps["image_to_text"]
    assert set(report.gaps) == {"image_to_text"}
    assert (gap.kind, gap.queries, gap.left_out) == ("hnsw", 12, 0)
    assert gap.through_index == gap.exact
    assert gap.exact == pytest.approx({k: report.figures[f"image_to_text_recall@{k}"] for k in (1, 5, 10)})


def test_an_index_that_finds_nothing_right_shows_zero_beside_the_exact_figure(picture):
    encoder, pairs = perfect(picture)
    served = SimpleNamespace(
        images=None,
        captions=captions_side(encoder, pairs, lambda queries, _: SimpleNamespace(ids=np.full((len(queries), 3), 99))),
    )
    report = evaluate(encoder, pairs, resamples=0, served=served)
    assert report.gaps["image_to_text"].through_index == {1: 0.0, 5: 0.0, 10: 0.0}
    assert "R@1 0.0 (100.0)" in report.table()
    assert report.as_json()["served"]["image_to_text"]["exact"]["recall@1"] == 1.0


def test_queries_whose_answers_the_catalog_lacks_are_left_out_and_counted(picture):
    encoder, pairs = perfect(picture)
    encoder.images[9] = unit([1, 1, 1, 1, 1, 1])
    half = pairs_of(*pairs.pairs[:4])
    pairs = pairs_of(*pairs.pairs, Pair("without a caption", picture(9)))
    report = evaluate(
        encoder, pairs, resamples=0, served=SimpleNamespace(images=None, captions=captions_side(encoder, half))
    )
    gap = report.gaps["image_to_text"]
    assert (gap.queries, gap.left_out, gap.exact[1]) == (4, 2, 1.0)
    strangers = SimpleNamespace(images=None, captions=side_of(np.eye(6, dtype=np.float32)[:1], ["never said"]))
    none = evaluate(encoder, pairs, resamples=0, served=strangers)
    assert none.gaps["image_to_text"].queries == 0
    assert "6 queries left out" in none.table()
