"""The blocks of the README that are written from the program and from committed results."""

import importlib.util
import json
import re
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from tiny_models import write_tiny_model

ROOT = Path(__file__).parents[1]


def load_script():
    spec = importlib.util.spec_from_file_location("readme_script", ROOT / "benchmarks" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


readme = load_script()


def test_the_readmes_tables_are_the_committed_results():
    """Help texts are left to `make check`: another version of click may break lines elsewhere."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.regenerated(text, {"results": readme.render_results}) == text


def test_every_command_has_its_help_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [name for name in readme.commands.commands if f"<!-- begin: help {name} -->" not in text]
    assert missing == []


def test_a_table_is_rendered_with_its_origin(tmp_path):
    stored = {
        "machine": {"processor": "A CPU", "cores": 2, "gpu": None},
        "versions": {"python": "3.11.7", "crossmodal-retrieval": "0.1.0", "numpy": "2.1.0"},
        "command": "python benchmarks/exact.py",
        "results": {
            "table": {"columns": ["queries", "a|b", "ms"], "rows": [[8, "2.4×\nfast", 0.12345], [100_000, None, None]]}
        },
    }
    (tmp_path / "exact.json").write_text(json.dumps(stored), encoding="utf-8")
    assert readme.render_results("exact", folder=tmp_path) == (
        "| queries | a\\|b | ms |\n"
        "| ---: | --- | ---: |\n"
        "| 8 | 2.4× fast | 0.123 |\n"
        "| 100,000 | – | – |\n"
        "\n"
        "<sub>`python benchmarks/exact.py`, A CPU, 2 cores, python 3.11.7, numpy 2.1.0</sub>\n"
    )


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (None, r"gone\.json is missing: run benchmarks/gone\.py"),
        ({"results": [1]}, 'has no "table"'),
        ({"table": {"columns": ["a", "b"], "rows": [[1]]}}, r"the row \[1\] has not the 2 cells"),
    ],
)
def test_results_without_a_table_are_an_error(tmp_path, stored, message):
    if stored is not None:
        (tmp_path / "gone.json").write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(readme.ReadmeError, match=message):
        readme.render_results("gone", folder=tmp_path)


def test_only_what_stands_between_the_markers_is_written():
    text = "top\n<!-- begin: help search -->\nold\n<!-- end -->\nmiddle\n<!-- begin: results x -->\n<!-- end -->\n"
    renderers = {"help": "help of {}\n".format, "results": "table {}\n".format}
    expected = text.replace("old\n", "help of search\n").replace("x -->\n", "x -->\ntable x\n")
    assert readme.regenerated(text, renderers) == expected
    assert readme.regenerated(expected, renderers) == expected


@pytest.mark.parametrize(
    "text",
    [
        "<!-- begin: help -->\n",
        "<!-- end -->\n",
        "<!-- begin: help -->\n<!-- begin: help search -->\n<!-- end -->\n",
        "<!-- begin: help -->\n<!-- end -->\n<!-- end -->\n",
        "<!-- begin: figure x -->\n<!-- end -->\n",
    ],
)
def test_markers_that_do_not_pair_or_name_nothing_are_an_error(text):
    with pytest.raises(readme.ReadmeError, match=r"<!-- (begin: (help|figure x)|end) -->"):
        readme.regenerated(text, {"help": str})


def test_help_is_that_of_the_command_and_an_unknown_one_is_an_error():
    assert readme.render_help("search").startswith("```\n$ retrieval search --help\nUsage: retrieval search ")
    with pytest.raises(readme.ReadmeError, match="`retrieval serch --help` fails"):
        readme.render_help("serch")


def test_check_shows_a_stale_readme_and_writing_mends_it(tmp_path, monkeypatch, capsys):
    stale = tmp_path / "README.md"
    stale.write_text("<!-- begin: help info -->\nold\n<!-- end -->\n", encoding="utf-8")
    monkeypatch.setattr(readme, "README", stale)
    run = partial(_main, monkeypatch)
    assert run("--check") == 1
    assert "-old" in capsys.readouterr().out
    assert run() == 0
    assert "Usage: retrieval info" in stale.read_text(encoding="utf-8")
    assert run("--check") == 0


def _main(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["readme.py", *arguments])
    return readme.main()


def test_the_python_example_of_the_readme_runs_as_it_stands(tmp_path, monkeypatch):
    """It adds an item, finds it by text, filter and picture, and deletes it: nothing is left."""
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text.split("\n## Python\n")[1], re.DOTALL)
    write_tiny_model(tmp_path / "demo" / "run")
    for name in ("mh01.jpg", "query.jpg"):
        Image.new("RGB", (40, 40), "gray").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    lines = code.replace("hits = ", "hits = found[len(found)] = ")
    names = {"found": {}}
    exec(lines, names)  # noqa: S102 -- the README's own text
    by_text, by_picture, like_itself = names["found"].values()
    assert [hit.id for hit in by_text] == ["MH01"]
    assert {hit.id for hit in by_picture} == {"MH01"}
    assert like_itself == []
    assert len(names["catalog"]) == 0
