"""The values of `model.preset`: model sizes for different numbers of training pairs."""

from typing import Any, Literal

PresetName = Literal["small", "base", "large"]

# The Multi30k recipes are small and the Tatoeba recipes base. large follows published systems and was never trained.
PRESETS: dict[PresetName, dict[str, Any]] = {
    "small": {
        "embedding_units": 512,
        "encoder_layers": 1,
        "encoder_units": 512,
        "decoder_layers": 2,
        "decoder_units": 512,
        "attention_hops": 2,
        "source_bridge": True,
        "embedding_dropout": 0.4,
        "layer_dropout": 0.4,
        "output_dropout": 0.4,
        "word_dropout": 0.1,
    },
    "base": {
        "embedding_units": 512,
        "encoder_layers": 2,
        "encoder_units": 512,
        "decoder_layers": 2,
        "decoder_units": 512,
        "attention_hops": 2,
        "source_bridge": True,
        "embedding_dropout": 0.3,
        "layer_dropout": 0.3,
        "output_dropout": 0.3,
        "word_dropout": 0.1,
    },
    "large": {
        "embedding_units": 512,
        "encoder_layers": 2,
        "encoder_units": 1024,
        "decoder_layers": 3,
        "decoder_units": 1024,
        "attention_hops": 2,
        "source_bridge": False,
        "embedding_dropout": 0.2,
        "layer_dropout": 0.2,
        "output_dropout": 0.2,
        "word_dropout": 0.0,
    },
}


def expand_preset(values: Any) -> Any:
    """Returns the `model` section with its preset replaced by the values of the preset. Given keys override it.

    Args:
        values: the section before validation. Without a valid preset it is returned as it is, for the schema to check.

    Raises:
        ValueError: every key of the preset is given, so that it would have no effect.
    """
    chosen = values.get("preset") if isinstance(values, dict) else None
    if not isinstance(chosen, str) or chosen not in PRESETS:
        return values
    missing = {key: value for key, value in PRESETS[chosen].items() if key not in values}
    if not missing:
        raise ValueError(
            f"preset {chosen} has no effect, since all of its keys are given: {', '.join(PRESETS[chosen])}"
        )
    return missing | {key: value for key, value in values.items() if key != "preset"}
