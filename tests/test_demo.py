"""The demo from drawing to page, on a shop small enough that nothing is learned: what it leaves, says and reuses."""

import json
import shutil

import pytest
from tiny_models import tiny_config

from retrieval.catalog import Catalog
from retrieval.demo import run_demo
from retrieval.errors import RetrievalError
from retrieval.train.config import TrainConfig

pytest.importorskip("torch")


def demonstrate(folder, *, seed=0):
    """What the demo says, piece by piece, and what it returns."""
    printed = []
    config = TrainConfig(model=tiny_config(), epochs=1, threads=1, seed=seed)
    return printed, run_demo(folder, echo=printed.append, count=60, held_out=12, config=config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "demo"


@pytest.fixture(scope="module")
def first(folder):
    return demonstrate(folder)


def test_the_last_line_is_json_with_recall_held_out_size_and_seconds(first):
    printed, summary = first
    last = printed[-1].splitlines()[-1]
    assert json.loads(last) == summary
    assert summary["held_out"] == 12
    assert summary["seconds"] > 0
    assert set(summary["recall@10"]) == {"text_to_image", "image_to_text"}
    assert all(0 < value <= 1 for value in summary["recall@10"].values())


def test_every_kind_of_query_is_printed_as_a_command(first, folder):
    commands = [line for piece in first[0] for line in piece.splitlines() if line.startswith("$ retrieval search")]
    first_ones, later = commands[:3], commands[3:]
    assert all(str(folder / "first") in line for line in first_ones)
    assert len(later) == 5
    assert all(str(folder / "catalog") in line for line in later)
    assert sum("--image" in line for line in commands) == 2
    assert sum("--where" in line for line in commands) == 1


def test_the_output_ends_with_three_commands_to_try_next(first):
    words = [line.split() for line in first[0][-1].splitlines() if line.startswith("  ")]
    assert [line[0].endswith("retrieval") for line in words] == [True] * 3
    assert {line[1] for line in words} == {"build", "search", "train"}


@pytest.mark.usefixtures("first")
def test_the_page_has_pictures_captions_and_the_recall_plot(folder):
    page = (folder / "demo.html").read_text(encoding="utf-8")
    assert page.count('<ol class="grid">') + page.count('class="empty"') == 4
    assert page.count('<ol class="list">') == 1
    assert page.count("data:image/svg+xml") == 1
    assert page.count("data:image/webp") > 30


@pytest.mark.usefixtures("first")
def test_the_catalog_holds_the_whole_shop(folder):
    with Catalog.open(folder / "catalog", read_only=True) as catalog:
        assert len(catalog) == 60


def test_a_second_run_reuses_shop_run_and_catalog(first, folder):
    kept = [folder / "shop" / "products.csv", folder / "run" / "open_clip_model.safetensors"]
    before = [path.stat().st_mtime_ns for path in kept]
    printed, summary = demonstrate(folder)
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert summary["recall@10"] == first[1]["recall@10"]
    assert any("added 0, unchanged 60" in piece for piece in printed)


@pytest.mark.usefixtures("first", "no_export")
def test_a_catalog_of_other_weights_is_rebuilt(folder, tmp_path):
    """As when the run's folder was removed, and trained again with another seed."""
    copy = tmp_path / "demo"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "run")
    printed, _ = demonstrate(copy, seed=7)
    assert any("added 60, unchanged 0" in piece for piece in printed)


def test_a_folder_with_other_files_is_an_error_and_stays(tmp_path):
    """A project with a run of the user's own: its folder is named, and nothing in it is touched."""
    kept = tmp_path / "run" / "training" / "config.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(TrainConfig(seed=9).to_json())
    with pytest.raises(RetrievalError, match=f"{tmp_path / 'run'} is not known to be the demo's. Delete it if it is"):
        demonstrate(tmp_path)
    assert TrainConfig.from_json(kept.read_text()).seed == 9
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


@pytest.mark.usefixtures("first", "no_export")
def test_a_run_on_other_products_is_retrained(folder, tmp_path):
    """As another release draws them: the settings are equal."""
    copy = tmp_path / "demo"
    shutil.copytree(folder, copy)
    printed = []
    config = TrainConfig(model=tiny_config(), epochs=1, threads=1)
    summary = run_demo(copy, echo=printed.append, count=48, held_out=12, config=config)
    assert summary["held_out"] == 12
    assert any("1 steps on 36 images" in piece for piece in printed)


@pytest.mark.usefixtures("first", "no_export")
def test_a_run_of_other_settings_is_retrained(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    printed, _ = demonstrate(tmp_path / "copy", seed=1)
    assert any("training" in piece or "trained" in piece for piece in printed)
    config = TrainConfig.from_json((tmp_path / "copy" / "run" / "training" / "config.json").read_text(encoding="utf-8"))
    assert config.seed == 1


def test_missing_pictures_are_redrawn(first, folder, tmp_path):
    copy = tmp_path / "demo"
    shutil.copytree(folder, copy)
    (copy / "shop" / "images" / "p0007.png").unlink()
    _, summary = demonstrate(copy)
    assert summary["recall@10"] == first[1]["recall@10"]
