"""What the cells of shops' feeds say: texts inside HTML, prices, levels of categories, yes and no."""

import html
import re
from collections.abc import Iterator

from retrieval.pairs.columns import as_id
from retrieval.pairs.tables import Value

_LONGEST_PRICE = 40


def parts(value: Value) -> list[str]:
    """All texts in a cell, in order: one, or those of a tag that is repeated; numbers as text, nothing empty."""
    return list(_parts(value))


def _parts(value: Value) -> Iterator[str]:
    if isinstance(value, list):
        for part in value:
            yield from _parts(part)
    elif (text := as_id(value)) is not None:
        yield text


def first(value: Value) -> str | None:
    """The first text in a cell, or None where it is empty."""
    return next(_parts(value), None)


def distinct(values: list[str]) -> list[str]:
    """Each value once, in order."""
    return list(dict.fromkeys(values))


def one_or_all(values: list[str]) -> Value:
    """A single value as it is, several as a list, none as None."""
    return values if len(values) > 1 else next(iter(values), None)


def levels(value: Value) -> Value:
    """Levels of a category, "Home > Women > Dresses" or several of them, as one list; None for an empty cell."""
    paths = (html.unescape(part).split(">") for part in parts(value))
    return distinct([level.strip() for path in paths for level in path if level.strip()]) or None


def slashed(value: Value) -> Value:
    """Values joined by a slash, as Google has colours and materials: "Black/Gray" is a list of two."""
    found = [piece.strip() for part in parts(value) if part.lower() != "n/a" for piece in part.split("/")]
    return one_or_all(distinct([piece for piece in found if piece]))


def truth(value: Value) -> bool | None:
    """Whether a cell says yes or no; None where it says neither."""
    return _TRUTHS.get((first(value) or "").lower())


_TRUTHS = {"yes": True, "true": True, "y": True, "1": True, "no": False, "false": False, "n": False, "0": False}

_PRICE = re.compile(
    r"(?P<before>[A-Z]{3}|[€£$¥])?\s*(?P<digits>\d[\d.,'’\s]*)(?P<after>[A-Z]{3}|[€£$¥])?", re.IGNORECASE
)
_PLAIN = re.compile(r"\d{1,15}([.,]\d{0,6})?", re.ASCII)
_GROUPED = re.compile(r"\d{1,3}(?P<mark>[.,])\d{3}(?:(?P=mark)\d{3}){0,3}(?P<rest>(?!(?P=mark))[.,]\d{1,6})?", re.ASCII)
_CURRENCIES = {"€": "EUR", "£": "GBP", "$": None, "¥": None}  # the last two are of several countries


def price(text: str) -> tuple[float, str | None] | None:
    """Amount and currency (ISO 4217, or None) of "15.00 USD", "1.234,56 €", "USD 15" or "15"; None for anything else.

    A single point is decimal, as Google wants it: "1.234" is less than two. A single comma before three digits parts
    thousands, before other numbers of digits it is decimal.
    """
    found = _PRICE.fullmatch(text.strip()) if len(text) <= _LONGEST_PRICE else None
    amount = None if found is None else _amount(re.sub(r"[\s'’]", "", found["digits"]))
    if found is None or amount is None or (found["before"] and found["after"]):
        return None
    unit = (found["before"] or found["after"] or "").upper()
    return amount, _CURRENCIES.get(unit, unit or None)


def _amount(digits: str) -> float | None:
    grouped = _GROUPED.fullmatch(digits)
    if grouped and (digits.count(".") != 1 or grouped["rest"]):
        rest = grouped["rest"] or ""
        whole = digits[: len(digits) - len(rest)]
        return float(re.sub(r"\D", "", whole) + rest.replace(",", "."))
    return float(digits.replace(",", ".")) if _PLAIN.fullmatch(digits) else None


# Possessive, and ended by "<": a page of unclosed tags takes no longer than any other.
_TAG = re.compile(r"<(?P<close>/?)(?P<name>[a-zA-Z][a-zA-Z0-9]*+|!)[^<>]*+>")
_IN_A_WORD = frozenset(
    [
        *("a", "abbr", "b", "bdi", "bdo", "big", "em", "font", "i", "mark"),
        *("q", "s", "small", "span", "strong", "sub", "sup", "u"),
    ]
)
_UNSEEN = {"script", "style"}
_STILL_HTML = re.compile(r"<(/(p|div|li|ul|ol|span|strong|b|em|h\d|td)|br\s*/?)>", re.IGNORECASE)


def plain_text(text: str) -> str:
    """The words of a text that may be HTML, even HTML that was escaped twice; white space made single."""
    if "<" in text or "&" in text:
        text = html.unescape(_without_tags(text))
        if _STILL_HTML.search(text):
            text = html.unescape(_without_tags(text))
    return " ".join(text.replace("\0", " ").split())


def _without_tags(text: str) -> str:
    """The text between tags; a space where a block ends, nothing where only the type face changes."""
    kept: list[str] = []
    unseen, end = "", 0
    for tag in _TAG.finditer(text):
        name = tag["name"].lower()
        if not unseen:
            kept += (text[end : tag.start()], "" if name in _IN_A_WORD else " ")
            unseen = name if name in _UNSEEN and not tag["close"] else ""
        elif tag["close"] and name == unseen:
            unseen = ""
        end = tag.end()
    return "".join((*kept, "" if unseen else text[end:]))
