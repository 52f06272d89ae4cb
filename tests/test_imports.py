"""What an import may load: heavy packages only where they are needed. Which file may import which: pyproject.toml."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import index
import retrieval

FOLDERS = {"retrieval": Path(retrieval.__file__).parent, "index": Path(index.__file__).parent}

# Packages that take long to load: only these modules may import them, or each other, at their top.
HEAVY_PACKAGES = {"torch", "torchvision", "open_clip", "faiss", "transformers", "pyarrow", "matplotlib"}
HEAVY_MODULES = {
    "retrieval.encoder.architectures",
    "retrieval.encoder.open_clip_models",
    "retrieval.encoder.open_clip_encoder",
    "retrieval.encoder.fingerprints",
    "retrieval.encoder.text_towers",
    "retrieval.train",
}


def module_names() -> dict[str, Path]:
    """Every module of the two packages by its dotted name."""
    return {
        ".".join([package, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__"): path
        for package, folder in FOLDERS.items()
        for path in sorted(folder.rglob("*.py"))
    }


MODULES = module_names()


def is_heavy(name: str) -> bool:
    return name in HEAVY_PACKAGES or any(name == heavy or name.startswith(f"{heavy}.") for heavy in HEAVY_MODULES)


def runs_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """All statements that run when the module is imported: not those in functions or for type checking only."""
    for child in ast.iter_child_nodes(node):
        type_checking = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        if not type_checking and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from runs_on_import(child)


def imported_at_top(path: Path) -> Iterator[str]:
    for node in runs_on_import(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write {ast.unparse(node)!r} with the package's name"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_heavy_module_is_there():
    assert set(MODULES) >= HEAVY_MODULES


@pytest.mark.parametrize("module", [name for name in MODULES if not is_heavy(name)])
def test_heavy_packages_load_only_where_they_are_needed(module):
    found = [name for name in imported_at_top(MODULES[module]) if is_heavy(name) or is_heavy(name.partition(".")[0])]
    assert found == []


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
    """Nor numpy by the command line, whose help answers at once."""
    report = "import sys; print('\\nloaded:', *sorted({name.partition('.')[0] for name in sys.modules}))"
    found = subprocess.run([sys.executable, "-c", f"{program}; {report}"], capture_output=True, text=True, check=True)
    loaded = set(found.stdout.rpartition("loaded:")[2].split())
    assert "retrieval" in loaded or "index" in loaded
    assert loaded & HEAVY_PACKAGES == set()
    assert not ("cli" in program and "numpy" in loaded)
