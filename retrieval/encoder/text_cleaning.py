"""How open_clip cleans a text before it is tokenized: by mode, without importing open_clip."""

import re
import string
from collections.abc import Callable, Mapping
from types import MappingProxyType

# Texts that ftfy and html.unescape return as they are: printable ASCII without "&", which begins a character
# reference, and the control characters that both leave alone or, for the carriage return, turn into white space.
_CLEAN = re.compile(r"[\t\n\r -%'-~]*")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def is_clean(text: str) -> bool:
    """Whether ftfy and html.unescape have nothing to repair in a text, so that ftfy need not be imported for it."""
    return _CLEAN.fullmatch(text) is not None


def repair_text(text: str) -> str:
    """Return `text` with broken encodings and character references repaired, as ftfy does; most ASCII stays."""
    if is_clean(text):
        return text
    import html

    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text)))


def clean_whitespace(text: str) -> str:
    """Return the repaired text with one space between words."""
    return " ".join(repair_text(text).split())


def clean_lower(text: str) -> str:
    """Return the repaired text in lower case with one space between words."""
    return clean_whitespace(text).lower()


def clean_canonical(text: str) -> str:
    """Return the repaired text in lower case without ASCII punctuation; an underscore is a space."""
    words = repair_text(text).replace("_", " ").translate(_PUNCTUATION).lower()
    return " ".join(words.split())


CLEANERS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {"lower": clean_lower, "whitespace": clean_whitespace, "canonicalize": clean_canonical}
)
"""The values of open_clip's option `clean`."""
