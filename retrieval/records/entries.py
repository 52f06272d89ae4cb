"""Which images or captions each slot stands for, as three columns of numbers: 24 bytes an entry, no objects."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from index.vectors import Ids, Mask


@dataclass(frozen=True, slots=True)
class Entries:
    """The images or the captions of a catalog, sorted by slot, then item, then position; a slot may have several.

    Attributes:
        slot: Of the vector, (n,).
        item: Number of the item, (n,).
        position: Of the image or caption in its item, (n,).
        items: How many items have an entry; each of these has one at position 0.
        slots: How many slots have an entry.
    """

    slot: Ids
    item: Ids
    position: Ids
    items: int
    slots: int

    @classmethod
    def ordered(cls, slot: Ids, item: Ids, position: Ids) -> "Entries":
        """Return entries that come in their order, counted once for all searches."""
        slots = int(np.count_nonzero(slot[1:] != slot[:-1])) + min(1, len(slot))
        return cls(slot, item, position, int(np.count_nonzero(position == 0)), slots)

    @classmethod
    def sorted(cls, slot: Ids, item: Ids, position: Ids) -> "Entries":
        """Return entries in their order."""
        order = np.lexsort((position, item, slot))
        return cls.ordered(slot[order], item[order], position[order])

    @classmethod
    def none(cls) -> "Entries":
        """Return no entries."""
        return cls.ordered(*(np.empty(0, np.int64) for _ in range(3)))

    def __len__(self) -> int:
        return len(self.slot)

    def changed(self, items: Ids, now: "Entries") -> "Entries":
        """Return these entries with those of `items` replaced by what they have now.

        They are put in their places, not sorted again: of a million entries that takes 15 ms, and sorting 200.
        """
        kept = ~np.isin(self.item, items)
        slot, item, position = self.slot[kept], self.item[kept], self.position[kept]
        # Of a changed item nothing is kept, so that its position need not be compared.
        width = 1 + max(item.max(initial=0), now.item.max(initial=0))
        places = np.searchsorted(slot * width + item, now.slot * width + now.item)
        return Entries.ordered(
            np.insert(slot, places, now.slot),
            np.insert(item, places, now.item),
            np.insert(position, places, now.position),
        )

    def of_slots(self, slots: Ids) -> tuple[Ids, Ids]:
        """Return the places of the entries of these slots, slot by slot, and which of the slots each belongs to."""
        first, last = np.searchsorted(self.slot, slots), np.searchsorted(self.slot, slots, side="right")
        counts = last - first
        owners = np.repeat(np.arange(len(slots)), counts)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        return first[owners] + within, owners

    def of_items(self, items: Ids) -> tuple[Ids, Ids, Ids]:
        """Return slots, items and positions of the entries of these items."""
        places = np.flatnonzero(np.isin(self.item, items))
        return self.slot[places], self.item[places], self.position[places]

    def first_items(self) -> Ids:
        """Return the items that have an entry, each once."""
        firsts: Ids = self.item[self.position == 0]
        return firsts

    def firsts(self, items: Mask) -> Ids:
        """Return the place of each slot's first entry among those of `items` (by item number)."""
        places = np.flatnonzero(items[self.item])
        slots = self.slot[places]
        return places[np.flatnonzero(np.diff(slots, prepend=-1))]

    def live(self) -> Ids:
        """Return the slots that an entry has, sorted."""
        return self.slot[np.flatnonzero(np.diff(self.slot, prepend=-1))]

    def dead(self, rows: int) -> Ids:
        """Return those of the first `rows` slots that no entry has, sorted."""
        dead = np.ones(rows, np.bool_)
        dead[self.slot] = False
        return np.flatnonzero(dead)

    def allowed(self, items: Mask, rows: int) -> Mask:
        """Return a mask of the first `rows` slots: those of the items that `items` (by item number) lets through."""
        allowed = np.zeros(rows, np.bool_)
        allowed[self.slot[items[self.item]]] = True
        return allowed

    def per_item(self) -> float:
        """Return how many entries an item has on average."""
        return len(self) / self.items if self.items else 1.0


def read_entries(rows: Iterator[tuple[int, int, int]]) -> Entries:
    """Return the entries of (slot, item, position) rows of a database cursor; no row's object outlives its turn."""
    kind = np.dtype([("slot", np.int64), ("item", np.int64), ("position", np.int64)])
    read = np.fromiter(rows, dtype=kind)
    return Entries.sorted(*(np.ascontiguousarray(read[name]) for name in ("slot", "item", "position")))
