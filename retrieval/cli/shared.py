"""What the commands share: kinds of arguments, notices, progress, and errors that are the user's."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from index.kinds import KINDS
from retrieval.errors import ColumnError, QueryError, RetrievalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from retrieval.catalog import Catalog
    from retrieval.pairs import Skipped

DEVICES: Final = click.Choice(["auto", "cpu", "cuda"])
INDEX_KINDS: Final = click.Choice(["auto", *KINDS])
PATH: Final = click.Path(path_type=Path)
FILE: Final = click.Path(path_type=Path, dir_okay=False)
FOLDER: Final = click.Path(path_type=Path, file_okay=False, exists=True)

STARTER_NOTICE: Final = (
    "no model named: the starter, which finds everyday things by name or short description; a stronger one: "
    "--model ViT-B-32-256/datacomp_s34b_b86k (downloaded once), or a folder that `retrieval train` wrote"
)

_SHOWN_BESIDE_REPORT: Final = 20


def fail(message: str) -> NoReturn:
    """End the command with one line and exit code 1."""
    click.echo("Error: " + " ".join(message.split()), err=True)
    sys.exit(1)


def notice(message: str) -> None:
    """Print a line to stderr."""
    click.echo(message, err=True)


@contextmanager
def usage() -> Iterator[None]:
    """A query that makes no sense, or a column that is not there, is a usage error: exit code 2."""
    try:
        yield
    except (QueryError, ColumnError) as error:
        raise click.UsageError(str(error)) from error


@contextmanager
def extra_named(extra: str) -> Iterator[None]:
    """A package that only an extra brings is missing: say which extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise RetrievalError(
            f'{error.name} is not installed: pip install "crossmodal-retrieval[{extra}]" brings it.'
        ) from error


@contextmanager
def interruptible(what_next: str) -> Iterator[None]:
    """Ctrl-C ends the command with one line that says what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        fail(f"interrupted. {what_next}")


@contextmanager
def reading(path: Path, *, device: str = "auto") -> "Iterator[Catalog]":
    """The catalog, to be read only: once it has this release's format, to which an older one is brought."""
    from retrieval.catalog import Catalog
    from retrieval.records.database import upgrade

    upgrade(path)
    with Catalog.open(path, device=device, read_only=True) as opened:
        yield opened


def notice_skipped(skipped: "Sequence[Skipped]", report: Path | None = None) -> None:
    """A line for each; where a report has them all, for the first ones."""
    shown = skipped if report is None else skipped[:_SHOWN_BESIDE_REPORT]
    for one in shown:
        notice(f"skipped {one.name}: {one.reason}")
    if len(skipped) > len(shown):
        notice(f"and {len(skipped) - len(shown)} more: see {report}")


@contextmanager
def bar(unit: str) -> "Iterator[Callable[[int, int], None]]":
    """A progress bar on stderr, fed with (done, total)."""
    from tqdm import tqdm

    with tqdm(unit=f" {unit}", file=sys.stderr, disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
