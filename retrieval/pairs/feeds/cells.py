"""Cells of product feeds: texts inside HTML, prices, levels of categories, yes and no."""

import html
import re
from collections.abc import Iterable, Iterator

from retrieval.pairs.columns import parse_id
from retrieval.pairs.tables import Value

_INTEGER = re.compile(r"-?\d{1,12}", re.ASCII)
_LONGEST_PRICE = 40
_PRICE = re.compile(
    r"(?P<before>[A-Z]{3}|[€£$¥])?\s*(?P<digits>\d[\d.,'’\s]*)(?P<after>[A-Z]{3}|[€£$¥])?", re.IGNORECASE
)
_PLAIN = re.compile(r"\d{1,15}([.,]\d{0,6})?", re.ASCII)
_GROUPED = re.compile(r"\d{1,3}(?P<mark>[.,])\d{3}(?:(?P=mark)\d{3}){0,3}(?P<rest>(?!(?P=mark))[.,]\d{1,6})?", re.ASCII)
_CURRENCIES = {"€": "EUR", "£": "GBP", "$": None, "¥": None}  # several countries share the last two
_BOOLEANS = {"yes": True, "true": True, "y": True, "1": True, "no": False, "false": False, "n": False, "0": False}

# Possessive, and ended by "<": a page of unclosed tags takes no longer than any other.
_TAG = re.compile(
    r"<(script|style)(?![a-z0-9])[^<>]*+>.*?(?:</\1(?![a-z0-9])[^<>]*+>|\Z)|</?(?P<name>[a-z][a-z0-9]*+|!)[^<>]*+>",
    re.IGNORECASE | re.DOTALL | re.ASCII,
)
_INLINE = {
    *("a", "abbr", "b", "bdi", "bdo", "big", "em", "font", "i", "mark"),
    *("q", "s", "small", "span", "strong", "sub", "sup", "u"),
}
_MARKUP = re.compile("[<&]")
_STILL_HTML = re.compile(r"<(/(p|div|li|ul|ol|span|strong|b|em|h\d|td)|br\s*/?)>", re.IGNORECASE)


def iter_texts(value: Value) -> Iterator[str]:
    """Yield all texts in a cell, in order: one, or those of a repeated tag; numbers as text, nothing empty."""
    if isinstance(value, list):
        for part in value:
            yield from iter_texts(part)
    elif (text := parse_id(value)) is not None:
        yield text


def first_text(value: Value) -> str | None:
    """Return the first text in a cell, or None where it is empty."""
    return next(iter_texts(value), None)


def deduplicate(values: Iterable[str]) -> list[str]:
    """Return each value that is not empty once, in order."""
    return list(dict.fromkeys(filter(None, values)))


def unwrap_single(values: list[str]) -> Value:
    """Return a single value as it is, several as a list, none as None."""
    return values if len(values) > 1 else next(iter(values), None)


def split_categories(value: Value) -> Value:
    """Return the levels of one or several categories, "Home > Women > Dresses", as one list; None for an empty cell."""
    paths = (html.unescape(text).split(">") for text in iter_texts(value))
    return deduplicate(level.strip() for path in paths for level in path) or None


def split_slashes(value: Value) -> Value:
    """Return values joined by a slash, as Google has colours and materials: "Black/Gray" is a list of two."""
    texts = (text for text in iter_texts(value) if text.lower() != "n/a")
    return unwrap_single(deduplicate(part.strip() for text in texts for part in text.split("/")))


def parse_boolean(value: Value) -> bool | None:
    """Return whether a cell says yes or no; None where it says neither."""
    return _BOOLEANS.get((first_text(value) or "").lower())


def parse_integer(value: Value) -> int | None:
    """Return the integer in a cell; None for anything else."""
    text = first_text(value) or ""
    return int(text) if _INTEGER.fullmatch(text) else None


def parse_price(text: str) -> tuple[float, str | None] | None:
    """Return amount and currency (ISO 4217, or None) of "15.00 USD", "1.234,56 €", "USD 15" or "15"; else None.

    A single point is decimal, as Google specifies: "1.234" is less than two. A single comma before three digits
    separates thousands, before any other number of digits it is decimal.
    """
    match = _PRICE.fullmatch(text.strip()) if len(text) <= _LONGEST_PRICE else None
    amount = None if match is None else _parse_amount(re.sub(r"[\s'’]", "", match["digits"]))
    if match is None or amount is None or (match["before"] and match["after"]):
        return None
    unit = (match["before"] or match["after"] or "").upper()
    return amount, _CURRENCIES.get(unit, unit or None)


def _parse_amount(digits: str) -> float | None:
    grouped = _GROUPED.fullmatch(digits)
    if grouped and (digits.count(".") != 1 or grouped["rest"]):
        rest = grouped["rest"] or ""
        whole = digits[: len(digits) - len(rest)]
        return float(re.sub(r"\D", "", whole) + rest.replace(",", "."))
    return float(digits.replace(",", ".")) if _PLAIN.fullmatch(digits) else None


def strip_html(text: str) -> str:
    """Return the words of a text that may be HTML, even HTML escaped twice; white space is collapsed.

    A block's tag becomes a space, an inline one nothing, a script or a style as a whole a space.
    """
    for html_pattern in (_MARKUP, _STILL_HTML):
        if html_pattern.search(text):
            text = html.unescape(_TAG.sub(lambda tag: "" if (tag["name"] or "").lower() in _INLINE else " ", text))
    return " ".join(text.replace("\0", " ").split())
