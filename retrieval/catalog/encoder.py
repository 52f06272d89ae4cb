"""The encoder of an open catalog: loaded at first need, and checked against the one that its vectors come from."""

import os
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

from retrieval.encoder import STARTER, Encoder, load_encoder
from retrieval.encoder.onnx.tower_record import ReducedTower
from retrieval.errors import CatalogError, EncoderError, MissingPackageError
from retrieval.records import Records
from retrieval.records.database import Database
from retrieval.records.state import CatalogState, EncoderRecord, Tower, VectorSpace


class CatalogEncoder:
    """One encoder for all threads of an open catalog; each transaction updates the vector space that it must fit.

    Attributes:
        space: The catalog's vector space, as of the last `update`.
        is_given: Whether the caller of `Catalog.open` passed an encoder, or a function that loads one.
    """

    def __init__(
        self,
        database: Database,
        given: Encoder | Callable[[], Encoder] | None,
        *,
        device: str,
        engine: str | None = None,
        export: bool = False,
    ) -> None:
        """Take an encoder, a function that loads one, or None for the recorded one; a wrong one is an error.

        The recorded one is loaded by `load_encoder` with `device`, `engine` and `export`.
        """
        self.is_given = given is not None
        self._database = database
        self._folder = database.folder
        self._device, self._engine, self._export = device, engine, export
        is_encoder = given is None or hasattr(given, "encode_texts")
        self._loaded = cast("Encoder | None", given if is_encoder else None)
        self._loader = cast("Callable[[], Encoder] | None", None if is_encoder else given)
        self._lock = threading.Lock()
        self._checked: dict[Tower, str] = {}  # the recorded fingerprint that each tower was checked against
        with database.reading() as records:
            self.space = records.state().space
        if self._loaded is not None:
            self.load("image")
            self.load("text")

    def update(self, space: VectorSpace) -> None:
        """Compare with this vector space from now on."""
        with self._lock:
            self.space = space

    def load(self, tower: Tower) -> Encoder:
        """Return the encoder, loaded, its `tower` being the one that the catalog was built with.

        Raises:
            CatalogError: there is no encoder, it cannot be loaded, or it is another one.
        """
        with self._lock:
            if self._loaded is None or self._is_outdated():
                self._loaded = self._load()
                self._checked.clear()
            self._loaded = self.reduce(self._loaded)
            recorded = self.space.fingerprint(tower)
            if self._checked.get(tower) != recorded or not recorded:
                self._check(self._loaded, tower)
                self._checked[tower] = recorded
            return self._loaded

    def reduce(self, encoder: Encoder) -> Encoder:
        """Return the encoder with the catalog's image tower in reduced precision, if it has one of this encoder's."""
        tower = self.space.reduced
        if tower is None or encoder.image_fingerprint != tower.base_fingerprint:
            return encoder
        from retrieval.encoder.onnx.reduced import ReducedEncoder

        return ReducedEncoder(encoder, tower, self._folder)

    # --- for the one writer

    def read_state(self, records: Records) -> CatalogState:
        """Return the catalog's state; raise a CatalogError where a given encoder does not fit it."""
        state = records.state()
        self.update(state.space)
        if self.is_given and self._loaded is not None:
            self.load("image")
        return state

    def record_given(self) -> None:
        """Record a loaded encoder that was passed to `Catalog.open`, where the catalog has none yet."""
        if self.is_given and self._loaded is not None:
            self.load_and_record("image")

    def load_and_record(self, tower: Tower) -> Encoder:
        """Return what `load` returns; the catalog's first encoder is recorded, also for vectors imported before."""
        encoder = self.load(tower)
        if self.space.encoder is None:
            record = make_encoder_record(encoder, self._folder)
            with self._lock, self._database.writing() as records:
                records.put_meta(encoder=asdict(record), dimension=encoder.dimension)
                self.space = replace(self.space, encoder=record, dimension=encoder.dimension)
                self._checked.clear()
        return encoder

    def record_reduced(self, encoder: Encoder, tower: ReducedTower) -> None:
        """Record an encoder in float32 with its image tower in reduced precision, as the catalog's first encoder."""
        reduced = replace(self.space, reduced=tower)
        with self._lock, self._database.writing() as records:
            self.space = reduced
            self._loaded = self.reduce(encoder)
            record = make_encoder_record(self._loaded, self._folder)
            records.put_meta(encoder=asdict(record), dimension=encoder.dimension, reduced=asdict(tower))
            self.space = replace(reduced, encoder=record, dimension=encoder.dimension)
            self._checked.clear()

    def replace(self, encoder: Encoder, record: EncoderRecord) -> None:
        """Use this encoder, which has just been recorded."""
        with self._lock:
            self._loaded, self.is_given = encoder, True
            self.space = replace(self.space, encoder=record, dimension=record.dimension)
            self._checked.clear()

    def _is_outdated(self) -> bool:
        """Whether the encoder was loaded by its record, and the catalog has had another one since."""
        if self.is_given:
            return False
        if self.space.encoder is None:
            return self.space.dimension is not None  # somebody imported vectors of an unknown encoder
        return any(checked != self.space.fingerprint(tower) for tower, checked in self._checked.items())

    def _load(self) -> Encoder:
        if self._loader is not None:
            return self._loader()
        record = self.space.encoder
        if record is None and self.space.dimension is None:
            return self._load_named(STARTER)
        if record is None:
            raise CatalogError(
                f"{self._folder} has no encoder yet, only vectors: open it with one (Catalog.open(path, encoder=...)), "
                f"or search it by vector or by item."
            )
        beside = None if record.relative is None else Path(os.path.normpath(self._folder / record.relative))
        name = str(beside) if beside is not None and beside.is_dir() else record.name
        try:
            return self._load_named(name)
        except (EncoderError, MissingPackageError) as error:
            raise CatalogError(
                f"{self._folder} was built with the encoder {record.name}, which does not load: {error}"
            ) from error

    def _load_named(self, name: str) -> Encoder:
        return load_encoder(name, device=self._device, engine=self._engine, export=self._export)

    def _check(self, encoder: Encoder, tower: Tower) -> None:
        record, dimension = self.space.encoder, self.space.dimension
        if record is None:
            if dimension not in {None, encoder.dimension}:
                raise CatalogError(
                    f"{self._folder} holds vectors of {dimension} dimensions; {encoder.name} makes "
                    f"{encoder.dimension}. Open it with the encoder that the vectors come from."
                )
            return
        recorded = self.space.fingerprint(tower)
        current = encoder.image_fingerprint if tower == "image" else encoder.text_fingerprint
        difference = f"{tower} towers {recorded} and {current}" if recorded != current else ""
        if record.dimension != encoder.dimension:
            difference = f"{record.dimension} and {encoder.dimension} dimensions"
        if difference:
            raise CatalogError(
                f"{self._folder} was built with the encoder {record.name}, not with {encoder.name} "
                f"({difference}): their vectors cannot be compared. Open it with {record.name}, "
                f"or build a new catalog with {encoder.name}."
            )


def make_encoder_record(encoder: Encoder, catalog: Path) -> EncoderRecord:
    """Return the record of an encoder in a catalog in the folder `catalog`."""
    folder = Path(encoder.name)
    is_folder = folder.is_absolute() and folder.is_dir()
    return EncoderRecord(
        name=encoder.name,
        relative=os.path.relpath(folder, catalog) if is_folder else None,
        dimension=encoder.dimension,
        image_fingerprint=encoder.image_fingerprint,
        text_fingerprint=encoder.text_fingerprint,
    )
