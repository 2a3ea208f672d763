"""The section `data`: parallel text, and how it is filtered and changed for training."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, PositiveInt, Tag, model_validator

from nmt.config.schema.section import Section, Share, TagName, UserPath, find_given, list_words

PlaceholderKind = Literal["url", "email", "number", "tag", "term"]


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

    kinds: list[PlaceholderKind] = []  # noqa: RUF012  pydantic copies it
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
        given = find_given(self, type(self).model_fields)
        if given and not self.kinds:
            raise ValueError(f"{list_words(given)} {'has' if len(given) == 1 else 'have'} no effect without kinds")
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
