"""A folder that images are named in: the file that a name means, never outside of it, and the files it holds."""

import os
import posixpath
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from retrieval.errors import ImageError
from retrieval.images.sources import ImageSource, check_regular_file

PICTURE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".avif"),
    *(".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif"),
}
CATALOG_FILE = "catalog.sqlite"  # in the folder of every catalog

_URL = re.compile(r"([a-z][a-z0-9+.-]+:)?//", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:[\\/]", re.IGNORECASE)
_MAX_URL_FOLDERS = 8
_COMMON_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif")
_SYSTEM_NAMES = {"__MACOSX", "@eaDir", "Thumbs.db", "ehthumbs.db", "desktop.ini"}


class ImageFolder:
    """Finds the file that an image name means, as fast as a table of 100,000 rows needs it.

    With `by_basename` a name that leads elsewhere (a URL, an absolute path, another folder) is looked up by its last
    part, a URL first by as much of its path as there is a folder for; and a name without a suffix by the common ones.
    """

    def __init__(self, root: Path, *, by_basename: bool = False) -> None:
        self.root = Path(os.path.realpath(root))
        self._prefix = f"{self.root}{os.sep}" if self.root.name else str(self.root)
        self._by_basename = by_basename
        self._inside: dict[str, bool] = {}

    def find(self, name: str, *, inner: str = "") -> ImageSource:
        """Return the image of that name, relative to the inner folder, unopened; else raise an ImageError."""
        for relative in self._candidates(name.strip(), inner):
            try:
                status = os.lstat(self._prefix + relative)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError) as error:
                raise ImageError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
            mode = status.st_mode
            parent = relative.rpartition("/")[0]
            if parent and parent not in self._inside:  # each subfolder is resolved once
                self._inside[parent] = self.contains(self._prefix + parent)
            is_link = stat.S_ISLNK(mode)
            if (parent and not self._inside[parent]) or (is_link and not self.contains(self._prefix + relative)):
                raise ImageError("is a link that leads out of the folder")
            if is_link:
                try:
                    mode = os.stat(self._prefix + relative).st_mode  # noqa: PTH116 (the path is a string, for speed)
                except OSError as error:
                    raise ImageError("is a broken link") from error
            check_regular_file(mode)
            return ImageSource(Path(self._prefix + relative), relative)
        raise ImageError(f"there is no such file in {self.root}")

    def contains(self, path: str) -> bool:
        """Return whether the path, with its links resolved, is inside the folder."""
        return (os.path.realpath(path) + os.sep).startswith(self._prefix)

    def _candidates(self, name: str, inner: str) -> Iterator[str]:
        """Yield the paths relative to the root that the name may mean, the likeliest first."""
        relative = self._to_relative(name, inner)
        if relative is not None:
            yield relative
            # Archives made on a Mac spell é as e + accent, tables mostly as one character.
            normalized = (unicodedata.normalize(form, relative) for form in ("NFC", "NFD"))
            yield from (path for path in normalized if path != relative)
            if "\\" in relative and (slashed := self._to_relative(relative.replace("\\", "/"), "")) is not None:
                yield slashed
        if self._by_basename:
            yield from _basename_candidates(name)

    def _to_relative(self, name: str, inner: str) -> str | None:
        """Return the name as a clean path inside the root; None where only its last part may help."""
        if name.startswith("data:"):
            raise ImageError("is a data URL, which is not read; save it as a file")
        if not name or "\0" in name:
            raise ImageError("is not a file name")
        if _URL.match(name):
            reason = "is a URL, which is not fetched"
        elif _DRIVE.match(name) or (name.startswith("/") and not name.startswith(self._prefix)):
            reason = f"is outside of {self.root}"
        else:
            name = posixpath.normpath(posixpath.join(self._prefix, inner, name))
            if name.startswith(self._prefix):
                return name[len(self._prefix) :]
            reason = f"leads out of {self.root}"
        if self._by_basename:
            return None
        raise ImageError(f"{reason}; give the folder of the images with --images")


def _basename_candidates(name: str) -> Iterator[str]:
    """Yield the paths in a folder of downloads that a URL or a foreign path may mean, the longest first."""
    if _URL.match(name):
        try:
            url = urlsplit(name)
        except ValueError as error:
            raise ImageError(f"is not a URL ({error})") from error
        steps = [step for step in f"{url.netloc}{url.path}".split("/") if step][-_MAX_URL_FOLDERS:]
        steps = steps if url.path.strip("/") else []
        tails = [steps[start:] for start in range(len(steps))]
    else:
        tails = [[posixpath.basename(name.replace("\\", "/"))]]
    for tail in tails:
        for path in dict.fromkeys(("/".join(tail), "/".join(map(unquote, tail)))):
            steps = path.split("/")
            if len(steps) == len(tail) and not {"", ".", ".."} & {*steps} and "\0" not in path:
                yield path
                if posixpath.splitext(path)[1].lower() not in PICTURE_SUFFIXES:
                    yield from (path + suffix for suffix in _COMMON_SUFFIXES)


def has_pictures(names: Iterable[str]) -> bool:
    """Return whether any of the file names has the suffix of a picture."""
    return any(posixpath.splitext(name)[1].lower() in PICTURE_SUFFIXES for name in names)


def is_hidden(path: str) -> bool:
    """Return whether any part of a path is hidden, or left behind by an operating system."""
    return any(part.startswith(".") or part in _SYSTEM_NAMES for part in path.split("/"))


def list_files(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the files under a folder, and unusable entries with the reason, sorted by path relative to the root.

    Hidden files and those that operating systems leave behind are omitted, as is a catalog built among the images.
    Folders behind links are not entered: inside the root they are listed at their own place, so that no loop can arise.
    Parts of a path are separated by "/", at which the path of a folder that cannot be read ends.
    """
    folder = ImageFolder(root)
    files: list[str] = []
    unusable: list[tuple[str, str]] = []
    pending = [""]
    while pending:
        inner = pending.pop()
        try:
            entries = list(os.scandir(folder.root / inner))
        except OSError as error:
            unusable.append((inner or "./", f"cannot be read ({error.strerror})"))
            continue
        if inner and any(entry.name == CATALOG_FILE for entry in entries):
            continue
        for entry in entries:
            if is_hidden(entry.name):
                continue
            path = inner + entry.name
            reason = _explain_unusable(entry, folder)
            if reason:
                unusable.append((path, reason))
            if entry.is_dir(follow_symlinks=False):
                pending.append(path + "/")
            elif reason is None and not entry.is_dir():
                files.append(path)
    return sorted(files), sorted(unusable)


def _explain_unusable(entry: os.DirEntry[str], folder: ImageFolder) -> str | None:
    """Return why an entry can be neither an image nor a caption file; None where it may be one."""
    try:
        entry.name.encode()
        if entry.is_symlink() and not folder.contains(entry.path):
            return "is a link that leads out of the folder"
        if entry.is_dir():
            return "is a folder, not a file" if has_pictures([entry.name]) else None
        if not entry.is_file(follow_symlinks=False):  # the folder's listing tells, without a look at each file
            check_regular_file(entry.stat().st_mode)
    except UnicodeEncodeError:
        return "has a name that is not UTF-8; rename it"
    except ImageError as error:
        return str(error)
    except OSError as error:
        return "is a broken link" if entry.is_symlink() else f"cannot be read ({error.strerror})"
    return None
