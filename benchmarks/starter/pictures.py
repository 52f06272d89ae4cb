"""The captioned pictures that the starter learns from, and which of them are kept apart to test it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from texts import Lesson

from retrieval.pairs import Pair, read_pairs

HELD_OUT: Final = {"tuxpaint": 300, "openclipart": 1000}
"""Pictures that are never learned from. The sets luma, coco_open, dishes_zh and illustrations are not even read."""

LEARNED: Final = {
    "tuxpaint": "",
    "openclipart": "metadata.jsonl",
    "emoji": "metadata.jsonl",
    "grocery": "metadata.jsonl",
    "clothing": "metadata.csv",
    "recipes": "metadata.jsonl",
}


@dataclass(frozen=True, slots=True)
class Captioned:
    """A picture with its captions."""

    name: str
    path: Path
    captions: tuple[str, ...]


def learned(data: Path, name: str) -> list[Captioned]:
    """The pictures of a set that the starter may learn from."""
    pictures, held = captioned(data, name), held_out(data, name)
    return [picture for picture in pictures if picture.name not in held]


def captioned(data: Path, name: str) -> list[Captioned]:
    """Every picture of a set."""
    return [_captioned(pair) for pair in read_pairs(data / name) if pair.captions]


def _captioned(pair: Pair) -> Captioned:
    return Captioned(pair.image.name, Path(pair.image.path), tuple(pair.captions))


def held_out(data: Path, name: str) -> set[str]:
    """Names of the pictures kept apart: chosen by a hash of their bytes, so that equal files stay on one side."""
    count = HELD_OUT.get(name, 0)
    keys = {picture.name: hashlib.sha256(picture.path.read_bytes()).hexdigest() for picture in captioned(data, name)}
    chosen: set[str] = set()
    for picture, _ in sorted(keys.items(), key=lambda entry: (entry[1], entry[0])) if count else []:
        if len(chosen) < count:
            chosen.add(picture)
    last = {keys[picture] for picture in chosen}
    return {picture for picture, key in keys.items() if key in last}


def caption_lessons(data: Path) -> list[Lesson]:
    """The captions of the pictures that may be learned from, and their translations."""
    lessons = [
        Lesson(caption, caption, f"captions {name}")
        for name in LEARNED
        for picture in learned(data, name)
        for caption in picture.captions
    ]
    return lessons + _translated(data)


def _translated(data: Path) -> list[Lesson]:
    held = held_out(data, "tuxpaint")
    english = {picture.name: picture.captions[0] for picture in captioned(data, "tuxpaint")}
    lessons = []
    for line in (data / "tuxpaint_i18n.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        name = entry["file_name"]
        if name in held or name not in english:
            continue
        for language, text in entry["captions_i18n"].items():
            lessons.append(Lesson(text, english[name], f"tuxpaint {language}"))
    return lessons
