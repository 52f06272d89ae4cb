"""The layout of WebDataset shards: tar files whose members of one name (a.jpg, a.txt, a.json) are one sample."""

import posixpath
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from retrieval.errors import PairsError
from retrieval.images.sources import ImageSource
from retrieval.pairs.columns import collect_texts, parse_row
from retrieval.pairs.image_folder import PICTURE_SUFFIXES, has_pictures, is_hidden
from retrieval.pairs.layout import Collector, Layout, Source
from retrieval.pairs.tables import Row, decode, parse_json

_MAX_TEXT = 2**20
_BLOCK = 512


@dataclass(slots=True)
class _Sample:
    images: list[ImageSource] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    row: Row = field(default_factory=dict)


def _read_shards(source: Source, collector: Collector) -> tuple[Path, str]:
    root = source.path if source.path.is_dir() else source.path.parent
    for path in _shards(source):
        _read_shard(path, path.relative_to(root).as_posix(), collector)
    return root, "webdataset"


def _shards(source: Source) -> list[Path]:
    if not source.path.is_dir():
        return [source.path] if source.suffix == ".tar" else []
    files = source.listing[0]
    return [] if has_pictures(files) else [source.path / name for name in files if name.lower().endswith(".tar")]


def _read_shard(path: Path, label: str, collector: Collector) -> None:
    """Add the pairs of one shard; an image stays in it and is read from its position in the file.

    Members of one sample share the path up to the first dot of the last part:
    https://github.com/webdataset/webdataset. Each line of a .txt is a caption, the keys of a .json are those of a
    table's columns, a .cls is an attribute; other members are ignored.
    """
    samples: dict[str, _Sample] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            while member := tar.next():
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps a kilobyte of each
                if tar.offset <= member.offset:  # a negative size: some versions of Python loop forever on it
                    raise tarfile.ReadError("a size is invalid")
                _read_member(tar, member, samples, path=path, label=label, collector=collector)
            tar.fileobj.seek(tar.offset)  # tar.next() returns None at a damaged header too
            if tar.fileobj.read(_BLOCK).strip(b"\0"):
                raise tarfile.ReadError("a header is damaged")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        collector.skip(label, f"is a damaged tar file ({error}); what precedes the damage is read", may_hide_items=True)
    for key, sample in samples.items():
        identity, captions, attributes = parse_row(sample.row)
        if not sample.images:
            collector.skip(f"{label}/{key}", "has no image")
        captions = collect_texts(sample.captions) or captions
        for image in sample.images:
            collector.add(image, captions=captions, attributes=attributes, id=identity)


def _read_member(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    samples: dict[str, _Sample],
    *,
    path: Path,
    label: str,
    collector: Collector,
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
            _add_text(sample, suffix, _read_text(tar, member))
        except (PairsError, ValueError) as error:
            collector.skip(f"{label}/{name}", str(error))


def _read_text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > _MAX_TEXT:
        raise PairsError(f"has {member.size:,} bytes, too many for captions")
    file = tar.extractfile(member)
    return decode(file.read() if file else b"", name="the text")


def _add_text(sample: _Sample, suffix: str, text: str) -> None:
    if suffix == ".txt":
        sample.captions += text.splitlines()
    elif suffix == ".cls":
        sample.row["cls"] = int(text) if text.strip().isdecimal() else text.strip()
    elif isinstance(row := parse_json(text), dict):
        sample.row |= row


WEBDATASET = Layout("WebDataset .tar shards", lambda source: bool(_shards(source)), _read_shards)
