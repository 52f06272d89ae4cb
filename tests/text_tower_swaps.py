"""Kill a process that swaps the text tower of a catalog at any moment, and check what it leaves.

python tests/text_tower_swaps.py CATALOG [STEP]   is the process that dies; at STEP it kills itself
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crashes import Contents, contents, write_pictures
from fake_encoder import FakeEncoder

from retrieval.catalog import Catalog
from retrieval.catalog.write import maintenance, swap_text_tower
from retrieval.pairs import read_pairs
from retrieval.records import slots, vector_store

STEPS = {
    "the vectors are not synced yet": (swap_text_tower, "append_rows"),
    "some vectors are written": (swap_text_tower, "append_rows"),
    "the vectors are written": (slots.Slots, "replace_captions"),
    "the captions are changed": (slots.Slots, "put_side"),
    "the old vectors are not yet removed": (maintenance, "remove_other_generations"),
}


class TunedEncoder(FakeEncoder):
    """The fake encoder after its text tower was trained: pictures have the same rows, texts others."""

    def __init__(self) -> None:
        """Begin with nothing encoded."""
        super().__init__(name="fake/tuned")
        self.text_fingerprint = "text of the tuned tower"

    def encode_texts(self, texts: Sequence[str]):
        """One row for each text."""
        return super().encode_texts([f"tuned {text}" for text in texts])


def build(folder: Path) -> Path:
    """Build a catalog with the encoder as it was before, and return its folder."""
    if not (folder / "photos").is_dir():
        write_pictures(folder / "photos")
    with Catalog.open(folder / "catalog", encoder=FakeEncoder()) as catalog:
        catalog.build(read_pairs(folder / "photos"))
    return folder / "catalog"


def killed(catalog: Path, *, step: str | None = None, delay: float | None = None) -> None:
    """Let a process adopt the tuned encoder, and kill it at a step, or so many seconds after it began to."""
    command = [sys.executable, __file__, str(catalog), *([step] if step else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        if delay is not None:
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=300) in {-signal.SIGKILL, 0} if step is None else {-signal.SIGKILL}


def held(path: Path) -> tuple[Any, Contents]:
    """What a catalog says of its encoder, and all that it holds."""
    with Catalog.open(path) as catalog:
        return catalog.info()["text_fingerprint"], contents(catalog)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at(step: str) -> None:
    owner, name = STEPS[step]
    original = getattr(owner, name)
    reached: list[int] = []

    def dying(*arguments: Any, **options: Any) -> Any:
        reached.append(1)
        if step == "the vectors are not synced yet":
            vector_store.os.fsync = lambda _descriptor: _die()
        elif step != "some vectors are written" or len(reached) == 3:
            _die()
        return original(*arguments, **options)

    setattr(owner, name, dying)


def main() -> None:
    """Adopt, unless killed."""
    path, *step = sys.argv[1:]
    swap_text_tower.BATCH_TEXTS = 5  # type: ignore[misc]
    if step:
        _die_at(step[0])
    with Catalog.open(path) as catalog:
        sys.stdout.write("begin\n")
        sys.stdout.flush()
        catalog.adopt(TunedEncoder())


if __name__ == "__main__":
    main()
