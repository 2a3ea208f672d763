"""How the weights of an export are stored, and how much quality that may cost."""

from dataclasses import dataclass

from nmt.errors import UserError, suggest_name

KINDS = ("bfloat16", "int8")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Quantization:
    """Weight matrices with fewer bits than float32, within a limit of what that may cost.

    Raises:
        UserError: there is no such kind or precision, or they do not go together.
    """

    kind: str
    """bfloat16, or int8 with a float32 scale per output."""
    max_bleu_loss: float = 0.5
    """BLEU points that it may cost, if there are references."""
    max_differing: float = 0.1
    """Share of the translations that may differ, if there are no references."""
    precision: str = "float32"
    """Of the arithmetic: float32, or bfloat16 together with bfloat16 weights, for processors with native bfloat16."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(
                f"quantize: expected {' or '.join(KINDS)}, found '{self.kind}'.{suggest_name(self.kind, KINDS)}"
            )
        if self.precision not in PRECISIONS:
            hint = suggest_name(self.precision, PRECISIONS)
            raise UserError(f"precision: expected {' or '.join(PRECISIONS)}, found '{self.precision}'.{hint}")
        if self.precision == "bfloat16" and self.kind != "bfloat16":
            raise UserError(f"precision: bfloat16 needs bfloat16 weights, but quantize is {self.kind}.")
