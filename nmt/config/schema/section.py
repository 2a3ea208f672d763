"""What all sections of a configuration have in common: their base and the types of their values."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


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
"""Validation context of configurations that a run or a model stores. Older versions stored keys without effect."""


class Section(BaseModel):
    """A section of the configuration: frozen, without unknown keys or silent conversions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )
