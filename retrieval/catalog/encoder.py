"""The encoder of a catalog: recorded by the first writer, loaded when it is needed, never another one."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from retrieval.encoder import STARTER, Encoder, load_encoder
from retrieval.errors import CatalogError, EncoderError
from retrieval.records.database import Database

Tower = Literal["image", "text"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a catalog says of the encoder that its vectors come from.

    Attributes:
        name: What `load_encoder` takes.
        relative: Path from the catalog's folder where the encoder is a folder: the two may move together.
    """

    name: str
    relative: str | None
    dimension: int
    image_fingerprint: str
    text_fingerprint: str


class CatalogEncoder:
    """One encoder for all threads of an open catalog."""

    def __init__(self, database: Database, given: Encoder | Callable[[], Encoder] | None, *, device: str) -> None:
        """Take an encoder, or a function that loads it when it is needed, or None for the recorded one.

        Raises:
            CatalogError: the catalog was built with another encoder than the one given.
        """
        self._database = database
        self._device = device
        self._loader: Callable[[], Encoder] | None = None
        self._loaded: Encoder | None = None
        self._lock = threading.Lock()
        self._checked: dict[Tower, str] = {}  # the recorded fingerprint that each tower was checked against
        if given is None or hasattr(given, "encode_texts"):
            self._loaded = cast("Encoder | None", given)
        else:
            self._loader = given
        self._was_given = given is not None
        if self._loaded is not None:
            self.images()
            self.texts()

    @property
    def loaded(self) -> Encoder | None:
        """The encoder, if anything has needed it so far."""
        return self._loaded

    @property
    def given(self) -> bool:
        """Whether an encoder, or a way to load one, was handed in."""
        return self._was_given

    @property
    def recorded(self) -> Recorded | None:
        """What the catalog says of its encoder; None before the first one."""
        with self._database.reading() as records:
            found = records.meta("encoder")
        return None if found is None else Recorded(**found)

    @property
    def dimension(self) -> int | None:
        """Length of the catalog's vectors; None before the first one."""
        recorded = self.recorded
        if recorded is not None:
            return recorded.dimension
        with self._database.reading() as records:
            found: int | None = records.meta("dimension")
        return found

    def fingerprint(self, tower: Tower) -> str:
        """Return the recorded fingerprint of one tower; empty where all vectors so far were handed in."""
        recorded = self.recorded
        if recorded is None:
            return ""
        return recorded.image_fingerprint if tower == "image" else recorded.text_fingerprint

    def images(self) -> Encoder:
        """Return the encoder, loaded, its image tower being the one that the catalog was built with.

        Raises:
            CatalogError: there is none, it cannot be loaded, or it is another one.
        """
        return self._checked_encoder("image")

    def texts(self) -> Encoder:
        """Return the encoder, loaded, its text tower being the one that the catalog was built with.

        Raises:
            CatalogError: there is none, it cannot be loaded, or it is another one.
        """
        return self._checked_encoder("text")

    def for_writing(self, tower: Tower) -> Encoder:
        """Return what `images` or `texts` does, written down where the catalog has no encoder yet; for the one writer.

        Vectors that were handed in before are taken to be its own.

        Raises:
            CatalogError: as there.
        """
        encoder = self._checked_encoder(tower)
        if self.recorded is None:
            facts = facts_to_record(encoder, self._database.folder)
            with self._lock, self._database.writing() as records:
                records.put_meta(encoder=facts, dimension=encoder.dimension)
                self._checked.clear()
        return encoder

    def record_given(self) -> None:
        """Write down an encoder that was handed in, where the catalog has none yet; for the one writer.

        Raises:
            CatalogError: it does not fit the vectors that there are.
        """
        if self._was_given and self._loaded is not None:
            self.for_writing("image")

    def _checked_encoder(self, tower: Tower) -> Encoder:
        with self._lock:
            if self._loaded is None or self._is_outdated():
                self._loaded = self._load()
                self._checked.clear()
            if self._checked.get(tower) != self.fingerprint(tower) or not self.fingerprint(tower):
                self._check(self._loaded, tower)
                self._checked[tower] = self.fingerprint(tower)
            return self._loaded

    def _is_outdated(self) -> bool:
        """Whether nobody handed the encoder in, and another one is the catalog's since it was loaded."""
        if self._was_given:
            return False
        if self.recorded is None:
            return self.dimension is not None  # vectors came whose encoder nobody knows
        return any(was != self.fingerprint(tower) for tower, was in self._checked.items())

    def adopt(self, encoder: Encoder) -> None:
        """Take an encoder that has just been recorded."""
        with self._lock:
            self._loaded, self._was_given = encoder, True
            self._checked.clear()

    def _load(self) -> Encoder:
        if self._loader is not None:
            return self._loader()
        recorded = self.recorded
        folder = self._database.folder
        if recorded is None and self.dimension is None:
            return load_encoder(STARTER, device=self._device)
        if recorded is None:
            raise CatalogError(
                f"{folder} has no encoder yet, only vectors: open it with one (Catalog.open(path, encoder=...)), "
                f"or search it by vector or by item."
            )
        beside = None if recorded.relative is None else Path(os.path.normpath(folder / recorded.relative))
        name = str(beside) if beside is not None and beside.is_dir() else recorded.name
        try:
            return load_encoder(name, device=self._device)
        except EncoderError as error:
            raise CatalogError(
                f"{folder} was built with the encoder {recorded.name}, which does not load: {error}"
            ) from error

    def _check(self, encoder: Encoder, tower: Tower) -> None:
        recorded = self.recorded
        if recorded is None:
            self._check_dimension(encoder)
        elif recorded.dimension != encoder.dimension:
            raise self._other(recorded, encoder, f"{recorded.dimension} and {encoder.dimension} dimensions")
        else:
            was, now = self.fingerprint(tower), _fingerprint(encoder, tower)
            if was != now:
                raise self._other(recorded, encoder, f"{tower} towers {was} and {now}")

    def _other(self, recorded: Recorded, encoder: Encoder, difference: str) -> CatalogError:
        return CatalogError(
            f"{self._database.folder} was built with the encoder {recorded.name}, not with {encoder.name} "
            f"({difference}): their vectors cannot be compared. Open it with {recorded.name}, "
            f"or build a new catalog with {encoder.name}."
        )

    def _check_dimension(self, encoder: Encoder) -> None:
        dimension = self.dimension
        if dimension is not None and dimension != encoder.dimension:
            raise CatalogError(
                f"{self._database.folder} holds vectors of {dimension} dimensions; {encoder.name} makes "
                f"{encoder.dimension}. Open it with the encoder that the vectors come from."
            )


def facts_to_record(encoder: Encoder, catalog: Path) -> dict[str, Any]:
    """What a catalog in the folder `catalog` writes down of its encoder: the attributes of `Recorded`."""
    folder = Path(encoder.name)
    is_folder = folder.is_absolute() and folder.is_dir()
    return {
        "name": encoder.name,
        "relative": os.path.relpath(folder, catalog) if is_folder else None,
        "dimension": encoder.dimension,
        "image_fingerprint": encoder.image_fingerprint,
        "text_fingerprint": encoder.text_fingerprint,
    }


def _fingerprint(encoder: Encoder, tower: Tower) -> str:
    return encoder.image_fingerprint if tower == "image" else encoder.text_fingerprint
