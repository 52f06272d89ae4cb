"""Find, open and save open_clip models: a folder, a name/tag or a model hub in, a model with all its parts out."""

import difflib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from retrieval.encoder.architectures import HF_CONFIG, build_model, build_tokenizer, is_local_folder, needs_own_loader
from retrieval.encoder.model_folders import CONFIG_FILE, EXPORT_FILE, STARTER, WEIGHTS_FILE, find_model_folder
from retrieval.errors import EncoderError
from retrieval.files import write_atomically

_WEIGHTS_FILES = (WEIGHTS_FILE, "open_clip_pytorch_model.bin")  # in the order that open_clip tries on a hub
_HUB = "hf-hub:"
_HUB_TIMEOUT = 5  # seconds: huggingface_hub's own retries take 23 s a file where there is no network

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model and what belongs to it."""

    name: str  # what `open_checkpoint` takes to open it again
    model: Any  # a CLIP, CustomTextCLIP or CoCa model of open_clip, on the CPU, in eval mode
    config: Mapping[str, Any]  # open_clip's `model_cfg`: `embed_dim`, `vision_cfg`, `text_cfg` and so on
    preprocess: Mapping[str, Any]  # `size`, `mean`, `std`, `interpolation`, `resize_mode`, `fill_color`
    tokenizer: Callable[..., torch.Tensor]  # a list of texts to an integer tensor (n, context length)


def open_checkpoint(name: str) -> Checkpoint:
    """Open a trained model by "starter", a folder, "hf-hub:org/model", or an open_clip name/tag, in this order.

    An EncoderError says that there is none, or that it is untrained or damaged, or that its hub cannot be reached.
    """
    if folder := find_model_folder(name):
        return replace(_open_folder(folder), name=name if name == STARTER else str(folder))
    return _open_hub(name) if name.startswith(_HUB) else _open_pretrained(name)


def save_run(
    model: torch.nn.Module,
    folder: Path,
    *,
    config: Mapping[str, Any],
    preprocess: Mapping[str, Any],
    tokenizer: Any = None,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write `model` into `folder` in open_clip's own layout, which `load_encoder(folder)` and plain open_clip load.

    The layout is `open_clip_config.json`, an object of `model_cfg` and `preprocess_cfg`, beside
    `open_clip_model.safetensors`, the state dict. open_clip reads "local-dir:FOLDER", unless the text tower is an
    LSTM. A former export to ONNX is dropped; other files in the folder are left alone. Each file is replaced
    atomically, the weights first: a kill leaves the former model whole, or, in a new folder, one without a config,
    which nothing mistakes for a run.

    Args:
        model: A CLIP, CustomTextCLIP or CoCa model of open_clip, on any device.
        folder: Created if needed.
        config: As of `Checkpoint`, with what was forced on it (`quick_gelu`, `image_size`, `context_length`).
        preprocess: As of `Checkpoint`.
        tokenizer: Needed where the config names a `hf_tokenizer_name`: open_clip looks for its files in the folder.
        weights: The state dict to write; the model's own where None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / EXPORT_FILE).unlink(missing_ok=True)  # of the former weights
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(str(folder))
    text = config["text_cfg"]
    if is_local_folder(text.get("hf_model_name")):  # the run carries the text model's config, and names itself for it
        hf_config = model.text.config.to_json_string()  # type: ignore[union-attr, operator]
        write_atomically(folder / HF_CONFIG, lambda path: path.write_text(hf_config, encoding="utf-8"))
        config = {**config, "text_cfg": text | {"hf_model_name": str(folder.resolve()), "hf_model_pretrained": False}}
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    state_dict = model.state_dict() if weights is None else weights
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state_dict.items()}
    write_tensors(folder / WEIGHTS_FILE, tensors, metadata={"format": "pt"})
    content = json.dumps({"model_cfg": dict(config), "preprocess_cfg": dict(preprocess)}, indent=2)
    write_atomically(folder / CONFIG_FILE, lambda path: path.write_text(content + "\n", encoding="utf-8"))


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], *, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all; an OSError where the disk is full or failing."""
    try:
        write_atomically(path, lambda aside: save_file(dict(tensors), aside, metadata=metadata))
    except SafetensorError as error:  # how it reports a full disk
        raise OSError(f"{path} cannot be written: {error}") from error


def _open_folder(folder: Path) -> Checkpoint:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise EncoderError(f"The folder {folder} holds no {CONFIG_FILE}. It is no model in open_clip's layout.")
    if not any(file.suffix in {".safetensors", ".bin", ".pth"} for file in folder.iterdir()):
        raise EncoderError(f"The folder {folder} holds no weights. Put {WEIGHTS_FILE} beside its {CONFIG_FILE}.")
    with _translate_errors(str(folder)):
        content = json.loads(path.read_text(encoding="utf-8"))
        config = content["model_cfg"]
        own = needs_own_loader(config, folder)
        check_text_parts(config, *([] if own else ["hf_model_name"]))
        tokenizer = config["text_cfg"].get("hf_tokenizer_name")
        if tokenizer and not any(re.search(r"token|vocab|spiece", file.name) for file in folder.iterdir()):
            raise EncoderError(f"The folder {folder} lacks the files of its tokenizer {tokenizer}. Add tokenizer.json.")
        if own:
            return _open_own(folder, config, content.get("preprocess_cfg", {}))
        return _open_with_open_clip(str(folder), f"local-dir:{folder}", config)


def _open_own(folder: Path, config: dict[str, Any], preprocess: Mapping[str, Any]) -> Checkpoint:
    """Open what plain open_clip cannot, or no longer can after the folder has moved."""
    if config["text_cfg"].get("hf_model_name"):
        config["text_cfg"] |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    with _preserve_root_logger(), _SkipInit(), torch.random.fork_rng(devices=[]):
        model = build_model(config)
        tokenizer = build_tokenizer(config["text_cfg"], folder=folder)
    model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    defaults = asdict(PreprocessCfg(size=model.visual.image_size))
    return Checkpoint(str(folder), model.eval(), config, merge_preprocess_dict(defaults, dict(preprocess)), tokenizer)


def _open_hub(name: str) -> Checkpoint:
    with _translate_errors(name):
        repository = name.removeprefix(_HUB)
        _check_hub(repository, CONFIG_FILE)
        _check_hub(repository, *_WEIGHTS_FILES)
        config = open_clip.get_model_config(name)
        check_text_parts(config, "hf_model_name", "hf_tokenizer_name")
        return _open_with_open_clip(name, name, config)


def _open_pretrained(name: str) -> Checkpoint:
    architecture, tag = _split_name(name)
    config = open_clip.get_model_config(architecture)
    weights = open_clip.get_pretrained_cfg(architecture, tag)
    # Under most of these names the weights of OpenAI, MetaCLIP and DFN were trained with another activation than the
    # architecture of that name has; open_clip only warns, and the vectors are then poor.
    config["quick_gelu"] = bool(config.get("quick_gelu") or weights.get("quick_gelu"))
    with _translate_errors(name):
        repository, file = os.path.split(weights["hf_hub"])
        _check_hub(repository, *([file] if file else _WEIGHTS_FILES))
        check_text_parts(config, "hf_model_name", "hf_tokenizer_name")
        return _open_with_open_clip(name, architecture, config, pretrained=tag, force_quick_gelu=config["quick_gelu"])


def _open_with_open_clip(name: str, source: str, config: Mapping[str, Any], **options: Any) -> Checkpoint:
    with _preserve_root_logger():
        with _SkipInit(), torch.random.fork_rng(devices=[]):  # some models draw all the same
            model = open_clip.create_model_from_pretrained(source, return_transform=False, **options)
        tokenizer = open_clip.get_tokenizer(source)
    return Checkpoint(name, model.eval(), config, model.visual.preprocess_cfg, tokenizer)


def _split_name(name: str) -> tuple[str, str]:
    """Split an open_clip name/tag that has trained weights, or name the nearest ones."""
    architecture, _, tag = name.rpartition("/")
    if open_clip.is_pretrained_cfg(architecture, tag):
        return architecture, tag
    models = [model for model in (name, architecture) if model in open_clip.list_models()]
    similar = [f"{model}/{tag}" for model in models for tag in open_clip.list_pretrained_tags_by_model(model)]
    if models and not similar:
        raise EncoderError(
            f"{models[0]} is an architecture without trained weights. Train it, and name the run's folder."
        )
    if not similar:
        names = {f"{model}/{tag}".lower(): f"{model}/{tag}" for model, tag in open_clip.list_pretrained()}
        similar = [names[match] for match in difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)]
    hint = f"Name one with its tag: {', '.join(similar)}" if similar else "open_clip.list_pretrained() lists the names"
    raise EncoderError(f"There is no model folder and no open_clip name/tag {name!r}. {hint}.")


def check_text_parts(config: Mapping[str, Any], *keys: str) -> None:
    """Check that what the text tower takes from elsewhere on the hub (its config, its tokenizer) is available.

    A config may ask transformers to run code that comes with the tokenizer; nobody's code is run here.
    """
    if (config["text_cfg"].get("tokenizer_kwargs") or {}).get("trust_remote_code"):
        raise EncoderError(
            "The model's config asks to run code that comes with its tokenizer (trust_remote_code), which is refused."
        )
    hub_files = {"hf_model_name": "config.json", "hf_tokenizer_name": "tokenizer_config.json"}
    for key in keys:
        repository = config["text_cfg"].get(key)
        if repository and not Path(repository).is_dir():
            _check_hub(repository, hub_files[key])


def _check_hub(repository: str, *files: str) -> None:
    """Return if one of `files` is cached or the hub answers; raise the one-line error within seconds otherwise."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

    try:
        if any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
            return
        get_hf_file_metadata(hf_hub_url(repository, files[0]), timeout=_HUB_TIMEOUT)
    except EntryNotFoundError:
        return  # the hub answered: the weights have another of the names that open_clip tries
    except (RepositoryNotFoundError, HFValidationError):
        raise EncoderError(
            f"The hub has no model {repository!r}, or needs a login for it. Check the name, or run hf auth login."
        ) from None
    except Exception as error:  # its type depends on huggingface_hub's version and its HTTP client's
        raise EncoderError(
            f"The hub cannot be reached for {repository} ({_shorten(error)}). Without the hub, name a folder "
            f"that holds {CONFIG_FILE} and {WEIGHTS_FILE}."
        ) from error


@contextmanager
def _translate_errors(name: str) -> Iterator[None]:
    """Turn whatever open_clip, torch and the file formats raise on a damaged model into one line."""
    try:
        yield
    except EncoderError:
        raise
    except Exception as error:  # a foreign config and weights can fail anywhere inside open_clip
        raise EncoderError(f"The model {name} cannot be loaded: {_shorten(error)}.") from error


def _shorten(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."  # noqa: PLR2004 (about what fits a terminal twice)


@contextmanager
def _preserve_root_logger() -> Iterator[None]:
    """Keep open_clip from configuring logging: its `logging.info` gives a root logger without handlers one to stderr.

    Its warnings go to this module's logger instead.
    """
    root, handler, messages = logging.getLogger(), logging.Handler(logging.WARNING), []
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    if not root.handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
    for message in messages:
        _logger.warning(message)


class _SkipInit(TorchFunctionMode):
    """Skip drawing random weights: strict loading overwrites every one. SigLIP2-B/32 loads in 2.5 s instead of 10."""

    def __torch_function__(  # noqa: PLR0917 (torch calls it so)
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)
