"""What all sections of a configuration have in common: their base and the types of their values."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator


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

STORED = "stored"
"""Validation context of configurations that a run or a model stores. Older versions stored keys without effect. They
are read as their defaults, so that a run can be resumed by a configuration without them."""

Condition = tuple[str, tuple[str | None, ...]]  # a key and some of its values


class Section(BaseModel):
    """A section of the configuration: frozen, without unknown keys or silent conversions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    ACTS_WITH: ClassVar[Mapping[str, Condition]] = {}
    """Keys that act only with certain values of another key: that key and these values, by the name of the first."""

    @model_validator(mode="after")
    def _keys_act(self, info: ValidationInfo) -> Self:
        idle: dict[Condition, list[str]] = {}
        for name in find_given(self, self.ACTS_WITH):
            other, values = self.ACTS_WITH[name]
            if getattr(self, other) not in values:
                idle.setdefault((other, values), []).append(name)
        if not idle:
            return self
        if info.context != STORED:
            raise ValueError("\n".join(self._explain_idle(names, *condition) for condition, names in idle.items()))
        fields = type(self).model_fields
        return self.model_copy(update={name: fields[name].get_default() for names in idle.values() for name in names})

    def _explain_idle(self, names: Sequence[str], other: str, values: Iterable[str | None]) -> str:
        defaults = [json.dumps(type(self).model_fields[name].get_default()) for name in names]
        need, them, their = ("needs", "it", "its default") if len(names) == 1 else ("need", "them", "their defaults")
        return (
            f"{list_words(names)} {need} {other} {' or '.join(value or 'null' for value in values)}; found "
            f"{getattr(self, other)}. Leave {them} out, or set {them} to {their}, {list_words(defaults)}"
        )


def find_given(section: BaseModel, names: Iterable[str]) -> list[str]:
    """Returns those of some keys of a section whose values are not the defaults."""
    fields = type(section).model_fields
    return [name for name in names if getattr(section, name) != fields[name].get_default()]


def list_words(words: Sequence[str]) -> str:
    """Joins words as in a sentence.

    >>> list_words(["top_k", "top_p", "seed"])
    'top_k, top_p and seed'
    """
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
