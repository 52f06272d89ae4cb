"""What a missing package is needed for is told in one line, with the command that installs it."""

import subprocess
import sys

import pytest

from retrieval.errors import MissingPackageError, RetrievalError
from retrieval.extras import require_extra

# A program whose environment lacks everything that has an extra.
WITHOUT = """
import sys
for name in ("faiss", "fastapi", "matplotlib", "onnx", "onnxscript", "open_clip", "pyarrow", "safetensors", "torch",
             "torchvision", "transformers"):
    sys.modules[name] = None
"""


def run_without_extras(program, folder):
    """Return the lines on stderr and stdout of a program, run in `folder` without any extra."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines(), done.stdout.splitlines()


def test_python_names_the_extra_of_each_missing_package(tmp_path):
    (tmp_path / "a.parquet").touch()
    program = """
from retrieval import Catalog, RetrievalError, read_pairs
from retrieval.plots import recall_plot
from retrieval.server import make_app
from retrieval.train import TrainConfig
def train():
    from retrieval.train import train
for call in (train, lambda: read_pairs("a.parquet"), lambda: recall_plot({}), lambda: make_app(None)):
    try:
        call()
    except RetrievalError as error:
        print(error)
"""
    errors, lines = run_without_extras(program, tmp_path)
    assert errors == []
    assert [line.rpartition("Run ")[2] for line in lines] == [
        f"pip install 'crossmodal-retrieval[{extra}]'." for extra in ("train", "parquet", "plots", "serve")
    ]
    assert lines[0].startswith("Training needs the package torch, which a plain installation no longer brings.")
    assert lines[1].startswith("Reading Parquet files needs the package pyarrow, which is not installed.")


def test_every_command_has_its_help_and_those_that_need_an_extra_name_it_in_one_line(tmp_path):
    (tmp_path / "a.parquet").touch()
    program = """
from retrieval.cli import commands, main
def run(*words):
    sys.argv = ["retrieval", *words]
    try:
        main()
    except SystemExit as end:
        return end.code
helped = {run(name, "--help") for name in commands.commands}
print(helped, *(run(*line.split()) for line in ("train . run", "demo demo", "build a.parquet c", "serve c")))
"""
    errors, lines = run_without_extras(program, tmp_path)
    assert lines[-1] == "{0} 1 1 1 1"
    assert [line.startswith("Error: ") for line in errors] == [True] * 4
    assert [line.rpartition("[")[2] for line in errors] == ["train]'.", "train]'.", "parquet]'.", "serve]'."]
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_missing_package_is_an_import_error_and_one_of_the_package():
    with pytest.raises(ImportError) as caught, require_extra("plots", "Plotting"):
        raise ModuleNotFoundError("No module named 'matplotlib.figure'", name="matplotlib.figure")
    assert isinstance(caught.value, MissingPackageError)
    assert isinstance(caught.value, RetrievalError)
    assert caught.value.name == "matplotlib"


def test_a_module_of_the_project_that_is_missing_is_no_extra():
    with pytest.raises(ModuleNotFoundError, match="gone"), require_extra("train", "Training"):
        raise ModuleNotFoundError("No module named 'retrieval.gone'", name="retrieval.gone")
