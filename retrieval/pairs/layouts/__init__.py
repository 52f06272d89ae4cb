"""The layouts that pairs are read from; the first one that matches a source reads it.

To add a layout, write a file beside these with a `Layout`, which `retrieval/pairs/layout.py` explains; list it in
`LAYOUTS`, before `PICTURE_FOLDER`, which takes every folder; and run it through `retrieval.testing.layouts`, by a case
in `SOURCES` of `tests/test_contracts_of_data.py`.
"""

from retrieval.pairs.layouts.captions_json import CAPTIONS_JSON
from retrieval.pairs.layouts.picture_folder import PICTURE_FOLDER
from retrieval.pairs.layouts.tables import METADATA_FOLDER, PARQUET_FOLDER, TABLE_FILE
from retrieval.pairs.layouts.webdataset import WEBDATASET

LAYOUTS = (TABLE_FILE, CAPTIONS_JSON, METADATA_FOLDER, WEBDATASET, PARQUET_FOLDER, PICTURE_FOLDER)

ACCEPTED = f"Pairs are read from {'; '.join(layout.description for layout in LAYOUTS)}."
