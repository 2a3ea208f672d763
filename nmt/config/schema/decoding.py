"""The section `decoding`: everything that can change a translation."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationInfo, model_validator

from nmt.config.schema.section import STORED, Section, TagName, find_given, list_words

MAX_BEAM_SIZE = 64
WIDER = 2  # factor of the beam size of a second search (decoding.on_warning)
LOWEST_TEMPERATURE = 0.001
LENGTH_ALLOWANCE = 10
"""Target tokens that are always allowed, unless the maximum length is below."""
Int32 = Annotated[int, Field(ge=0, lt=1 << 31)]
"""A whole number that the search computes with."""


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
    a minimum length, a coverage penalty, sampling, mbr or a beam size of 1, and is refused beside them. If several
    translations per line are requested, the first one is still that of a pruned search, and the others come from a
    second search without pruning."""
    min_length: Int32 = 0
    """Minimum length of a translation in tokens, without EOS. A translation whose maximum length (max_length) is not
    above it is cut off there, with a warning."""
    max_length: Annotated[Int32, Field(ge=1)] = 256
    """Maximum length of a translation in tokens, with EOS; the limit of a sentence is min(max_length_ratio x its source
    tokens + 10, this)."""
    max_length_ratio: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Maximum length of a translation per source token; 10 more tokens are always allowed. Both lengths count EOS."""
    no_repeat_ngram: Int32 = 0
    """Length in tokens of the sequences that must not occur twice in a translation (Paulus et al. 2018); 0 allows all
    repetition. Tokens are parts of words, so values below 4 often block correct text."""
    repetition_penalty: Annotated[float, Field(ge=1, le=100)] = 1.0
    """Factor that multiplies the log-probabilities of tokens that the translation already contains (after Keskar et al.
    2019); 1 turns it off. Scores include it."""
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Temperature of sampling, which needs beam_size 1: tokens are drawn from the model's probabilities to the power of
    1 / temperature. Several translations per line are independent samples, in the order in which they were drawn. 0
    turns sampling off."""
    top_k: Int32 = 0
    """Sample from this many of the most likely tokens only (Fan et al. 2018); 0 samples from all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample only from the most likely tokens that together reach this probability (Holtzman et al. 2020); 1 samples
    from all."""
    seed: Int32 = 1
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

    def limit_length(self, tokens: int) -> int:
        """Returns the maximum length of a translation with EOS, given the source tokens with EOS."""
        return min(int(self.max_length_ratio * tokens) + LENGTH_ALLOWANCE, self.max_length)

    def get_length_penalty(self, lengths: Any) -> Any:
        """Returns ((5 + length) / 6) ** length_penalty (Wu et al. 2016, equation 14) of lengths that count EOS."""
        return ((5.0 + lengths) / 6.0) ** self.length_penalty

    @model_validator(mode="after")
    def _lengths_agree(self) -> "SearchSettings":
        if self.min_length >= self.max_length:
            raise ValueError(f"min_length must be below max_length; found {self.min_length} and {self.max_length}")
        return self

    @model_validator(mode="after")
    def _settings_act(self, info: ValidationInfo) -> "SearchSettings":
        # What a request or a command changes must have an effect; of a configuration, everything. A client that sets a
        # minimum length need not know the threshold of the server's model.
        changed = type(self).model_fields if info.context is None else info.context
        for name, other in self._find_idle():
            if info.context != STORED and name in changed and find_given(self, [name]):
                default = type(self).model_fields[name].default
                raise ValueError(
                    f"{name} has no effect with {other} {getattr(self, other)}: leave it out, or set it to its "
                    f"default, {default}; found {getattr(self, name)}"
                )
        return self

    def _find_idle(self) -> Iterator[tuple[str, str]]:
        """Yields each setting that has no effect beside others, with one of these."""
        unpruned = find_given(self, ("min_length", "coverage_penalty", "temperature", "mbr"))
        if self.beam_size == 1 and self.on_warning == "keep":
            unpruned.append("beam_size")
        if unpruned and self.pruning_threshold:
            yield "pruning_threshold", unpruned[0]
        if self.temperature and self.mbr != "none":  # samples are neither searched for nor ranked by probability
            yield "length_penalty", "mbr"

    @model_validator(mode="after")
    def _sampling_fits(self) -> "SearchSettings":
        if self.temperature == 0:
            if given := find_given(self, SAMPLING_KEYS[1:]):
                raise ValueError(
                    f"{list_words(given)} {'has' if len(given) == 1 else 'have'} no effect without sampling: set "
                    "temperature above 0 and beam_size to 1; found "
                    f"{list_words([f'{name} {getattr(self, name)}' for name in given])}"
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
