"""Checks of settings by their names, with one line that says what is wrong."""

import math
from collections.abc import Mapping

from retrieval.errors import TrainingError


def check_whole(settings: object, *, least: Mapping[str, int]) -> None:
    """Refuse settings that are no whole numbers of at least these; None passes."""
    for name, low in least.items():
        value = getattr(settings, name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < low):
            raise TrainingError(f"{name} is {value!r}; it must be a whole number of at least {low}")


def check_flags(settings: object, *names: str) -> None:
    """Refuse settings that are neither true nor false; None passes."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not isinstance(value, bool):
            raise TrainingError(f"{name} is {value!r}; it must be true or false")


def check_range(settings: object, name: str, *, low: float, high: float, above: bool = False) -> None:
    """Refuse a setting that is no number from `low`, or above it, to `high`; None passes."""
    value = getattr(settings, name)
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high or (above and value == low):
        most = f" and at most {high:g}" if high < math.inf else ""
        bounds = f"{'above' if above else 'of at least'} {low:g}{most}"
        raise TrainingError(f"{name} is {value!r}; it must be a number {bounds}")
