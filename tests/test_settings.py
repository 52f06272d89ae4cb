"""Settings declared once: what check, options, environment and reference make of the declaration."""

from dataclasses import dataclass

import click
import pytest
from click.testing import CliRunner

from retrieval.cli.shared import use_current_names
from retrieval.settings import (
    check_names,
    check_settings,
    replace_old_names,
    setting,
    settings_options,
    settings_table,
)


@dataclass(frozen=True, slots=True)
class Sample:
    """Settings of every kind."""

    size: int = setting(3, "Size of it.", low=1, high=9, old_name="length")
    rate: str | float | None = setting(None, "Rate.", choices=("auto",), low=0, high=1, exclusive=True)
    names: tuple[str, ...] = setting((), "Names.", flag="--name")
    quiet: bool = setting(False, "Say nothing.")
    secret: str = setting("", "Not on the command line.", option=False)

    def __post_init__(self):
        check_settings(self, error=ValueError)


@click.command(context_settings={"auto_envvar_prefix": "SAMPLE"})
@settings_options(Sample)
def command(**values):
    click.echo(Sample(**replace_old_names(values, Sample)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 10}, "Invalid value for size: 10. It must be a whole number of at least 1 and at most 9."),
        ({"size": None}, "Invalid value for size: None. It must be a whole number of at least 1 and at most 9."),
        ({"rate": 0}, "Invalid value for rate: 0. It must be one of auto, or a number above 0 and at most 1."),
        ({"quiet": 1}, "Invalid value for quiet: 1. It must be true or false."),
        ({"secret": 1}, "Invalid value for secret: 1. It must be text."),
    ],
)
def test_a_value_outside_its_declaration_is_refused_with_what_is_allowed(values, message):
    with pytest.raises(ValueError, match="Invalid") as error:
        Sample(**values)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ([], {}, Sample()),
        (["--size", "4", "--rate", "auto", "--quiet"], {}, Sample(4, "auto", quiet=True)),
        (["--rate", "0.5", "--name", "a b", "--name", "c"], {}, Sample(rate=0.5, names=("a b", "c"))),
        (["--length", "5"], {}, Sample(5)),
        (
            ["--size", "4"],
            {"SAMPLE_SIZE": "5", "SAMPLE_NAMES": "a, b", "SAMPLE_QUIET": "1"},
            Sample(4, names=("a", "b"), quiet=True),
        ),
    ],
)
def test_options_and_environment_variables_give_the_settings(arguments, environment, expected):
    result = CliRunner().invoke(command, arguments, env=environment, catch_exceptions=False)
    assert result.output.strip() == repr(expected)


def test_help_shows_text_default_and_range_but_no_old_name():
    shown = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert "--size INTEGER RANGE Size of it. [default: 3; 1<=x<=9]" in shown
    assert "--length" not in shown
    assert "--secret" not in shown


def test_an_unknown_name_is_refused_with_the_nearest():
    check_names(["size", "names"], Sample, error=ValueError)
    with pytest.raises(ValueError, match=r"There is no setting 'sizes'\. Did you mean size\?"):
        check_names(["sizes"], Sample, error=ValueError)


def test_the_reference_table_has_a_row_for_each_setting():
    rows = settings_table(Sample).splitlines()
    assert rows[2] == "| `size` | a whole number of at least 1 and at most 9 | 3 | Size of it. |"
    assert rows[3] == "| `rate` | one of auto, or a number above 0 and at most 1 | – | Rate. |"
    assert len(rows) == 7


@pytest.mark.parametrize(
    ("arguments", "variables", "size"),
    [
        ("--size 5", {"APP_LENGTH": "4"}, 5),
        ("--length 4", {"APP_SIZE": "5"}, 4),
        ("--size 5 --length 4", {}, 5),
        ("", {"APP_SIZE": "5", "APP_LENGTH": "4"}, 5),
        ("", {"APP_LENGTH": "4"}, 4),
    ],
)
def test_the_command_line_wins_over_the_environment_and_the_present_name_over_the_old_one(arguments, variables, size):
    @click.command(context_settings={"auto_envvar_prefix": "APP"})
    @settings_options(Sample)
    def command(**values):
        click.echo(Sample(**use_current_names(values, Sample)).size)

    result = CliRunner().invoke(command, arguments.split(), env=variables)
    assert result.stdout == f"{size}\n"
    named = "APP_SIZE" if "--length" not in arguments else "--size"
    assert result.stderr == f"The setting length is now called size: use {named}.\n"
