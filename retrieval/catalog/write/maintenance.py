"""Maintain a catalog after changes: delete unused pictures, compact vectors, choose and save the indexes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from index.spec import choose_spec_for_machine, find_engine_problem
from retrieval.catalog.side import Side
from retrieval.catalog.write.picture_files import delete_unused_pictures
from retrieval.records.database import Database, report_disk_errors
from retrieval.records.state import CatalogState, SideState
from retrieval.records.vector_store import copy_rows, index_path, map_rows, remove_other_generations, vector_path
from retrieval.types import SideName

MAX_DEAD_SHARE = 0.2  # of the vectors of a side, past which it is compacted


def maintain(database: Database, sides: Mapping[SideName, Side], *, device: str) -> None:
    """Bring the folder in line with the records, for the one writer; errors leave all changes committed."""
    with database.reading() as records:
        state = records.state()
        place = records.find_place(database.folder)
        used = [] if place is None else records.image_paths(place)
        live = {side: records.slots.live(side) for side in sides}
    delete_unused_pictures(database.folder, used=used)
    for name, side in sides.items():
        side_state = compact(database, name, state, live=live[name])
        kind, _ = wanted_kind(state, side_state, device=device)
        if kind != side_state.kind:
            with database.writing() as records:
                records.slots.put_side(name, replace(side_state, kind=kind, saved=-1))
            index_path(database.folder, name, side_state.generation).unlink(missing_ok=True)
        is_saved = kind == side_state.kind and side.updater.is_saved(side_state, state)
        if kind != "exact" and not is_saved and not find_engine_problem(kind):
            side.updater.save(database)


def compact(database: Database, side: SideName, state: CatalogState, *, live: Sequence[int]) -> SideState:
    """Copy a side's live vectors to a new file where too many are dead, then name it; return the side's state."""
    before, folder = state.sides[side], database.folder
    after = before
    if before.rows - len(live) > MAX_DEAD_SHARE * before.rows:
        after = replace(before, generation=before.generation + 1, rows=len(live), saved=-1)
        path = vector_path(folder, side, before.generation)
        rows = map_rows(path, count=before.rows, dimension=state.space.dimension or 1)
        with report_disk_errors(folder):
            copy_rows(rows, np.array(live, np.int64), vector_path(folder, side, after.generation))
        with database.writing() as records:
            records.slots.renumber(side, live)
            records.slots.put_side(side, after)
    remove_other_generations(folder, side, generation=after.generation)
    return after


def wanted_kind(state: CatalogState, side: SideState, *, device: str) -> tuple[str, str]:
    """Return the kind of index that was requested, or fits the number of vectors, and why.

    One whose engine is missing here stays, for a machine that has it; until then every vector is read.
    """
    if state.index in {"auto", side.kind} and (problem := find_engine_problem(side.kind)):
        return side.kind, f"every vector is read here: {problem}"
    if state.index != "auto":
        return state.index, "asked for"
    if not side.rows or state.space.dimension is None:
        return "exact", "no vectors yet"
    spec = choose_spec_for_machine(side.rows, state.space.dimension, device="cuda" if device == "cuda" else "cpu")
    return spec.kind, spec.reason
