"""The house: sizes of files and folders, words that are gone, and what CONTRIBUTING says of where to make a change."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import index
import retrieval

ROOT = Path(__file__).parents[1]
PACKAGES = [Path(retrieval.__file__).parent, Path(index.__file__).parent]
FILES = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]

# Identifiers that the library once had for what the field has a word for: none of them comes back.
FORMER_MODULES = (
    "album lessons batches drill exam judge verdict twins crew chance crops starts parts slopes averages watch events "
    "shelf drafts ingest reading upkeep facts weighing answers served_sides searcher lanes gate bodies problems "
    "addresses keys"
)
FORMER_CLASSES = (
    "Album Lessons Teacher Exercise Schedule Drill Exam Exams Marks Places Judge Change Prints Crew ItemChance Looks "
    "Crops Place Mix Watch Shelf Among Recorded Answered Bounded Guarded OwnPages Methods Measured Gate SharedLock "
    "Engine Ingest Draft Reader Problem Lane Keys Events Gradients"
)
FORMER_FUNCTIONS = (
    "arranged graded marked told leads gathered add_up neighbours meet climbed rung chance clipped spend go_on _learn "
    "_move _note _ruined twins twin_groups prints _tend _tend_aside _start_tending _keep_up _keep_up_after "
    "learned_weight facts_of hits_of items_of slopes fitting_bias same kept shown given found known taken opened "
    "drawn built trained measured frame cut probe best_mix sorted_by boosted grouped fused merged mined dealt begun "
    "logged"
)
FORMER_NAMES = {"keep_statistics", "_hopeless", "_tending", "_tender", "_without", "is_bold"}


def defined_names(tree: ast.AST, kind: type[ast.AST] | tuple[type[ast.AST], ...]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, kind):
            yield node.name


@pytest.fixture(scope="module")
def trees():
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def test_no_module_has_a_former_name():
    names = {path: path.parent.name if path.name == "__init__.py" else path.stem for path in FILES}
    assert [str(path) for path, name in names.items() if name in FORMER_MODULES.split()] == []


def test_no_class_has_a_former_name(trees):
    found = [(path.name, name) for path, tree in trees.items() for name in defined_names(tree, ast.ClassDef)]
    assert [pair for pair in found if pair[1] in FORMER_CLASSES.split()] == []


def test_no_function_has_a_former_name(trees):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [(path.name, name) for path, tree in trees.items() for name in defined_names(tree, functions)]
    assert [pair for pair in found if pair[1] in FORMER_FUNCTIONS.split()] == []


def test_no_attribute_argument_or_variable_has_a_former_name(trees):
    found = [
        (path.name, name)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if (name := getattr(node, "attr", None) or getattr(node, "arg", None) or getattr(node, "id", None))
    ]
    assert [pair for pair in found if pair[1] in FORMER_NAMES] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_file_holds_more_than_one_can_read_at_a_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


def test_no_folder_is_a_crowd():
    folders = {path.parent for path in FILES}
    counts = {folder: len(list(folder.glob("*.py"))) - 1 for folder in folders}
    assert {str(folder): count for folder, count in counts.items() if count > 13} == {}


def test_contributing_names_at_most_three_files_for_each_kind_of_change_and_all_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("| to add |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines()[2:]]
    assert len(rows) >= 5
    for change, where in rows:
        places = re.findall(r"`((?:index|retrieval)/[\w/.]*)`", where)
        assert 1 <= len(places) <= 3, change
        assert [name for name in places if not (ROOT / name).exists()] == [], change
