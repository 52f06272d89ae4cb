"""Switch a catalog over to another text tower: its pictures' vectors stay, its captions are embedded again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Final

from retrieval.catalog.encoder import CatalogEncoder, describe_encoder
from retrieval.encoder import Encoder
from retrieval.errors import CatalogError
from retrieval.hashing import content_hash
from retrieval.records.database import Database, guarded
from retrieval.records.slots import VectorRecord
from retrieval.records.state import EncoderRecord
from retrieval.records.vector_store import append_rows, vector_path

BATCH_TEXTS: Final = 4096


@dataclass(frozen=True, slots=True)
class Adoption:
    """What an adoption did.

    Attributes:
        pictures: whose vectors stay as they were.
        captions: different texts that were embedded again.
    """

    pictures: int
    captions: int

    def summary(self) -> str:
        """One line."""
        return f"adopted: {self.pictures} pictures kept, {self.captions} captions embedded again"


def adopt(
    database: Database, current: CatalogEncoder, encoder: Encoder, *, progress: Callable[[int, int], None]
) -> Adoption:
    """Make `encoder` the catalog's, if its pictures' vectors are the same; done by the one writer.

    The new vectors of the captions are a file of their own, synced before the one transaction that names it and the
    encoder. A kill at any moment leaves the catalog as it was, or as it is to be.

    Raises:
        CatalogError: the image towers or the dimensions differ, or the catalog has no encoder yet; nothing has changed.
    """
    recorded = _check(database, current.space.encoder, encoder)
    if recorded.text_fingerprint == encoder.text_fingerprint:
        with database.writing() as records:
            records.put_meta(encoder=asdict(describe_encoder(encoder, database.folder)))
            return Adoption(records.counts()["images"], 0)
    with database.reading() as records:
        texts, state = records.slots.caption_texts(), records.slots.side("captions")
    after = replace(state, generation=state.generation + 1, rows=len(texts), saved=-1)
    with guarded(database.folder):
        path = vector_path(database.folder, "captions", after.generation)
        with suppress(FileNotFoundError):
            path.unlink()  # what a killed adoption left
        done = 0
        for batch in _batches(texts):
            append_rows(path, encoder.encode_texts(batch), at=done)
            done += len(batch)
            progress(done, len(texts))
    keys = [content_hash(text.encode()) for text in texts]
    with database.writing() as records:
        vectors = [VectorRecord(slot, key, encoder.text_fingerprint) for slot, key in enumerate(keys)]
        records.slots.replace_captions(texts, vectors)
        records.slots.put_side("captions", after)
        records.put_meta(encoder=asdict(describe_encoder(encoder, database.folder)))
        return Adoption(records.counts()["images"], len(texts))


def _check(database: Database, recorded: EncoderRecord | None, encoder: Encoder) -> EncoderRecord:
    if recorded is None:
        raise CatalogError(
            f"{database.folder} has no encoder yet whose place {encoder.name} could take: open it with one "
            f"(Catalog.open(path, encoder=...))."
        )
    was, now = recorded.image_fingerprint, encoder.image_fingerprint
    difference = f"image towers {was} and {now}" if was != now else ""
    if recorded.dimension != encoder.dimension:
        difference = f"{recorded.dimension} and {encoder.dimension} dimensions"
    if difference:
        raise CatalogError(
            f"{database.folder} was built with the encoder {recorded.name}, and {encoder.name} sees pictures "
            f"otherwise ({difference}): its pictures would have to be embedded again. Build a new catalog with "
            f"{encoder.name}, or adopt a run that was trained with --tune text from {recorded.name}."
        )
    return recorded


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), BATCH_TEXTS):
        yield texts[start : start + BATCH_TEXTS]
