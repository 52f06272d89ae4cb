"""A folder that pictures are named in: which file a name means, never outside of it, and which files there are."""

import os
import posixpath
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from retrieval.errors import ImageError
from retrieval.images.sources import ImageSource, check_regular_file

PICTURE_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".avif"),
        *(".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif"),
    ]
)

_URL = re.compile(r"([a-z][a-z0-9+.-]+:)?//", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:[\\/]", re.IGNORECASE)
_URL_FOLDERS = 8
_USUAL = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif")
_SYSTEM_NAMES = {"__MACOSX", "@eaDir", "Thumbs.db", "ehthumbs.db", "desktop.ini"}


class ImageFolder:
    """Finds the file that an image name means, as fast as a table of 100,000 rows needs it.

    Args:
        root: the folder that names are relative to.
        mapped: a name that leads elsewhere (a URL, an absolute path, another folder) is looked for by its last part, a
            URL first by as much of its path as there is a folder for; and one without an ending by the usual ones.
    """

    def __init__(self, root: Path, *, mapped: bool = False) -> None:
        self.root = Path(os.path.realpath(root))
        self._prefix = f"{self.root}{os.sep}" if self.root.name else str(self.root)
        self._mapped = mapped
        self._inside: dict[str, bool] = {}

    def find(self, name: str, *, inner: str = "") -> ImageSource:
        """Where the picture of that name is; the name is relative to the inner folder. It is not opened.

        Raises:
            ImageError: it is not there, is no file, or is outside of the folder.
        """
        for relative in self._candidates(name.strip(), inner):
            try:
                status = os.lstat(self._prefix + relative)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError) as error:
                raise ImageError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
            self._check_inside(relative, is_link=stat.S_ISLNK(status.st_mode))
            check_regular_file(
                status.st_mode if not stat.S_ISLNK(status.st_mode) else _target_mode(self._prefix + relative)
            )
            return ImageSource(Path(self._prefix + relative), relative)
        raise ImageError(f"there is no such file in {self.root}")

    def _candidates(self, name: str, inner: str) -> Iterator[str]:
        """Paths relative to the root that the name may mean, likeliest first."""
        relative = self._relative(name, inner)
        if relative is not None:
            yield relative
            # Archives made on a Mac spell é as e + accent, tables mostly as one character.
            yield from (
                spelled for form in ("NFC", "NFD") if (spelled := unicodedata.normalize(form, relative)) != relative
            )
            if "\\" in relative and (slashed := self._relative(relative.replace("\\", "/"), "")) is not None:
                yield slashed
        if self._mapped:
            yield from _elsewhere(name)

    def _relative(self, name: str, inner: str) -> str | None:
        """The name as a clean path inside the root; None where only its last part may help."""
        if name.startswith("data:"):
            raise ImageError("is a picture inside the text (a data URL), which is not read; save it as a file")
        if not name or "\0" in name:
            raise ImageError("is no file name")
        reason = ""
        if _URL.match(name):
            reason = "is a URL, and nothing is fetched; name the folder of its download by --images"
        elif _DRIVE.match(name) or (name.startswith("/") and not name.startswith(self._prefix)):
            reason = f"is outside of {self.root}; name the folder of the pictures by --images"
        else:
            name = posixpath.normpath(posixpath.join(self._prefix, inner, name))
            if name.startswith(self._prefix):
                return name[len(self._prefix) :]
            reason = f"leads out of {self.root}; name the folder of the pictures by --images"
        if not self._mapped:
            raise ImageError(reason)
        return None

    def _check_inside(self, relative: str, *, is_link: bool) -> None:
        """Refuse what links lead out of the folder; one look for each folder in it."""
        parent = relative.rpartition("/")[0]
        if parent and parent not in self._inside:
            self._inside[parent] = self.contains(self._prefix + parent)
        if (parent and not self._inside[parent]) or (is_link and not self.contains(self._prefix + relative)):
            raise ImageError("is a link that leads out of the folder")

    def contains(self, path: str) -> bool:
        """Whether the path, its links followed, is inside the folder."""
        return (os.path.realpath(path) + os.sep).startswith(self._prefix)


def _elsewhere(name: str) -> Iterator[str]:
    """Paths below a folder of downloads that a URL or foreign path may mean, the longest first."""
    if _URL.match(name):
        url = _parsed(name)
        steps = [step for step in f"{url.netloc}{url.path}".split("/") if step][-_URL_FOLDERS:]
        steps = steps if url.path.strip("/") else []
        tails = [steps[start:] for start in range(len(steps))]
    else:
        tails = [[posixpath.basename(name.replace("\\", "/"))]]
    for tail in tails:
        for path in dict.fromkeys(("/".join(tail), "/".join(map(unquote, tail)))):
            if (
                path
                and path.count("/") == len(tail) - 1
                and not {"", ".", ".."} & {*path.split("/")}
                and "\0" not in path
            ):
                yield path
                if posixpath.splitext(path)[1].lower() not in PICTURE_SUFFIXES:
                    yield from (path + suffix for suffix in _USUAL)


def _parsed(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise ImageError(f"is no URL ({error})") from error


def is_hidden(path: str) -> bool:
    """Whether any part of a path is hidden, or is what an operating system leaves behind."""
    return any(part.startswith(".") or part in _SYSTEM_NAMES for part in path.split("/"))


CATALOG_FILE = "catalog.sqlite"  # what every catalog's folder holds


def walk(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Files under a folder, and names with the reason why something else is none of them, both sorted by path.

    Hidden files and what operating systems leave behind are left out. Folders behind links are not entered: inside the
    root they are met at their own place, so that no loop can arise.

    Returns:
        Paths relative to the root, with "/" between their parts, and at the end of a folder that cannot be read.
    """
    folder = ImageFolder(root)
    files: list[str] = []
    others: list[tuple[str, str]] = []
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        try:
            entries = list(os.scandir(folder.root / inner))
        except OSError as error:
            others.append((inner or "./", f"cannot be read ({error.strerror})"))
            continue
        if inner and any(entry.name == CATALOG_FILE for entry in entries):
            continue  # a catalog that was built among the pictures is none of them
        for entry in entries:
            if is_hidden(entry.name):
                continue
            path = inner + entry.name
            reason = _reason_against(entry, folder)
            if reason:
                others.append((path, reason))
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path + "/")
            elif reason is None and not entry.is_dir():
                files.append(path)
    return sorted(files), sorted(others)


def _reason_against(entry: os.DirEntry[str], folder: ImageFolder) -> str | None:
    """Why an entry can be no picture and no caption file; None where it may be one."""
    try:
        entry.name.encode()
        if entry.is_symlink() and not folder.contains(entry.path):
            return "is a link that leads out of the folder"
        if entry.is_dir():
            is_picture = Path(entry.name).suffix.lower() in PICTURE_SUFFIXES
            return "is a folder, not a file" if is_picture else None
        if not entry.is_file(follow_symlinks=False):  # the folder's own listing tells, without a look at each file
            check_regular_file(entry.stat().st_mode)
    except UnicodeEncodeError:
        return "has a name that is not UTF-8; rename it"
    except ImageError as error:
        return str(error)
    except OSError as error:
        return "is a link to nothing" if entry.is_symlink() else f"cannot be read ({error.strerror})"
    return None


def _target_mode(path: str) -> int:
    try:
        return os.stat(path).st_mode  # noqa: PTH116 (the path is a string, for speed)
    except OSError as error:
        raise ImageError("is a link to nothing") from error
