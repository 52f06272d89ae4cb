"""The house: which file may import which, what may be imported from outside, and what an import may load.

A new file goes into a folder that is a room, or becomes one in ROOMS. Imports inside functions and for type
checking count too.
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
class Room:
    """A file or a folder of files: the rooms that it may use, and packages from outside."""

    uses: str = ""
    packages: str = ""


# Top to bottom. Files of one room may import each other. Every room may use `errors`; all of retrieval/ may use
# `index.errors`, to tell its users of them.
ROOMS = {
    "__main__": Room(uses="cli"),
    "cli": Room(
        uses="server demo train evaluate catalog records filters query pairs images encoder html index",
        packages="click tqdm",
    ),
    "server": Room(
        uses="catalog records filters query images index",
        packages="fastapi starlette pydantic uvicorn prometheus_client PIL",
    ),
    "demo": Room(uses="train evaluate metrics catalog records filters pairs encoder sample_shop html plots"),
    "__init__": Room(uses="catalog query encoder pairs"),
    "train": Room(
        uses="files evaluate metrics encoder pairs html plots images index",
        packages="torch open_clip safetensors numpy PIL",
    ),
    "evaluate": Room(uses="metrics encoder pairs images index", packages="numpy"),
    "metrics": Room(packages="numpy"),
    "catalog": Room(uses="files records filters query encoder pairs images index", packages="numpy PIL"),
    "records": Room(uses="files filters pairs images index", packages="numpy rapidfuzz"),
    "filters": Room(packages="numpy"),
    "query": Room(uses="images encoder index", packages="numpy PIL"),
    "encoder": Room(
        uses="files images index",
        packages="torch torchvision open_clip safetensors transformers huggingface_hub numpy PIL",
    ),
    "sample_shop": Room(uses="pairs", packages="PIL numpy"),
    "html": Room(uses="images", packages="jinja2 PIL"),
    "plots": Room(packages="matplotlib numpy"),
    "pairs": Room(uses="files images", packages="pyarrow defusedxml"),
    "images": Room(packages="PIL pillow_heif numpy pyarrow"),
    "files": Room(),
    "errors": Room(),
    "index": Room(packages="numpy"),
    "index.device": Room(uses="index", packages="numpy faiss"),
    "index.errors": Room(),
}

# Packages that take long to load: only these files may import them at their top, and nobody else imports these files
# at the top.
HEAVY_PACKAGES = {"torch", "torchvision", "open_clip", "faiss", "transformers", "pyarrow", "matplotlib"}
HEAVY_FILES = {
    "encoder.architectures",
    "encoder.open_clip_models",
    "encoder.open_clip_encoder",
    "encoder.fingerprints",
    "encoder.text_towers",
}
HEAVY_ROOMS = {"train"}

# (file, what it imports): breaks of the table, each with its reason.
EXCEPTIONS: dict[tuple[str, str], str] = {}


@dataclass(frozen=True)
class Import:
    """One import: of a file of ours, by its name in LAYERS, or of a package from outside."""

    of: str
    ours: bool
    at_top: bool  # runs when the file is imported


def file_names() -> dict[str, Path]:
    """Every file of the two packages by its dotted name without `retrieval.`, a folder's __init__ by the folder's."""
    return {
        ("index." if package == "index" else "") + dotted(path.relative_to(folder)): path
        for package, folder in FOLDERS.items()
        for path in sorted(folder.rglob("*.py"))
    }


def dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def room_of(file: str) -> str:
    return file if file in ROOMS else file.partition(".")[0]


FILES = file_names()


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
    room = ROOMS[room_of(file)]
    if not imported.ours:
        return imported.of in {*sys.stdlib_module_names, *room.packages.split()}
    ours_below = "" if file.startswith("index.") else "errors"
    beside = "index.device" if room_of(file) == "index" else ""
    return room_of(imported.of) in {room_of(file), "index.errors", ours_below, beside, *room.uses.split()}


def test_every_file_is_in_a_room_and_every_room_has_a_file():
    assert {room_of(file) for file in FILES} == set(ROOMS)
    assert {name for room in ROOMS.values() for name in room.uses.split()} <= set(ROOMS)
    assert set(FILES) >= HEAVY_FILES


@pytest.mark.parametrize("file", sorted(FILES))
def test_a_file_imports_only_its_own_room_and_those_that_it_may_use(file):
    breaks = {imported.of for imported in IMPORTS[file] if not may_import(file, imported)}
    assert sorted(name for name in breaks if (file, name) not in EXCEPTIONS) == []


def test_every_exception_is_in_use():
    assert [pair for pair in EXCEPTIONS if pair[1] not in {imported.of for imported in IMPORTS[pair[0]]}] == []


def test_a_lower_room_never_uses_a_higher_one():
    order = {name: place for place, name in enumerate(ROOMS)}
    upwards = [(name, used) for name, room in ROOMS.items() for used in room.uses.split() if order[used] < order[name]]
    assert upwards == [("index.device", "index")]  # one idea in two files: only device.py may import FAISS


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
    if not is_heavy(file):
        assert [name for name in at_top if name in HEAVY_PACKAGES or is_heavy(name)] == []


def is_heavy(file: str) -> bool:
    return file in HEAVY_FILES or (room_of(file) in HEAVY_ROOMS)


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
