"""The first writer records the encoder that the catalog's vectors come from."""

from dataclasses import asdict

from retrieval.catalog.encoder import CatalogEncoder, describe_encoder
from retrieval.encoder import Encoder
from retrieval.records.database import Database
from retrieval.records.state import Tower, VectorSpace


def load_recorded(database: Database, current: CatalogEncoder, tower: Tower) -> Encoder:
    """Return the catalog's encoder, loaded and checked, and recorded where the catalog has none yet.

    Vectors that were imported before are taken to be its own.

    Raises:
        CatalogError: there is no encoder, it cannot be loaded, or it is another one.
    """
    encoder = current.load(tower)
    if current.space.encoder is None:
        record = describe_encoder(encoder, database.folder)
        with database.writing() as records:
            records.put_meta(encoder=asdict(record), dimension=encoder.dimension)
        current.set_recorded(VectorSpace(record, encoder.dimension))
    return encoder


def record_given(database: Database, current: CatalogEncoder) -> None:
    """Check an encoder that was passed to `Catalog.open`, and record it where the catalog has none yet.

    Raises:
        CatalogError: it does not fit the catalog's vectors.
    """
    if current.is_given and current.is_loaded:
        load_recorded(database, current, "image")
