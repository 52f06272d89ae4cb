"""WebDataset shards: tar files whose members of one name (a.jpg, a.txt, a.json) are one sample."""

import posixpath
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.errors import PairsError
from retrieval.images.sources import ImageSource
from retrieval.pairs.columns import describe, texts
from retrieval.pairs.image_folder import PICTURE_SUFFIXES, is_hidden
from retrieval.pairs.tables import Row, decode, parse_json

if TYPE_CHECKING:
    from retrieval.pairs import Collector

_MAX_TEXT = 2**20
_BLOCK = 512


@dataclass(slots=True)
class _Sample:
    images: list[ImageSource] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    row: Row = field(default_factory=dict)


def add_shard(path: Path, label: str, collector: "Collector") -> None:
    """Pairs of one shard; a picture stays in it and is read from its place in the file.

    Members of one sample share the path up to the first dot of the last part:
    https://github.com/webdataset/webdataset. Of .txt each line is a caption, of .json the columns are those of a table,
    .cls is an attribute; other members are left alone.
    """
    samples: dict[str, _Sample] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            while member := tar.next():
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps a kilobyte of each
                if tar.offset <= member.offset:  # a negative size: some Pythons go round in circles on it
                    raise tarfile.ReadError("a size makes no sense")
                _take(tar, member, samples, path=path, label=label, collector=collector)
            tar.fileobj.seek(tar.offset)  # a bad header ends the loop without a word
            if tar.fileobj.read(_BLOCK).strip(b"\0"):
                raise tarfile.ReadError("a header is damaged")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        collector.skip(label, f"is a damaged tar file ({error}); what comes before is read", hides=True)
    for key, sample in samples.items():
        identity, captions, attributes = describe(sample.row)
        if not sample.images:
            collector.skip(f"{label}/{key}", "has no image")
        for image in sample.images:
            collector.add(image, captions=texts(sample.captions) or captions, attributes=attributes, id=identity)


def _take(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    samples: dict[str, _Sample],
    *,
    path: Path,
    label: str,
    collector: "Collector",
) -> None:
    name = posixpath.normpath(member.name).lstrip("/")
    if member.isdir() or is_hidden(name):
        return
    if not name.isascii() and name != name.encode("utf-8", "replace").decode():
        collector.skip(f"{label}/{name}", "has a name that is not UTF-8; rename it")
        return
    folder, _, last = name.rpartition("/")
    key = posixpath.join(folder, last.partition(".")[0])
    suffix = posixpath.splitext(last)[1].lower()
    if not member.isreg() or member.issparse():
        collector.skip(f"{label}/{name}", "is a link or another special member, not a file")
        return
    sample = samples.setdefault(key, _Sample())
    if suffix in PICTURE_SUFFIXES:
        sample.images.append(ImageSource(path, f"{label}/{name}", f"{member.offset_data}:{member.size}"))
    elif suffix in {".txt", ".json", ".cls"}:
        try:
            _take_text(sample, suffix, _text(tar, member))
        except (PairsError, ValueError) as error:
            collector.skip(f"{label}/{name}", str(error))


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > _MAX_TEXT:
        raise PairsError(f"has {member.size:,} bytes, too many for captions")
    file = tar.extractfile(member)
    return decode(file.read() if file else b"", name="the text")


def _take_text(sample: _Sample, suffix: str, text: str) -> None:
    if suffix == ".txt":
        sample.captions += text.splitlines()
    elif suffix == ".cls":
        sample.row["cls"] = int(text) if text.strip().isdecimal() else text.strip()
    elif isinstance(row := parse_json(text), dict):
        sample.row |= row
