"""Reduce a new catalog's image tower to 8-bit integers, once its agreement with float32 has been measured."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.vectors import Rows
from retrieval.catalog.encoder import CatalogEncoder
from retrieval.catalog.items import clean_captions
from retrieval.encoder import Encoder
from retrieval.encoder.onnx.encoder import OnnxEncoder
from retrieval.encoder.onnx.reduced import ReducedEncoder
from retrieval.encoder.onnx.tower_record import REDUCED_FILE
from retrieval.errors import CatalogError, EncoderError
from retrieval.extras import require_extra
from retrieval.images.pipeline import read_images
from retrieval.images.sources import ImageSource
from retrieval.pairs import Pairs
from retrieval.records.database import Database, report_disk_errors
from retrieval.types import Agreement

PRECISIONS: Final = ("float32", "int8")
CALIBRATED: Final = 128  # pictures at the start of the source
MEASURED: Final = 500  # pictures, evenly spread over the rest
FORCED: Final = 100  # pictures to measure where the outcome decides nothing
MIN_MEASURED: Final = 40  # pictures, below which ten of them say little
MIN_BEST: Final = 0.95
MIN_TEN: Final = 0.9
_TEXTS_PER_PICTURE: Final = 4
_TEN: Final = 10


@dataclass(frozen=True, slots=True)
class _Sample:
    """Pictures of a source, as `prepare` returns them, and texts with the number of the measured picture of each."""

    calibration: list[NDArray[np.uint8]]
    measured: list[NDArray[np.uint8]]
    texts: list[str]
    owners: NDArray[np.int64]


def set_precision(
    database: Database, encoder: CatalogEncoder, pairs: Pairs, *, precision: str, force: bool
) -> Agreement | None:
    """Make a catalog that has no vectors yet embed pictures in this precision; return how good that is.

    "int8" encodes pictures 1.8 to 2.6 times as fast on a CPU, by an image tower that is made for this catalog and lies
    in its folder: a convolutional one is calibrated by the first pictures of the source. The encoder in float32 and the
    reduced one then search among pictures of the rest, by each of them and by their texts. Later builds and searches
    use the tower unasked. Texts are encoded in float32 as before: a caption takes a fifth of a picture's time, and most
    queries are texts.

    Args:
        database: Of the catalog; the caller is its one writer.
        encoder: Of the catalog.
        pairs: What is built next.
        precision: "int8" or "float32"; in a catalog that has it already nothing is done.
        force: Accept any agreement, and sources too small to measure it.

    Raises:
        CatalogError: the catalog has vectors of another precision, or the agreement is too low.
        EncoderError: the model does not run under ONNX Runtime on the CPU, or cannot be reduced.
    """
    if precision not in PRECISIONS:
        raise CatalogError(f"There is no precision {precision!r}. Use one of {', '.join(PRECISIONS)}.")
    with database.reading() as records:
        space = encoder.read_state(records).space
    present = "float32" if space.reduced is None else "int8"
    if space.dimension is not None and present != precision:
        raise CatalogError(
            f"{database.folder} holds vectors of pictures in {present}, and those in {precision} cannot be compared "
            f"with them. Build a new catalog for {precision}."
        )
    if precision == "float32":
        return None
    return _reduce(database, encoder, pairs, force=force) if space.reduced is None else space.reduced.agreement


def _reduce(database: Database, catalog_encoder: CatalogEncoder, pairs: Pairs, *, force: bool) -> Agreement:
    """Make, measure and record the reduced tower; where that fails its file is deleted."""
    encoder = catalog_encoder.load("image")
    if not isinstance(encoder, OnnxEncoder):
        raise EncoderError(
            f"Only a model that ONNX Runtime runs on the CPU can be reduced to int8, not {encoder.name} by this "
            "engine. Use engine onnx and device cpu."
        )
    with require_extra("train", "Reducing a model to int8"):
        from retrieval.encoder.onnx.int8 import reduce_image_tower
    sample = _read_sample(encoder, pairs, count=FORCED if force else MEASURED)
    if not sample.calibration:
        raise CatalogError(f"{pairs.source} has no readable picture to calibrate the model by. Name another source.")
    try:
        with report_disk_errors(database.folder):
            tower = reduce_image_tower(encoder.export, sample.calibration, database.folder)
        agreement = _measure(encoder, ReducedEncoder(encoder, tower, database.folder), sample)
        if not force:
            _check(agreement)
        catalog_encoder.record_reduced(encoder, replace(tower, agreement=agreement))
    except BaseException:
        (database.folder / REDUCED_FILE).unlink(missing_ok=True)
        raise
    return agreement


def _check(agreement: Agreement) -> None:
    """Raise a CatalogError where int8 finds other pictures than float32 too often.

    Measured (benchmarks/results/int8.json): among 500 garments the starter, of small convolutions, keeps 72 % of the
    best hits and 83 % of the ten best; ViT-B/32 with random weights, whose rows are alike, 94 % and 95 %.
    """
    advice = "Build in float32, or accept it with --force (force=True)."
    if agreement.pictures < MIN_MEASURED:
        raise CatalogError(
            f"int8 was not accepted: {agreement.pictures} readable pictures are too few to measure it by, which takes "
            f"{MIN_MEASURED}. {advice}"
        )
    if agreement.best < MIN_BEST or agreement.ten < MIN_TEN:
        raise CatalogError(
            f"int8 was not accepted, which takes {MIN_BEST:.0%} of the best hits and {MIN_TEN:.0%} of the ten best. "
            f"{agreement.summary()}. {advice}"
        )


def _read_sample(encoder: OnnxEncoder, pairs: Pairs, *, count: int) -> _Sample:
    """Read the first picture of items; what is measured is not calibrated by, unless there are too few."""
    items = [(rows[0].image, [text for row in rows for text in row.captions]) for rows in pairs.by_item().values()]
    rest = items[CALIBRATED:] if len(items) >= CALIBRATED + MIN_MEASURED else items
    chosen = [rest[number] for number in np.unique(np.linspace(0, max(len(rest) - 1, 0), count, dtype=int))]
    calibration = _prepare(encoder, [image for image, _ in items[:CALIBRATED]])
    measured = _prepare(encoder, [image for image, _ in chosen])
    texts = [
        (place, text)
        for place, number in enumerate(measured)
        for text in islice(clean_captions(chosen[number][1]), _TEXTS_PER_PICTURE)
    ]
    return _Sample(
        list(calibration.values()),
        list(measured.values()),
        [text for _, text in texts],
        np.array([place for place, _ in texts], np.int64),
    )


def _prepare(encoder: OnnxEncoder, images: Sequence[ImageSource]) -> dict[int, NDArray[np.uint8]]:
    """Return what the encoder prepares of each readable picture, by its number."""
    with closing(read_images(images, encoder.prepare, size=encoder.image_size)) as found:
        return {image.number: image.prepared for image in found if image.prepared is not None}


def _measure(encoder: Encoder, reduced: Encoder, sample: _Sample) -> Agreement:
    """Search among the pictures by each of them, itself left out, and by each text, with both encoders."""
    count, by_text = len(sample.measured), encoder.encode_texts(sample.texts)
    exact, fast = (_rank(one.encode_prepared(sample.measured), by_text) for one in (encoder, reduced))
    same = (exact[:, :, None] == fast[:, None, :]).any(axis=2)
    right = [ranked[count:] == sample.owners[:, None] for ranked in (exact, fast)] if len(sample.texts) else []
    return Agreement(
        precision="int8",
        pictures=count,
        texts=len(sample.texts),
        best=float(np.mean(exact[:, :1] == fast[:, :1])) if exact.size else 1.0,
        ten=float(np.mean(same)) if same.size else 1.0,
        recall_at_1=tuple(float(np.mean(one[:, :1].any(axis=1))) for one in right),
        recall_at_10=tuple(float(np.mean(one.any(axis=1))) for one in right),
    )


def _rank(pictures: Rows, texts: Rows) -> NDArray[np.int64]:
    """Return the ten best pictures for each picture, without itself, and then for each text."""
    by_picture = pictures @ pictures.T
    np.fill_diagonal(by_picture, -np.inf)
    scores = np.concatenate([by_picture, texts @ pictures.T])
    return np.argsort(-scores, axis=1, kind="stable")[:, : min(_TEN, len(pictures) - 1)]
