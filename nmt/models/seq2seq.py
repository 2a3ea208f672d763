"""The whole model: embeddings, encoder, decoder and output projection, built from the `model` section of a config.

B sentences, S source tokens, T target positions, N active queries, V tokens in the target vocabulary, L units of the
attentional state (see `nmt.models.decoder`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from nmt.backend import keras
from nmt.config.schema import ModelConfig
from nmt.data.tokenizer import BOS_ID
from nmt.models.decoder import Decoder, DecoderMemory, DecoderOutput, DecoderState, shift_right
from nmt.models.direction import reverse_targets
from nmt.models.embedding import Embedding, OutputProjection
from nmt.models.encoder import Encoder
from nmt.models.queries import ActiveQueries


def make_seq2seq(
    config: ModelConfig,
    *,
    source_vocabulary_size: int,
    target_vocabulary_size: int,
    precision: str = "float32",
    trainable: bool = True,
) -> "Seq2Seq":
    """Builds a model.

    Args:
        config: the `model` section of a configuration.
        source_vocabulary_size: tokens of the source tokenizer.
        target_vocabulary_size: tokens of the target tokenizer.
        precision: type of the arithmetic: float64, float32, bfloat16 or float16.
        trainable: keep weights in at least float32, since 16 bits would lose small updates. A model that only
            translates has weights in the type of its arithmetic, so that no step of a search casts them again.
    """
    before = keras.config.dtype_policy()
    mixed = trainable and precision in ("bfloat16", "float16")
    keras.config.set_dtype_policy(f"mixed_{precision}" if mixed else precision)
    try:
        return Seq2Seq(
            config, source_vocabulary_size=source_vocabulary_size, target_vocabulary_size=target_vocabulary_size
        )
    finally:
        keras.config.set_dtype_policy(before)


class DecodingStart(NamedTuple):
    """What decoding begins with."""

    state: Any
    """Before the first token; each part [B, 1, ...]."""
    memory: Any
    """What every step attends to; each part [B, ...]."""
    memory_mask: Any
    """bool [B, S], True on real tokens."""


class Seq2Seq(keras.Model):
    """A recurrent encoder-decoder with attention (Sutskever et al. 2014; Bahdanau et al. 2015).

    Training calls it. Decoding uses `start`, `make_step`, `step` and `read` only, which an `Ensemble` has as well.
    """

    def __init__(
        self, config: ModelConfig, *, source_vocabulary_size: int, target_vocabulary_size: int, name: str = "seq2seq"
    ):
        super().__init__(name=name)
        self.right_to_left = config.right_to_left
        embedding: dict[str, Any] = {
            "units": config.embedding_units,
            "scale": config.embedding_scale,
            "dropout": config.embedding_dropout,
            "word_dropout": config.word_dropout,
            "locked_dropout": config.locked_dropout,
        }
        layers: dict[str, Any] = {
            "dropout": config.layer_dropout,
            "locked_dropout": config.locked_dropout,
            "recurrent_dropout": config.recurrent_dropout,
            "layer_norm": config.layer_norm,
        }
        self.source_embedding = Embedding(source_vocabulary_size, name="source_embedding", **embedding)
        self.target_embedding = self.source_embedding
        if config.tied_embeddings != "all":
            self.target_embedding = Embedding(target_vocabulary_size, name="target_embedding", **embedding)
        self.projection = OutputProjection(
            target_vocabulary_size,
            config.embedding_units,
            tied=None if config.tied_embeddings == "none" else self.target_embedding,
            lexical_units=config.embedding_units if config.lexical_model else 0,
            name="projection",
        )
        self.encoder = Encoder(
            self.source_embedding,
            num_layers=config.encoder_layers,
            units=config.encoder_units,
            bridge=config.source_bridge,
            both_ends=config.start_state == "both_ends",
            name="encoder",
            **layers,
        )
        self.decoder = Decoder(
            self.target_embedding,
            self.projection,
            num_layers=config.decoder_layers,
            units=config.decoder_units,
            memory_units=self.encoder.memory_units,
            final_units=self.encoder.final_units,
            attention=config.attention,
            num_heads=config.attention_heads,
            num_hops=config.attention_hops,
            input_feeding=config.input_feeding,
            output_dropout=config.output_dropout,
            attention_dropout=config.attention_dropout,
            name="decoder",
            **layers,
        )
        self.built = True

    def call(
        self, source: Any, target: Any, training: bool = False, word_masks: tuple[Any, Any] = (None, None)
    ) -> DecoderOutput:
        """Reads whole sources and targets (teacher forcing).

        Args:
            source: int [B, S], each row ends with EOS and is padded with 0.
            target: int [B, T], each row starts with BOS.
            training: whether to drop values.
            word_masks: what the vectors of source and target tokens are multiplied by, [B, S, 1] and [B, T, 1]; None
                draws the masks of word dropout.

        Returns:
            Attentional states [B, T, L], which `projection` turns into logits [B, T, V] of the token after each
            position, and attention weights [B, T, S].
        """
        source_mask, target_mask = word_masks
        encoded = self.encoder(source, training=training, word_mask=source_mask)
        return self.decoder(target, encoded, training=training, word_mask=target_mask)

    def start(self, source: Any) -> DecodingStart:
        """Reads sources int [B, S], each row ended by EOS and padded with 0."""
        encoded = self.encoder(source)
        state, memory = self.decoder.get_initial_state(encoded), self.decoder.project_memory(encoded)
        return DecodingStart(state, memory, encoded.memory_mask)

    def make_step(self) -> Callable[[Any, Any, Any, ActiveQueries], tuple[Any, Any]]:
        """Returns the step of a search, with the work that is the same for every step done once.

        step(ids [N], state, memory, queries) returns logits [N, V], at least float32, and the next state. Each part of
        a state is [N, ...]; the queries say which N these are.
        """
        score = self.projection.make_scorer()

        def step(
            ids: Any, state: DecoderState, memory: DecoderMemory, queries: ActiveQueries
        ) -> tuple[Any, DecoderState]:
            state = self.decoder.step_active(ids, state, memory, queries)
            return score(state.attentional), state

        return step

    def step(self, ids: Any, state: DecoderState, memory: DecoderMemory) -> tuple[Any, DecoderState, Any]:
        """Reads one token per query, int [B, Q]; see `Decoder.step`."""
        return self.decoder.step(ids, state, memory)

    def read(self, source: Any, target: Any) -> tuple[Any, Any]:
        """Reads given translations, int [B, T] without BOS, of sources int [B, S].

        Returns:
            Logits [B, T, V] that predict each token, and its attention weights [B, T, S], both at least float32.
        """
        order = reverse_targets(target) if self.right_to_left else target
        output = self(source, shift_right(order, BOS_ID))
        logits, weights = self.projection(output.states), output.attention_weights
        if self.right_to_left:
            return reverse_targets(target, logits), reverse_targets(target, weights)
        return logits, weights
