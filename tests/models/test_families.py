from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES

from zsic.core.errors import ModelError
from zsic.models.families import FAMILIES, REFUSED, find_family


def test_every_family_of_the_pipeline_is_supported_or_refused_by_name() -> None:
    assert FAMILIES.keys() | REFUSED.keys() == set(MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES)
    assert not FAMILIES.keys() & REFUSED.keys()
    for name, family in FAMILIES.items():
        assert MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES[name] == family.model_class


@pytest.mark.parametrize("model_type", ["blip", "blip-2", "siglip2", "videoprism"])
def test_refused_families_say_why_and_what_instead(model_type: str) -> None:
    with pytest.raises(ModelError) as caught:
        find_family(model_type, "some/checkpoint")
    message = str(caught.value)
    assert "some/checkpoint" in message
    assert repr(model_type) in message
    assert REFUSED[model_type] in message
    assert "openai/clip-vit-base-patch32" in message


def test_other_families_are_refused_with_the_list() -> None:
    with pytest.raises(ModelError, match="'resnet', which is not supported; supported are align, altclip"):
        find_family("resnet", "x")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.model_type)
def test_only_the_temperature_of_tipsv2_may_be_missing_in_silence(family) -> None:
    """What transformers hides from its loading report would be a random weight to us."""
    model_class = getattr(transformers, family.model_class)
    with torch.device("meta"):
        model = model_class(model_class.config_class())
    hidden = set(model._keys_to_ignore_on_load_missing or ())
    assert hidden == ({"temperature"} if family.model_type == "tipsv2" else set())


@pytest.mark.parametrize(
    ("model_type", "positions", "pad", "tokenizer", "limit"),
    [
        ("clip", 77, 1, 77, 77),
        ("clip", 77, 1, 10**30, 77),
        ("clip", 77, 1, 32, 32),
        ("altclip", 514, 1, 10**30, 512),  # RoBERTa's positions begin behind the padding id
        ("align", 512, 0, 512, 512),
        ("siglip", 64, 1, 64, 64),
        ("siglip", 16, 1, 64, 16),  # google/siglip-so400m-patch14-224, on which the pipeline fails
        ("siglip", 128, 1, 128, 64),  # the pipeline always cuts at 64
    ],
)
def test_token_limit(model_type: str, positions: int, pad: int, tokenizer: int, limit: int) -> None:
    text_config = SimpleNamespace(max_position_embeddings=positions, pad_token_id=pad)
    assert FAMILIES[model_type].token_limit(text_config, tokenizer) == limit


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1000.0])
def test_a_damaged_scale_is_refused(value: float) -> None:
    model = SimpleNamespace(logit_scale=torch.tensor(value))
    with pytest.raises(ModelError, match="logit_scale makes the scale"):
        FAMILIES["clip"].read_scale(model)
