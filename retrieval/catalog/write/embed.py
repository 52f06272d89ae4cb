"""Pictures of drafts, read and embedded: each content once, decoding ahead on threads."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from retrieval.catalog.write.plan import Draft, Picture
from retrieval.encoder import EmbeddedBatch, Encoder, embed_images
from retrieval.images.sources import ImageSource
from retrieval.records.database import Database

if TYPE_CHECKING:
    from index.vectors import Rows


class Reader:
    """Reads and embeds for one run of a build or an upsert.

    Attributes:
        vectors: What was embedded and is not committed yet, by content hash.
    """

    def __init__(self, database: Database) -> None:
        """Begin with nothing in hand."""
        self.vectors: dict[str, Rows] = {}
        self._database = database
        self._fingerprint = ""
        self._queue: deque[Draft] = deque()
        self._pictures: dict[int, Picture] = {}
        self._waiting: dict[str, list[Picture]] = {}  # same content as a picture that is still being embedded
        self._failed: dict[str, str] = {}
        self._in_flight: set[str] = set()
        self._lock = threading.Lock()

    def read(self, encoder: Encoder, drafts: Iterable[Draft]) -> Iterator[Draft]:
        """Return the drafts in order, each once all of its pictures are read and embedded, or have failed.

        Contents that the catalog has a vector of, by this encoder, are not decoded.
        """
        self._fingerprint = encoder.image_fingerprint
        sources = self._sources(drafts)
        with closing(embed_images(encoder, sources, wanted=self._wanted)) as batches:
            for batch in batches:
                self._take(batch)
                yield from self._finished()
        yield from self._finished()

    def forget(self, contents: Iterable[str]) -> None:
        """Let go of vectors that are committed."""
        with self._lock:
            for content in contents:
                self.vectors.pop(content, None)
                self._in_flight.discard(content)

    def _sources(self, drafts: Iterable[Draft]) -> Iterator[ImageSource]:
        number = 0
        for draft in drafts:
            self._queue.append(draft)
            for picture in draft.unread:
                self._pictures[number] = picture
                number += 1
                assert picture.source is not None  # noqa: S101 - a picture without a source came with its vector
                yield picture.source

    def _wanted(self, number: int, content: str) -> bool:
        """Whether this content has to be embedded; called from the decoding threads."""
        self._pictures[number].hash = content
        with self._lock:
            if content in self._in_flight:
                return False
            self._in_flight.add(content)
        # Asked after the look at what is in flight: contents leave that set only once they are committed.
        if not self._known([content]):
            return True
        with self._lock:
            self._in_flight.discard(content)
        return False

    def _known(self, contents: Sequence[str]) -> set[str]:
        with self._database.reading() as records:
            return set(records.slots.find_vectors("images", contents, fingerprint=self._fingerprint))

    def _take(self, batch: EmbeddedBatch) -> None:
        for number, row in zip(batch.positions, batch.rows, strict=True):
            content = self._settle(number)
            self.vectors[content] = row
            for picture in self._waiting.pop(content, ()):
                picture.settled = True
        for number, error in batch.failures:
            self._fail(number, str(error))
        self._join([self._pictures.pop(number) for number in batch.unwanted])

    def _settle(self, number: int) -> str:
        picture = self._pictures.pop(number)
        picture.settled = True
        assert picture.hash is not None  # noqa: S101 - `_wanted` has set it
        return picture.hash

    def _fail(self, number: int, reason: str) -> None:
        picture = self._pictures.pop(number)
        failed = [picture]
        if picture.hash is not None:  # it was read, and is no picture
            self._failed[picture.hash] = reason
            failed += self._waiting.pop(picture.hash, ())
        for one in failed:
            one.failure = reason
            one.settled = True

    def _join(self, pictures: Sequence[Picture]) -> None:
        """Settle pictures whose content is known, or let them wait for the one that is being embedded."""
        asked = [picture.hash for picture in pictures if picture.hash is not None]
        known = self._known([content for content in asked if content not in self.vectors]) if asked else set()
        for picture in pictures:
            content = picture.hash or ""
            picture.failure = self._failed.get(content)
            picture.settled = picture.failure is not None or content in self.vectors or content in known
            if not picture.settled:
                self._waiting.setdefault(content, []).append(picture)

    def _finished(self) -> Iterator[Draft]:
        while self._queue and all(picture.settled for picture in self._queue[0].pictures):
            yield self._queue.popleft()
