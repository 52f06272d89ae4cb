"""How a training run is set up, as data: what decides its result, and a few things that only decide what it costs."""

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

from retrieval.encoder import DEVICES, STARTER
from retrieval.errors import TrainingError
from retrieval.train.checks import check_flags, check_range, check_whole

SMALL: Final = "small"
"""The built-in architecture for small sets: it learns from scratch on a CPU in minutes."""
BUILT_IN: Final = (SMALL, "small-lstm")
"""The same image tower with an LSTM for texts is for comparison with how the field began (VSE++)."""

_FROM_RANDOM: Final[Mapping[str, Any]] = {
    "epochs": 30,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "warmup": 0.1,
    "crop": 0.7,
    "flip": 0.5,
    "color_jitter": 0.2,
    "keep_statistics": False,
    "average": "off",
}
_FROM_WEIGHTS: Final[Mapping[str, Any]] = {
    **_FROM_RANDOM,
    "epochs": None,  # by the number of pictures: see `fitted`
    "learning_rate": None,  # by the model's size
    "crop": 0.9,
    "flip": 0.25,
    "color_jitter": 0.1,
    "keep_statistics": True,
    "average": "auto",
}
_COST_ONLY: Final = frozenset(
    {"device", "threads", "cache_bytes", "cache_folder", "disk_cache_bytes", "checkpoint_seconds", "tensorboard"}
)
_FROM_PARTS: Final[Mapping[str, Any]] = {
    **_FROM_WEIGHTS,
    "epochs": 10,
    "learning_rate": 1e-5,
    "head_learning_rate": 1e-3,
    "average": "off",
}
_LORA_RATE: Final = 2e-4
_USUAL_WEIGHTS: Final = 150e6  # of ViT-B/32
_TEXT_ALONE: Final = 4
_ENOUGH_STEPS: Final = 100
_FEW_PICTURES: Final = 2000
LOSSES: Final = ("contrastive", "sigmoid", "triplet")
PRECISIONS: Final = ("auto", "float32", "bfloat16", "float16")
Others: TypeAlias = Literal["mask", "share", "own"]
OTHERS: Final[tuple[Others, ...]] = ("mask", "share", "own")
"""What becomes of a picture's other right texts, and of a text's other right pictures. "mask" leaves them out: neither
pulled nor pushed, because a text that another picture of the same item came with may fit this one only in part.
"share" shares the target out evenly among all that are right. "own" takes them for wrong, as plain losses do. Where
right texts are equal to the letter, "share" is "own" in a contrastive loss: one pull, divided among equal rows."""
_CHOICES: Final = {"loss": LOSSES, "positives": OTHERS, "precision": PRECISIONS}
TUNES: Final = ("auto", "both", "image", "text", "heads")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """What to train and how. `None` stands for what suits the model, which `complete` fills in.

    Args:
        model: a folder that open_clip can load, or an open_clip name/tag or "hf-hub:org/model", to go on from its
            weights; or, to start from random ones, "small", "small-lstm", an open_clip architecture, its config, or a
            .json file of that.
        image_weights: A safetensors file of trained weights of the image tower, where the model is an architecture:
            what timm saves of its model, say.
        text_weights: The same of the text tower: a folder of transformers, say. With both, heads alone start at random:
            the towers' learning rate is 1e-5 then, the heads' 1e-3, for 10 epochs.
        epochs: How often each picture is shown; 30 from random weights, 5 to 20 from trained ones, the more the
            fewer pictures there are.
        batch_size: Pictures in a step, at most; 64.
        learning_rate: The highest, reached after the warm-up; from there it falls to 0 along half a cosine. 1e-3 from
            random weights; from trained ones 1e-5 for a model as large as ViT-B/32, up to 1e-4 for smaller ones, four
            times that for a text tower alone, and 2e-4 with LoRA.
        weight_decay: Of AdamW, on matrices and kernels only, not on biases, norms and the temperature; 0.1.
        warmup: The share of all steps in which the learning rate rises; 0.1.
        crop: The least share of a picture's area that is shown in training; 1 shows whole pictures. 0.7 from random
            weights, 0.9 from trained ones.
        tune: What is trained: "both" towers; "auto" is that too, but from trained weights on fewer than 2,000 pictures
            with `image_blocks` of 0; the "image" or the "text" tower, while the rows of the other's pictures or texts
            stay as they are; or the "heads" alone, the projections into the shared space. What is not trained is
            computed once and kept, and its pictures are shown whole.
        image_blocks: How many of the image tower's last blocks are trained, or stages of a convolutional one; 0 leaves
            the head and the last norm; None trains all there is.
        text_blocks: The same of the text tower.
        layer_decay: The learning rate falls by this factor a block from the head down.
        head_learning_rate: Of the heads, where it is to differ.
        flip: How likely a picture is mirrored, if none of its right texts says left or right or speaks of letters,
            numbers and the like. 0.5 from random weights, 0.25 from trained ones.
        color_jitter: How far brightness, contrast, saturation and hue of a picture go, if none of its right texts names
            a colour: 0.2 is up to 20 %. 0.2 from random weights, 0.1 from trained ones.
        word_dropout: The share of a caption's words that is left out each time, where the text tower learns; one word
            stays at least.
        balance: An attribute, or "text" for equal captions: each of its values is shown equally often, as far as that
            goes with no picture twice in a batch. Empty to show each picture once an epoch.
        loss: "contrastive" (InfoNCE), "sigmoid" (SigLIP) or "triplet" (VSE++); `losses` has the formulas.
        positives: What becomes of texts of a batch that are right for another picture of it as well: "mask" leaves them
            out, "share" takes them for right, "own" for wrong.
        margin: Of the triplet loss, a cosine.
        label_smoothing: The share of the contrastive loss's target that is spread over everything in the batch.
        weight_attribute: An attribute of the pairs, a number of at least 0, by which they count in the loss.
        micro_batch: Pictures that go through the towers at once; None for the whole batch. Smaller needs less memory
            and takes a third more time; gradients are the same, but for batch normalisation, whose statistics stay as
            they are then, as they do with several processes; from random weights they are those of the first pictures.
        hard_negatives: The share of each batch that is hard for the rest of it: before every epoch the wrong texts that
            come nearest to each picture are mined, and batches arranged so that they meet.
        precision: "float32", "bfloat16", "float16", or "auto" for what is fast here: a half one on GPUs.
        compile: Whether torch compiles the towers: minutes of waiting, for hours of steps. Not with dropout.
        lora_rank: Train, beside each matrix of attention and MLP layers, a product of two of this rank instead of the
            matrix itself, and the heads; 0 trains all weights. What is kept has the products added in.
        keep_statistics: Let batch normalisation go by the statistics that the model came with, as the finished model
            does, rather than by each batch's own. From trained weights yes, from random ones no.
        ema: The decay of an exponential moving average of the weights, graded and kept in their place; 0 is none.
        average: At the end the tuned weights are mixed with those at the start, which keeps what the model knew
            (WiSE-FT). A number is their share; "auto" takes the greatest of a few that is, within the noise, as good on
            the validation pairs as the best: up to 0.4, or 0.6 of heads, and of both towers where the image tower's
            blocks stay; a small one where there are no such pairs. "off" keeps the best epoch's weights. "auto" from
            trained weights, "off" from random ones.
        patience: Stop after so many epochs without a better mean recall on the validation pairs; None goes on.
        clip_norm: Gradients are scaled down to this length.
        validation_share: Of the pictures, held out by item where no validation pairs are handed in; 0 for none.
        seed: Decides the first weights, the split, the batches, the transform and the captions drawn.
        device: "auto", "cpu" or "cuda".
        threads: How many read and crop pictures ahead; as many as suit the device where it is None.
        cache_bytes: Memory for pictures that are decoded once and kept, of all processes on a machine together.
        disk_cache_bytes: Room on disk for those that memory does not hold, of all processes together likewise, never
            more than half of what is free.
        cache_folder: Where that is; the run's own folder where it is empty.
        checkpoint_seconds: A killed run loses at most the work of so long.
        tensorboard: Whether TensorBoard's package, which has to be there, writes the log too, to training/tensorboard.

    Raises:
        TrainingError: A value makes no sense.
    """

    model: str | Mapping[str, Any] = STARTER
    image_weights: str = ""
    text_weights: str = ""
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    warmup: float | None = None
    crop: float | None = None
    tune: str = "auto"
    image_blocks: int | None = None
    text_blocks: int | None = None
    layer_decay: float = 1.0
    head_learning_rate: float | None = None
    flip: float | None = None
    color_jitter: float | None = None
    word_dropout: float = 0.0
    balance: str = ""
    loss: str = "contrastive"
    positives: Others = "mask"
    margin: float = 0.2
    label_smoothing: float = 0.0
    weight_attribute: str = ""
    micro_batch: int | None = None
    hard_negatives: float = 0.0
    precision: str = "auto"
    compile: bool = False
    lora_rank: int = 0
    keep_statistics: bool | None = None
    ema: float = 0.0
    average: str | float | None = None
    patience: int | None = None
    clip_norm: float = 1.0
    validation_share: float = 0.1
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    cache_bytes: int = 2 * 2**30
    disk_cache_bytes: int = 8 * 2**30
    cache_folder: str = ""
    checkpoint_seconds: float = 60.0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        check_whole(self, least={"epochs": 1, "batch_size": 2, "seed": 0, "threads": 1, "cache_bytes": 0})
        check_whole(self, least={"image_blocks": 0, "text_blocks": 0, "micro_batch": 1, "disk_cache_bytes": 0})
        check_whole(self, least={"lora_rank": 0, "patience": 1})
        check_range(self, "learning_rate", low=0.0, high=math.inf, above=True)
        check_range(self, "weight_decay", low=0.0, high=math.inf)
        check_range(self, "warmup", low=0.0, high=1.0)
        check_range(self, "crop", low=0.0, high=1.0, above=True)
        check_range(self, "layer_decay", low=0.0, high=1.0, above=True)
        check_range(self, "head_learning_rate", low=0.0, high=math.inf, above=True)
        check_range(self, "flip", low=0.0, high=1.0)
        check_range(self, "color_jitter", low=0.0, high=0.5)
        check_range(self, "word_dropout", low=0.0, high=0.9)
        check_range(self, "clip_norm", low=0.0, high=math.inf, above=True)
        check_range(self, "validation_share", low=0.0, high=0.5)
        check_range(self, "checkpoint_seconds", low=0.0, high=math.inf)
        check_range(self, "margin", low=0.0, high=2.0)
        check_range(self, "label_smoothing", low=0.0, high=0.5)
        check_range(self, "hard_negatives", low=0.0, high=0.9)
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise TrainingError(f"{name} is {getattr(self, name)!r}; take one of {', '.join(known)}")
        if self.hard_negatives and self.balance:
            raise TrainingError("hard_negatives and balance both say what meets in a batch; take one of them")
        if self.label_smoothing and self.loss != "contrastive":
            raise TrainingError(f"label_smoothing goes with the contrastive loss, not with {self.loss}")
        check_flags(self, "compile", "keep_statistics", "tensorboard")
        check_range(self, "ema", low=0.0, high=0.99999)
        _check_tune(self)
        if self.average not in {"auto", "off"}:
            check_range(self, "average", low=0.0, high=1.0, above=True)
        if not self.model:
            raise TrainingError(f"model is {self.model!r}; it must be a name or an open_clip config")
        if self.device not in DEVICES:
            raise TrainingError(f"there is no device {self.device!r}; take one of {', '.join(DEVICES)}")

    @property
    def from_random(self) -> bool:
        """Whether the model starts from random weights rather than trained ones."""
        if not isinstance(self.model, str):
            return True
        if self.model == STARTER:
            return False
        is_architecture = "/" not in self.model and not self.model.startswith("hf-hub:")  # or SMALL
        return not Path(self.model).is_dir() and (is_architecture or self.model.endswith(".json"))

    def complete(self) -> "TrainConfig":
        """The config with every None that decides the result replaced by what suits the model."""
        usual = _FROM_RANDOM if self.from_random else _FROM_WEIGHTS
        if self.image_weights and self.text_weights:
            usual = _FROM_PARTS
        settings = {name: value for name, value in usual.items() if getattr(self, name) is None}
        if self.lora_rank and self.learning_rate is None and not self.from_random:
            settings["learning_rate"] = _LORA_RATE
        if self.from_random and self.tune == "auto":
            settings["tune"] = "both"
        return replace(self, **settings)

    def fitted(self, *, weights: int, pictures: int) -> "TrainConfig":
        """The config with what suits a trained model and the pictures, where it names no learning rate, epochs or tune.

        1e-5 suits ViT-B/32 of 150 million weights; what is smaller bears more, in inverse proportion, up to 1e-4. A
        text tower alone, which has all the way to go to pictures that stay where they are, learns four times as fast.
        Small sets are shown more than 5 times, up to 20, so that there are about a hundred steps to learn in; and they
        teach an image tower less than they make it forget, so that only what is behind its blocks learns.
        """
        rate, epochs = self.learning_rate, self.epochs
        if rate is None:
            rate = min(1e-4, max(1e-5, 1e-5 * _USUAL_WEIGHTS / weights)) * (_TEXT_ALONE if self.tune == "text" else 1)
        if epochs is None:
            epochs = min(20, max(5, round(_ENOUGH_STEPS * cast("int", self.batch_size) / pictures)))
        return replace(self, learning_rate=rate, epochs=epochs, **self._tuned(pictures))

    def _tuned(self, pictures: int) -> dict[str, Any]:
        if self.tune != "auto":
            return {}
        few = pictures < _FEW_PICTURES and not self.lora_rank
        return {"tune": "both", "image_blocks": 0 if few and self.image_blocks is None else self.image_blocks}

    @property
    def _open(self) -> list[str]:
        """The settings that it leaves to what suits the model and the pictures."""
        unnamed = [name for name in ("learning_rate", "epochs") if getattr(self, name) is None]
        auto = ["tune"] if self.image_blocks is not None else ["tune", "image_blocks"]
        return unnamed + (auto if self.tune == "auto" else [])

    def filled(self, begun: "TrainConfig") -> "TrainConfig":
        """The config with what suited the run that is resumed, where it names nothing itself."""
        return replace(self, **{name: getattr(begun, name) for name in self._open})

    def differences(self, other: "TrainConfig") -> list[str]:
        """What would make the two give different models, each as "epochs 3, now 5" with this one's value last."""
        names = [field.name for field in fields(self) if field.name not in {*_COST_ONLY, *self._open}]
        changed = [name for name in names if getattr(self, name) != getattr(other, name)]
        return [f"{name} {getattr(other, name)!r}, now {getattr(self, name)!r}" for name in changed]

    def to_json(self) -> str:
        """The config as a JSON object; `from_json` reads it."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """The config that `to_json` wrote; what it leaves out has its default.

        Raises:
            TrainingError: It is no JSON object, has a setting that there is not, or one whose value makes no sense.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise TrainingError(f"this training config is no JSON ({error}): {text[:60]!r}") from error
        if not isinstance(values, dict):
            raise TrainingError(f"a training config is a JSON object, not {text[:60]!r}")
        check_names(values)
        return cls(**values)


def check_names(names: Iterable[str]) -> None:
    """Pass where each of these is a setting of `TrainConfig`.

    Raises:
        TrainingError: one is not; the message has the nearest that is.
    """
    known = [field.name for field in fields(TrainConfig)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; do you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            raise TrainingError(f"there is no training setting {name!r}{hint}")


def _check_tune(config: TrainConfig) -> None:
    if config.tune not in TUNES:
        raise TrainingError(f"tune is {config.tune!r}; take one of {', '.join(TUNES)}")
    for side in ("image", "text"):
        blocks = getattr(config, f"{side}_blocks")
        if blocks is not None and config.tune not in {"auto", "both", side}:
            raise TrainingError(
                f"{side}_blocks is {blocks}, but tune {config.tune!r} trains none of the {side} tower's"
            )
