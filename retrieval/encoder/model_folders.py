"""Where models lie: the folder of a name, and the cache for what is derived from models that cannot be written to."""

import os
from pathlib import Path

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
EXPORT_FILE = "open_clip_onnx.json"
STARTER = "starter"
"""The model that comes with the package: the default wherever a model is named."""
CACHE_VARIABLE = "RETRIEVAL_CACHE"


def find_model_folder(name: str) -> Path | None:
    """Return the absolute folder of a model by a name that `load_encoder` takes; None where it is no folder's."""
    if name == STARTER:  # before folders: a folder of that name must not break the default
        return Path(__file__).parents[1] / STARTER
    return Path(name).resolve() if name and Path(name).is_dir() else None


def find_weights(folder: Path) -> Path:
    """Return the file of weights in a model folder: the safetensors file, else the first of another format."""
    others = sorted(path for path in folder.iterdir() if path.suffix in {".safetensors", ".bin", ".pth"})
    return folder / WEIGHTS_FILE if (folder / WEIGHTS_FILE).is_file() or not others else others[0]


def cache_folder() -> Path:
    """Return the user's cache folder of this package, or the value of RETRIEVAL_CACHE; it may not exist yet."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given).absolute()
    from platformdirs import user_cache_path

    return user_cache_path("crossmodal-retrieval", appauthor=False)
