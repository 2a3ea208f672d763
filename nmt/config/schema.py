"""The schema of a configuration: every key with its type, range, unit, default and meaning.

Defaults are written here and nowhere else. Components take plain keyword arguments or one small settings object, never
the whole configuration. `nmt.config.file` reads YAML into this schema and explains mistakes.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from nmt.config.presets import PresetName, expand_preset


def _expand_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"there is no home folder for {path.parts[0]} in {path}") from error


def _check_tag(tag: str) -> str:
    if re.fullmatch(r"<pad>|<unk>|<s>|</s>|<0x[0-9A-F]{2}>", tag):
        raise ValueError(f"{tag} is a special token of every tokenizer; expected another symbol")
    # A symbol that begins like a word would be found within words, and split them.
    if not re.fullmatch(r"[^\s\w]\S*|_\S*", tag):
        raise ValueError(
            f"expected a symbol without spaces that begins with no letter or digit, such as <2de>; found {tag!r}"
        )
    return tag


# Shells expand ~ only at the start of a word, so neither in a file nor in run_dir=~/x.
UserPath = Annotated[Path, AfterValidator(_expand_home)]
TagName = Annotated[str, AfterValidator(_check_tag)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
ConsistencyKind = Literal["r_drop", "simcut"]
ScheduleName = Literal["constant", "linear", "cosine", "inverse_sqrt", "plateau"]
PlaceholderKind = Literal["url", "email", "number", "tag", "term"]
PartName = Literal["source_embedding", "target_embedding", "encoder", "attention", "decoder", "output"]
StrategyName = Literal["auto", "single", "mirrored", "multi_worker"]

MAX_BEAM_SIZE = 64
WIDER = 2  # factor of the beam size of a second search (decoding.on_warning)
LOWEST_TEMPERATURE = 0.001


class Section(BaseModel):
    """A section of the configuration: frozen, without unknown keys or silent conversions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


class CorpusFiles(Section):
    """A parallel corpus: line n of `target` translates line n of `source`. UTF-8 text, plain or compressed."""

    source: UserPath
    """File of source sentences, one per line."""
    target: UserPath
    """File of target sentences, one per line."""


class TrainingFiles(CorpusFiles):
    """A parallel corpus: line n of `target` translates line n of `source`. UTF-8 text, plain or compressed."""

    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often each pair is read per epoch. 2 reads every pair twice. 0.5 reads half of the pairs, and the other half
    in the next epoch. With data.join_pairs it counts joined examples, and pairs of different corpora are not joined."""
    tag: TagName | None = None
    """Symbol put before each source line, such as <2de> for a target language (Johnson et al. 2017) or <bt> for
    back-translated text (Caswell et al. 2019). A new tokenizer has it as one token. Write it before each text to
    translate, or set decoding.tag."""
    weights: UserPath | None = None
    """File with one number per line, above 0 and at most 1000, by which the loss of each pair is multiplied. The loss
    of a batch is divided by the sum of the weights of its tokens, so only their ratios matter. A joined example has the
    mean weight of its pairs."""
    alignments: UserPath | None = None
    """File of word alignments for training.guided_alignment, as aligners write them: a line per pair, such as 0-0 1-2,
    which links source word 0 to target word 0, and 1 to 2. Words are separated by spaces. A blank line links none."""


class DevFiles(CorpusFiles):
    """A parallel corpus: line n of `target` translates line n of `source`. UTF-8 text, plain or compressed."""

    tag: TagName | None = None
    """Symbol put before each source line, which must be a tag of data.train; null takes decoding.tag."""
    name: Annotated[str, Field(min_length=1)] | None = None
    """Name of the set in logs and history.jsonl, if there are several; null takes its tag, or else the name of its
    source file up to the first dot."""
    target_language: str | None = None
    """Language code of the target, which chooses sacreBLEU's tokenizer; null takes data.target_language."""


def _accept_plain_files(given: Any) -> Any:
    # In Python, a corpus without settings may be given for training and dev alike.
    return given.model_dump() if type(given) is CorpusFiles else given


ONE, SEVERAL = "(one)", "(several)"
"""Parts of the places of mistakes in a value that may be a section or a list of sections."""
DevSets = Annotated[
    Annotated[DevFiles, Tag(ONE)]
    | Annotated[list[Annotated[DevFiles, BeforeValidator(_accept_plain_files)]], Field(min_length=1), Tag(SEVERAL)],
    Discriminator(lambda given: SEVERAL if isinstance(given, list) else ONE),
    BeforeValidator(_accept_plain_files),
]


class AugmentConfig(Section):
    """Shares of the training examples that are changed, different ones in every epoch, so that the model learns to
    translate such text as well. Together they must be at most 1. An example that would be longer than data.max_length
    stays as it is. Changed examples are segmented on the CPU during training."""

    capitals: Share = 0.0
    """Share with both sides in capital letters."""
    title_case: Share = 0.0
    """Share with a capital letter at the start of each source word."""
    no_final_punctuation: Share = 0.0
    """Share without the punctuation at the end of the source."""
    typos: Share = 0.0
    """Share with one typo per ten words of the source, but at least one: letters swapped, left out or doubled (Belinkov
    and Bisk 2018)."""

    @model_validator(mode="after")
    def _shares_fit_together(self) -> "AugmentConfig":
        if (total := sum(self.shares.values())) > 1:
            raise ValueError(f"the shares together must be at most 1; found {total:g}")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """The shares above 0, by what they change."""
        return {name: share for name, share in self.model_dump().items() if share}


class PlaceholderConfig(Section):
    """Numbered symbols that stand for text which is copied into the translation (docs/how-to/terminology.md). They
    replace it in a share of the training examples, different ones in every epoch, where both sides have it, and in
    every text that is translated. A new tokenizer has each symbol as one token."""

    kinds: list[PlaceholderKind] = []
    """What symbols stand for: web addresses (url), e-mail addresses (email), numbers of digits alone (number), HTML and
    XML tags (tag), and terms of a glossary (term). Empty for no placeholders."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the training examples in which symbols replace what both sides have. Such an example is not changed by
    data.augment as well, so the shares together must be at most 1."""
    symbols_per_kind: Annotated[int, Field(ge=1, le=100)] = 5
    """Number of symbols of each kind. Further strings of that kind are translated like ordinary text."""
    glossary: UserPath | None = None
    """File of terms for training, one per line: a term, a tab and its translation. nmt translate --glossary may have
    other terms."""

    @model_validator(mode="after")
    def _keys_have_an_effect(self) -> "PlaceholderConfig":
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds must name each kind once; found {', '.join(self.kinds)}")
        if ("term" in self.kinds) != (self.glossary is not None):
            raise ValueError("glossary and the kind term go together: set both or neither")
        fields = type(self).model_fields
        changed = [name for name, value in self.model_dump().items() if value != fields[name].get_default()]
        if changed and not self.kinds:
            raise ValueError(f"{changed[0]} has no effect without kinds")
        return self


class DataConfig(Section):
    """The parallel text and the filters for it."""

    source_language: str
    """Language code of the source, such as en."""
    target_language: str
    """Language code of the target. It chooses sacreBLEU's tokenizer (ja, ko and zh have their own)."""
    train: Annotated[list[Annotated[TrainingFiles, BeforeValidator(_accept_plain_files)]], Field(min_length=1)]
    """Corpora for training, read as one."""
    dev: DevSets
    """Corpus for validation during training, or a list of corpora that are scored separately."""
    max_length: PositiveInt = 250
    """Maximum length of either side of a training pair, in tokens; longer pairs are dropped and counted. Also the
    maximum length of a text translated at once: longer ones are translated in parts."""
    max_ratio: Annotated[float, Field(ge=1)] | None = None
    """Maximum ratio between the lengths of the two sides, in tokens; null keeps every pair."""
    drop_identical: bool = False
    """Drop pairs whose two sides are the same text."""
    drop_duplicates: bool = False
    """Drop later copies of a pair."""
    join_pairs: Share = 0.0
    """Share of the training examples that consist of two pairs joined into one, different pairs in every epoch, so that
    the model learns to translate texts of several sentences. Pairs are joined only if both sides stay within
    max_length."""
    augment: AugmentConfig = AugmentConfig()
    placeholders: PlaceholderConfig = PlaceholderConfig()
    replace_tokens: Share = 0.0
    """Share of the source tokens that are replaced with random ones in training, different ones in every epoch
    (SwitchOut on the source side, Wang et al. 2018). Tags are not replaced."""
    promises: UserPath | None = None
    """YAML file of promises about what translations contain (docs/how-to/evaluate.md). Every validation counts the
    promises that greedy search keeps, and `nmt export` refuses an export that breaks one of severity error."""
    cache: UserPath | None = None
    """Folder for line indexes, unpacked text and token ids; null keeps them in the run folder."""

    @model_validator(mode="after")
    def _changes_fit_together(self) -> "DataConfig":
        total = sum(self.augment.shares.values()) + (self.placeholders.share if self.placeholders.kinds else 0)
        if total > 1:
            raise ValueError(
                f"the shares of augment and placeholders.share together must be at most 1; found {total:g}"
            )
        for files in self.train:
            if self.placeholders.kinds and re.fullmatch(
                rf"<({'|'.join(self.placeholders.kinds)})\d+>", files.tag or ""
            ):
                raise ValueError(f"the tag {files.tag} of a corpus must not be a symbol of placeholders")
        return self


class TokenizerConfig(Section):
    """SentencePiece (Kudo and Richardson 2018)."""

    kind: Literal["unigram", "bpe"] = "unigram"
    """Segmentation: unigram language model (Kudo 2018) or byte-pair encoding (Sennrich et al. 2016)."""
    vocabulary_size: Annotated[int, Field(ge=16, le=1_000_000)] = 8000
    """Number of tokens, including the four special ones and the byte tokens."""
    joint: bool = True
    """Train one tokenizer for both languages; false trains one per language."""
    character_coverage: Annotated[float, Field(gt=0, le=1)] = 0.9995
    """Share of the characters of the text that become tokens; byte fallback spells the others."""
    byte_fallback: bool = True
    """Spell characters outside the vocabulary as bytes, so that no token is unknown."""
    user_symbols: list[str] = []
    """Strings that are always one token."""
    normalization: Literal["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"] = "nmt_nfkc"
    """SentencePiece's normalization rule; those with cf also fold case."""
    source_model: UserPath | None = None
    """Existing SentencePiece model for the source; null trains one."""
    target_model: UserPath | None = None
    """Existing SentencePiece model for the target; null trains one."""
    sampling_alpha: Annotated[float, Field(gt=0, le=1)] | None = None
    """Subword sampling during training: smoothing of the unigram model (Kudo 2018), or merge dropout for BPE (Provilkov
    et al. 2020); null always uses the best segmentation."""

    @model_validator(mode="after")
    def _existing_models_come_in_pairs(self) -> "TokenizerConfig":
        if (self.source_model is None) != (self.target_model is None):
            raise ValueError("source_model and target_model go together: set both or neither")
        return self


class ModelConfig(Section):
    """The LSTM encoder-decoder with attention."""

    preset: PresetName | None = None
    """Size of the model: sets widths, layers and dropout that are not given. small is for 10,000 to 100,000 training
    pairs (trained on Multi30k), base for up to a million (not trained yet), large for more (not trained yet). A stored
    configuration has the values, and null here."""
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


class TrainingConfig(Section):
    """Optimization, stopping, validation and checkpoints."""

    start_from: UserPath | None = None
    """Model folder or run (its best model) from whose weights a new run starts. Optimizer state, schedule and order of
    the data start from the beginning. The architecture must be the same. The model's tokenizers are used unless the
    tokenizer section differs from the model's. In that case, new tokens start as the mean of the tokens that spell
    them (docs/how-to/fine-tuning.md)."""
    freeze: list[PartName] = []
    """Parts of the model whose weights do not change. A shared matrix belongs to the first of its parts
    (model.tied_embeddings). The part output is the output projection."""
    batch_by: Literal["tokens", "sentences"] = "sentences"
    """Unit of batch_size: target tokens, padding included, or sentence pairs."""
    batch_size: PositiveInt = 64
    """Size of a batch over all devices, in the unit of batch_by."""
    accumulation_steps: PositiveInt = 1
    """Micro-batches per batch. More of them need less memory and do not change the result."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adam"
    """AdamW (Loshchilov and Hutter 2019), Adam (Kingma and Ba 2015) or plain gradient descent."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate."""
    beta_1: Share = 0.9
    """Decay rate of Adam's mean gradient."""
    beta_2: Share = 0.98
    """Decay rate of Adam's mean squared gradient."""
    epsilon: PositiveFloat = 1e-8
    """Adam's constant against division by zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay of AdamW, multiplied by the learning rate; not applied to biases and layer norm."""
    schedule: ScheduleName = "constant"
    """Schedule of the learning rate after the warm-up; plateau lowers it when validations stop improving."""
    warmup_updates: Count = 0
    """Updates during which the learning rate grows linearly from 0."""
    schedule_updates: PositiveInt | None = None
    """Length of a linear or cosine schedule in updates, warm-up included; afterwards the rate stays constant."""
    final_rate: Share = 0.0
    """Learning rate after the end of a linear or cosine schedule, as a share of learning_rate."""
    plateau_patience: PositiveInt = 3
    """Validations without a better one after which a plateau schedule lowers the learning rate."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Factor by which a plateau schedule multiplies the learning rate."""
    plateau_restart: bool = False
    """Whether training also goes back to the best model, with new optimizer state, when a plateau schedule lowers the
    learning rate (annealing restarts, Denkowski and Neubig 2017). Every validation then also writes a checkpoint."""
    clip_norm: PositiveFloat | None = 1.0
    """Maximum global norm of the gradient, which is a mean over target tokens; null never clips."""
    label_smoothing: Share = 0.1
    """Probability mass spread evenly over the vocabulary (Szegedy et al. 2016)."""
    label_smoothing_over: Literal["vocabulary", "producible"] = "vocabulary"
    """Tokens that get a share of label_smoothing: all, or only those that a translation may contain, so not padding,
    for example. The others are few: with 8,000 tokens and 0.1 they get less than 0.0001 of the probability."""
    consistency: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence between two readings of each pair, which is added to the loss: alpha in the papers of
    consistency_kind. Two readings take about twice the time and memory. 0 reads each pair once."""
    consistency_kind: ConsistencyKind = "r_drop"
    """How the two readings differ. r_drop (Liang et al. 2021) trains on both, with different dropout. simcut (Gao et
    al. 2022) trains on the first, which has no word dropout, and drops a share model.word_dropout of the source and
    target tokens of the second. The authors use a weight of 3 and a share of 0.05."""
    guided_alignment: Annotated[float, Field(ge=0)] = 0.0
    """Weight of a cross-entropy that is added to the loss, between the links of data.train[].alignments and the
    attention, averaged over heads and hops (Chen et al. 2016). It makes the attention agree with the links. 0 turns it
    off."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the arithmetic, including softmax. Weights, cell states and the sum of the loss stay float32. float16
    scales the loss."""
    ema_decay: Share | None = None
    """Decay per update of the moving average of the weights, which validation and the best model then use."""
    average_last: PositiveInt = 1
    """Checkpoints whose weights are averaged at the end. The average becomes the best model if it scores higher; both
    scores and the decision are logged and recorded in history.jsonl."""
    max_updates: PositiveInt | None = None
    """Stop after this many updates."""
    max_epochs: PositiveInt | None = None
    """Stop after this many passes over the corpus."""
    max_minutes: PositiveFloat | None = None
    """Stop after this many minutes of wall-clock time since the process started, validation included."""
    budget_minutes: PositiveFloat | None = None
    """Wall-clock time of the whole run, in minutes. A linear or cosine schedule follows the share that has been used,
    so it is complete when the run ends. Warm-up still counts updates. Start-up and validations count, and so does the
    time before an interruption up to its last checkpoint (docs/how-to/long-runs.md). The confidence in translations is
    not fitted at the end: nmt calibrate fits it."""
    validate_every: PositiveInt = 1000
    """Updates between validations."""
    checkpoint_every: PositiveInt = 1000
    """Updates between checkpoints."""
    keep_checkpoints: PositiveInt = 3
    """Number of checkpoints to keep; older ones are removed."""
    max_skipped: PositiveInt = 30
    """Consecutive updates skipped for a gradient that is not finite, after which training returns to the last
    checkpoint and halves its learning rate for the rest of the run. It does the same after as many updates in a row, or
    30 if that is more, whose loss is more than twice the lowest so far and more than 1 nat above it."""
    max_rollbacks: Count = 3
    """Returns to a checkpoint after which the run stops."""
    on_full_disk: Literal["continue", "stop"] = "continue"
    """What to do if a checkpoint cannot be written: continue warns and keeps the older ones, stop ends the run."""
    patience: PositiveInt | None = None
    """Stop after this many validations without a better one."""
    best_by: Literal["bleu", "chrf", "loss"] = "bleu"
    """Measure of the best validation: BLEU or chrF of greedy search on the dev text, or the loss. With several dev sets
    BLEU and chrF are means over the sets, and the loss is that of all their tokens. Equal scores are ranked by the
    loss."""
    strategy: StrategyName = "auto"
    """Distribution strategy; auto is mirrored if there are several GPUs, else single."""
    devices: list[str] | None = None
    """Devices to train on, such as ["GPU:0", "GPU:1"]; null uses all. The strategy single uses one device: the one
    given, or the first. multi_worker refuses this key, because each worker uses all devices that it sees."""
    log_every: PositiveInt = 50
    """Updates between log lines."""
    tensorboard: bool = True
    """Write files for TensorBoard to the run folder: curves and, at each validation, some translations with their
    attention, and the token vectors of the best model."""
    keep_translations: bool = True
    """Keep the greedy translations of the dev text by each validation in the run folder, one per line
    (validations/)."""
    keep_pair_losses: bool = True
    """Keep the lowest loss that each training pair has had in any epoch (pair_losses.npy), by which nmt report lists
    the pairs that are never learned. Two bytes per pair, and no slower; beyond 20 million pairs, of every nth one."""

    @model_validator(mode="after")
    def _has_an_end(self) -> "TrainingConfig":
        if not (self.max_updates or self.max_epochs or self.max_minutes or self.budget_minutes):
            raise ValueError(
                "one of max_updates, max_epochs, max_minutes and budget_minutes must be set, since training would "
                "never end"
            )
        if self.label_smoothing_over == "producible" and not self.label_smoothing:
            raise ValueError("label_smoothing_over producible needs label_smoothing above 0")
        if self.consistency_kind == "simcut" and not self.consistency:
            raise ValueError("consistency_kind simcut needs consistency above 0, its weight")
        if self.schedule in ("linear", "cosine") and self.schedule_updates is None and self.budget_minutes is None:
            raise ValueError(
                f"schedule {self.schedule} needs schedule_updates, its length in updates, or budget_minutes"
            )
        if self.schedule_updates is not None and self.schedule_updates <= self.warmup_updates:
            raise ValueError(
                f"schedule_updates must exceed warmup_updates; found {self.schedule_updates} and {self.warmup_updates}"
            )
        if self.schedule == "inverse_sqrt" and not self.warmup_updates:
            raise ValueError("schedule inverse_sqrt needs warmup_updates of 1 or more")
        if self.patience and self.schedule == "plateau" and self.patience <= self.plateau_patience:
            raise ValueError(
                f"patience must exceed plateau_patience, or the run ends before its learning rate falls; found "
                f"{self.patience} and {self.plateau_patience}"
            )
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError(f"weight_decay needs optimizer adamw; found {self.optimizer}")
        if self.average_last > self.keep_checkpoints:
            raise ValueError(
                f"average_last must not exceed keep_checkpoints; found {self.average_last} and {self.keep_checkpoints}"
            )
        return self

    @model_validator(mode="after")
    def _plateau_keys_act(self) -> "TrainingConfig":
        for name in ("plateau_patience", "plateau_factor", "plateau_restart"):
            if self.schedule != "plateau" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} needs schedule plateau; found {self.schedule}")
        return self

    @model_validator(mode="after")
    def _budget_has_no_rival(self) -> "TrainingConfig":
        if self.budget_minutes is None:
            return self
        if self.schedule not in ("linear", "cosine"):
            raise ValueError(
                f"budget_minutes needs schedule linear or cosine, which follow it; found {self.schedule}. max_minutes "
                "ends a run with another schedule"
            )
        for name in ("schedule_updates", "max_updates", "max_epochs", "max_minutes"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name} contradicts budget_minutes, by which the schedule and the run end; remove one of them"
                )
        return self


class SearchSettings(Section):
    """Everything that can change a translation: how hypotheses are searched and ranked.

    This object, or a mapping of changes to it, is what every command, the server and exports pass on. Only the search
    names its fields, so that a new setting is a field here, its use in the search, and a test.
    """

    beam_size: Annotated[int, Field(ge=1, le=MAX_BEAM_SIZE)] = 5
    """Hypotheses kept per sentence; 1 is greedy search."""
    length_penalty: Annotated[float, Field(ge=0, le=5)] = 1.0
    """Exponent of the length penalty (Wu et al. 2016, equation 14); 0 ranks by log-probability alone."""
    coverage_penalty: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the coverage penalty (Wu et al. 2016, equation 14) when hypotheses are ranked. It prefers translations
    whose attention covers all source tokens, costs one more pass over the translations and turns off pruning; 0 turns
    it off."""
    pruning_threshold: Annotated[float, Field(ge=0)] = 3.0
    """An open hypothesis is pruned if its log-probability is this far below that of the best open one (in nats), or if
    three more tokens at no cost would still leave its score below a finished one; 0 never prunes. It has no effect with
    a minimum length or a coverage penalty. If several translations per line are requested, the first one is still that
    of a pruned search, and the others come from a second search without pruning."""
    min_length: Count = 0
    """Minimum length of a translation in tokens, without EOS."""
    max_length: PositiveInt = 256
    """Maximum length of a translation in tokens, with EOS; the limit of a sentence is min(max_length_ratio x its source
    tokens + 10, this)."""
    max_length_ratio: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Maximum length of a translation per source token; 10 more tokens are always allowed. Both lengths count EOS."""
    no_repeat_ngram: Count = 0
    """Length in tokens of the sequences that must not occur twice in a translation (Paulus et al. 2018); 0 allows all
    repetition. Tokens are parts of words, so values below 4 often block correct text."""
    repetition_penalty: Annotated[float, Field(ge=1, le=100)] = 1.0
    """Factor that multiplies the log-probabilities of tokens that the translation already contains (after Keskar et al.
    2019); 1 turns it off. Scores include it."""
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Temperature of sampling, which needs beam_size 1: tokens are drawn from the model's probabilities to the power of
    1 / temperature. Several translations per line are independent samples, in the order in which they were drawn. 0
    turns sampling off."""
    top_k: Count = 0
    """Sample from this many of the most likely tokens only (Fan et al. 2018); 0 samples from all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample only from the most likely tokens that together reach this probability (Holtzman et al. 2020); 1 samples
    from all."""
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 1
    """Random seed of sampling. With the same seed, a sentence has the same samples in any file, batch or request."""
    mbr: Literal["none", "chrf", "bleu"] = "none"
    """Minimum Bayes risk decoding (Kumar and Byrne 2004): of several candidates, choose the one with the highest
    expected chrF or BLEU, with the other candidates as references. Candidates are the best of a beam search, weighted
    by their probabilities, or samples (temperature). The score of a translation is then this expectation, 0 to 100.
    none ranks by probability."""
    mbr_candidates: Annotated[int, Field(ge=2, le=MAX_BEAM_SIZE)] = 16
    """Number of candidates per sentence for `mbr`: samples, or hypotheses of a beam of at least this size."""
    on_warning: Literal["keep", "retry"] = "keep"
    """Whether to keep a translation with a warning, such as repetition or a lost number, or to search a second time
    (retry), with twice the beam size and, unless `no_repeat_ngram` is set, without repeated sequences of 4 tokens. The
    second translation replaces the first if it has fewer warnings."""
    tag: TagName | None = None
    """Symbol put before every sentence to translate, which must be a tag of data.train. A text that begins with a tag
    keeps that one, for each of its sentences. Clients of an exported model's signatures write the tag themselves."""
    split_sentences: Literal["auto", "always", "never"] = "auto"
    """Whether to split texts into sentences and translate these one by one: auto splits unless most of the training
    lines held several sentences. Longer texts than the model reads are always translated in parts. `nmt evaluate` and
    `:predict` do not split."""

    def count_slots(self, n_best: int) -> int:
        """Returns the hypotheses of a text that a search holds at a time, if n are wanted."""
        candidates = 0 if self.mbr == "none" else self.mbr_candidates
        return max(self.beam_size, n_best, candidates)

    def count_searched(self, n_best: int) -> int:
        """Returns the hypotheses of a text that are searched for at a time, if n are wanted, or in a second search."""
        most = self.count_slots(n_best)
        return most if self.on_warning == "keep" else (1 + WIDER) * most

    def get_length_penalty(self, lengths: Any) -> Any:
        """Returns ((5 + length) / 6) ** length_penalty (Wu et al. 2016, equation 14) of lengths that count EOS."""
        return ((5.0 + lengths) / 6.0) ** self.length_penalty

    @model_validator(mode="after")
    def _lengths_agree(self) -> "SearchSettings":
        if self.min_length >= self.max_length:
            raise ValueError(f"min_length must be below max_length; found {self.min_length} and {self.max_length}")
        return self

    @model_validator(mode="after")
    def _sampling_fits(self) -> "SearchSettings":
        if self.temperature == 0:
            for name in SAMPLING_KEYS[1:]:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name} has no effect without sampling: set temperature above 0 and beam_size to 1; found "
                        f"{name} {getattr(self, name)}"
                    )
            return self
        if self.temperature < LOWEST_TEMPERATURE:
            raise ValueError(f"temperature must be 0 or at least {LOWEST_TEMPERATURE}; found {self.temperature}")
        for name, needed in (("beam_size", 1), ("coverage_penalty", 0), ("on_warning", "keep")):
            if getattr(self, name) != needed:
                raise ValueError(
                    f"sampling (temperature {self.temperature}) does not search: set {name} to {needed}; found "
                    f"{getattr(self, name)}"
                )
        return self

    @model_validator(mode="after")
    def _mbr_fits(self) -> "SearchSettings":
        default = type(self).model_fields["mbr_candidates"].default
        if self.mbr == "none" and self.mbr_candidates != default:
            raise ValueError(f"mbr_candidates has no effect without mbr; found mbr_candidates {self.mbr_candidates}")
        if self.mbr != "none" and self.coverage_penalty:
            raise ValueError(
                f"coverage_penalty has no effect with mbr, which ranks by expected {self.mbr}: set one of them to its "
                f"default; found coverage_penalty {self.coverage_penalty}"
            )
        return self


SAMPLING_KEYS = ("temperature", "top_k", "top_p", "seed")
CHOICE_KEYS = ("mbr", "mbr_candidates", "on_warning")
"""Settings that choose among finished translations; the search itself does not read them."""
GREEDY: dict[str, Any] = {
    "beam_size": 1,
    **{key: SearchSettings.model_fields[key].default for key in (*SAMPLING_KEYS, *CHOICE_KEYS)},
}
"""Changes of any settings that make greedy search of them, without sampling."""


class DecodingConfig(SearchSettings):
    """Beam search: the settings of a model's translations, unless a command overrides them."""

    batch_tokens: PositiveInt = 8192
    """Source tokens translated at once, padding included; bounds the memory."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of `nmt translate` and `nmt evaluate`: auto is bfloat16 on processors that support it natively (AMX,
    AVX-512 BF16) and float32 elsewhere. Validation uses float32, and so do exports unless `--precision` is given."""


class ExportConfig(Section):
    """The SavedModel for TensorFlow Serving."""

    max_characters: PositiveInt = 2000
    """Maximum number of characters of a text; longer ones are truncated, and their answers are marked."""
    max_batch: PositiveInt = 256
    """Texts translated at once; larger requests are processed in parts."""
    nbest: PositiveInt = 5
    """Hypotheses per text that the signature `nbest` returns; at most decoding.beam_size."""
    interactive: bool = False
    """Whether to add the signatures `complete` (translations that begin with a prefix and contain phrases) and
    `alternatives` (suggestions for the next word). They make the graph about twice as large."""
    sample: PositiveInt = 200
    """Number of dev sentences on which the export is compared with the model."""
    server_version: str | None = None
    """Version of the TensorFlow Serving that will run the export, such as 2.21.0 (the tag of its image). It must not be
    older than the exporting TensorFlow; null is that TensorFlow's minor version."""

    @model_validator(mode="after")
    def _server_version_is_valid(self) -> "ExportConfig":
        if self.server_version is not None and not re.fullmatch(r"\d+\.\d+\.\d+", self.server_version):
            raise ValueError(f"server_version must be three numbers, such as 2.21.0; found '{self.server_version}'")
        return self


class Config(Section):
    """A training recipe, which a trained model stores."""

    run_dir: UserPath | None = None
    """Folder of the run; null is runs/ and the name of the configuration file."""
    seed: Annotated[int, Field(ge=0, le=(1 << 32) - 1)] = 1
    """Random seed of weights, data order, changes to examples, dropout and subword sampling."""
    data: DataConfig
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig
    decoding: DecodingConfig = DecodingConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _tying_needs_one_vocabulary(self) -> "Config":
        is_joint = self.tokenizer.joint and self.tokenizer.source_model == self.tokenizer.target_model
        if self.model.tied_embeddings == "all" and not is_joint:
            raise ValueError("model.tied_embeddings all needs one vocabulary: tokenizer.joint true and one model file")
        return self

    @model_validator(mode="after")
    def _frozen_parts_exist(self) -> "Config":
        frozen, is_shared = self.training.freeze, self.model.tied_embeddings == "all"
        if len(set(frozen)) < len(frozen):
            raise ValueError(f"training.freeze must name each part once; found {', '.join(frozen)}")
        if is_shared and "target_embedding" in frozen:
            raise ValueError(
                "training.freeze cannot name target_embedding with model.tied_embeddings all, which shares one matrix; "
                "source_embedding freezes it"
            )
        if len(frozen) == len(get_args(PartName)) - is_shared:
            raise ValueError("training.freeze must leave a part to train; found all of them")
        return self

    @model_validator(mode="after")
    def _tags_are_trained(self) -> "Config":
        tags = {files.tag: None for files in self.data.train if files.tag}
        dev = self.data.dev
        keys = (
            {f"data.dev.{n}.tag": files for n, files in enumerate(dev)}
            if isinstance(dev, list)
            else {"data.dev.tag": dev}
        )
        named = {key: files.tag for key, files in keys.items()} | {"decoding.tag": self.decoding.tag}
        for key, tag in named.items():
            if tag and tag not in tags:
                known = f"which has {', '.join(tags)}" if tags else "which has none"
                raise ValueError(f"{key} must be a tag of data.train, {known}; found {tag}")
        if not isinstance(dev, list) and dev.name:
            raise ValueError("data.dev.name has no effect on a single set, whose scores need no name")
        names = [files.name for files in self.dev_sets]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ValueError(f"data.dev has two sets called {name}; give them different names (data.dev.N.name)")
        return self

    @property
    def dev_sets(self) -> list[DevFiles]:
        """The sets of data.dev, each with its tag, if any, its name and its target language."""
        dev = self.data.dev
        named = []
        for files in dev if isinstance(dev, list) else [dev]:
            tag = files.tag or self.decoding.tag
            name = files.name or (tag or "").strip("<>") or files.source.name.partition(".")[0]
            language = files.target_language or self.data.target_language
            named.append(files.model_copy(update={"tag": tag, "name": name, "target_language": language}))
        return named

    @property
    def target_languages(self) -> list[str]:
        """The target language and those of dev sets that have another one, in which validations count BLEU."""
        of_sets = [files.target_language or self.data.target_language for files in self.dev_sets]
        return list(dict.fromkeys([self.data.target_language, *of_sets]))

    @model_validator(mode="after")
    def _consistency_needs_dropout(self) -> "Config":
        model = self.model
        # Not recurrent_dropout: both readings are rows of one batch, which drops the same weights for all of them.
        rates = [getattr(model, f"{name}_dropout") for name in ("embedding", "layer", "output", "word", "attention")]
        if self.training.consistency_kind == "simcut" and not model.word_dropout:
            raise ValueError("training.consistency_kind simcut needs model.word_dropout, the share of tokens to cut")
        if self.training.consistency and not any(rates):
            raise ValueError(
                "training.consistency needs dropout of values, words or attention: without it, both readings of a pair "
                "are the same"
            )
        return self

    @model_validator(mode="after")
    def _alignments_guide(self) -> "Config":
        given = [f"data.train.{n}.alignments" for n, files in enumerate(self.data.train) if files.alignments]
        if not self.training.guided_alignment:
            if given:
                raise ValueError(f"{given[0]} has no effect without training.guided_alignment, the weight of its links")
            return self
        if not given:
            raise ValueError("training.guided_alignment needs data.train[].alignments, a file of links between words")
        if self.data.replace_tokens:
            raise ValueError(
                "data.replace_tokens contradicts training.guided_alignment: a source with random tokens has other "
                "words than those that data.train[].alignments links"
            )
        return self

    @model_validator(mode="after")
    def _beam_holds_nbest(self) -> "Config":
        if not self.decoding.temperature and self.export.nbest > self.decoding.beam_size:
            raise ValueError(
                f"export.nbest must not exceed decoding.beam_size; found {self.export.nbest} and "
                f"{self.decoding.beam_size}"
            )
        return self
