"""The training config: what it accepts, fills in, writes and reads."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import TrainingError
from retrieval.train.config import TrainConfig

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
def test_a_config_comes_back_from_json_as_it_was(config):
    assert TrainConfig.from_json(config.to_json()) == config


@given(configs)
def test_complete_keeps_what_is_set_and_leaves_nothing_that_matters_open(config):
    complete = config.complete()
    assert all(value in (None, "auto", getattr(complete, name)) for name, value in json.loads(config.to_json()).items())
    fitted = complete.fitted(weights=10**8, pictures=2000)
    left_open = [name for name, value in json.loads(fitted.to_json()).items() if value is None]
    assert left_open == [
        "image_blocks",
        "text_blocks",
        "head_learning_rate",
        "micro_batch",
        "patience",
        "threads",
    ]
    assert complete.complete() == complete


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
def test_what_a_model_starts_from_shows_in_its_name(model, from_random):
    assert TrainConfig(model=model).from_random is from_random


def test_an_existing_folder_is_a_trained_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ViT-B-32", "small", "config.json"):
        (tmp_path / name).mkdir()
        assert not TrainConfig(model=name).from_random


def test_trained_models_are_tuned_gently():
    """From trained weights the learning rate is lower by one to two orders of magnitude and the epochs are few."""
    tuned, fresh = TrainConfig(model="a/b").complete(), TrainConfig(model="small").complete()
    assert tuned.fitted(weights=151_000_000, pictures=9).learning_rate == pytest.approx(1e-5, rel=0.01)
    assert [tuned.fitted(weights=weights, pictures=9).learning_rate for weights in (10**9, 10**6)] == [1e-5, 1e-4]
    assert tuned.fitted(weights=10**6, pictures=9).learning_rate * 10 <= fresh.learning_rate
    assert fresh.fitted(weights=10**9, pictures=9) == fresh


def test_a_text_tower_alone_learns_four_times_as_fast():
    for weights in (10**9, 10**8, 10**6):
        alone, with_images = (
            TrainConfig(model="a/b", tune=tune).complete().fitted(weights=weights, pictures=9)
            for tune in ("text", "both")
        )
        assert alone.learning_rate == 4 * with_images.learning_rate
    low_rank = TrainConfig(model="a/b", tune="text", lora_rank=4).complete()
    assert low_rank.fitted(weights=10**8, pictures=9).learning_rate == low_rank.learning_rate == 2e-4


def test_small_sets_are_shown_more_often_so_that_there_are_enough_steps():
    tuned = TrainConfig(model="a/b").complete()
    shown = {pictures: tuned.fitted(weights=10**8, pictures=pictures).epochs for pictures in (100, 640, 10**6)}
    assert shown == {100: 20, 640: 10, 10**6: 5}
    assert replace(tuned, epochs=3).fitted(weights=10**8, pictures=100).epochs == 3


def test_only_trained_models_are_mixed_with_their_start():
    assert TrainConfig(model="a/b").complete().average == "auto"
    assert TrainConfig(model="small").complete().average == "off"
    assert TrainConfig(model="a/b", average=0.5).complete().average == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be a whole number of at least 1"),
        ({"epochs": 1.5}, "epochs is 1.5; it must be a whole number of at least 1"),
        ({"batch_size": 1}, "batch_size is 1; it must be a whole number of at least 2"),
        ({"seed": -1}, "seed is -1; it must be a whole number of at least 0"),
        ({"seed": True}, "seed is True; it must be a whole number of at least 0"),
        ({"learning_rate": 0}, "learning_rate is 0; it must be a number above 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan; it must be a number above 0"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; it must be a number of at least 0"),
        ({"warmup": 1.5}, "warmup is 1.5; it must be a number of at least 0 and at most 1"),
        ({"crop": 0}, "crop is 0; it must be a number above 0 and at most 1"),
        ({"crop": "big"}, "crop is 'big'; it must be a number above 0 and at most 1"),
        ({"validation_share": 0.6}, "validation_share is 0.6; it must be a number of at least 0 and at most 0.5"),
        ({"tune": "words"}, "tune is 'words'; take one of auto, both, image, text, heads"),
        ({"image_blocks": -1}, "image_blocks is -1; it must be a whole number of at least 0"),
        (
            {"image_blocks": 1, "tune": "text"},
            "image_blocks is 1, but tune 'text' trains none of the image tower's",
        ),
        ({"layer_decay": 1.1}, "layer_decay is 1.1; it must be a number above 0 and at most 1"),
        ({"head_learning_rate": 0}, "head_learning_rate is 0; it must be a number above 0"),
        ({"loss": "clip"}, "loss is 'clip'; take one of contrastive, sigmoid, triplet"),
        ({"positives": "all"}, "positives is 'all'; take one of mask, share, own"),
        ({"precision": "half"}, "precision is 'half'; take one of auto, float32, bfloat16, float16"),
        (
            {"loss": "sigmoid", "label_smoothing": 0.1},
            "label_smoothing goes with the contrastive loss, not with sigmoid",
        ),
        ({"micro_batch": 0}, "micro_batch is 0; it must be a whole number of at least 1"),
        ({"lora_rank": -1}, "lora_rank is -1; it must be a whole number of at least 0"),
        ({"ema": 1.0}, "ema is 1.0; it must be a number of at least 0 and at most 0.99999"),
        ({"average": "none"}, "average is 'none'; it must be a number above 0 and at most 1"),
        ({"patience": 0}, "patience is 0; it must be a whole number of at least 1"),
        ({"device": "gpu"}, "there is no device 'gpu'; take one of auto, cpu, cuda"),
        ({"model": ""}, "model is ''; it must be a name or an open_clip config"),
        ({"model": None}, "model is None; it must be a name or an open_clip config"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named_with_its_value(settings, message):
    with pytest.raises(TrainingError) as error:
        TrainConfig(**settings)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"epoch": 3}', "there is no training setting 'epoch'; do you mean epochs?"),
        ("[1, 2]", "a training config is a JSON object, not '[1, 2]'"),
        ("{", "this training config is no JSON"),
        ('{"epochs": "3"}', "epochs is '3'; it must be a whole number of at least 1"),
    ],
)
def test_json_that_is_no_config_is_refused_with_the_reason(text, message):
    with pytest.raises(TrainingError) as error:
        TrainConfig.from_json(text)
    assert str(error.value).startswith(message)


def test_only_what_changes_the_model_is_a_difference():
    one, other = TrainConfig(epochs=3, seed=1, device="cpu"), TrainConfig(epochs=5, seed=1, checkpoint_seconds=1)
    assert one.differences(other) == ["epochs 5, now 3"]
    assert one.differences(TrainConfig(epochs=3, seed=1, learning_rate=0.1)) == []
    assert TrainConfig(learning_rate=0.2).differences(TrainConfig(learning_rate=0.1)) == ["learning_rate 0.1, now 0.2"]


def test_few_pictures_train_of_a_trained_image_tower_what_is_behind_its_blocks():
    """Unless more is asked for, the weights are random, or LoRA keeps what there was anyway."""
    few, many = ({"weights": 10**7, "pictures": count} for count in (1999, 2000))

    def tuned(config, facts):
        fitted = config.complete().fitted(**facts)
        return fitted.tune, fitted.image_blocks

    assert tuned(TrainConfig(), few) == ("both", 0)
    assert tuned(TrainConfig(), many) == ("both", None)
    assert tuned(TrainConfig(image_blocks=2), few) == ("both", 2)
    for asked in (TrainConfig(tune="both"), TrainConfig(model="small"), TrainConfig(lora_rank=4)):
        assert tuned(asked, few) == ("both", None)
    assert tuned(TrainConfig(tune="text"), few) == ("text", None)
    begun = TrainConfig().complete().fitted(**few)
    assert TrainConfig().complete().differences(begun) == []
    assert TrainConfig().complete().filled(begun) == begun
