"""What of a model is trained: towers, last blocks and heads of every kind of tower, and their learning rates."""

from dataclasses import replace

import pytest
import torch
from tiny_models import random_model, tiny_config

from retrieval.errors import TrainingError
from retrieval.train.config import TrainConfig
from retrieval.train.defaults import apply_defaults
from retrieval.train.model.param_groups import (
    create_optimizer,
    freeze,
    is_frozen,
    locate_parameters,
    set_train_mode,
    trainable_parameters,
)

RESNET = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3},
}
CONFIG = apply_defaults(TrainConfig(model="a/b"))


def timm(name, **vision):
    vision = {"timm_model_name": name, "timm_pool": "avg", "timm_proj": "linear", "image_size": 32} | vision
    return tiny_config(width=16) | {"custom_text": True, "vision_cfg": vision}


TOWERS = {
    "vit": (tiny_config(width=16), 2, ["visual.proj"]),
    "resnet": (RESNET, 4, ["visual.attnpool.c_proj.weight", "visual.attnpool.c_proj.bias"]),
    "timm lite0": (timm("tf_efficientnet_lite0"), 7, ["visual.head.proj.weight"]),
    "timm vit": (timm("test_vit", timm_pool=""), 6, ["visual.head.proj.weight"]),
    "timm convnext": (
        timm("test_convnext", timm_proj="mlp"),
        4,
        ["visual.head.mlp.fc1.weight", "visual.head.mlp.fc1.bias", "visual.head.mlp.fc2.weight"],
    ),
    "timm classifier": (timm("test_resnet", timm_proj=""), 4, ["visual.trunk.fc.weight", "visual.trunk.fc.bias"]),
}


@pytest.mark.parametrize("kind", TOWERS)
def test_every_kind_of_image_tower_has_layer_ids_in_order_and_a_head(kind):
    config, blocks, head = TOWERS[kind]
    found = {name: place for name, place in locate_parameters(random_model(config)).items() if place.side == "image"}
    assert {place.last_layer_id for place in found.values()} == {blocks + 1}
    assert {place.layer_id for place in found.values()} == set(range(blocks + 2))
    assert [name for name, place in found.items() if place.in_head] == head


@pytest.mark.parametrize("config", [tiny_config(width=16), tiny_config(width=16) | {"custom_text": True}])
def test_text_towers_have_embeddings_below_and_norm_and_head_above_their_blocks(config):
    prefix = "text." if "custom_text" in config else ""
    rungs = {
        name: place.layer_id for name, place in locate_parameters(random_model(config)).items() if place.side == "text"
    }
    assert rungs[f"{prefix}token_embedding.weight"] == rungs[f"{prefix}positional_embedding"] == 0
    assert rungs[f"{prefix}transformer.resblocks.1.mlp.c_fc.weight"] == 2
    assert rungs[f"{prefix}ln_final.weight"] == rungs[f"{prefix}text_projection"] == 3


def moved_by(settings, config=RESNET):
    return trainable_parameters(random_model(config), replace(CONFIG, **settings))


def test_tune_selects_the_trained_towers_and_always_the_temperature():
    every = set(dict(random_model(RESNET).named_parameters()))
    image = {name for name in every if name.startswith("visual.")}
    heads = {"visual.attnpool.c_proj.weight", "visual.attnpool.c_proj.bias", "text_projection"}
    assert moved_by({}) == every
    assert moved_by({"tune": "image"}) == image | {"logit_scale"}
    assert moved_by({"tune": "text"}) == every - image
    assert moved_by({"tune": "heads"}) == heads | {"logit_scale"}


def test_the_last_blocks_are_trained_with_everything_above_them():
    names = moved_by({"image_blocks": 1, "text_blocks": 0})
    image = {name.split(".")[1] for name in names if name.startswith("visual.")}
    assert image == {"layer4", "attnpool"}
    assert {name for name in names if not name.startswith("visual.")} == {
        "ln_final.weight",
        "ln_final.bias",
        "text_projection",
        "logit_scale",
    }


def test_more_blocks_than_a_tower_has_are_an_error():
    assert "visual.conv1.weight" not in moved_by({"image_blocks": 4})
    with pytest.raises(TrainingError, match="image_blocks is 5, but the image tower of this model has 4 blocks"):
        moved_by({"image_blocks": 5})


def test_frozen_modules_have_no_gradient_no_dropout_and_fixed_batch_statistics():
    config = timm("test_efficientnet", timm_drop=0.5)
    model = random_model(config)
    freeze(model, replace(CONFIG, tune="both", image_blocks=1))
    set_train_mode(model)
    trunk = model.visual.trunk
    assert not trunk.bn1.training
    assert not trunk.blocks[3].training
    assert trunk.blocks[4].training
    assert trunk.bn2.training
    assert model.visual.head.drop.training
    freeze(model, replace(CONFIG, tune="text"))
    set_train_mode(model)
    assert is_frozen(model, "image")
    assert not is_frozen(model, "text")
    assert not any(module.training for module in model.visual.modules())
    before = {name: value.clone() for name, value in model.visual.state_dict().items()}
    pictures = model.encode_image(torch.rand(4, 3, 32, 32))
    assert not pictures.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.visual.state_dict().items())


def groups_of(settings, config=RESNET):
    model = random_model(config)
    configured = replace(CONFIG, **settings)
    freeze(model, configured)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = create_optimizer(model, configured).param_groups
    return {names[id(parameter)]: group for group in groups for parameter in group["params"]}


def test_norms_biases_and_the_temperature_have_no_weight_decay():
    groups = groups_of({"weight_decay": 0.3})
    decay = {name: group["weight_decay"] for name, group in groups.items()}
    assert decay.keys() == set(dict(random_model(RESNET).named_parameters()))
    assert decay["visual.conv1.weight"] == decay["token_embedding.weight"] == 0.3
    assert decay["visual.bn1.weight"] == decay["ln_final.bias"] == decay["logit_scale"] == 0


def test_layer_decay_scales_the_learning_rate_and_heads_have_their_own():
    shares = {
        name: group["lr_scale"]
        for name, group in groups_of(
            {"layer_decay": 0.5, "learning_rate": 1e-4, "head_learning_rate": 1e-3}, RESNET
        ).items()
    }
    assert shares["visual.conv1.weight"] == 0.5**5
    assert shares["visual.layer1.0.conv1.weight"] == 0.5**4
    assert shares["visual.layer4.0.conv1.weight"] == 0.5
    assert shares["visual.attnpool.q_proj.weight"] == shares["ln_final.weight"] == shares["logit_scale"] == 1
    assert shares["token_embedding.weight"] == 0.5**4
    assert shares["visual.attnpool.c_proj.weight"] == shares["text_projection"] == pytest.approx(10)


def test_frozen_parameters_are_not_in_the_optimizer():
    assert groups_of({"tune": "heads"}).keys() == moved_by({"tune": "heads"})
