"""An ensemble of models that predict each token together.

B sentences, S source tokens, T target positions, Q queries per sentence, N active queries, V target tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any

from nmt.backend import ops
from nmt.models.queries import ActiveQueries
from nmt.models.seq2seq import DecodingStart, Seq2Seq


class Ensemble:
    """Decodes like a `Seq2Seq`, with the mean of its members' probabilities (Sutskever et al. 2014).

    Its state and its memory are tuples of those of its members. Attention is the mean over the members.

    Args:
        members: models with the same tokenizers and the same direction, in inference. Their architectures may differ.
    """

    def __init__(self, members: Sequence[Seq2Seq]):
        self.members = tuple(members)
        self.right_to_left = self.members[0].right_to_left

    @property
    def variables(self) -> list:
        """The variables of all members."""
        return [variable for member in self.members for variable in member.variables]

    @property
    def trainable_variables(self) -> list:
        """The weights of all members. Two members may have weights of the same path."""
        return [variable for member in self.members for variable in member.trainable_variables]

    def start(self, source: Any) -> DecodingStart:
        """Reads sources int [B, S]; see `Seq2Seq.start`."""
        states, memories, masks = zip(*(member.start(source) for member in self.members), strict=True)
        return DecodingStart(states, memories, masks[0])

    def make_step(self) -> Callable[[Any, Any, Any, ActiveQueries], tuple[Any, Any]]:
        """Returns the step of a search; see `Seq2Seq.make_step`. Its logits are log-probabilities."""
        steps = [member.make_step() for member in self.members]

        def step(ids: Any, states: Any, memories: Any, active: ActiveQueries) -> tuple[Any, Any]:
            members = zip(steps, states, memories, strict=True)
            found = [step_one(ids, state, memory, active) for step_one, state, memory in members]
            logits, states = zip(*found, strict=True)
            return average_logits(logits), states

        return step

    def step(self, ids: Any, states: Any, memories: Any) -> tuple[Any, Any, Any]:
        """Reads one token per query, int [B, Q]; see `Seq2Seq.step`. Its logits are log-probabilities."""
        members = zip(self.members, states, memories, strict=True)
        found = [member.step(ids, state, memory) for member, state, memory in members]
        logits, states, weights = zip(*found, strict=True)
        return average_logits(logits), states, _mean(weights)

    def read(self, source: Any, target: Any) -> tuple[Any, Any]:
        """Reads given translations [B, T] of sources [B, S]; see `Seq2Seq.read`. Its logits are log-probabilities."""
        logits, weights = zip(*(member.read(source, target) for member in self.members), strict=True)
        return average_logits(logits), _mean(weights)


DecodingModel = Seq2Seq | Ensemble


def average_logits(all_logits: Sequence[Any]) -> Any:
    """Returns the logarithm of the mean of the probabilities given by several logits [..., V]: [..., V]."""
    log_probs = ops.stack([ops.log_softmax(logits, axis=-1) for logits in all_logits])
    # From the likeliest member on, so that a token that all members find unlikely keeps a finite logarithm.
    highest = ops.max(log_probs, axis=0)
    return highest + ops.log(ops.mean(ops.exp(log_probs - highest), axis=0))


def _mean(all_weights: Sequence[Any]) -> Any:
    return sum(all_weights) / len(all_weights)
