"""Switch a catalog to another text tower: the vectors of its pictures stay, its captions are embedded again."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Final

from retrieval.catalog.encoder import make_encoder_record
from retrieval.encoder import Encoder
from retrieval.errors import CatalogError
from retrieval.hashing import content_hash
from retrieval.records.database import Database, report_disk_errors
from retrieval.records.state import CatalogState
from retrieval.records.vector_store import append_rows, vector_path
from retrieval.types import Adoption

BATCH_TEXTS: Final = 4096


def swap_text_tower(
    database: Database, state: CatalogState, encoder: Encoder, *, progress: Callable[[int, int], None]
) -> Adoption:
    """Make `encoder` the catalog's, if its image tower is the same; for the one writer.

    The new vectors of the captions are a file of their own, synced before the one transaction that names it and the
    encoder. A kill at any moment leaves the catalog with the old text tower or with the new one.

    Raises:
        CatalogError: the image towers or the dimensions differ, or the catalog has no encoder yet; nothing has changed.
    """
    folder, record = database.folder, asdict(make_encoder_record(encoder, database.folder))
    recorded = state.space.encoder
    if recorded is None:
        raise CatalogError(
            f"{folder} has no encoder that {encoder.name} could replace. "
            f"Open it with one (Catalog.open(path, encoder=...))."
        )
    difference = ""
    if recorded.image_fingerprint != encoder.image_fingerprint:
        difference = f"image towers {recorded.image_fingerprint} and {encoder.image_fingerprint}"
    if recorded.dimension != encoder.dimension:
        difference = f"{recorded.dimension} and {encoder.dimension} dimensions"
    if difference:
        raise CatalogError(
            f"{folder} was built with the encoder {recorded.name}, and {encoder.name} embeds pictures "
            f"differently ({difference}): all pictures would have to be embedded again. Build a new catalog with "
            f"{encoder.name}, or adopt a run that was trained with --tune text from {recorded.name}."
        )
    if recorded.text_fingerprint == encoder.text_fingerprint:
        with database.writing() as records:
            records.put_meta(encoder=record)
            return Adoption(records.counts()["images"], 0)
    with database.reading() as records:
        texts = records.slots.caption_texts()
    before = state.sides["captions"]
    after = replace(before, generation=before.generation + 1, rows=0, saved=-1)
    with report_disk_errors(folder):
        path = vector_path(folder, "captions", after.generation)
        path.unlink(missing_ok=True)  # a killed process may have left it
        for start in range(0, len(texts), BATCH_TEXTS):
            batch = texts[start : start + BATCH_TEXTS]
            append_rows(path, encoder.encode_texts(batch), at=start)
            progress(start + len(batch), len(texts))
    contents = [content_hash(text.encode()) for text in texts]
    with database.writing() as records:
        records.slots.replace_captions(after, texts, contents, fingerprint=encoder.text_fingerprint)
        records.put_meta(encoder=record)
        return Adoption(records.counts()["images"], len(texts))
