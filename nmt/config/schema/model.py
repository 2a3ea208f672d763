"""The section `model`: sizes, attention and dropout."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from nmt.config.presets import PresetName, expand_preset
from nmt.config.schema.section import Condition, Section, Share


class ModelConfig(Section):
    """The LSTM encoder-decoder with attention."""

    preset: PresetName | None = None
    """Size of the model: sets widths, layers and dropout that are not given. small is for 10,000 to 100,000 training
    pairs (trained on Multi30k), base for up to a million (trained on Tatoeba), large for more (not trained yet). A
    stored configuration has the values, and null here."""
    embedding_units: PositiveInt = 256
    """Width of source and target embeddings."""
    embedding_scale: Annotated[float, Field(gt=0)] = 8.0
    """Factor by which embeddings are multiplied before they enter the LSTMs (Vaswani et al. 2017). An output projection
    that shares them works best with short vectors, gates with long ones."""
    encoder_layers: PositiveInt = 1
    """Number of encoder layers. The first reads in both directions, the others forward with residual connections."""
    encoder_units: PositiveInt = 512
    """Width of the encoder's output (the memory). Each direction of the first layer has half of it."""
    start_state: Literal["last_layer", "both_ends"] = "last_layer"
    """What the decoder starts from: the output of the last encoder layer at the last token, or that and the last states
    of both directions of the first layer. A single encoder layer always includes both ends."""
    decoder_layers: PositiveInt = 2
    """Number of decoder layers. The bottom one reads target embeddings alone, the upper ones also read the context."""
    decoder_units: PositiveInt = 512
    """Width of the decoder's layers."""
    attention: Literal["multi_head", "bilinear", "additive"] = "multi_head"
    """Multi-head scaled dot product (Vaswani et al. 2017), bilinear (Luong et al. 2015) or additive (Bahdanau et al.
    2015)."""
    attention_heads: PositiveInt = 8
    """Number of heads of multi-head attention; must divide decoder_units. The other kinds have one head."""
    attention_hops: PositiveInt = 1
    """Number of decoder layers, from the bottom, that attend to the source, each with its own attention."""
    source_bridge: bool = False
    """Append the embedding of each source token to its memory, so that attention returns the token itself as well as
    its encoding (source-side bridging, Kuang et al. 2018)."""
    lexical_model: bool = False
    """Let the source embeddings that attention selects reach the output directly, past all recurrent layers (Nguyen and
    Chiang 2018). They have an output matrix of their own, of the target vocabulary times embedding_units."""
    input_feeding: bool = False
    """Feed the last attentional state back into the bottom layer (Luong et al. 2015). Slower, since the decoder then
    computes one position at a time."""
    right_to_left: bool = False
    """Predict the tokens of the target from the last to the first (Liu et al. 2016). Translations are returned in
    reading order. Such a model can be a teacher whose mistakes differ from those of left-to-right models."""
    tied_embeddings: Literal["all", "target", "none"] = "all"
    """Share one matrix between source embedding, target embedding and output projection (all), between the latter two
    (target), or not at all (none). all needs a joint tokenizer."""
    layer_norm: bool = False
    """Normalize the projections of the gates inside each LSTM (Ba et al. 2016)."""
    embedding_dropout: Share = 0.3
    """Share of embedding values dropped during training."""
    layer_dropout: Share = 0.3
    """Share of values dropped between layers during training."""
    output_dropout: Share = 0.3
    """Share of values dropped before the output projection during training."""
    word_dropout: Share = 0.0
    """Share of tokens whose whole embedding is dropped during training (Gal and Ghahramani 2016)."""
    locked_dropout: bool = False
    """Drop the same values at all positions of a sentence instead of different ones at each (variational dropout, Gal
    and Ghahramani 2016). It applies to embedding_dropout, layer_dropout and output_dropout."""
    recurrent_dropout: Share = 0.0
    """Share of the recurrent weights of each LSTM dropped during training, the same ones at all positions (weight
    dropout, Merity et al. 2018)."""
    attention_dropout: Share = 0.0
    """Share of attention weights dropped during training, different ones in each head."""

    ACTS_WITH: ClassVar[Mapping[str, Condition]] = {"attention_heads": ("attention", ("multi_head",))}

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, values: Any) -> Any:
        return expand_preset(values)

    @model_validator(mode="after")
    def _shapes_agree(self) -> "ModelConfig":
        if self.encoder_units % 2:
            raise ValueError(
                f"encoder_units must be even, since each direction has half of it; found {self.encoder_units}"
            )
        if self.attention == "multi_head" and self.decoder_units % self.attention_heads:
            raise ValueError(
                f"attention_heads must divide decoder_units; found {self.attention_heads} and {self.decoder_units}"
            )
        if self.start_state == "both_ends" and self.encoder_layers == 1:
            raise ValueError(
                "start_state both_ends needs encoder_layers of 2 or more: a single layer gives both ends in any case"
            )
        if self.attention_hops > self.decoder_layers:
            raise ValueError(
                f"attention_hops must not exceed decoder_layers; found {self.attention_hops} and {self.decoder_layers}"
            )
        if self.locked_dropout and not any((self.embedding_dropout, self.layer_dropout, self.output_dropout)):
            raise ValueError("locked_dropout needs embedding_dropout, layer_dropout or output_dropout above 0")
        if self.input_feeding and self.attention_hops > 1:
            raise ValueError("input_feeding needs attention_hops 1")
        return self


# Settings of the architecture that act in training only.
TRAINING_ONLY = {name for name in ModelConfig.model_fields if name.endswith("dropout")}
