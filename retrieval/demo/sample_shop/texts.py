"""The invented shop's data (shop.toml), and what is written about its products."""

import tomllib
from importlib.resources import files
from random import Random
from typing import Any, Final

SHOP: Final[dict[str, Any]] = tomllib.loads((files(__package__) / "shop.toml").read_text(encoding="utf-8"))
KINDS: Final[dict[str, Any]] = SHOP["kinds"]
COLORS: Final[dict[str, Any]] = SHOP["colors"]
PATTERNS: Final[dict[str, Any]] = SHOP["patterns"]
SIZES: Final[dict[str, Any]] = SHOP["sizes"]


def make_title(kind: str, *, color: str, pattern: str, form: int) -> str:
    """Return a title that names kind, color and pattern in plain words; `form` selects the order of the words."""
    adjective, noun = PATTERNS[pattern]["adjective"], PATTERNS[pattern]["noun"]
    forms = (
        f"{color} {adjective} {kind}",
        f"{adjective} {kind} in {color}",
        f"{color} {kind} with {noun}",
        f"{kind} in {color}, {adjective}",
    )
    return _capitalize(forms[form % len(forms)])


def make_description(kind: str, *, color: str, pattern: str, size: str, background: str, rng: Random) -> str:
    """Return a sentence or two on the same facts in other words, with the size, the use and the background."""
    words = {
        "name": rng.choice((kind, *KINDS[kind]["names"])),
        "shade": rng.choice(COLORS[color]["words"]),
        "pattern": rng.choice(PATTERNS[pattern]["phrases"]),
        "adjective": PATTERNS[pattern]["adjective"],
        "plain_size": size,
        "size": rng.choice(SIZES[size]["words"]),
        "use": rng.choice(KINDS[kind]["uses"]),
        "place": rng.choice(SHOP["backgrounds"][background]),
    }
    words["a_size"] = f"a {words['size']}"
    capitals = {key.capitalize(): _capitalize(word) for key, word in words.items()}
    return str(rng.choice(SHOP["sentences"])).format(**words, **capitals)


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]
