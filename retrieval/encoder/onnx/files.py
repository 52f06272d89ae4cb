"""The files of an export: found by a model's name, and checked against the weights as they are now."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, get_args

from retrieval.encoder.model_folders import EXPORT_FILE, WEIGHTS_FILE, cache_folder, find_model_folder, find_weights
from retrieval.errors import EncoderError
from retrieval.files import write_atomically

_FORMAT = 1
_SETTINGS = re.compile(r"^(open_clip_)?config\.json$|token|vocab|^merges\.txt$|\.model$")

Tower: TypeAlias = Literal["image", "text"]
TOWERS: tuple[Tower, ...] = get_args(Tower)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What a file is recognised by: its size and time or, where the time differs, its content."""

    size: int  # bytes
    mtime_ns: int | None  # None in a package, whose files get the time of the installation: the size must do
    sha256: str

    @classmethod
    def of(cls, path: Path, *, in_package: bool = False) -> Self:
        """Return the stamp of a file as it is now."""
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(status.st_size, None if in_package else status.st_mtime_ns, content)

    def difference(self, path: Path) -> str:
        """Return how the file at `path` differs from the stamped one, or an empty string."""
        try:
            status = path.stat()
            if status.st_size != self.size:
                return f"{path.name} has {status.st_size:,} bytes, not {self.size:,}"
            if self.mtime_ns not in {None, status.st_mtime_ns} and FileStamp.of(path).sha256 != self.sha256:
                return f"{path.name} has changed"
        except OSError as error:
            return f"{path.name} cannot be read: {error.strerror}"
        return ""


@dataclass(frozen=True, slots=True)
class Export:
    """What `open_clip_onnx.json` says, and the folder that it lies in."""

    folder: Path
    dimension: int  # length of a row
    image_fingerprint: str  # that of the torch encoder of the same model
    text_fingerprint: str
    preprocess: Mapping[str, Any]  # open_clip's `preprocess_cfg`
    text: Mapping[str, Any]  # open_clip's `text_cfg`, which names the tokenizer
    # Where the text graph takes texts without their padding, the id of the token that ends them, or -1 for the
    # greatest id. None where it takes the whole context.
    end_token: int | None
    settings: str  # `hash_settings` of the folder
    weights: FileStamp
    graphs: Mapping[Tower, str]  # the SHA-256 of each graph
    deviation: Mapping[Tower, float]  # greatest absolute difference of a number of a row from torch's
    versions: Mapping[str, str]  # of the packages that made it

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the export in a folder; an EncoderError where its manifest is damaged or of another version."""
        content = _read_json(folder / EXPORT_FILE)
        try:
            return cls(folder, **{**content, "weights": FileStamp(**content["weights"])})
        except (KeyError, TypeError) as error:
            raise EncoderError(f"{EXPORT_FILE} is of another version of this package") from error

    def write(self) -> None:
        """Write the manifest, whole or not at all."""
        _write_json(
            self.folder / EXPORT_FILE, {name: value for name, value in asdict(self).items() if name != "folder"}
        )

    def path(self, tower: Tower) -> Path:
        """Return the path of a tower's graph."""
        return graph_path(self.folder, tower)

    def problem(self, *towers: Tower) -> str:
        """Return how the weights or the graphs of these towers, or of both, have changed since, or ""."""
        for tower in towers or TOWERS:
            try:
                content = self.path(tower).read_bytes()
            except OSError as error:
                return f"{self.path(tower).name} cannot be read: {error.strerror}"
            if hashlib.sha256(content).hexdigest() != self.graphs[tower]:
                return f"{self.path(tower).name} has changed"
        if hash_settings(self.folder) != self.settings:
            return "the configuration or the tokenizer has changed"
        return self.weights.difference(self.folder / WEIGHTS_FILE)

    def refresh(self) -> "Export":
        """Return the export with the time of the weights, and record it, so that they are not hashed again."""
        mtime = (self.folder / WEIGHTS_FILE).stat().st_mtime_ns
        if self.weights.mtime_ns in {None, mtime}:
            return self
        refreshed = replace(self, weights=replace(self.weights, mtime_ns=mtime))
        with suppress(OSError):
            refreshed.write()
        return refreshed


def graph_path(folder: Path, tower: Tower) -> Path:
    """Return the path of a tower's graph in a folder."""
    return folder / f"open_clip_{tower}.onnx"


def hash_settings(folder: Path) -> str:
    """Return the SHA-256 of the files of a model's folder that hold its configuration and its tokenizer."""
    files = (path for path in sorted(folder.iterdir()) if _SETTINGS.search(path.name) and path.is_file())
    parts = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def find_export(name: str, *, log: bool = True) -> Export | None:
    """Return the current export of a model, by a name that `load_encoder` takes; None where it has none.

    An export that is damaged or no longer fits the weights counts as none, and is logged once unless `log` is False.
    """
    problems = []
    for read in (_read_beside_weights, _read_cached):
        try:
            export = read(name)
            problem = "" if export is None else export.problem()
            if export is not None and not problem:
                return export.refresh()
        except EncoderError as error:
            problem = str(error)
        problems.append(problem)
    if any(problems) and log:
        _log_outdated(name, next(filter(None, problems)))
    return None


def _read_beside_weights(name: str) -> Export | None:
    folder = find_model_folder(name)
    return Export.read(folder) if folder is not None and (folder / EXPORT_FILE).is_file() else None


def _read_cached(name: str) -> Export | None:
    """Return the export in the cache that was made from this name, and from its folder's weights as they are now."""
    pointer = cached_pointer(name)
    if not pointer.is_file():
        return None
    content = _read_json(pointer)
    folder = find_model_folder(name)
    if folder is not None:
        if difference := FileStamp(**content["weights"]).difference(find_weights(folder)):
            raise EncoderError(difference)
        if hash_settings(folder) != content["settings"]:
            raise EncoderError("the configuration or the tokenizer has changed")
    return Export.read(pointer.parent / content["export"])


def write_pointer(name: str, export: Export, *, weights: FileStamp | None) -> None:
    """Record which folder of the cache holds the export of a name, and the weights that it was made from."""
    folder = find_model_folder(name)
    source = {
        "weights": None if weights is None else asdict(weights),
        "settings": None if folder is None else hash_settings(folder),
    }
    _write_json(cached_pointer(name), {"name": name, "export": export.folder.name, **source})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with a checksum of its own, whole or not at all."""
    text = json.dumps({"format": _FORMAT, **content, "checksum": _checksum(content)}, indent=1) + "\n"
    write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object that `_write_json` wrote; an EncoderError where it is damaged or of another version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, checksum = content.pop("format"), content.pop("checksum")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EncoderError(f"{path.name} cannot be read: {error}") from error
    if version != _FORMAT:
        raise EncoderError(f"{path.name} is of another version of this package")
    if checksum != _checksum(content):
        raise EncoderError(f"{path.name} has changed")
    return dict(content)


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def cached_folder(image_fingerprint: str, text_fingerprint: str) -> Path:
    """Return the folder of the cache for a model of these fingerprints."""
    return cache_folder() / "onnx" / f"{image_fingerprint}-{text_fingerprint}"


def cached_pointer(name: str) -> Path:
    """Return the file of the cache that says where the export of a name is."""
    key = str(find_model_folder(name) or name)
    return cache_folder() / "onnx" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


@cache
def _log_outdated(name: str, problem: str) -> None:
    message = "The ONNX export of %s does not fit (%s), so torch runs the model. Renew it: retrieval model export %s"
    _logger.warning(message, name, problem, name)
