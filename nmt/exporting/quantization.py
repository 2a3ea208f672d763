"""How small the weights of an artefact are made, and what that may cost."""

from dataclasses import dataclass

from nmt.errors import UserError, suggest_name

KINDS = ("bfloat16", "int8")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Quantization:
    """Matrices of weights in fewer bits than float32 has, within a stated loss.

    Raises:
        UserError: there is no such kind or precision, or they do not go together.
    """

    kind: str
    """bfloat16, or int8 with a float32 scale for each output."""
    max_bleu_loss: float = 0.5
    """BLEU points that it may cost, where there are references."""
    max_differing: float = 0.1
    """Share of the sentences that may be translated otherwise, where there are none."""
    precision: str = "float32"
    """Of the arithmetic: float32, or with bfloat16 weights bfloat16, for processors that multiply it by themselves."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(
                f"quantize: expected {' or '.join(KINDS)}, found '{self.kind}'.{suggest_name(self.kind, KINDS)}"
            )
        if self.precision not in PRECISIONS:
            hint = suggest_name(self.precision, PRECISIONS)
            raise UserError(f"precision: expected {' or '.join(PRECISIONS)}, found '{self.precision}'.{hint}")
        if self.precision == "bfloat16" and self.kind != "bfloat16":
            raise UserError(f"precision: bfloat16 computes with bfloat16 weights, but quantize is {self.kind}.")
