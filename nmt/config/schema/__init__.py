"""The schema of a configuration: every key with its type, range, unit, default and meaning.

Each section has a module. What concerns several sections is checked here.

Defaults are written here and nowhere else. Components take plain keyword arguments or one small settings object, never
the whole configuration. `nmt.config.file` reads YAML into this schema and explains mistakes.
"""

from typing import Annotated, get_args

from pydantic import Field, model_validator

from nmt.config.schema.data import (
    ONE,
    SEVERAL,
    AugmentConfig,
    CorpusFiles,
    DataConfig,
    DevFiles,
    PlaceholderConfig,
    PlaceholderKind,
    TrainingFiles,
)
from nmt.config.schema.decoding import (
    CHOICE_KEYS,
    GREEDY,
    LENGTH_ALLOWANCE,
    MAX_BEAM_SIZE,
    WIDER,
    DecodingConfig,
    SearchSettings,
)
from nmt.config.schema.export import ExportConfig
from nmt.config.schema.model import TRAINING_ONLY, ModelConfig
from nmt.config.schema.section import Section, TagName, UserPath
from nmt.config.schema.tokenizer import TokenizerConfig
from nmt.config.schema.training import ConsistencyKind, PartName, ScheduleName, StrategyName, TrainingConfig

__all__ = [
    "CHOICE_KEYS",
    "GREEDY",
    "LENGTH_ALLOWANCE",
    "MAX_BEAM_SIZE",
    "ONE",
    "SEVERAL",
    "TRAINING_ONLY",
    "WIDER",
    "AugmentConfig",
    "Config",
    "ConsistencyKind",
    "CorpusFiles",
    "DataConfig",
    "DecodingConfig",
    "DevFiles",
    "ExportConfig",
    "ModelConfig",
    "PartName",
    "PlaceholderConfig",
    "PlaceholderKind",
    "ScheduleName",
    "SearchSettings",
    "Section",
    "StrategyName",
    "TagName",
    "TokenizerConfig",
    "TrainingConfig",
    "TrainingFiles",
]


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
