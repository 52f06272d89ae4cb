"""The encoder of a catalog as its writer uses it: checked against the records, and recorded by the first write."""

from dataclasses import asdict

from retrieval.catalog.encoder import CatalogEncoder, describe_encoder
from retrieval.encoder import Encoder
from retrieval.records import Records
from retrieval.records.database import Database
from retrieval.records.state import CatalogState, Tower, VectorSpace


def read_state(records: Records, encoder: CatalogEncoder) -> CatalogState:
    """Return the state of the catalog, and check an encoder that was passed to `Catalog.open` against it.

    Raises:
        CatalogError: the encoder does not fit the catalog's vectors.
    """
    state = records.state()
    encoder.update(state.space)
    if encoder.is_given and encoder.is_loaded:
        encoder.load("image")
    return state


def load_and_record(database: Database, current: CatalogEncoder, tower: Tower) -> Encoder:
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
