"""Which images or captions use each slot, as three columns of numbers: 24 bytes an entry, no objects."""

from dataclasses import dataclass

import numpy as np

from index.vectors import Ids


@dataclass(frozen=True, slots=True)
class Entries:
    """The images or the captions of a catalog, sorted by slot, then item, then position; a slot may have several."""

    slot: Ids  # of the vector, (n,)
    item: Ids  # number of the item, (n,)
    position: Ids  # of the image or caption in its item, (n,)
    item_count: int  # how many items have an entry; each of these has one at position 0
    slot_count: int  # how many slots have an entry

    @classmethod
    def from_sorted(cls, slot: Ids, item: Ids, position: Ids) -> "Entries":
        """Return sorted entries; items and slots are counted once for all searches."""
        slot_count = int(np.count_nonzero(slot[1:] != slot[:-1])) + min(1, len(slot))
        return cls(slot, item, position, int(np.count_nonzero(position == 0)), slot_count)

    @classmethod
    def from_unsorted(cls, slot: Ids, item: Ids, position: Ids) -> "Entries":
        """Return entries that come in any order."""
        order = np.lexsort((position, item, slot))
        return cls.from_sorted(slot[order], item[order], position[order])

    @classmethod
    def empty(cls) -> "Entries":
        """Return no entries."""
        return cls.from_sorted(*(np.empty(0, np.int64) for _ in range(3)))

    def __len__(self) -> int:
        return len(self.slot)

    def replace_items(self, items: Ids, entries: "Entries") -> "Entries":
        """Return these entries with those of `items` replaced by `entries`.

        The new ones are inserted, nothing is sorted again: of a million entries that takes 15 ms, and sorting 200.
        """
        unchanged = ~np.isin(self.item, items)
        slot, item, position = self.slot[unchanged], self.item[unchanged], self.position[unchanged]
        # A changed item has no entry left, so positions need not be compared.
        width = 1 + max(item.max(initial=0), entries.item.max(initial=0))
        places = np.searchsorted(slot * width + item, entries.slot * width + entries.item)
        return Entries.from_sorted(
            np.insert(slot, places, entries.slot),
            np.insert(item, places, entries.item),
            np.insert(position, places, entries.position),
        )

    def at_slots(self, slots: Ids) -> tuple[Ids, Ids]:
        """Return the places of the entries of these slots, slot by slot, and which of the slots each belongs to."""
        first, last = np.searchsorted(self.slot, slots), np.searchsorted(self.slot, slots, side="right")
        counts = last - first
        owners = np.repeat(np.arange(len(slots)), counts)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        return first[owners] + within, owners

    def distinct_items(self) -> Ids:
        """Return the items that have an entry, each once."""
        items: Ids = self.item[self.position == 0]
        return items

    def dead_slots(self, rows: int) -> Ids:
        """Return those of the first `rows` slots that have no entry, sorted."""
        dead = np.ones(rows, np.bool_)
        dead[self.slot] = False
        return np.flatnonzero(dead)
