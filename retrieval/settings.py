"""Settings declared once, as fields of a frozen dataclass: checks, options and reference tables derive from them."""

import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin

import click

Command = TypeVar("Command", bound=Callable[..., Any])
_KEY: Final = "setting"
_ENTRY: Final = re.compile(r"^    (\w+): (.*(?:\n      .*)*)", re.MULTILINE)  # of a docstring's "Args:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting; `settings_of` fills in the name, type and default of the field that declares it."""

    help: str = ""  # shown by `--help`; by default the first sentence on the field in the "Args:" of the class
    details: str = ""  # further sentences for the reference; by default those that follow there
    low: float = -math.inf  # smallest number
    high: float = math.inf  # largest number
    exclusive: bool = False  # whether `low` itself is too small
    choices: tuple[str, ...] = ()  # the words that are allowed; where the type has numbers too, besides those
    option: bool = True  # whether the command line has an option for it
    hidden: bool = False  # whether `--help` leaves that option out
    secret: bool = False  # whether `repr` leaves the value out
    flag: str = ""  # the option's name, where it is not that of the field
    metavar: str | None = None  # what `--help` calls the value
    default_text: str = ""  # what the default stands for, where it does not say so itself
    old_name: str = ""  # its name in an earlier release, which is still read
    affects_result: bool = True  # whether another value gives another result, rather than the same one at another cost
    name: str = ""
    types: frozenset[Any] = frozenset()
    default: Any = None

    @property
    def values(self) -> str:
        """The allowed values in words, such as "a number above 0 and at most 1"."""
        words = [f"one of {', '.join(self.choices)}"] if self.choices else []
        if self.types & {int, float}:
            low = f"{'above' if self.exclusive else 'of at least'} {self.low:g}" if self.low > -math.inf else ""
            high = f"at most {self.high:g}" if self.high < math.inf else ""
            number = "a number" if float in self.types else "a whole number"
            words.append(f"{number} {' and '.join(filter(None, (low, high)))}".strip())
        return ", or ".join(words) or ("true or false" if bool in self.types else "text")

    def allows(self, value: Any) -> bool:
        """Whether the value is of the declared type and one of the choices or in the range."""
        if (value is None and NoneType in self.types) or (isinstance(value, str) and value in self.choices):
            return True
        if self.types & {int, float} and self.types <= {int, float, str, NoneType}:
            number = isinstance(value, int | float if float in self.types else int) and not isinstance(value, bool)
            inside = number and math.isfinite(value) and self.low <= value <= self.high
            return inside and not (self.exclusive and value == self.low)
        plain = next(iter(self.types - {NoneType})) if len(self.types - {NoneType}) == 1 else object
        return not self.choices and (plain not in {bool, str} or isinstance(value, plain))

    def add_option(self, command: Command) -> Command:
        """The click command with this setting's option, and a hidden one of its old name."""
        is_shown = bool not in self.types and self.default not in {None, "", ()}
        arguments: dict[str, Any] = {"help": self.help, "metavar": self.metavar, "hidden": self.hidden}
        arguments |= {
            "default": self.default,
            "show_default": self.default_text or is_shown,
            "multiple": tuple[str, ...] in self.types,
        }
        arguments |= {"is_flag": True} if bool in self.types else {"type": self._click_type()}
        command = click.option(self.flag or flag_of(self.name), self.name, **arguments)(command)
        if self.old_name:
            arguments |= {"hidden": True, "default": None}
            command = click.option(flag_of(self.old_name), self.old_name, **arguments)(command)
        return command

    def _click_type(self) -> "click.ParamType[Any]":
        low, high = (bound if math.isfinite(bound) else None for bound in (self.low, self.high))
        if float in self.types:
            return _WordOrNumber(self.choices, min=low, max=high, min_open=self.exclusive)
        if int in self.types:
            return click.IntRange(low if low is None else int(low), high if high is None else int(high))
        if tuple[str, ...] in self.types:
            return _ListedWords()
        return click.Choice(self.choices) if self.choices else click.STRING


def setting(default: Any, help: str = "", **declared: Any) -> Any:  # noqa: A002 (as click and argparse call it)
    """A dataclass field that is a setting; `declared` is what `Setting` takes."""
    one = Setting(help=help, default=default, **declared)
    return field(default=default, repr=not one.secret, metadata={_KEY: one})


@cache
def settings_of(cls: type) -> dict[str, Setting]:
    """The settings that a dataclass declares, by their names, in order."""
    entries = _ENTRY.findall(inspect.cleandoc(cls.__doc__ or "").partition("\nArgs:\n")[2])
    described = {name: " ".join(text.split()).partition(". ") for name, text in entries}
    settings = {}
    for one in (one for one in fields(cls) if _KEY in one.metadata):
        types = get_args(one.type) if get_origin(one.type) in {Union, UnionType} else (one.type,)
        declared = replace(one.metadata[_KEY], name=one.name, types=frozenset(types))
        if not declared.help:
            first, _, rest = described.get(one.name, ("", "", ""))
            declared = replace(declared, help=first.removesuffix(".") + ".", details=rest)
        settings[one.name] = declared
    return settings


def check_settings(settings: Any, *, error: type[Exception], of: str = "") -> None:
    """Raise `error` for the first value that is not of its type, or outside its range or choices; `of` says whose."""
    cls: type = type(settings)
    for name, one in settings_of(cls).items():
        value = getattr(settings, name)
        if not one.allows(value):
            raise error(f"Invalid value for {of}{name}: {value!r}. It must be {one.values}.")


def check_names(names: Iterable[str], cls: type, *, error: type[Exception]) -> None:
    """Raise `error` for the first name that is no setting; the message has the nearest one that is."""
    known = list(settings_of(cls))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"The settings are {', '.join(known)}."
            raise error(f"There is no setting {name!r}. {hint}")


def replace_old_names(values: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """The values by the settings' present names; those by names of an earlier release win, unless they are None."""
    current = {one.old_name: name for name, one in settings_of(cls).items() if one.old_name}
    renamed = {current[name]: values[name] for name in values if name in current and values[name] is not None}
    return {name: value for name, value in values.items() if name not in current} | renamed


def settings_options(cls: type) -> Callable[[Command], Command]:
    """Decorator that gives a click command an option for each setting that has one, in the order of the fields.

    The command gets every value by its setting's name. Environment variables are click's `auto_envvar_prefix`. A
    renamed setting has a hidden option of its old name too: `replace_old_names` merges the two.
    """

    def decorate(command: Command) -> Command:
        for one in reversed(settings_of(cls).values()):
            command = one.add_option(command) if one.option else command
        return command

    return decorate


def flag_of(name: str) -> str:
    """The option of a setting: "batch_size" is --batch-size."""
    return "--" + name.replace("_", "-")


def settings_table(cls: type) -> str:
    """A reference of all settings as a Markdown table."""
    rows = ["| Setting | Values | Default | Meaning |", "| --- | --- | --- | --- |"]
    for name, one in settings_of(cls).items():
        default = one.default_text or ("–" if one.default in {None, ""} else str(one.default))
        rows.append(f"| `{name}` | {one.values} | {default} | {f'{one.help} {one.details}'.strip()} |")
    return "\n".join(rows) + "\n"


class _WordOrNumber(click.FloatRange):
    def __init__(self, words: tuple[str, ...], **bounds: Any) -> None:
        super().__init__(**bounds)
        self._words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return value if value in self._words else super().convert(value, param, ctx)
        except click.BadParameter as error:
            if not self._words:
                raise
            raise click.BadParameter(f"{error.message} The words are {', '.join(self._words)}.") from None


class _ListedWords(click.types.StringParamType):
    """Text that may be given several times; in an environment variable, separated by commas or blanks."""

    def split_envvar_value(self, rv: str) -> list[str]:
        return rv.replace(",", " ").split()
