"""What a writer does after its changes: dead vectors go, and the index fits the number of vectors."""

from dataclasses import replace

import numpy as np

from index.spec import choose_spec_for_machine
from retrieval.catalog.write.kept_pictures import drop_pictures
from retrieval.records import Records
from retrieval.records.database import Database, guarded
from retrieval.records.state import SideState
from retrieval.records.vector_store import copy_rows, index_path, map_rows, remove_other_generations, vector_path
from retrieval.types import SideName

DEAD_SHARE = 5  # one part in so many may be dead vectors


def compact(database: Database, side: SideName) -> None:
    """Write a side's vectors anew without the dead ones, where those are more than a fifth.

    The new file is whole before one transaction names it; until then, and for who reads the old one, nothing changes.
    """
    with database.reading() as records:
        state = records.slots.side(side)
        live = records.slots.live(side)
        dimension = records.meta("dimension")
    folder = database.folder
    if (state.rows - len(live)) * DEAD_SHARE > state.rows:
        after = replace(state, generation=state.generation + 1, rows=len(live), saved=-1)
        rows = map_rows(vector_path(folder, side, state.generation), count=state.rows, dimension=dimension)
        with guarded(folder):
            copy_rows(rows, np.array(live, np.int64), vector_path(folder, side, after.generation))
        with database.writing() as records:
            records.slots.renumber(side, live)
            records.slots.put_side(side, after)
        state = after
    remove_other_generations(folder, side, generation=state.generation)


def drop_unnamed_pictures(database: Database) -> None:
    """Delete the pictures that the catalog keeps and no item has any more."""
    with database.reading() as records:
        place = records.find_place(database.folder)
        named = records.image_paths(place) if place is not None else []
    drop_pictures(database.folder, named=named)


def choose_index(database: Database, side: SideName, *, device: str) -> SideState:
    """Record the kind of index that a side is to have now."""
    with database.reading() as records:
        state = records.slots.side(side)
        kind, _ = wanted_kind(records, state, device=device)
    if kind == state.kind:
        return state
    after = replace(state, kind=kind, saved=-1)
    with database.writing() as records:
        records.slots.put_side(side, after)
    index_path(database.folder, side, state.generation).unlink(missing_ok=True)
    return after


def wanted_kind(records: Records, state: SideState, *, device: str) -> tuple[str, str]:
    """Return the kind of index that is asked for, or fits the number of vectors, and why."""
    wanted = records.meta("index", "auto")
    if wanted != "auto":
        return wanted, "asked for"
    if not state.rows:
        return "exact", "no vectors yet"
    spec = choose_spec_for_machine(state.rows, records.meta("dimension"), device="cuda" if device == "cuda" else "cpu")
    return spec.kind, spec.reason
