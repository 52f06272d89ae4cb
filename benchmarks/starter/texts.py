"""What the starter's text tower learns from: texts, each with an English one that means the same.

Every source is a package of Debian, npm or PyPI, or a set of captioned pictures; `packages.py` says where they lie.
"""

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import packages
from packages import LANGUAGES
from scenes import products, scenes

CLDR_LANGUAGES: Final = (
    *("zh", "zh-Hant", "ja", "ko", "de", "fr", "es", "it", "pt", "ru"),
    *("nl", "pl", "sv", "tr", "ar", "hi", "id", "vi", "th", "uk"),
)
_EVERYDAY: Final = {3, 5, 6, 8, 13, 15, 17, 18, 19, 20, 23, 27}  # WordNet's files of things that one can see
_DICTD_DIGITS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


@dataclass(frozen=True, slots=True)
class Lesson:
    """A text, an English one of the same meaning, and where both come from."""

    text: str
    meaning: str
    source: str


def all_lessons(folder: Path, data: Path, captions: Iterable[Lesson]) -> Iterator[Lesson]:
    """Every lesson of the packages in `folder`, of the emoji in `data`, and the captions."""
    yield from captions
    words = list(_wordnet(packages.wordnet(folder)))
    yield from words
    known = {
        lesson.meaning.lower(): lesson.source == "wordnet things" for lesson in words if "gloss" not in lesson.source
    }
    yield from _classes()
    yield from (Lesson(scene, scene, "scenes") for scene in scenes(250_000, seed=1))
    yield from (Lesson(text, text, "products") for text in products(60_000, seed=2))
    for code in LANGUAGES:
        yield from _freedict(packages.dictionaries(folder), code, known)
    yield from _cedict(packages.cedict(folder), known)
    yield from _edict(packages.edict(folder))
    yield from _cldr(packages.cldr(folder))
    yield from _emoji(data / "emoji" / "metadata.jsonl")


def _wordnet(folder: Path) -> Iterator[Lesson]:
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(" "):
                continue
            head, _, gloss = line.partition(" | ")
            fields = head.split(" ")
            count = int(fields[3], 16)
            words = [re.sub(r"\(.*\)", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
            seen = part == "noun" and int(fields[1]) in _EVERYDAY
            for word in words[:3]:
                yield Lesson(word, word, "wordnet things" if seen else "wordnet words")
            definition, *examples = (piece.strip(' ";') for piece in gloss.split('; "'))
            yield Lesson(definition, definition, "wordnet glosses")
            for example in examples:
                yield Lesson(example, example, "wordnet glosses")
            if seen:
                named = f"{words[0]}, {definition}"
                yield Lesson(named, named, "wordnet glosses")


def _classes() -> Iterator[Lesson]:
    from timm.data import ImageNetInfo

    for subset in ("imagenet-1k", "imagenet-21k"):
        names = ImageNetInfo(subset)
        for number in range(names.num_classes()):
            for word in names.index_to_description(number).split(", ")[:3]:
                for frame in ("{}", "a photo of a {}", "a {}"):
                    text = frame.format(word)
                    yield Lesson(text, text, "classes" if subset == "imagenet-1k" else "wordnet things")


def _freedict(folder: Path, code: str, known: Mapping[str, bool]) -> Iterator[Lesson]:
    """Words that WordNet has too: the rest is mostly jargon. Of things that one can see, also "a photo of" one."""
    language, frame = LANGUAGES[code]
    index, texts = folder / f"freedict-eng-{code}.index", folder / f"freedict-eng-{code}.dict.dz"
    data = gzip.decompress(texts.read_bytes())
    for line in index.read_text(encoding="utf-8").splitlines():
        word, start, length = line.split("\t")[:3]
        if word.lower() not in known:
            continue
        entry = data[_number(start) : _number(start) + _number(length)].decode("utf-8", errors="replace")
        for translation in _translations(entry)[:2]:
            yield Lesson(translation, word.lower(), f"dictionary {language}")
            if known[word.lower()]:
                yield Lesson(frame.format(translation), f"a photo of {word.lower()}", f"dictionary {language}")


def _number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = 64 * value + _DICTD_DIGITS.index(digit)
    return value


def _translations(entry: str) -> list[str]:
    """The first line with translations, without what stands in brackets of any kind."""
    for line in entry.split("\n")[1:]:
        plain = re.sub(r"\([^)]*\)|<[^>]*>|\[[^\]]*\]|\{[^}]*\}|/[^/]*/|\b\d+\.|^[IV]+\.", "", line)
        if plain.strip() and not re.match(r'\s*("|Note:|Synonym|see:)', plain):
            parts = (" ".join(part.split()).strip(" .;-") for part in re.split(r"[,;،]", plain))
            return [part for part in parts if 0 < len(part) <= 30]
    return []


def _cedict(path: Path, known: Mapping[str, bool]) -> Iterator[Lesson]:
    for entry in json.loads(path.read_text(encoding="utf-8")):
        english = [_plain(meaning) for meaning in entry["english"]]
        english = [meaning for meaning in english if meaning and not _REFERENCE.match(meaning)]
        for meaning in english[:1]:
            seen = known.get(re.sub(r"^(a|an|the) ", "", meaning.lower()), False)
            source = "chinese things" if seen else "dictionary zh"
            for chinese in {entry["simplified"], entry["traditional"]}:
                yield Lesson(chinese, meaning, source)
            yield Lesson(f"{entry['simplified']}的照片", f"a photo of {meaning}", source)


_REFERENCE: Final = re.compile(r"(old |erhua |)variant|see |surname |used in|abbr\. |CL:|also written|Taiwan pr")


def _plain(meaning: str) -> str:
    return " ".join(re.sub(r"\([^)]*\)|\[[^\]]*\]|\{[^}]*\}", " ", meaning).split()).split(";")[0].strip()[:80]


def _edict(path: Path) -> Iterator[Lesson]:
    for line in path.read_text(encoding="euc-jp", errors="ignore").splitlines()[1:]:
        match = re.match(r"(\S+)(?: \[(\S+)\])? /(.+?)/", line)
        if match and "(P)" in line:
            meaning = _plain(match[3])
            for japanese in {match[1], match[2] or match[1]}:
                yield Lesson(japanese, meaning, "dictionary ja")
            yield Lesson(f"{match[1]}の写真", f"a photo of {meaning}", "dictionary ja")


def _cldr(folder: Path) -> Iterator[Lesson]:
    english = _annotations(folder, "en")
    for language in CLDR_LANGUAGES:
        for sign, (name, keywords) in _annotations(folder, language).items():
            if sign in english:
                meaning, english_keywords = english[sign]
                yield Lesson(name, meaning, f"cldr {language}")
                yield Lesson(", ".join(keywords), ", ".join(english_keywords), f"cldr {language}")


def _annotations(folder: Path, language: str) -> dict[str, tuple[str, list[str]]]:
    path = folder / language / "annotations.json"
    told = json.loads(path.read_text(encoding="utf-8"))["annotations"]["annotations"]
    return {
        sign: (entry["tts"][0], entry["default"]) for sign, entry in told.items() if {"tts", "default"} <= set(entry)
    }


def _emoji(path: Path) -> Iterator[Lesson]:
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        for language, texts in entry["captions_i18n"].items():
            for text, meaning in zip(texts, entry["text"], strict=False):
                yield Lesson(text, meaning, f"emoji {language}")
