"""The house: which file may import which, what may be imported from outside, and what an import may load.

A new file goes into one line of LAYERS. Imports inside functions and for type checking count too.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import index
import retrieval

FOLDERS = {"retrieval": Path(retrieval.__file__).parent, "index": Path(index.__file__).parent}


@dataclass(frozen=True)
class Layer:
    """Files that may import each other, the layers below that they may use, and packages from outside."""

    files: str
    uses: str = ""
    packages: str = ""


# Top to bottom; a file is named without its folder, those of index/ with it. Every layer may use `errors`; all of
# retrieval/ may use `index_errors`, to tell its users of them.
LAYERS = {
    "cli": Layer(
        "__init__ cli demo",
        uses="train evaluate catalog records filters query pairs images encoder shop pages metrics index",
        packages="click tqdm fastapi uvicorn numpy",
    ),
    "train": Layer(
        "train train_config trainer exam lessons album crops starts checkpoints run",
        uses="batches losses evaluate encoder pairs images index metrics",
        packages="torch open_clip safetensors numpy PIL",
    ),
    "batches": Layer("batches", uses="pairs images", packages="numpy"),
    "losses": Layer("losses", packages="torch"),
    "pages": Layer("html plots", uses="images", packages="jinja2 PIL matplotlib numpy"),
    "shop": Layer(
        "sample_shop sample_pen sample_scenes sample_texts sample_things sample_wear",
        uses="pairs",
        packages="PIL numpy",
    ),
    "evaluate": Layer(
        "evaluate report report_table served embedding collection",
        uses="metrics encoder pairs images index",
        packages="numpy",
    ),
    "metrics": Layer("metrics ties intervals", packages="numpy"),
    "catalog": Layer(
        "catalog catalog_encoder sync ingest drafts reading shelf sides served_sides upkeep answers facts",
        uses="records filters query encoder pairs images index",
        packages="numpy PIL",
    ),
    "records": Layer(
        "records database schema slots locks items vector_store",
        uses="filters pairs images index",
        packages="numpy",
    ),
    "filters": Layer("filters expressions attributes mirror", packages="numpy"),
    "query": Layer("query", uses="images encoder index", packages="numpy PIL"),
    "encoder": Layer(
        "encoder open_clip_encoder open_clip_models fingerprints text_towers",
        uses="images index",
        packages="torch torchvision open_clip safetensors transformers huggingface_hub numpy PIL",
    ),
    "pairs": Layer("pairs layouts image_folder columns tables captions_json shards", uses="images", packages="pyarrow"),
    "images": Layer("images image_checks image_sources", packages="PIL pillow_heif numpy pyarrow"),
    "errors": Layer("errors"),
    "index": Layer(
        "index.__init__ index.vectors index.exact index.spec index.vector_index index.tuning",
        uses="device",
        packages="numpy",
    ),
    "device": Layer("index.device", uses="index", packages="numpy faiss"),
    "index_errors": Layer("index.errors"),
}

# Of packages that take long to load only these files may import at their top, and nobody imports these files at the
# top but they themselves.
HEAVY_PACKAGES = {"torch", "torchvision", "open_clip", "faiss", "transformers", "pyarrow", "matplotlib"}
HEAVY_FILES = {
    *("open_clip_models", "open_clip_encoder", "fingerprints", "text_towers"),
    *("losses", "train", "trainer", "starts", "checkpoints"),
}

# (file, what it imports): breaks of the table, each with its reason.
EXCEPTIONS: dict[tuple[str, str], str] = {}


@dataclass(frozen=True)
class Import:
    """One import: of a file of ours, by its name in LAYERS, or of a package from outside."""

    of: str
    ours: bool
    at_top: bool  # runs when the file is imported


def file_names() -> dict[str, Path]:
    """Every file of the two packages under its name in LAYERS."""
    return {
        ("index." if package == "index" else "") + ".".join(path.relative_to(folder).with_suffix("").parts): path
        for package, folder in FOLDERS.items()
        for path in sorted(folder.rglob("*.py"))
    }


FILES = file_names()
LAYER_OF = {file: name for name, layer in LAYERS.items() for file in layer.files.split()}


def imports(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_top = set(runs_on_import(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for dotted in imported_names(node):
                yield resolve(dotted, at_top=node in at_top)


def runs_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """All statements that run when the module is imported: not those in functions or for type checking only."""
    for child in ast.iter_child_nodes(node):
        type_checking = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        if not type_checking and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from runs_on_import(child)


def imported_names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, f"write {ast.unparse(node)!r} with the package's name"
    return [f"{node.module}.{alias.name}" for alias in node.names]


def resolve(dotted: str, *, at_top: bool) -> Import:
    package, *rest = dotted.split(".")
    if package not in FOLDERS:
        return Import(package, ours=False, at_top=at_top)
    prefix = "index." if package == "index" else ""
    found = [prefix + ".".join(rest[:length]) for length in range(len(rest), 0, -1)]
    return Import(next((name for name in found if name in FILES), f"{prefix}__init__"), ours=True, at_top=at_top)


IMPORTS = {file: list(imports(path)) for file, path in FILES.items()}


def may_import(file: str, imported: Import) -> bool:
    layer = LAYERS[LAYER_OF[file]]
    if not imported.ours:
        return imported.of in {*sys.stdlib_module_names, *layer.packages.split()}
    ours_below = "" if file.startswith("index.") else "errors"
    return LAYER_OF.get(imported.of) in {LAYER_OF[file], "index_errors", ours_below, *layer.uses.split()}


def test_every_file_stands_in_one_layer():
    listed = [file for layer in LAYERS.values() for file in layer.files.split()]
    assert len(listed) == len(set(listed))
    assert sorted(set(FILES) - set(listed)) == [], "put new files into a line of LAYERS"
    assert {name for layer in LAYERS.values() for name in layer.uses.split()} <= set(LAYERS)


def test_the_table_names_no_file_that_is_gone():
    assert sorted({*LAYER_OF, *HEAVY_FILES} - set(FILES)) == []


@pytest.mark.parametrize("file", sorted(set(FILES) & set(LAYER_OF)))
def test_a_file_imports_only_its_own_layer_and_those_that_it_may_use(file):
    breaks = {imported.of for imported in IMPORTS[file] if not may_import(file, imported)}
    assert sorted(name for name in breaks if (file, name) not in EXCEPTIONS) == []


def test_every_exception_is_in_use():
    assert [pair for pair in EXCEPTIONS if pair[1] not in {imported.of for imported in IMPORTS[pair[0]]}] == []


def test_a_lower_line_of_the_table_never_uses_a_higher_one():
    order = {name: place for place, name in enumerate(LAYERS)}
    upwards = [
        (name, used) for name, layer in LAYERS.items() for used in layer.uses.split() if order[used] < order[name]
    ]
    assert upwards == [("device", "index")]  # one idea in two files: only device.py may import FAISS


def test_what_runs_at_import_has_no_circle():
    graph = {
        file: {imported.of for imported in found if imported.ours and imported.at_top} - {"__init__", "index.__init__"}
        for file, found in IMPORTS.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"files import each other: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("file", FILES)
def test_heavy_packages_load_only_where_they_are_needed(file):
    at_top = {imported.of for imported in IMPORTS[file] if imported.at_top}
    if file not in HEAVY_FILES:
        assert at_top & (HEAVY_PACKAGES | HEAVY_FILES) == set()


@pytest.mark.parametrize(
    "program",
    [
        "import retrieval",
        "import index",
        "import retrieval.cli",
        "from retrieval.cli import commands; commands(['--help'], standalone_mode=False)",
        "from retrieval import Catalog",
    ],
)
def test_neither_torch_nor_faiss_is_loaded_by(program):
    report = "import sys; print('\\nloaded:', *sorted({name.partition('.')[0] for name in sys.modules}))"
    found = subprocess.run([sys.executable, "-c", f"{program}; {report}"], capture_output=True, text=True, check=True)
    loaded = set(found.stdout.rpartition("loaded:")[2].split())
    assert "retrieval" in loaded or "index" in loaded
    assert loaded & HEAVY_PACKAGES == set()
