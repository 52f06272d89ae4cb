"""Write the blocks of README.md that are made from the program itself: help texts and tables of results.

A block stands between `<!-- begin: help COMMAND -->` or `<!-- begin: results NAME -->` and `<!-- end -->`. Help comes
from the commands; a table from `table: {columns, rows}` in `benchmarks/results/NAME.json`. With `--check` nothing is
written: a stale README is shown as a diff, with exit code 1.
"""

import argparse
import difflib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from retrieval.cli import commands

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parent / "results"
WIDTH = 100
KINDS = ("help", "results")

_BLOCK = re.compile(r"(<!-- begin: ([^>]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_MARK = re.compile(r"<!-- (?:begin\b.*?|end\b.*?) -->")

Renderer = Callable[[str], str]


class ReadmeError(Exception):
    """A block that cannot be written; the message says which, and why."""


def render_help(command: str) -> str:
    """Help text of a command, or of the program for an empty name, as a fenced block."""
    arguments = [*command.split(), "--help"]
    result = CliRunner().invoke(commands, arguments, prog_name="retrieval", terminal_width=WIDTH)
    if result.exit_code != 0:
        raise ReadmeError(f"`retrieval {' '.join(arguments)}` fails: {result.output.strip() or result.exception!r}")
    return f"```\n$ retrieval {' '.join(arguments)}\n{result.output.rstrip()}\n```\n"


def render_results(name: str, *, folder: Path = RESULTS) -> str:
    """Table of one benchmark's results in Markdown, with the command, the machine and the versions under it."""
    path = folder / f"{name}.json"
    if not path.exists():
        raise ReadmeError(f"{path} is missing: run benchmarks/{name}.py, or take the block out")
    stored = json.loads(path.read_text(encoding="utf-8"))
    results = stored.get("results")
    table = stored.get("table") or (results.get("table") if isinstance(results, Mapping) else None)
    if not table:
        raise ReadmeError(f'{path} has no "table": {{"columns": [...], "rows": [[...]]}}')
    return f"{_markdown(table['columns'], table['rows'], path)}\n{_provenance(stored)}"


def regenerated(text: str, renderers: Mapping[str, Renderer]) -> str:
    """The text with every block that has a renderer written anew.

    Raises:
        ReadmeError: A marker without its other half, or a block that cannot be written.
    """
    alone = _MARK.findall(_BLOCK.sub("", text)) + [
        found[1].strip() for found in _BLOCK.finditer(text) if _MARK.search(found[3])
    ]
    if alone:
        raise ReadmeError(f"the marker {alone[0]} has no other half")

    def block(found: re.Match[str]) -> str:
        kind, _, name = found[2].partition(" ")
        if kind not in KINDS:
            raise ReadmeError(f"the block {found[1].strip()} is of no kind that is known: {', '.join(KINDS)}")
        return found[1] + renderers[kind](name.strip()) + found[4] if kind in renderers else found[0]

    return _BLOCK.sub(block, text)


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]], path: Path) -> str:
    uneven = [row for row in rows if len(row) != len(columns)]
    if uneven:
        raise ReadmeError(f"{path}: the row {uneven[0]} has not the {len(columns)} cells of the columns")
    numeric = [all(isinstance(row[place], int | float | None) for row in rows) for place in range(len(columns))]
    rule = ["---:" if right else "---" for right in numeric]
    return "".join(
        f"| {' | '.join(line)} |\n" for line in [map(_cell, columns), rule, *(map(_cell, row) for row in rows)]
    )


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return " ".join(str(value).split()).replace("|", "\\|")


def _provenance(stored: Mapping[str, Any]) -> str:
    """A line with what the results carry of their making; empty where they carry nothing."""
    machine, versions = stored.get("machine") or {}, stored.get("versions") or {}
    told = [f"`{stored['command']}`"] if stored.get("command") else []
    told += [str(machine[part]) for part in ("processor", "gpu") if machine.get(part)]
    told += [f"{machine['cores']} cores"] if machine.get("cores") else []
    told += [f"{package} {version}" for package, version in versions.items() if package != "crossmodal-retrieval"]
    return f"<sub>{', '.join(told)}</sub>\n" if told else ""


def main() -> int:
    """Write or check README.md; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 with a diff where the README is stale"
    )
    check = parser.parse_args().check
    before = README.read_text(encoding="utf-8")
    try:
        after = regenerated(before, {"help": render_help, "results": render_results})
    except ReadmeError as error:
        print(f"README.md: {error}", file=sys.stderr)
        return 1
    if check and after != before:
        lines = before.splitlines(keepends=True), after.splitlines(keepends=True)
        sys.stdout.writelines(difflib.unified_diff(*lines, "README.md", "README.md as it should be"))
        print("README.md is stale: run `make docs`", file=sys.stderr)
        return 1
    if after != before:
        README.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
