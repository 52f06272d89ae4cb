"""Embed the pictures of planned items: each distinct picture once, decoded ahead on threads."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from retrieval.catalog.write.plan import PlannedImage, PlannedItem
from retrieval.encoder import Encoder
from retrieval.encoder.embedding import EmbeddedImage, embed_images
from retrieval.images.sources import ImageSource
from retrieval.records.database import Database

if TYPE_CHECKING:
    from index.vectors import Rows


class ImageEmbedder:
    """Embeds the pictures of one build or upsert; `rows` has the uncommitted vectors by content hash."""

    def __init__(self, database: Database) -> None:
        """Begin with no vectors."""
        self.rows: dict[str, Rows] = {}
        self._database = database
        self._outcomes: dict[str, str | None] = {}  # by content: None while it is embedded, "" done, else its failure
        self._images: dict[int, PlannedImage] = {}
        self._lock = threading.Lock()

    def embed(self, encoder: Encoder, items: Iterable[PlannedItem]) -> Iterator[PlannedItem]:
        """Yield the items in order, each once all of its pictures are embedded, or have failed.

        A content that the catalog has a vector of, by this encoder, is not decoded.
        """
        fingerprint = encoder.image_fingerprint
        waiting: deque[PlannedItem] = deque()

        def is_new(number: int, content: str) -> bool:  # called on the decoding threads
            self._images[number].content = content
            with self._lock:
                if content in self._outcomes:
                    return False
                self._outcomes[content] = None
            with self._database.reading() as records:
                is_stored = any(records.slots.find_vectors("images", [content], fingerprint=fingerprint))
            if is_stored:
                self._outcomes[content] = ""
            return not is_stored

        with closing(embed_images(encoder, self._read_sources(items, waiting), wanted=is_new)) as batches:
            for batch in batches:
                self._receive(batch)
                while waiting and all(map(self._is_ready, waiting[0].images)):
                    yield waiting.popleft()
        while waiting and all(map(self._is_ready, waiting[0].images)):
            yield waiting.popleft()

    def _read_sources(self, items: Iterable[PlannedItem], waiting: deque[PlannedItem]) -> Iterator[ImageSource]:
        number = 0
        for item in items:
            waiting.append(item)
            for image in item.unread:
                assert image.source is not None  # noqa: S101 - a picture without a source came with its vector
                self._images[number] = image
                yield image.source
                number += 1

    def _receive(self, batch: list[EmbeddedImage]) -> None:
        for embedded in batch:
            image, content = self._images.pop(embedded.number), embedded.content
            if content is None:  # its bytes cannot be read
                image.failure, image.is_read = str(embedded.error), True
            elif embedded.error is not None:
                self._outcomes[content] = str(embedded.error)
            elif embedded.prepared is not None:
                self.rows[content], self._outcomes[content] = embedded.prepared, ""

    def _is_ready(self, image: PlannedImage) -> bool:
        """Return whether the picture is embedded or has failed; one of equal content may still be on its way."""
        outcome = self._outcomes.get(image.content)
        if not image.is_read and outcome is not None:
            image.failure, image.is_read = outcome or None, True
        return image.is_read
