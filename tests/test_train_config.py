"""The training config: validation, defaults, JSON."""

import json
import math
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import TrainingError
from retrieval.settings import settings_table
from retrieval.train.config import TrainConfig
from retrieval.train.defaults import apply_defaults, apply_resolved, find_differences, resolve

configs = st.builds(
    TrainConfig,
    model=st.one_of(
        st.sampled_from(["small", "ViT-B-32", "a/b"]), st.just({"embed_dim": 8, "vision_cfg": {"layers": [1]}})
    ),
    epochs=st.none() | st.integers(1, 500),
    learning_rate=st.none() | st.floats(1e-9, 10),
    weight_decay=st.none() | st.floats(0, 1),
    crop=st.none() | st.floats(0.01, 1),
    validation_share=st.floats(0, 0.5),
    seed=st.integers(0, 2**62),
    device=st.sampled_from(["auto", "cpu", "cuda"]),
)


@given(configs)
def test_config_round_trips_through_json(config):
    assert TrainConfig.from_json(config.to_json()) == config


@given(configs)
def test_resolving_keeps_what_is_set_and_leaves_nothing_decisive_open(config):
    complete = apply_defaults(config)
    assert all(value in (None, "auto", getattr(complete, name)) for name, value in json.loads(config.to_json()).items())
    fitted = resolve(complete, weights=10**8, images=2000)
    left_open = [name for name, value in json.loads(fitted.to_json()).items() if value is None]
    assert left_open == [
        "image_blocks",
        "text_blocks",
        "head_learning_rate",
        "micro_batch",
        "patience",
        "threads",
    ]
    assert apply_defaults(complete) == complete


@pytest.mark.parametrize(
    ("model", "from_random"),
    [
        ("small", True),
        ("ViT-B-32", True),
        ("my/own.json", True),
        ({"embed_dim": 8}, True),
        ("ViT-B-32/laion2b_s34b_b79k", False),
        ("hf-hub:someone/model", False),
    ],
)
def test_the_model_name_decides_whether_weights_are_random(model, from_random):
    assert TrainConfig(model=model).from_random is from_random


def test_an_existing_folder_is_a_trained_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ViT-B-32", "small", "config.json"):
        (tmp_path / name).mkdir()
        assert not TrainConfig(model=name).from_random


def test_fine_tuning_has_a_lower_learning_rate_by_model_size():
    """From trained weights the learning rate is lower by one to two orders of magnitude and the epochs are few."""
    tuned, fresh = apply_defaults(TrainConfig(model="a/b")), apply_defaults(TrainConfig(model="small"))
    assert resolve(tuned, weights=151_000_000, images=9).learning_rate == pytest.approx(1e-5, rel=0.01)
    assert [resolve(tuned, weights=weights, images=9).learning_rate for weights in (10**9, 10**6)] == [1e-5, 1e-4]
    assert resolve(tuned, weights=10**6, images=9).learning_rate * 10 <= fresh.learning_rate
    assert asdict(resolve(fresh, weights=10**9, images=9)) == asdict(fresh)


def test_the_learning_rate_of_a_text_tower_alone_is_four_times_higher():
    for weights in (10**9, 10**8, 10**6):
        alone, with_images = (
            resolve(apply_defaults(TrainConfig(model="a/b", tune=tune)), weights=weights, images=9)
            for tune in ("text", "both")
        )
        assert alone.learning_rate == 4 * with_images.learning_rate
    low_rank = apply_defaults(TrainConfig(model="a/b", tune="text", lora_rank=4))
    assert resolve(low_rank, weights=10**8, images=9).learning_rate == low_rank.learning_rate == 2e-4


def test_fewer_images_get_more_epochs():
    tuned = apply_defaults(TrainConfig(model="a/b"))
    shown = {pictures: resolve(tuned, weights=10**8, images=pictures).epochs for pictures in (100, 640, 10**6)}
    assert shown == {100: 20, 640: 10, 10**6: 5}
    assert resolve(replace(tuned, epochs=3), weights=10**8, images=100).epochs == 3


def test_only_fine_tuned_models_are_interpolated_with_the_start():
    assert apply_defaults(TrainConfig(model="a/b")).wise_ft == "auto"
    assert apply_defaults(TrainConfig(model="small")).wise_ft == "off"
    assert apply_defaults(TrainConfig(model="a/b", wise_ft=0.5)).wise_ft == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "Invalid value for epochs: 0. It must be a whole number of at least 1."),
        ({"epochs": 1.5}, "Invalid value for epochs: 1.5. It must be a whole number of at least 1."),
        ({"batch_size": 1}, "Invalid value for batch_size: 1. It must be a whole number of at least 2."),
        ({"seed": -1}, "Invalid value for seed: -1. It must be a whole number of at least 0."),
        ({"seed": True}, "Invalid value for seed: True. It must be a whole number of at least 0."),
        ({"learning_rate": 0}, "Invalid value for learning_rate: 0. It must be a number above 0."),
        ({"learning_rate": math.nan}, "Invalid value for learning_rate: nan. It must be a number above 0."),
        ({"weight_decay": -0.1}, "Invalid value for weight_decay: -0.1. It must be a number of at least 0."),
        ({"warmup": 1.5}, "Invalid value for warmup: 1.5. It must be a number of at least 0 and at most 1."),
        ({"crop": 0}, "Invalid value for crop: 0. It must be a number above 0 and at most 1."),
        ({"crop": "big"}, "Invalid value for crop: 'big'. It must be a number above 0 and at most 1."),
        (
            {"validation_share": 0.6},
            "Invalid value for validation_share: 0.6. It must be a number of at least 0 and at most 0.5.",
        ),
        ({"tune": "words"}, "Invalid value for tune: 'words'. It must be one of auto, both, image, text, heads."),
        ({"image_blocks": -1}, "Invalid value for image_blocks: -1. It must be a whole number of at least 0."),
        (
            {"image_blocks": 1, "tune": "text"},
            "image_blocks is 1, but tune='text' trains no block of the image tower. Leave one of the two out.",
        ),
        ({"layer_decay": 1.1}, "Invalid value for layer_decay: 1.1. It must be a number above 0 and at most 1."),
        ({"head_learning_rate": 0}, "Invalid value for head_learning_rate: 0. It must be a number above 0."),
        ({"loss": "clip"}, "Invalid value for loss: 'clip'. It must be one of contrastive, sigmoid, triplet."),
        ({"positives": "all"}, "Invalid value for positives: 'all'. It must be one of mask, share, own."),
        (
            {"precision": "half"},
            "Invalid value for precision: 'half'. It must be one of auto, float32, bfloat16, float16.",
        ),
        (
            {"loss": "sigmoid", "label_smoothing": 0.1},
            "label_smoothing applies to the contrastive loss, not to sigmoid. Leave it out.",
        ),
        ({"micro_batch": 0}, "Invalid value for micro_batch: 0. It must be a whole number of at least 1."),
        ({"lora_rank": -1}, "Invalid value for lora_rank: -1. It must be a whole number of at least 0."),
        ({"ema": 1.0}, "Invalid value for ema: 1.0. It must be a number of at least 0 and at most 0.99999."),
        (
            {"wise_ft": "none"},
            "Invalid value for wise_ft: 'none'. It must be one of auto, off, or a number above 0 and at most 1.",
        ),
        ({"patience": 0}, "Invalid value for patience: 0. It must be a whole number of at least 1."),
        ({"device": "gpu"}, "Invalid value for device: 'gpu'. It must be one of auto, cpu, cuda."),
        ({"model": ""}, "Invalid value for model: ''. It must be a name or an open_clip config."),
        ({"model": None}, "Invalid value for model: None. It must be a name or an open_clip config."),
    ],
)
def test_an_invalid_setting_is_refused_with_its_value_and_range(settings, message):
    with pytest.raises(TrainingError) as error:
        TrainConfig(**settings)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"epoch": 3}', "There is no setting 'epoch'. Did you mean epochs?"),
        ("[1, 2]", "A training config is a JSON object, not '[1, 2]'."),
        ("{", "The training config is not valid JSON"),
        ('{"epochs": "3"}', "Invalid value for epochs: '3'. It must be a whole number of at least 1."),
    ],
)
def test_invalid_config_json_is_refused_with_the_reason(text, message):
    with pytest.raises(TrainingError) as error:
        TrainConfig.from_json(text)
    assert str(error.value).startswith(message)


def test_only_settings_that_affect_the_result_are_differences():
    one, other = TrainConfig(epochs=3, seed=1, device="cpu"), TrainConfig(epochs=5, seed=1, checkpoint_seconds=1)
    assert find_differences(one, other) == ["epochs 5, now 3"]
    assert find_differences(one, TrainConfig(epochs=3, seed=1, learning_rate=0.1)) == []
    assert find_differences(TrainConfig(learning_rate=0.2), TrainConfig(learning_rate=0.1)) == [
        "learning_rate 0.1, now 0.2"
    ]


def test_few_images_freeze_the_blocks_of_a_trained_image_tower():
    """Not where more is asked for, with random weights, or with LoRA, which forgets little."""
    few, many = ({"weights": 10**7, "images": count} for count in (1999, 2000))

    def tuned(config, facts):
        fitted = resolve(apply_defaults(config), **facts)
        return fitted.tune, fitted.image_blocks

    assert tuned(TrainConfig(), few) == ("both", 0)
    assert tuned(TrainConfig(), many) == ("both", None)
    assert tuned(TrainConfig(image_blocks=2), few) == ("both", 2)
    for asked in (TrainConfig(tune="both"), TrainConfig(model="small"), TrainConfig(lora_rank=4)):
        assert tuned(asked, few) == ("both", None)
    assert tuned(TrainConfig(tune="text"), few) == ("text", None)
    begun = resolve(apply_defaults(TrainConfig()), **few)
    assert find_differences(apply_defaults(TrainConfig()), begun) == []
    assert asdict(apply_resolved(apply_defaults(TrainConfig()), begun)) == asdict(begun)


def test_a_config_of_version_0_1_is_read_by_its_old_names():
    config = TrainConfig.from_json('{"keep_statistics": false, "average": 0.25, "epochs": 3}')
    assert config == TrainConfig(freeze_bn_stats=False, wise_ft=0.25, epochs=3)


def test_the_reference_has_a_row_with_range_and_default_for_each_setting():
    rows = settings_table(TrainConfig).splitlines()
    assert len(rows) == 2 + len(asdict(TrainConfig()))
    assert rows[2].startswith("| `model` | text | starter | Checkpoint to fine-tune")
    assert "| `layer_decay` | a number above 0 and at most 1 | 1.0 | Layer-wise decay" in "\n".join(rows)
