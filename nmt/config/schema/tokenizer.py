"""The section `tokenizer`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from nmt.config.schema.section import Condition, Section, UserPath

_TRAINED_BY = ("kind", "vocabulary_size", "character_coverage", "byte_fallback", "user_symbols", "normalization")


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
    user_symbols: list[str] = []  # noqa: RUF012  pydantic copies it
    """Strings that are always one token."""
    normalization: Literal["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"] = "nmt_nfkc"
    """SentencePiece's normalization rule; those with cf also fold case."""
    source_model: UserPath | None = None
    """Existing SentencePiece model for the source; null trains one. On the command line, it replaces the keys of the
    file by which a tokenizer is trained."""
    target_model: UserPath | None = None
    """Existing SentencePiece model for the target; null trains one."""
    sampling_alpha: Annotated[float, Field(gt=0, le=1)] | None = None
    """Subword sampling during training: smoothing of the unigram model (Kudo 2018), or merge dropout for BPE (Provilkov
    et al. 2020); null always uses the best segmentation."""

    ACTS_WITH: ClassVar[Mapping[str, Condition]] = dict.fromkeys(_TRAINED_BY, ("source_model", (None,)))

    @model_validator(mode="after")
    def _existing_models_come_in_pairs(self) -> "TokenizerConfig":
        if (self.source_model is None) != (self.target_model is None):
            raise ValueError("source_model and target_model go together: set both or neither")
        return self
