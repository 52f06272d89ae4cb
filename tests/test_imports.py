"""What an import may load: heavy packages only where they are needed. Which file may import which: pyproject.toml."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_encoder import FakeEncoder
from PIL import Image

import index
import retrieval
from retrieval.catalog import Catalog
from retrieval.encoder import STARTER, load_encoder
from retrieval.pairs import read_pairs

FOLDERS = {"retrieval": Path(retrieval.__file__).parent, "index": Path(index.__file__).parent}

# Packages that take long to load: only these modules may import them, or each other, at their top.
HEAVY_PACKAGES = {"onnx", "torch", "torchvision", "open_clip", "faiss", "transformers", "pyarrow", "matplotlib"}
HEAVY_MODULES = {
    "retrieval.encoder.architectures",
    "retrieval.encoder.open_clip_models",
    "retrieval.encoder.open_clip_encoder",
    "retrieval.encoder.fingerprints",
    "retrieval.encoder.onnx.export",
    "retrieval.encoder.onnx.graphs",
    "retrieval.encoder.onnx.int8",
    "retrieval.encoder.onnx.towers",
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


def loaded_by(program: str) -> set[str]:
    """Every module that a fresh Python has loaded once it has run the program."""
    report = "import sys; print('\\nloaded:', *sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", f"{program}; {report}"], capture_output=True, text=True, check=True)
    return set(found.stdout.rpartition("loaded:")[2].split())


def any_of(loaded: set[str], names: set[str]) -> set[str]:
    """Those of the modules that are, or lie in, one of these packages."""
    return {module for module in loaded if any(module == name or module.startswith(f"{name}.") for name in names)}


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
    loaded = loaded_by(program)
    assert loaded & {"retrieval", "index"}
    assert any_of(loaded, HEAVY_PACKAGES) == set()
    assert not ("cli" in program and "numpy" in loaded)


# What the commands below do without: what no command needs, and what only changes, pictures and sources need.
ANY_COMMAND = HEAVY_PACKAGES | {"asyncio", "ssl", "tqdm", "jinja2", "fastapi", "pydantic", "numpy.ma"}
ANY_CHANGE = {"filelock", "retrieval.catalog.write"}
ANY_PICTURE = {"PIL", "concurrent"}
ANY_SOURCE = {"retrieval.pairs.layouts", "retrieval.pairs.feeds", "xml", "html", "tarfile", "csv"}
TEXT_REPAIR = {"ftfy", "regex", "tokenizers", "gzip"}
OTHER_DECODERS = {f"PIL.{name}ImagePlugin" for name in ("Avif", "Gif", "Jpeg", "Tiff", "WebP")}
LOOKED_UP = {"importlib.metadata", "email"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A folder with two catalogs, one of the starter, and with the pictures that they were built from."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "pictures").mkdir()
    for color in ("red", "green"):
        Image.new("RGB", (16, 16), color).save(folder / "pictures" / f"{color}.png")
        (folder / "pictures" / f"{color}.txt").write_text(f"a {color} square", encoding="utf-8")
    encoders = {"catalog": FakeEncoder(), "starter": load_encoder(STARTER, device="cpu", engine="onnx")}
    for name, encoder in encoders.items():
        with Catalog.open(folder / name, encoder=encoder) as catalog:
            catalog.build(read_pairs(folder / "pictures"))
    return folder


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("search {}/catalog --like red.png", ANY_COMMAND | ANY_CHANGE | ANY_PICTURE | ANY_SOURCE | LOOKED_UP),
        ("search {}/catalog red --words", ANY_COMMAND | ANY_CHANGE | ANY_PICTURE | ANY_SOURCE | LOOKED_UP),
        ("search {}/starter red", ANY_COMMAND | ANY_CHANGE | ANY_PICTURE | ANY_SOURCE | LOOKED_UP | TEXT_REPAIR),
        ("search {0}/starter --image {0}/pictures/red.png", ANY_COMMAND | ANY_CHANGE | ANY_SOURCE | OTHER_DECODERS),
        ("info {}/catalog", ANY_COMMAND | ANY_PICTURE | ANY_SOURCE | LOOKED_UP | {"filelock"}),
        ("build {0}/pictures {0}/catalog", ANY_COMMAND | {"PIL", "xml", "tarfile"} | LOOKED_UP),
        ("delete {}/catalog nothing", ANY_COMMAND | {"PIL"} | ANY_SOURCE | LOOKED_UP),
    ],
    ids=lambda value: value.partition(" {")[0] if isinstance(value, str) else "",
)
def test_command_loads_only_what_it_needs(shop, words, refused):
    arguments = [word.format(shop) for word in words.split()]
    loaded = loaded_by(f"from retrieval.cli import commands; commands({arguments!r}, standalone_mode=False)")
    assert "retrieval.catalog" in loaded
    assert ("onnxruntime" in loaded) == ("starter" in words)
    assert any_of(loaded, refused) == set()


def test_the_starter_builds_searches_and_serves_without_a_heavy_package(shop):
    program = f"""
import os
from retrieval import Catalog
from retrieval.cli import commands
from retrieval.server import make_app
from starlette.testclient import TestClient
os.chdir({str(shop)!r})
for words in ("build pictures new --device cpu", "search new red", "search new --image pictures/red.png"):
    commands(words.split(), standalone_mode=False)
with Catalog.open("new") as catalog, TestClient(make_app(catalog), base_url="http://localhost") as client:
    client.post("/search", json={{"text": "green"}}).raise_for_status()
"""
    loaded = loaded_by(program.strip())
    assert loaded >= {"onnxruntime", "fastapi", "PIL"}
    assert any_of(loaded, HEAVY_PACKAGES) == set()
