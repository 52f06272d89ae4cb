"""The layouts that pairs are read from; the first one that matches a source reads it.

To add a layout, write a file with a `Layout` beside these, list it in `LAYOUTS`, and run it through
`retrieval.testing.layouts`.
"""

from pathlib import Path

from retrieval.errors import PairsError
from retrieval.pairs.captions_json import CAPTIONS_JSON
from retrieval.pairs.layout import Collector, Source
from retrieval.pairs.picture_folder import PICTURE_FOLDER
from retrieval.pairs.table_layouts import METADATA_FOLDER, PARQUET_FOLDER, TABLE_FILE
from retrieval.pairs.webdataset import WEBDATASET

LAYOUTS = (TABLE_FILE, CAPTIONS_JSON, METADATA_FOLDER, WEBDATASET, PARQUET_FOLDER, PICTURE_FOLDER)

ACCEPTED = f"Pairs are read from {'; '.join(layout.description for layout in LAYOUTS)}."

_ARCHIVES = {".gz", ".tgz", ".zip", ".bz2", ".xz", ".zst"}


def read_layout(source: Source, collector: Collector) -> tuple[Path, str]:
    """Read a source by the layout that it has; return the folder that image names are relative to, and the name.

    Raises:
        ColumnError: Columns are mapped of a source that has none, or that lacks them.
        PairsError: The source has none of the layouts.
    """
    layout = next((layout for layout in LAYOUTS if layout.matches(source)), None)
    if source.columns and (layout is None or not layout.has_columns):
        raise source.unmappable()
    if layout is None:
        hint = "Unpack it first. " if source.suffix in _ARCHIVES else ""
        raise PairsError(f"{source.path.name} is not a source of pairs. {hint}{ACCEPTED}")
    return layout.read(source, collector)
