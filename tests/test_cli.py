"""The command line as a user meets it: what it prints, where, and how it exits."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hostile_files import write_good_files, write_hostile_files
from PIL import Image
from tiny_models import write_tiny_model

from index.errors import DeviceError
from retrieval import cli
from retrieval.catalog import Catalog
from retrieval.pairs import read_pairs
from retrieval.train import TrainConfig, train


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command line in this process: exit code, lines of stdout, and stderr."""

    def command(*words) -> tuple[int, list[str], str]:
        monkeypatch.setattr(sys, "argv", ["retrieval", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out.splitlines(), err

    return command


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """Six plain pictures with titles, a price, and a color."""
    folder = tmp_path_factory.mktemp("shop")
    rows = ["id,image,title,price,color"]
    for number, color in enumerate(("red", "green", "blue", "yellow", "black", "white")):
        Image.new("RGB", (40, 40), color).save(folder / f"{number}.png")
        rows.append(f"P{number},{number}.png,a {color} square,{number * 10},{color}")
    (folder / "products.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder / "products.csv"


@pytest.fixture(scope="module")
def catalog(shop, model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("catalogs") / "shop.catalog"
    built = subprocess.run(
        [sys.executable, "-m", "retrieval", "build", shop, path, "--model", model],
        capture_output=True,
        check=True,
        text=True,
    )
    assert built.stdout == "added 6, changed 0, dropped 0, unchanged 0\n"
    return path


def test_a_folder_that_was_emptied_is_synced_away_with_prune_and_refused_without(run, model, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "photos" / "a.png")
    assert run("build", tmp_path / "photos", tmp_path / "c", "--model", model)[:2] == (
        0,
        ["added 1, changed 0, dropped 0, unchanged 0"],
    )
    (tmp_path / "photos" / "a.png").unlink()
    code, _, err = run("build", tmp_path / "photos", tmp_path / "c")
    assert code == 1
    assert "holds no images" in err
    assert run("build", tmp_path / "photos", tmp_path / "c", "--prune")[:2] == (
        0,
        ["added 0, changed 0, dropped 1, unchanged 0"],
    )


def test_a_catalog_may_be_built_into_an_empty_folder_and_into_no_other(run, model, tmp_path, monkeypatch):
    """As an empty volume is mounted."""
    monkeypatch.setattr("retrieval.encoder.STARTER", str(model))
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "photos" / "a.png")
    (tmp_path / "c").mkdir()
    code, lines, err = run("build", tmp_path / "photos", tmp_path / "c")
    assert (code, lines) == (0, ["added 1, changed 0, dropped 0, unchanged 0"])
    assert "No --model was given: using the starter" in err
    code, lines, err = run("build", tmp_path / "photos", tmp_path / "photos")
    assert (code, lines) == (1, [])
    assert "is not a catalog" in err


def test_what_a_bad_row_may_hide_is_kept_with_a_notice(run, model, tmp_path):
    for color in ("red", "blue", "green"):
        Image.new("RGB", (40, 40), color).save(tmp_path / f"{color}.png")
    rows = ["image,title", "red.png,red", "blue.png,blue", "green.png,green"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    run("build", tmp_path / "t.csv", tmp_path / "c", "--model", model)
    (tmp_path / "t.csv").write_text("\n".join([*rows[:2], "blue.png,navy, dark", *rows[3:]]))
    code, lines, err = run("build", tmp_path / "t.csv", tmp_path / "c")
    assert (code, lines) == (0, ["added 0, changed 0, dropped 0, unchanged 2, skipped 1"])
    assert "Skipped t.csv line 3: has 3 values where the header has 2" in err
    assert "Items kept although PAIRS no longer names them: 1." in err


def test_a_price_that_is_missing_leaves_the_others_numbers_and_an_odd_one_is_told(run, model, tmp_path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    rows = [f"{number},red.png,{number},{number}" for number in range(50, 59)]
    (tmp_path / "t.csv").write_text("\n".join(["id,image,price,width", *rows, "59,red.png,n/a,9 cm"]))
    code, _, err = run("build", tmp_path / "t.csv", tmp_path / "c", "--model", model)
    assert (code, "column price" in err) == (0, False)
    assert "t.csv: the column width is text, not numbers, since line 11 holds '9 cm'" in err
    _, lines, _ = run("search", tmp_path / "c", "--where", "price<52")
    assert [line.split("\t")[1] for line in lines] == ["50", "51"]


def test_pictures_inside_a_shard_are_shown_on_the_page(run, model, tmp_path):
    file = BytesIO()
    Image.new("RGB", (40, 40), "red").save(file, "PNG")
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for name, data in (("a.png", file.getvalue()), ("a.txt", b"a red square")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, BytesIO(data))
    run("build", tmp_path / "shard.tar", tmp_path / "c", "--model", model)
    assert run("search", tmp_path / "c", "red", "--html", tmp_path / "page.html")[0] == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/webp') == 1
    assert 'class="missing"' not in page


def test_what_is_exported_is_read_back_by_upsert_and_by_build(run, catalog, shop, model, tmp_path):
    code, lines, _ = run("export", catalog, "--vectors")
    items = [json.loads(line) for line in lines]
    assert (code, [item["id"] for item in items]) == (0, [f"P{number}" for number in range(6)])
    assert items[2]["images"] == [str(shop.parent / "2.png")]
    with Catalog.open(tmp_path / "copy", create=True) as copy:
        assert copy.upsert(items).added == 6
        found = copy.get(["P2"])["P2"]
    plain = [json.loads(line) for line in run("export", catalog)[1]]
    assert plain[2] == found == {name: items[2][name] for name in ("id", "images", "captions", "attributes")}
    assert (found["captions"], found["attributes"]) == (["a blue square"], {"price": 20, "color": "blue"})

    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, plain)), encoding="utf-8")
    read = ("--images", shop.parent, "--map", "image=images")
    built = run("build", tmp_path / "items.jsonl", tmp_path / "built", *read, "--model", model)
    assert built[:2] == (0, ["added 6, changed 0, dropped 0, unchanged 0"])
    assert [json.loads(line) for line in run("export", tmp_path / "built")[1]] == plain


def test_an_item_without_pictures_is_exported_with_its_vectors_alone(run, tmp_path):
    item = {"id": "a", "images": [], "captions": [], "attributes": {}, "image_vectors": [[0.6, 0.8]]}
    with Catalog.open(tmp_path / "c", create=True) as catalog:
        catalog.upsert([item])
    (line,) = run("export", tmp_path / "c", "--vectors")[1]
    exported = json.loads(line)
    assert exported == {**item, "image_vectors": [pytest.approx([0.6, 0.8])]}
    assert "The images of 1 items are stored as vectors only." in run("export", tmp_path / "c")[2]
    with Catalog.open(tmp_path / "d", create=True) as copy:
        assert copy.upsert([exported]).added == 1


def test_search_prints_score_id_and_path_best_first(run, catalog, shop):
    code, lines, _ = run("search", catalog, "a", "red", "square")
    fields = [line.split("\t") for line in lines]
    assert code == 0
    assert sorted(name for _, name, _ in fields) == [f"P{number}" for number in range(6)]
    assert [float(score) for score, _, _ in fields] == sorted((float(score) for score, _, _ in fields), reverse=True)
    assert all(Path(path) == shop.parent / f"{name[1:]}.png" for _, name, path in fields)


def test_image_finds_itself_first_and_json_has_all_fields_of_the_hit(run, catalog, shop):
    code, lines, _ = run("search", catalog, "--image", shop.parent / "2.png", "--images", "-k", "1", "--json")
    hit = json.loads(lines[0])
    assert (code, len(lines), hit["rank"], hit["id"]) == (0, 1, 1, "P2")
    assert hit["score"] == pytest.approx(1, abs=1e-4)
    assert hit["image"] == str(shop.parent / "2.png")
    assert hit["attributes"] == {"price": 20, "color": "blue"}


def test_image_alone_ranks_captions_and_text_prints_images(run, catalog, shop):
    assert run("search", catalog, "--image", shop.parent / "2.png")[1][0].split("\t")[2].startswith("a ")
    assert run("search", catalog, "red")[1][0].endswith(".png")
    assert run("search", catalog, "a red square", "--captions", "-k", "1")[1][0].split("\t")[1:] == [
        "P0",
        "a red square",
    ]


def test_text_is_searched_by_words_and_meaning_unless_vectors_or_words_are_named(run, catalog):
    def search(*options):
        return [json.loads(line) for line in run("search", catalog, "red square", "--json", *options)[1]]

    assert [(hit["target"], set(hit["ranks"])) for hit in search("-k", "1")] == [("items", {"words", "vectors"})]
    assert search() == search("--hybrid")
    assert {hit["target"] for hit in search("--vectors")} == {"images"}
    assert not any("ranks" in hit for hit in search("--vectors") + search("--words"))


def test_filters_are_anded_and_every_match_is_a_hit(run, catalog):
    _, lines, _ = run("search", catalog, "square", "--where", "price>=20", "--where", "color!=black")
    assert {line.split("\t")[1] for line in lines} == {"P2", "P3", "P5"}
    code, lines, err = run("search", catalog, "square", "--where", "price>1000")
    assert (code, lines) == (0, [])
    assert err == "Nothing found that passes the filter.\n"
    assert (
        "No item has an attribute 'prise'. The attributes are color, price."
        in run("search", catalog, "x", "--where", "prise<5")[2]
    )


def test_unknown_attribute_to_sort_or_group_by_is_named(run, catalog):
    for option in ("--sort", "-prise"), ("--group", "prise"):
        code, lines, err = run("search", catalog, "square", *option)
        assert (code, bool(lines)) == (0, True)
        assert "No item has an attribute 'prise'. The attributes are color, price." in err
    assert "No item has" not in run("search", catalog, "square", "--sort", "-price", "--group", "color")[2]


def test_html_page_has_the_query_and_every_hit(run, catalog, tmp_path):
    code, _, err = run("search", catalog, "a red square", "-k", "3", "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert code == 0
    assert "page.html" in err
    assert "a red square" in page
    assert page.count("data:image/") == 3


def test_build_again_changes_nothing_and_deleted_items_stay_deleted(run, shop, model, tmp_path):
    path = tmp_path / "c"
    run("build", shop, path, "--model", model)
    assert run("build", shop, path)[1] == ["added 0, changed 0, dropped 0, unchanged 6"]
    assert run("delete", path, "P1", "nobody")[1] == ["deleted 1, not there 1"]
    code, lines, err = run("build", shop, path)
    assert (code, lines) == (0, ["added 0, changed 0, dropped 0, unchanged 5"])
    assert "Items left out because they were deleted by id: 1. Restore them with --restore." in err
    assert run("build", shop, path, "--restore")[1] == ["added 1, changed 0, dropped 0, unchanged 5"]


@pytest.fixture
def older(catalog, tmp_path):
    """The catalog as format 1 has it, without words."""
    shutil.copytree(catalog, tmp_path / "older")
    connection = sqlite3.connect(tmp_path / "older" / "catalog.sqlite")
    for table in ("words", "vocabulary", "identifiers"):
        connection.execute(f"DROP TABLE {table}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    return tmp_path / "older"


def test_a_search_brings_a_catalog_of_an_older_format_to_this_one(run, older):
    code, lines, err = run("search", older, "--words", "green")
    assert (code, [line.split("\t")[1] for line in lines], err) == (0, ["P1"], "")


def test_an_older_catalog_that_cannot_be_written_is_refused_with_the_command_that_mends_it(run, older, monkeypatch):
    monkeypatch.setattr("os.access", lambda _, mode: mode != os.W_OK)
    for words in (["search", older, "red"], ["info", older]):
        code, lines, err = run(*words)
        assert (code, lines) == (1, [])
        assert f"has the older format 1. Run `retrieval info {older}` where it may be written" in err
    monkeypatch.undo()
    assert run("info", older)[0] == 0
    assert run("search", older, "--words", "green")[0] == 0


def test_info_tells_a_catalog_from_a_model(run, catalog, model):
    assert json.loads(run("info", catalog, "--json")[1][0])["items"] == 6
    assert json.loads(run("info", model, "--json")[1][0])["dimension"] == 16
    assert (
        "catalogue is not a catalog, and cannot be loaded as a model: There is no model folder"
        in run("info", "catalogue")[2]
    )


def test_evaluate_prints_one_object_with_the_names_of_clip_benchmark(run, shop, model, catalog):
    code, lines, _ = run("evaluate", shop, "--model", model, "--json", "--resamples", "20")
    metrics = json.loads(lines[0])["metrics"]
    assert (code, len(lines)) == (0, 1)
    assert 0 <= metrics["image_retrieval_recall@1"] <= metrics["image_retrieval_recall@10"] == 1
    assert metrics["text_retrieval_recall@10"] == 1
    assert run("evaluate", shop, "--catalog", catalog)[0] == 0


def test_evaluate_held_out_excludes_training_pairs(run, model, tmp_path):
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"noise number {number}")
    config = TrainConfig(model=str(model), epochs=1, batch_size=20, validation_share=0.4, device="cpu")
    assert train(read_pairs(tmp_path), tmp_path / "run", config=config).held_out == 24
    measure = ("evaluate", tmp_path, "--model", tmp_path / "run", "--json", "--resamples", "0")
    _, lines, err = run(*measure)
    assert json.loads(lines[0])["items"] == 60
    assert "held 24 of these 60 pairs out of its training. Use --held-out to evaluate on them alone." in err
    _, lines, err = run(*measure, "--held-out")
    assert (json.loads(lines[0])["items"], "--held-out" in err) == (24, False)
    (tmp_path / "run" / "training" / "held_out.json").write_text("[")
    code, _, err = run(*measure)
    assert (code, "held_out.json is damaged" in err, "Traceback" in err) == (1, True, False)
    for wrong in ("--model", model), ("--model", tmp_path / "none"), ():
        code, _, err = run("evaluate", tmp_path, *wrong, "--held-out")
        assert (code, "--held-out needs a run" in err) == (2, True)
        assert "No --model was given" not in err


def test_train_writes_a_run_that_builds_and_searches_a_catalog(run, shop, model, tmp_path):
    code, lines, _ = run("train", shop, tmp_path / "run", "--model", model, "--epochs", "1", "--batch-size", "4")
    assert code == 0
    assert lines
    assert run("build", shop, tmp_path / "c", "--model", tmp_path / "run")[0] == 0
    assert len(run("search", tmp_path / "c", "red")[1]) == 6


@pytest.mark.usefixtures("no_export")
def test_resume_needs_no_settings(run, shop, model, tmp_path):
    """Two epochs of two steps, with a loss and a seed that are not the usual ones."""
    settings = ["--model", model, "--epochs", "2", "--batch-size", "3", "--loss", "sigmoid", "--seed", "5"]
    folder = tmp_path / "run"
    assert run("train", shop, folder, *settings)[0] == 0
    (folder / "training" / "state.safetensors").unlink()  # as a kill before the first checkpoint leaves it
    code, lines, _ = run("train", shop, folder, "--resume")
    assert code == 0
    assert "4 steps on 6 images" in lines[0]
    config = json.loads((folder / "training" / "config.json").read_text(encoding="utf-8"))
    assert [config[name] for name in ("epochs", "loss", "seed")] == [2, "sigmoid", 5]
    code, _, err = run("train", shop, folder, "--resume", "--epochs", "3")
    assert code == 1
    assert "was begun with epochs 2, now 3" in err


@pytest.mark.usefixtures("no_export")
def test_resume_without_a_run_starts_one_with_a_notice(run, shop, model, tmp_path):
    """So torchrun may name --resume from the start, and a mistyped folder is seen before hours of training."""
    settings = ["--model", model, "--epochs", "1", "--batch-size", "3", "--resume"]
    told = f"{tmp_path / 'run'} holds no run to resume, so a new one starts."
    for begins in (True, False):
        code, _, err = run("train", shop, tmp_path / "run", *settings)
        assert (code, told in err) == (0, begins)


@pytest.mark.usefixtures("no_export")
def test_set_reaches_settings_without_an_option(run, shop, model, tmp_path):
    """A number, a word of JSON's, and a text; all come back from the run's folder."""
    words = [
        "weight_decay=0.25",
        "keep_statistics=false",
        "clip_norm=0.5",
        f"cache_folder={tmp_path / 'cache'}",
        "threads=null",
    ]
    settings = [part for word in words for part in ("--set", word)]
    assert run("train", shop, tmp_path / "run", "--model", model, "--epochs", "1", *settings)[0] == 0
    config = json.loads((tmp_path / "run" / "training" / "config.json").read_text(encoding="utf-8"))
    names = ("weight_decay", "freeze_bn_stats", "cache_folder", "threads", "epochs")
    assert [config[name] for name in names] == [0.25, False, str(tmp_path / "cache"), None, 1]


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("words", [["--average", "0.5"], ["--set", "average=0.5"]])
def test_a_renamed_setting_is_read_by_its_old_name_with_a_notice(run, shop, model, tmp_path, words):
    code, _, err = run("train", shop, tmp_path / "run", "--model", model, "--epochs", "1", *words)
    assert code == 0
    assert "The setting average is now called wise_ft: use --wise-ft." in err
    config = json.loads((tmp_path / "run" / "training" / "config.json").read_text(encoding="utf-8"))
    assert config["wise_ft"] == 0.5


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("flag", ["--images", "--validation-images"])
def test_validation_images_are_found_in_their_folder(run, shop, model, tmp_path, flag):
    """In the folder of --images unless they have one of their own; a row of them without a picture is told."""
    asked = tmp_path / "asked.csv"
    asked.write_text("image,title\n0.png,a red square\n1.png,a green square\nx.png,lost", encoding="utf-8")
    graded = ["--validation", asked, flag, shop.parent]
    code, lines, err = run("train", shop, tmp_path / "run", "--model", model, "--epochs", "1", *graded)
    assert code == 0
    assert "on 2 held-out images" in lines[0]
    assert "Skipped x.png: " in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search", "CATALOG"], "nothing to search for"),
        (["search", "CATALOG", "x", "-k", "0"], "-k"),
        (["search", "CATALOG", "x", "--where", "price<<3"], "price<60"),
        (["search", "CATALOG", "x", "--weight", "text=much"], "PART=NUMBER"),
        (["search", "CATALOG", "x", "--weight", "colour=1"], "colour"),
        (["search", "CATALOG", "--like", "nobody"], "nobody"),
        (["evaluate", "SHOP", "--model", "a", "--catalog", "b"], "--model"),
        (["search", "CATALOG", "x", "--html", "/nowhere/x.html"], "/nowhere"),
        (["build", "CATALOG", "NEW", "--model", "x"], "is a catalog"),
        (["build", "SHOP", "NEW", "--map", "title=tilte"], "no column 'tilte'. Similar columns are: title"),
        (["build", "SHOP", "NEW", "--map", "title"], "is not FIELD=COLUMN"),
        (["build", "SHOP", "NEW", "--map", "id=id", "--map", "id=title"], "names id twice"),
        (["build", "SHOP", "NEW", "--report", "SHOP"], "is PAIRS itself"),
        (["build", "SHOP", "NEW", "--report", "/nowhere/x.csv"], "/nowhere"),
        (["train", "SHOP", "NEW", "--set", "weight_decays=1"], "Did you mean weight_decay?"),
        (["train", "SHOP", "NEW", "--set", "warmup=2"], "warmup: 2. It must be a number of at least 0 and at most 1"),
        (["train", "SHOP", "NEW", "--set", "freeze_bn_stats=no"], "freeze_bn_stats: 'no'. It must be true or false"),
        (["train", "SHOP", "NEW", "--set", "warmup"], "'warmup' is not NAME=VALUE"),
        (["delete", "CATALOG"], "ID"),
        (["no-such-command"], "no-such-command"),
    ],
)
def test_a_usage_error_exits_2_and_says_what_to_do(run, catalog, shop, tmp_path, words, said):
    places = {"SHOP": shop, "CATALOG": catalog, "NEW": tmp_path / "new"}
    code, lines, err = run(*[places.get(word, word) for word in words])
    assert (code, lines) == (2, [])
    assert said in err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build", "/nowhere", "NEW", "--model", "MODEL"], "/nowhere"),
        (["build", "SHOP", "NEW", "--model", "no-such-model"], "no-such-model"),
        (["search", "/nowhere", "x"], "no catalog"),
        (["search", "CATALOG", "--image", "/nowhere.jpg"], "nowhere.jpg"),
        (["search", "SHOP", "x"], "not a catalog"),
        (["delete", "/nowhere", "x"], "/nowhere"),
        (["info", "/nowhere"], "/nowhere"),
        (["train", "/nowhere", "NEW"], "/nowhere"),
    ],
)
def test_any_other_error_is_one_line_and_exits_1(run, catalog, shop, model, tmp_path, words, said):
    places = {"SHOP": shop, "CATALOG": catalog, "NEW": tmp_path / "new", "MODEL": model}
    code, lines, err = run(*[places.get(word, word) for word in words])
    assert (code, lines) == (1, [])
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(
    "error", [DeviceError("no GPU\nhere"), OSError("disk full"), RuntimeError("a mistake of ours")]
)
def test_no_traceback_reaches_a_user(run, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("retrieval.catalog.Catalog.open", fail)
    code, _, err = run("search", "c", "x")
    assert code == 1
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_names_with_line_ends_and_control_codes_stay_on_their_line(run, model, tmp_path):
    (tmp_path / "p").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "p" / "a\nb\tc\x1b[31m.png")
    run("build", tmp_path / "p", tmp_path / "c", "--model", model)
    _, lines, _ = run("search", tmp_path / "c", "red")
    assert [line.split("\t")[1] for line in lines] == ["a\\nb\\tc\\x1b[31m.png"]


def test_a_catalog_among_the_pictures_is_none_of_them(run, model, tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    run("build", tmp_path, tmp_path / "c", "--model", model)
    assert run("build", tmp_path, tmp_path / "c", "--strict")[:2] == (0, ["added 0, changed 0, dropped 0, unchanged 1"])


def test_why_items_would_be_dropped_is_said_before_the_refusal(run, model, tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    (tmp_path / "p.csv").write_text("image,text\na.png,red\n")
    run("build", tmp_path / "p.csv", tmp_path / "c", "--model", model)
    (tmp_path / "p.csv").write_text("image,text\nb.png,red\n")
    code, _, err = run("build", tmp_path / "p.csv", tmp_path / "c")
    assert code == 1
    assert err.index("b.png") < err.index("--prune")


def test_a_feed_is_built_with_mapped_columns_and_a_report_of_all_that_was_refused(run, model, tmp_path):
    (tmp_path / "pictures").mkdir()
    for color in ("red", "blue"):
        Image.new("RGB", (40, 40), color).save(tmp_path / "pictures" / f"{color}.png")
    (tmp_path / "pictures" / "cut.png").write_bytes(b"\x89PNG\r\n")
    rows = [f"{name},a {name} bag,https://x.example/{name}.png?w=2,5 EUR,in stock" for name in ("red", "blue", "cut")]
    rows += [f"{number},lost,https://x.example/{number}.png,5 EUR,in stock" for number in range(30)]
    (tmp_path / "feed.csv").write_text("\n".join(["sku,name,photo,price,availability", *rows]))
    words = ["build", tmp_path / "feed.csv", tmp_path / "c", "--images", tmp_path / "pictures"]
    words += ["--map", "id=sku", "--map", "title=name", "--map", "image=photo", "--report", tmp_path / "refused.csv"]
    code, lines, err = run(*words, "--model", model)
    assert (code, lines) == (0, ["added 2, changed 0, dropped 0, unchanged 0, skipped 31"])
    assert f"Skipped 10 more. See {tmp_path / 'refused.csv'}" in err
    report = (tmp_path / "refused.csv").read_text(encoding="utf-8-sig").splitlines()
    assert report[0] == "row,id,picture,reason"
    assert report[1].startswith("feed.csv line 5,0,https://x.example/0.png,there is no such file in ")
    assert len(report) == 32
    assert report[-1].startswith(",cut,cut.png,")
    found = run("search", tmp_path / "c", "bag", "--where", "price=5", "--where", "in_stock=true")[1]
    assert sorted(line.split("\t")[1] for line in found) == ["blue", "red"]
    assert run(*words)[1] == ["added 0, changed 0, dropped 0, unchanged 2, skipped 31"]


def test_damaged_vectors_are_named_with_what_to_do(run, shop, model, tmp_path):
    run("build", shop, tmp_path / "c", "--model", model)
    vectors = next((tmp_path / "c").glob("images-*.f32"))
    vectors.write_bytes(b"\xff" * vectors.stat().st_size)
    code, _, err = run("search", tmp_path / "c", "red")
    assert code == 1
    assert str(vectors) in err
    assert "from a copy" in err


def test_the_first_bad_file_is_an_error_under_strict(run, model, tmp_path):
    (tmp_path / "pictures").mkdir()
    write_good_files(tmp_path / "pictures")
    (tmp_path / "pictures" / "bad.jpg").write_bytes(b"")
    code, lines, err = run("build", tmp_path / "pictures", tmp_path / "c", "--model", model, "--strict")
    assert (code, lines) == (1, [])
    assert "bad.jpg" in err
    assert run("build", tmp_path / "pictures", tmp_path / "c", "--model", model)[0] == 0


def test_forty_hostile_files_beside_ten_good_ones_are_named_and_cost_no_memory(model, tmp_path):
    """40 hostile files are skipped with their reasons, 10 good ones indexed, within 200 MB of the good ones alone."""
    for name in ("good", "both"):
        (tmp_path / name).mkdir()
        write_good_files(tmp_path / name)
    reasons = write_hostile_files(tmp_path / "both")
    _, alone = _measured("build", tmp_path / "good", tmp_path / "a", "--model", model)
    built, together = _measured("build", tmp_path / "both", tmp_path / "b", "--model", model)
    assert built.stdout == "added 10, changed 0, dropped 0, unchanged 0, skipped 40\n"
    for name, reason in reasons.items():
        named = [line for line in built.stderr.splitlines() if name in line]
        assert len(named) == 1
        assert reason in named[0]
    assert together - alone < 200 * 2**20


def test_a_reader_that_stops_reading_is_no_error(catalog):
    """`retrieval search ... | head -1` prints one line and nothing on stderr."""
    command = f"{sys.executable} -m retrieval search {catalog} red | head -1"
    piped = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert len(piped.stdout.splitlines()) == 1
    assert "Traceback" not in piped.stderr
    assert "Error" not in piped.stderr


def _measured(*words) -> tuple[subprocess.CompletedProcess, int]:
    """What a command said, and its peak memory in bytes."""
    script = (
        "import resource, subprocess, sys; "
        "code = subprocess.call(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, sys.executable, "-m", "retrieval", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "2"}
    )
    return done, int(done.stderr.splitlines()[-1]) * 1024
