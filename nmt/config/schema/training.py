"""The section `training`: optimization, loss, stopping, validation and checkpoints."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from nmt.config.schema.section import Condition, Count, Section, Share, UserPath

ConsistencyKind = Literal["r_drop", "simcut"]
ScheduleName = Literal["constant", "linear", "cosine", "inverse_sqrt", "plateau"]
PartName = Literal["source_embedding", "target_embedding", "encoder", "attention", "decoder", "output"]
StrategyName = Literal["auto", "single", "mirrored", "multi_worker"]

_ADAM, _TIMED, _PLATEAU = ("adam", "adamw"), ("linear", "cosine"), ("plateau",)


class TrainingConfig(Section):
    """Optimization, stopping, validation and checkpoints."""

    start_from: UserPath | None = None
    """Model folder or run (its best model) from whose weights a new run starts. Optimizer state, schedule and order of
    the data start from the beginning. The architecture must be the same. The model's tokenizers are used unless the
    tokenizer section differs from the model's. In that case, new tokens start as the mean of the tokens that spell
    them (docs/how-to/fine-tuning.md)."""
    freeze: list[PartName] = []  # noqa: RUF012  pydantic copies it
    """Parts of the model whose weights do not change. A shared matrix belongs to the first of its parts
    (model.tied_embeddings). The part output is the output projection."""
    batch_by: Literal["tokens", "sentences"] = "sentences"
    """Unit of batch_size: target tokens, padding included, or sentence pairs."""
    batch_size: PositiveInt = 64
    """Size of a batch over all devices, in the unit of batch_by."""
    accumulation_steps: PositiveInt = 1
    """Micro-batches per batch. More of them need less memory; the result differs only by rounding and dropout masks."""
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
    """Number of validations without improvement after which a plateau schedule lowers the learning rate."""
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
    """Maximum number of returns to a checkpoint. The next failure stops the run."""
    on_full_disk: Literal["continue", "stop"] = "continue"
    """What to do if a checkpoint cannot be written: continue warns and keeps the older ones, stop ends the run."""
    patience: PositiveInt | None = None
    """Stop after this many validations without improvement."""
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
    the pairs that are never learned. Two bytes per pair; of more than 20 million pairs, only every nth one."""

    ACTS_WITH: ClassVar[Mapping[str, Condition]] = {
        "beta_1": ("optimizer", _ADAM),
        "beta_2": ("optimizer", _ADAM),
        "epsilon": ("optimizer", _ADAM),
        "weight_decay": ("optimizer", ("adamw",)),
        "schedule_updates": ("schedule", _TIMED),
        "final_rate": ("schedule", _TIMED),
        "plateau_patience": ("schedule", _PLATEAU),
        "plateau_factor": ("schedule", _PLATEAU),
        "plateau_restart": ("schedule", _PLATEAU),
    }

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
        if self.average_last > self.keep_checkpoints:
            raise ValueError(
                f"average_last must not exceed keep_checkpoints; found {self.average_last} and {self.keep_checkpoints}"
            )
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
