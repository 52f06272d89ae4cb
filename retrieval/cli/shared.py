"""Argument types, notices, progress and error handling of all commands."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from click.core import ParameterSource

from index.kinds import KINDS
from retrieval.errors import ColumnError, QueryError
from retrieval.settings import flag_of, replace_old_names, settings_of, settings_options

if TYPE_CHECKING:
    from retrieval.catalog import Catalog
    from retrieval.pairs import Skipped

DEVICES: Final = click.Choice(["auto", "cpu", "cuda"])
ENGINE: Final = click.option(
    "--engine",
    type=click.Choice(["auto", "torch", "onnx"]),
    envvar="RETRIEVAL_ENGINE",
    help="Engine of the encoder; auto runs an exported model by ONNX Runtime on a CPU, and others by torch.",
)
INDEX_KINDS: Final = click.Choice(["auto", *KINDS])
PATH: Final = click.Path(path_type=Path)
FILE: Final = click.Path(path_type=Path, dir_okay=False)
FOLDER: Final = click.Path(path_type=Path, file_okay=False, exists=True)

STARTER_NOTICE: Final = (
    "No --model was given: using the starter, which finds everyday things by name or short description. For a stronger"
    " one, pass --model ViT-B-32-256/datacomp_s34b_b86k (downloaded once), or a folder that `retrieval train` wrote."
)

_MAX_SHOWN: Final = 20  # skipped files and rows that are printed where a report has them all


class SettingsCommand(click.Command):
    """A command that has the options of a settings class too, before its own option named `before`.

    The class, as "module:name", is imported on first use: that would delay `retrieval --help`.
    """

    def __init__(self, *arguments: Any, settings: str, before: str, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._settings, self._before = settings, before

    @cached_property
    def _options(self) -> list[click.Parameter]:
        module, _, name = self._settings.partition(":")
        return settings_options(getattr(import_module(module), name))(click.Command(None)).params[::-1]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own parameters and those of the settings."""
        params = super().get_params(ctx)
        index = [param.name for param in params].index(self._before)
        return [*params[:index], *self._options, *params[index:]]


def fail(message: str) -> NoReturn:
    """Exit with one line on stderr and code 1."""
    click.echo("Error: " + " ".join(message.split()), err=True)
    sys.exit(1)


def notice(message: str) -> None:
    """Print a line to stderr."""
    click.echo(message, err=True)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn an invalid query or an unknown column into a usage error, with exit code 2."""
    try:
        yield
    except (QueryError, ColumnError) as error:
        raise click.UsageError(str(error)) from error


@contextmanager
def interruptible(consequence: str) -> Iterator[None]:
    """Exit at Ctrl-C with one line that says what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        fail(f"Interrupted. {consequence}")


@contextmanager
def open_read_only(path: Path, *, device: str = "auto", engine: str | None = None) -> "Iterator[Catalog]":
    """Open a catalog for reading, after upgrading an older format."""
    from retrieval.catalog import Catalog
    from retrieval.records.database import upgrade

    upgrade(path)
    with Catalog.open(path, device=device, engine=engine, read_only=True) as catalog:
        yield catalog


def use_current_names(values: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """Return settings by their present names, with a notice for each one given by an earlier name.

    A value on the command line wins over one in the environment, and of two in one place the present name wins.
    """
    context = click.get_current_context()
    values, places = dict(values), list(ParameterSource)
    for name, one in settings_of(cls).items():
        if values.get(one.old_name) is None:
            continue
        old, new = (context.get_parameter_source(each) or ParameterSource.DEFAULT for each in (one.old_name, name))
        if name in values and places.index(new) <= places.index(old):
            values[one.old_name] = None
        is_variable = old is ParameterSource.ENVIRONMENT
        spelling = f"{context.auto_envvar_prefix}_{name.upper()}" if is_variable else flag_of(name)
        notice(f"The setting {one.old_name} is now called {name}: use {spelling}.")
    return replace_old_names(values, cls)


def notice_skipped(skipped: "Sequence[Skipped]", report: Path | None = None) -> None:
    """Print a line for each skipped file or row; only the first ones if a report has them all."""
    shown = skipped if report is None else skipped[:_MAX_SHOWN]
    for one in shown:
        notice(f"Skipped {one.name}: {one.reason.removesuffix('.')}.")
    if len(skipped) > len(shown):
        notice(f"Skipped {len(skipped) - len(shown)} more. See {report}.")


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr, if that is a terminal; yields the function that updates it with (done, total)."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from tqdm import tqdm

    with tqdm(unit=f" {unit}", file=sys.stderr, leave=False) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update
