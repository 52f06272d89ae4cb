"""Image-text pairs, and `read_pairs`, which reads them from every layout that people keep them in."""

import os
from collections.abc import Mapping
from pathlib import Path

from retrieval.errors import PairsError
from retrieval.pairs.types import AttributeValue, Pair, Pairs, Skipped

__all__ = ["AttributeValue", "Pair", "Pairs", "Skipped", "read_pairs"]

_ARCHIVES = {".gz", ".tgz", ".zip", ".bz2", ".xz", ".zst"}


def read_pairs(
    source: Path | str,
    *,
    images: Path | str | None = None,
    map: Mapping[str, str] | None = None,  # noqa: A002 (as the option is called)
    empty: bool = False,
) -> Pairs:
    """Return the image-text pairs of a folder or file, in any of these layouts.

    - a folder of images with same-named .txt files, one caption a line; or of images alone;
    - a folder with metadata.jsonl, metadata.csv or metadata.parquet (Hugging Face's ImageFolder), also in subfolders;
    - a CSV, TSV, JSONL, JSON or Parquet file of rows with a column that names an image;
    - a product feed of Google Merchant in XML (RSS or Atom), TSV, CSV or JSONL, recognized by its columns id, title,
      image_link, and link or availability; or Shopify's CSV export of products, by Handle and Image Src;
    - a COCO captions JSON or a Karpathy split JSON with its folder of images beside it;
    - a WebDataset .tar shard, or a folder of them.

    Images are looked up but not opened. Missing ones, and names that lead out of the folder, are listed in `skipped`.

    Args:
        source: The folder or file.
        images: The folder of the images, where they are not beside the file. URLs are then looked up in it by their
            path, and they and all other names that lead elsewhere by their last part. Nothing is ever fetched.
        map: Columns of a table by the field that each is to become: {"id": "sku", "image": "photo", "title": "name"},
            or any attribute; an empty column drops that field.
        empty: Accept a source without any image: one that was emptied on purpose.

    Raises:
        ColumnError: `map` names a column that does not exist.
        PairsError: The source has none of these layouts, or no images.
    """
    from retrieval.pairs.layout import Collector, Source
    from retrieval.pairs.layouts import ACCEPTED, LAYOUTS

    path = Path(os.path.realpath(source))
    if not path.exists():
        raise PairsError(f"{source} does not exist. {ACCEPTED}")
    if images is not None and not Path(images).is_dir():
        raise PairsError(f"The folder of images {images} does not exist or is not a folder.")
    found = Source(path, None if images is None else Path(images), map or {})
    layout = next((layout for layout in LAYOUTS if layout.matches(found)), None)
    if found.columns and (layout is None or not layout.has_columns):
        raise found.unmappable()
    if layout is None:
        hint = "Unpack it first. " if found.suffix in _ARCHIVES else ""
        raise PairsError(f"{path.name} is not a source of pairs. {hint}{ACCEPTED}")
    collector = Collector()
    root, name = layout.read(found, collector)
    pairs = collector.to_pairs(path, root=root, layout=name)
    if not empty and not pairs.pairs and not pairs.skipped:
        raise PairsError(f"{source} holds no images. {ACCEPTED}")
    return pairs
