"""How small the weights of an artefact are made, and what that may cost."""

from dataclasses import dataclass

from nmt.errors import UserError, nearest

KINDS = ("bfloat16", "int8")


@dataclass(frozen=True)
class Quantization:
    """Matrices of weights in fewer bits than float32 has, within a stated loss.

    Raises:
        UserError: there is no such kind.
    """

    kind: str
    """bfloat16, or int8 with a float32 scale for each output."""
    max_bleu_loss: float = 0.5
    """BLEU points that it may cost, where there are references."""
    max_differing: float = 0.1
    """Share of the sentences that may be translated otherwise, where there are none."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"quantize: expected {' or '.join(KINDS)}, found '{self.kind}'.{nearest(self.kind, KINDS)}")
