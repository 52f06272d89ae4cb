"""The settings of a training run: what decides its result, and a few that only decide what it costs."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from retrieval.encoder import DEVICES, STARTER
from retrieval.errors import TrainingError
from retrieval.settings import check_names, check_settings, replace_old_names, setting

SMALL: Final = "small"
"""The built-in architecture for small sets: it learns from scratch on a CPU in minutes."""
BUILT_IN: Final = (SMALL, "small-lstm")
"""The same image tower with an LSTM for texts is for comparison with how the field began (VSE++)."""
PRECISIONS: Final = ("auto", "float32", "bfloat16", "float16")
ExtraPositives: TypeAlias = Literal["mask", "share", "own"]
EXTRA_POSITIVES: Final[tuple[ExtraPositives, ...]] = ("mask", "share", "own")
"""How the loss treats the other positives of a batch: an image's other right texts, a text's other right images.
"mask" leaves them out, neither pulled nor pushed, because a text that came with another image of the same item may fit
this one only in part. "share" divides the target evenly among all positives. "own" takes them for negatives, as plain
losses do. Where the texts of several positives are identical, "share" equals "own" in a contrastive loss: one pull,
divided among equal rows."""
_RATES: Final = "1e-5 to 1e-4 by model size, four times that with --tune text; 1e-3 from scratch"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What to train and how. None stands for what suits the model and the images: see `defaults.resolve`.

    The first sentence on each setting is the help of its option.

    Args:
        model: Checkpoint to fine-tune; or, from scratch, small, small-lstm or another architecture. A folder that
            open_clip can load, an open_clip name/tag or hf-hub:ORG/MODEL continues from those weights; an open_clip
            architecture, its config or a .json file of it starts from random ones.
        image_weights: Safetensors file of the image tower's weights, where --model is an architecture. What timm saves
            of its model, say. With weights of both towers only the heads start at random: the towers' learning rate is
            then 1e-5 and the heads' 1e-3, for 10 epochs.
        text_weights: Safetensors file of the text tower's weights, or a folder of transformers.
        epochs: How often each image is shown, with one of its captions each time.
        batch_size: Largest number of images in a step.
        learning_rate: Peak learning rate. It is reached after the warm-up, and falls to 0 along half a cosine. 2e-4
            with LoRA.
        weight_decay: Weight decay of AdamW, on matrices and kernels only, not on biases, norms and the temperature.
        warmup: Fraction of all steps during which the learning rate rises.
        crop: Smallest fraction of an image's area that a random crop shows; 1 shows whole images.
        tune: What is trained; auto is both towers, but only the head of the image tower where images are few, and with
            text every image vector of a catalog stays valid. Few are less than 2,000, for a trained model: auto is then
            image_blocks 0. heads trains the projections into the shared space alone. What is not trained is computed
            once and kept, and its images are shown whole.
        image_blocks: Train only this many last blocks of the image tower. Stages of a convolutional tower; 0 leaves the
            head and the last norm.
        text_blocks: Train only this many last blocks of the text tower.
        layer_decay: Layer-wise decay: each block's learning rate is this factor times that of the block above it.
        head_learning_rate: Peak learning rate of the heads, where it differs.
        flip: Probability of mirroring an image whose captions allow it. They do not where one says left or right, or
            speaks of letters or numbers.
        color_jitter: Strength of color jitter, for images whose captions name no color. 0.2 changes brightness,
            contrast, saturation and hue by up to 20 %.
        word_dropout: Fraction of a caption's words left out in training. At least one word stays. Only where the text
            tower learns.
        balance: Show each value of this attribute equally often; "text": each distinct caption. As far as possible with
            no image twice in a batch. Empty shows each image once an epoch.
        loss: InfoNCE as in CLIP, SigLIP's sigmoid loss, or VSE++'s triplet loss with the hardest negative of the batch.
        positives: Other right captions in a batch: mask leaves them out, share counts them as positives, own as
            negatives.
        margin: Margin of the triplet loss, a cosine.
        label_smoothing: Label smoothing of the contrastive loss. The fraction of the target that is spread over the
            whole batch.
        weight_attribute: Attribute of the pairs, a number of at least 0, that weights them in the loss.
        micro_batch: Images that go through the towers at once (gradient caching). A smaller number needs less memory
            and takes a third more time. The gradients are the same, except for batch normalization, whose statistics
            stay fixed then, as they do with several processes; from random weights they are those of the first images.
        hard_negatives: Fraction of each batch filled with mined hard negatives. The wrong captions nearest to each
            image are mined before every epoch, and batches are arranged so that they meet.
        precision: Data type of the forward and backward pass. auto takes what is fast here: a half-precision type on
            GPUs.
        compile: Compile the towers with torch.compile first, which pays for hours of training. Not with dropout.
        lora_rank: Rank of LoRA matrices to train beside those of attention and MLP; 0 trains all weights. The heads are
            trained as they are. The saved model has the products added in.
        freeze_bn_stats: Use the model's own batch-normalization statistics in training, as in inference, instead of
            each batch's.
        ema: Decay of an exponential moving average of the weights; 0 keeps none. The average is validated and kept in
            place of the weights.
        wise_ft: WiSE-FT: weight of the fine-tuned model when it is interpolated with the starting one; auto chooses it
            by validation. auto takes the greatest of a few that is, within the noise, as good on the validation pairs
            as the best: up to 0.4, or 0.6 of heads, and of both towers where the image tower's blocks stay; a small one
            without validation pairs. off keeps the weights of the best epoch.
        patience: Stop after this many epochs without a better mean recall on the validation pairs.
        clip_norm: Largest norm of the gradients.
        validation_share: Fraction of the images held out by item, where no validation pairs are given; 0 for none.
        seed: Seed of the first weights, the split, the batches, the crops and the captions.
        device: Device to train on.
        threads: Threads that read and crop images ahead.
        cache_bytes: Memory for decoded images, of all processes on a machine together.
        disk_cache_bytes: Disk space for decoded images that memory does not hold, of all processes together. Never more
            than half of what is free.
        cache_folder: Folder for decoded images that memory does not hold.
        checkpoint_seconds: Seconds between checkpoints: a killed run loses at most that.
        tensorboard: Also write the log for TensorBoard, into RUN/training/tensorboard. Needs TensorBoard's package.

    Raises:
        TrainingError: A value is out of its range, or two settings contradict each other.
    """

    model: str | Mapping[str, Any] = setting(STARTER, metavar="NAME", default_text=STARTER)
    image_weights: str = setting("", metavar="FILE")
    text_weights: str = setting("", metavar="PATH")
    epochs: int | None = setting(None, low=1, default_text="5 to 20, the fewer images the more; 30 from scratch")
    batch_size: int | None = setting(None, low=2, default_text="64")
    learning_rate: float | None = setting(None, low=0, exclusive=True, default_text=_RATES)
    weight_decay: float | None = setting(None, low=0, option=False, default_text="0.1")
    warmup: float | None = setting(None, low=0, high=1, option=False, default_text="0.1")
    crop: float | None = setting(
        None, low=0, high=1, exclusive=True, option=False, default_text="0.9; 0.7 from scratch"
    )
    tune: str = setting("auto", choices=("auto", "both", "image", "text", "heads"))
    image_blocks: int | None = setting(None, low=0, default_text="all")
    text_blocks: int | None = setting(None, low=0, default_text="all")
    layer_decay: float = setting(1.0, low=0, high=1, exclusive=True)
    head_learning_rate: float | None = setting(None, low=0, exclusive=True)
    flip: float | None = setting(None, low=0, high=1, default_text="0.25; 0.5 from scratch")
    color_jitter: float | None = setting(None, low=0, high=0.5, default_text="0.1; 0.2 from scratch")
    word_dropout: float = setting(0.0, low=0, high=0.9)
    balance: str = setting("", metavar="NAME")
    loss: str = setting("contrastive", choices=("contrastive", "sigmoid", "triplet"))
    positives: ExtraPositives = setting("mask", choices=EXTRA_POSITIVES)
    margin: float = setting(0.2, low=0, high=2)
    label_smoothing: float = setting(0.0, low=0, high=0.5)
    weight_attribute: str = setting("", metavar="NAME")
    micro_batch: int | None = setting(None, low=1, default_text="the whole batch")
    hard_negatives: float = setting(0.0, low=0, high=0.9)
    precision: str = setting("auto", choices=PRECISIONS)
    compile: bool = setting(False)
    lora_rank: int = setting(0, low=0)
    freeze_bn_stats: bool | None = setting(
        None, option=False, default_text="true; false from scratch", old_name="keep_statistics"
    )
    ema: float = setting(0.0, low=0, high=0.99999)
    wise_ft: str | float | None = setting(
        None,
        choices=("auto", "off"),
        low=0,
        high=1,
        exclusive=True,
        metavar="auto|off|X",
        default_text="auto; off from scratch",
        old_name="average",
    )
    patience: int | None = setting(None, low=1)
    clip_norm: float = setting(1.0, low=0, exclusive=True, option=False)
    validation_share: float = setting(0.1, low=0, high=0.5, option=False)
    seed: int = setting(0, low=0)
    device: str = setting("auto", choices=DEVICES, affects_result=False)
    threads: int | None = setting(None, low=1, option=False, default_text="what suits the device", affects_result=False)
    cache_bytes: int = setting(2 * 2**30, low=0, option=False, affects_result=False)
    disk_cache_bytes: int = setting(8 * 2**30, low=0, option=False, affects_result=False)
    cache_folder: str = setting("", metavar="DIRECTORY", default_text="RUN", affects_result=False)
    checkpoint_seconds: float = setting(60.0, low=0, option=False, affects_result=False)
    tensorboard: bool = setting(False, affects_result=False)

    def __post_init__(self) -> None:
        check_settings(self, error=TrainingError)
        if not self.model:
            raise TrainingError(f"Invalid value for model: {self.model!r}. It must be a name or an open_clip config.")
        if self.hard_negatives and self.balance:
            raise TrainingError("hard_negatives and balance both decide what meets in a batch. Use one of them.")
        if self.label_smoothing and self.loss != "contrastive":
            raise TrainingError(f"label_smoothing applies to the contrastive loss, not to {self.loss}. Leave it out.")
        for side in ("image", "text"):
            blocks = getattr(self, f"{side}_blocks")
            if blocks is not None and self.tune not in {"auto", "both", side}:
                raise TrainingError(
                    f"{side}_blocks is {blocks}, but tune={self.tune!r} trains no block of the {side} tower. Leave one"
                    " of the two out."
                )

    @property
    def from_random(self) -> bool:
        """Whether the model starts from random weights rather than trained ones."""
        if not isinstance(self.model, str):
            return True
        if self.model == STARTER:
            return False
        is_architecture = "/" not in self.model and not self.model.startswith("hf-hub:")  # or SMALL
        return not Path(self.model).is_dir() and (is_architecture or self.model.endswith(".json"))

    def to_json(self) -> str:
        """The config as a JSON object; `from_json` reads it."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """The config that this release or an earlier one wrote; what it leaves out has its default.

        Raises:
            TrainingError: It is not a JSON object, or has an unknown setting or an invalid value.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise TrainingError(f"The training config is not valid JSON ({error}): {text[:60]!r}.") from error
        if not isinstance(values, dict):
            raise TrainingError(f"A training config is a JSON object, not {text[:60]!r}.")
        values = replace_old_names(values, TrainConfig)
        check_names(values, TrainConfig, error=TrainingError)
        return TrainConfig(**values)
