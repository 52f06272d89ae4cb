"""The layout of WebDataset shards: tar files whose members of one name (a.jpg, a.txt, a.json) are one sample."""

import posixpath
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.errors import PairsError
from retrieval.images.sources import ImageSource
from retrieval.pairs.image_folder import PICTURE_SUFFIXES, is_hidden
from retrieval.pairs.layout import Collector, Layout, Source
from retrieval.pairs.sample import MAX_BYTES, Sample

if TYPE_CHECKING:
    import tarfile

_BLOCK = 512


def _read_shards(source: Source, collector: Collector) -> tuple[Path, str]:
    root = source.path if source.path.is_dir() else source.path.parent
    for path in source.shards(".tar"):
        _read_shard(path, path.relative_to(root).as_posix(), collector)
    return root, "webdataset"


def _read_shard(path: Path, label: str, collector: Collector) -> None:
    """Add the pairs of one shard; an image stays in it and is read from its position in the file.

    Members of one sample share the path up to the first dot of the last part:
    https://github.com/webdataset/webdataset.
    """
    import tarfile

    samples: dict[str, Sample] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            while member := tar.next():
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps a kilobyte of each
                if tar.offset <= member.offset:  # a negative size: some versions of Python loop forever on it
                    raise tarfile.ReadError("a size is invalid")
                name = posixpath.normpath(member.name).lstrip("/")
                try:
                    if not member.isdir() and not is_hidden(name):
                        _add_member(tar, member, samples, image=ImageSource(path, f"{label}/{name}"), name=name)
                except (PairsError, ValueError) as error:
                    collector.skip(f"{label}/{name}", str(error), may_hide_items=False)
            tar.fileobj.seek(tar.offset)  # tar.next() returns None at a damaged header too
            if tar.fileobj.read(_BLOCK).strip(b"\0"):
                raise tarfile.ReadError("a header is damaged")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        collector.skip(label, f"is a damaged tar file ({error}); the members before the damage are read")
    for key, sample in samples.items():
        if not sample.images:
            collector.skip(f"{label}/{key}", "has no image", may_hide_items=False)
        for image in sample.images:
            collector.add(image, sample.to_record())


def _add_member(
    tar: "tarfile.TarFile", member: "tarfile.TarInfo", samples: dict[str, Sample], *, image: ImageSource, name: str
) -> None:
    """Add a member to its sample, or raise a PairsError with the reason against it."""
    if not name.isascii() and name != name.encode("utf-8", "replace").decode():
        raise PairsError("has a name that is not UTF-8; rename it")
    if not member.isreg() or member.issparse():
        raise PairsError("is a link or another special member, not a file")
    folder, _, last = name.rpartition("/")
    sample = samples.setdefault(posixpath.join(folder, last.partition(".")[0]), Sample())
    suffix = posixpath.splitext(last)[1].lower()
    if suffix in PICTURE_SUFFIXES:
        sample.images.append(replace(image, member=f"{member.offset_data}:{member.size}"))
    elif suffix in {".txt", ".json", ".cls"} and (file := tar.extractfile(member)):
        sample.add_sidecar(suffix, file.read(MAX_BYTES + 1))


WEBDATASET = Layout("WebDataset .tar shards", lambda source: bool(source.shards(".tar")), _read_shards)
