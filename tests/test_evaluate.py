"""evaluate, its report and the recall through an index: the queries, their relevant answers, and each metric."""

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
    assert report.metrics["rsum"] == pytest.approx(600)
    assert report.as_json()["median_rank"] == {"text_to_image": 1.0, "image_to_text": 1.0}
    assert all(one.low == one.high == one.value for one in report.intervals.values())


def test_known_ranks_give_known_metrics(picture):
    """Three pictures; the texts rank their own picture 1st, 2nd and 3rd: R@1 1/3, MRR 11/18, median rank 2."""
    images = {n: axis(n, 3) for n in range(3)}
    texts = {"a": [3, 2, 1], "b": [3, 2, 1], "c": [3, 2, 1]}
    pairs = pairs_of(*(Pair(text, picture(n), (text,)) for n, text in enumerate("abc")))
    metrics = evaluate(TableEncoder(images, texts), pairs, resamples=0).metrics
    assert metrics["text_to_image_recall@1"] == pytest.approx(1 / 3)
    assert metrics["text_to_image_recall@5"] == 1.0
    assert metrics["text_to_image_mrr"] == pytest.approx(11 / 18)
    assert metrics["text_to_image_map@r"] == pytest.approx(1 / 3)
    assert metrics["text_to_image_median_rank"] == 2.0
    # Every image gives its three texts one score each: the right one is among three tied.
    assert metrics["image_to_text_recall@1"] == pytest.approx(1 / 3)
    assert metrics["image_to_text_median_rank"] == 2.0


def test_a_single_item_has_metrics_but_no_intervals(picture):
    """Every resample would be that item again."""
    encoder, pairs = perfect(picture)
    report = evaluate(encoder, replace(pairs, pairs=pairs.pairs[:1]), resamples=50)
    assert report.as_json()["intervals"] == {}
    line = next(line for line in report.table().splitlines() if line.startswith("R@1 "))
    assert line.split() == ["R@1", *["100.0", "%", "100.0", "%"] * 2]


def test_a_collapsed_encoder_scores_exactly_the_random_baseline(picture):
    encoder, pairs = perfect(picture)
    encoder.images = dict.fromkeys(encoder.images, unit([1, 2, 3, 4, 5, 6]))
    encoder.texts = dict.fromkeys(encoder.texts, unit([6, 5, 4, 3, 2, 1]))
    report = evaluate(encoder, pairs, resamples=0)
    assert report.metrics == report.random_baseline
    assert report.random_baseline["text_to_image_recall@5"] == pytest.approx(5 / 6)


def test_equal_files_and_equal_texts_are_embedded_once(picture):
    """Two items with the same bytes under two names, and one caption twice: two images, two texts; five queries."""
    encoder = TableEncoder({1: axis(0), 2: axis(1)}, {"x": axis(0), "y": axis(1)})
    pairs = pairs_of(
        Pair("a", picture(1), ("x",)), Pair("b", picture(1, "copy.png"), ("x",)), Pair("c", picture(2), ("y",))
    )
    report = evaluate(encoder, pairs, resamples=0)
    assert (report.items, report.images, report.texts) == (3, 2, 2)
    assert (sorted(encoder.asked_images), sorted(encoder.asked_texts)) == ([1, 2], ["x", "y"])
    assert report.as_json()["queries"] == {"text_to_image": 3, "image_to_text": 3}
    assert report.metrics["rsum"] == pytest.approx(600)


def test_a_file_of_two_pairs_is_read_once(picture):
    """One picture shared by two items has the captions of both."""
    shared = picture(1)
    encoder = TableEncoder({1: axis(0), 2: axis(1)}, {"x": axis(0), "y": axis(0), "z": axis(1)})
    pairs = pairs_of(Pair("a", shared, ("x",)), Pair("b", shared, ("y",)), Pair("c", picture(2), ("z",)))
    report = evaluate(encoder, pairs, resamples=0)
    assert encoder.asked_images.count(1) == 1
    assert report.image_to_text.ranks.answers.tolist() == [2, 2, 1]


def test_items_with_equal_captions_ignoring_case_and_spacing_are_relevant_to_each_other(picture):
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
    assert report.metrics["text_to_image_recall@1"] == 1.0


@pytest.mark.parametrize(("one", "other"), [("Straße", "STRASSE"), (" a\tb ", "A b"), ("ÀÉ", "àé")])
def test_captions_are_compared_ignoring_case_and_spacing(one, other):
    assert caption_key(one) == caption_key(other)


def test_all_captions_of_an_item_are_relevant_to_all_its_images(picture):
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
def test_an_image_is_relevant_to_a_text_where_one_of_its_items_has_an_equal_caption(rows):
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


def test_one_id_for_very_many_images_is_an_error(picture, monkeypatch):
    monkeypatch.setattr(collection, "MAX_RELEVANT_PAIRS", 8)
    encoder, _ = perfect(picture)
    pairs = pairs_of(*(Pair("same", picture(n), (f"text {n}",)) for n in range(3)))
    with pytest.raises(EvaluationError, match=r"9 pairs .* one item has 3 images"):
        evaluate(encoder, pairs)


def test_an_image_without_a_caption_is_ranked_but_is_no_query(picture):
    encoder = TableEncoder({1: axis(0), 2: axis(0)}, {"x": axis(0)})
    report = evaluate(encoder, pairs_of(Pair("a", picture(1), ("x",)), Pair("b", picture(2))), resamples=0)
    assert report.metrics["text_to_image_recall@1"] == pytest.approx(0.5)
    assert report.as_json()["queries"] == {"text_to_image": 1, "image_to_text": 1}


def test_unreadable_pictures_are_listed_with_reasons_and_their_captions_excluded(picture, tmp_path):
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
    assert (report.items, report.images, report.metrics["rsum"]) == (6, 6, pytest.approx(600))
    assert report.as_json()["skipped"][0] == {"name": "row 7", "reason": "no image"}


def test_a_single_pair_is_measured(picture):
    encoder = TableEncoder({1: axis(0)}, {"x": axis(1)})
    report = evaluate(encoder, pairs_of(Pair("a", picture(1), ("x",))), resamples=20)
    assert report.metrics["rsum"] == report.random_baseline["rsum"] == pytest.approx(600)
    assert "1 item, 1 image, 1 distinct text" in report.table()


def test_pairs_without_queries_are_an_error_with_the_reason(picture, tmp_path):
    encoder, _ = perfect(picture)
    with pytest.raises(EvaluationError, match=r"None of the 1 pictures .* has a caption"):
        evaluate(encoder, pairs_of(Pair("a", picture(1))))
    with pytest.raises(EvaluationError, match=r"1 skipped rows or files. The first is gone\.png: "):
        evaluate(encoder, pairs_of(Pair("a", ImageSource(tmp_path / "gone.png", "gone.png"), ("x",))))
    with pytest.raises(EvaluationError, match="None of the 0 pictures"):
        evaluate(encoder, pairs_of())
    with pytest.raises(EvaluationError, match="-1 resamples"):
        evaluate(*perfect(picture), resamples=-1)


def test_nan_vectors_are_an_error(picture):
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


def test_json_has_fractions_by_both_names_intervals_around_them_and_the_random_baseline(picture):
    report = evaluate(*random_case(picture), resamples=200, seed=1)
    shown = json.loads(json.dumps(report.as_json(), allow_nan=False))
    metrics = shown["metrics"]
    assert all(0 <= value <= 1 for value in metrics.values())
    for k in (1, 5, 10):
        assert metrics[f"image_retrieval_recall@{k}"] == metrics[f"text_to_image_recall@{k}"]
        assert metrics[f"text_retrieval_recall@{k}"] == metrics[f"image_to_text_recall@{k}"]
    assert set(shown["intervals"]) == set(report.metrics) == set(shown["chance"])
    for name, (low, high) in shown["intervals"].items():
        assert low <= report.metrics[name] <= high
    assert shown["intervals"]["text_to_image_recall@1"][0] < shown["intervals"]["text_to_image_recall@1"][1]
    assert shown["rsum"] == pytest.approx(100 * sum(metrics[name] for name in RECALLS))
    assert shown["chance"]["text_to_image_recall@1"] == pytest.approx(1 / 12)
    assert shown["chance"]["image_to_text_recall@1"] == pytest.approx(3 / 36)


def test_the_same_seed_gives_the_same_report_and_zero_resamples_no_intervals(picture):
    once, again = (evaluate(*random_case(picture), resamples=30, seed=3).as_json() for _ in range(2))
    assert once == again
    without = evaluate(*random_case(picture), resamples=0)
    assert without.as_json()["intervals"] == {}
    assert without.as_json()["metrics"] == once["metrics"]
    assert "interval" not in without.table().lower()


def test_bootstrap_samples_without_a_query_leave_valid_json(picture):
    """Two captions among six items and one resample, which may miss both."""
    encoder, pairs = perfect(picture)
    few = pairs_of(*pairs.pairs[:2], *(Pair(f"other {n}", picture(n)) for n in range(2, 6)))
    shown = [evaluate(encoder, few, resamples=1, seed=seed).as_json() for seed in range(30)]
    assert {len(one["intervals"]) for one in shown} == {0, 13}
    assert all(json.dumps(one, allow_nan=False) for one in shown)


def test_the_table_has_both_directions_intervals_and_baseline_under_80_columns(picture):
    report = evaluate(*random_case(picture), resamples=100)
    lines = report.table().splitlines()
    assert max(map(len, lines[2:])) < 80  # after the names of the model and the source
    first = report.intervals["text_to_image_recall@1"]
    row = next(line for line in lines if line.startswith("R@1 "))
    assert f"{100 * first.value:.1f} %" in row
    assert f"{100 * first.low:.1f} – {100 * first.high:.1f}" in row
    assert "8.3 %" in row  # random: 1 of 12
    assert any(line.startswith("R@K") and "a relevant answer among" in line for line in lines)
    assert any(line.startswith("RSUM") and f"{report.metrics['rsum']:.1f}" in line for line in lines)


def test_the_recall_curve_rises_to_one_and_its_baseline_is_k_of_n(picture):
    curve = evaluate(*random_case(picture), resamples=0).recall_curve(range(1, 13))
    assert list(curve) == ["text_to_image", "text_to_image_random", "image_to_text", "image_to_text_random"]
    assert list(curve["text_to_image"].values()) == sorted(curve["text_to_image"].values())
    assert curve["text_to_image"][12] == 1.0
    assert [curve["text_to_image_random"][k] for k in range(1, 13)] == pytest.approx([k / 12 for k in range(1, 13)])


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


def test_an_exact_index_loses_no_recall(picture):
    """Recall through it is the report's own, though the catalog numbers its captions otherwise."""
    encoder, pairs = random_case(picture)
    report = evaluate(encoder, pairs, indexes=SimpleNamespace(images=None, captions=captions_side(encoder, pairs)))
    recall = report.index_recalls["image_to_text"]
    assert set(report.index_recalls) == {"image_to_text"}
    assert (recall.kind, recall.queries, recall.left_out) == ("hnsw", 12, 0)
    assert recall.through_index == recall.exact
    assert recall.exact == pytest.approx(
        {f"recall@{k}": report.metrics[f"image_to_text_recall@{k}"] for k in (1, 5, 10)}
    )


def test_an_index_that_finds_no_relevant_slot_has_zero_recall_beside_the_exact_one(picture):
    encoder, pairs = perfect(picture)
    indexes = SimpleNamespace(
        images=None,
        captions=captions_side(encoder, pairs, lambda queries, _: SimpleNamespace(ids=np.full((len(queries), 3), 99))),
    )
    report = evaluate(encoder, pairs, resamples=0, indexes=indexes)
    assert report.index_recalls["image_to_text"].through_index == {"recall@1": 0.0, "recall@5": 0.0, "recall@10": 0.0}
    assert "R@1 0.0 (100.0)" in report.table()
    assert report.as_json()["served"]["image_to_text"]["exact"]["recall@1"] == 1.0


def test_queries_without_answers_in_the_catalog_are_left_out_and_counted(picture):
    encoder, pairs = perfect(picture)
    encoder.images[9] = unit([1, 1, 1, 1, 1, 1])
    half = pairs_of(*pairs.pairs[:4])
    pairs = pairs_of(*pairs.pairs, Pair("without a caption", picture(9)))
    report = evaluate(
        encoder, pairs, resamples=0, indexes=SimpleNamespace(images=None, captions=captions_side(encoder, half))
    )
    recall = report.index_recalls["image_to_text"]
    assert (recall.queries, recall.left_out, recall.exact["recall@1"]) == (4, 2, 1.0)
    strangers = SimpleNamespace(images=None, captions=side_of(np.eye(6, dtype=np.float32)[:1], ["never said"]))
    none = evaluate(encoder, pairs, resamples=0, indexes=strangers)
    assert none.index_recalls["image_to_text"].queries == 0
    assert "6 queries left out" in none.table()
