"""How much an installation takes: the light one, made anew, beside that of an earlier commit.

    python benchmarks/install_size.py --before 51de2d2

A fresh environment gets this checkout with an extra, as pip installs it, bytecode included, and all its files are
counted as `du` does. pip and setuptools, which `python -m venv` brings, are counted apart. The earlier commit's is not
made anew: its packages are those that its pyproject.toml needs, summed where they are installed, in the environment
that runs this.
"""

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from tempfile import TemporaryDirectory

from common import write_results
from packaging.requirements import Requirement

CHECKOUT = Path(__file__).parents[1]
TOOLS = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
LARGEST = 8
MEGABYTE = 2**20


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default="51de2d2", help="commit to compare with")
    arguments = parser.parse_args()
    extras = ["", "cpu", "cpu,serve"]
    results = {f"[{extra}]": measure_fresh(extra) for extra in extras}
    before = measure_before(arguments.before, extra="cpu")
    rows = [[f"this version, {name}", one["megabytes"], one["packages"]] for name, one in results.items()]
    rows.append([f"{arguments.before}, [cpu]", before["megabytes"], before["packages"]])
    table = {"columns": ["installation", "MB", "packages"], "rows": rows}
    path = write_results("install_size", {**results, f"before {arguments.before} [cpu]": before, "table": table})
    print(path.read_text(encoding="utf-8"))


def measure_fresh(extra: str) -> dict[str, object]:
    """Install the checkout with an extra into a new environment, and return what it takes."""
    with TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        target = f"{CHECKOUT}[{extra}]" if extra else str(CHECKOUT)
        subprocess.run([f"{folder}/bin/pip", "install", "--quiet", target], check=True)
        (packages,) = Path(folder).glob("lib/python*/site-packages")
        sizes = {path.name: sum(map(_used, _files(path))) for path in packages.iterdir()}
        tools = sum(size for name, size in sizes.items() if name.startswith(TOOLS))
        everything = sum(map(_used, _files(Path(folder))))
        bytecode = sum(_used(path) for path in _files(packages) if "__pycache__" in path.parts)
        largest = sorted((name for name in sizes if not name.startswith(TOOLS)), key=lambda name: -sizes[name])
        return {
            "megabytes": _megabytes(everything - tools),
            "bytecode, with that of pip": _megabytes(bytecode),
            "with pip and setuptools": _megabytes(everything),
            "packages": len([name for name in sizes if name.endswith(".dist-info") and not name.startswith(TOOLS)]),
            "largest": {name: _megabytes(sizes[name]) for name in largest[:LARGEST]},
        }


def measure_before(commit: str, *, extra: str) -> dict[str, object]:
    """Return what the packages take that this commit's pyproject.toml needs, where they are installed here."""
    text = subprocess.run(
        ["git", "show", f"{commit}:pyproject.toml"], cwd=CHECKOUT, check=True, capture_output=True, text=True
    ).stdout
    project = tomllib.loads(text)["project"]
    needed = closure(project["dependencies"] + project["optional-dependencies"][extra])
    sizes = {one.name: sum(_used(Path(str(one.locate_file(path)))) for path in one.files or ()) for one in needed}
    source = sum(map(_used, _files(CHECKOUT / "retrieval")))
    largest = sorted(sizes, key=lambda name: -sizes[name])
    return {
        "megabytes": _megabytes(sum(sizes.values()) + source),
        "packages": len(sizes) + 1,
        "largest": {name: _megabytes(sizes[name]) for name in largest[:LARGEST]},
    }


def closure(requirements: Iterable[str]) -> list[Distribution]:
    """Return the installed distributions that these requirements need, directly or by others."""
    found: dict[tuple[str, str], Distribution] = {}
    open_ones = [(Requirement(text), "") for text in requirements]
    while open_ones:
        requirement, asked = open_ones.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": asked}):
            continue
        one = distribution(requirement.name)
        for extra in {"", *requirement.extras}:
            if (one.name, extra) not in found:
                found[one.name, extra] = one
                open_ones += [(Requirement(text), extra) for text in one.requires or ()]
    return list({one.name: one for one in found.values()}.values())


def _files(path: Path) -> Iterator[Path]:
    return (one for one in (path.rglob("*") if path.is_dir() else [path]) if not one.is_symlink())


def _used(path: Path) -> int:
    """Return the bytes that a file or folder takes on the disk."""
    return path.lstat().st_blocks * 512 if path.exists() else 0


def _megabytes(size: int) -> int:
    return round(size / MEGABYTE)


if __name__ == "__main__":
    main()
