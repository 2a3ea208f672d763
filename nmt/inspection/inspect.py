"""Shows how a model translates one sentence: the public function `nmt.inspect`, and its result as text."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from nmt.data.tokenizer import EOS_ID, Tokenizer
from nmt.errors import UserError
from nmt.inspection.beam import BeamTree, check_settings, trace_beam
from nmt.inspection.neighbours import Neighbour, open_index
from nmt.inspection.trace import Trace, trace
from nmt.model_folder import find_model_folder
from nmt.models.seq2seq import Seq2Seq
from nmt.translators.model import ModelTranslator
from nmt.translators.opening import open_translator

WIDTH = 1000  # characters per line, so that none is folded


@dataclass(frozen=True)
class Inspection:
    """A sentence, a translation of it, and what the model computes for both.

    S source tokens and T target tokens, EOS included.
    """

    source: str
    translation: str
    """The translation that the model itself finds."""
    target: str
    """The translation that the trace reads: the reference if one is given, otherwise the model's own."""
    is_reference: bool
    """Whether `target` is a reference."""
    source_tokens: Sequence[str]
    """S tokens as SentencePiece writes them."""
    target_tokens: Sequence[str]
    """T tokens; without EOS if the length limit cut the translation off."""
    alternatives: Sequence[Sequence[tuple[str, float]]]
    """The likeliest tokens at each of the T positions and their probabilities, best first."""
    trace: Trace
    """Gates, cells, attention, gradients and log-probabilities as arrays."""
    beam: BeamTree
    """Every hypothesis of the search for `translation`."""
    beam_tokens: Sequence[str]
    """The last token of each node of the tree."""
    neighbours: Sequence[Sequence[Neighbour]] = ()
    """For each of the T positions, the training sentences whose attentional states are nearest, nearest first; empty
    without an index."""
    index_problem: str = ""
    """Why the index of the run was not used, such as that it is stale; empty if nothing is wrong with it."""

    @property
    def log_prob(self) -> float:
        """Log-probability (nats) of `target`."""
        return float(self.trace.log_probs.sum())

    def as_arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays of the trace by name, as for `numpy.savez`; see `Trace`.

        With an index also neighbour_distances float32 [T, K], neighbour_files str [T, K] and neighbour_lines int32
        [T, K]: where the nearest states are from.
        """
        arrays = self.trace.as_arrays()
        if self.neighbours:
            arrays["neighbour_distances"] = np.array([[n.distance for n in row] for row in self.neighbours], "float32")
            arrays["neighbour_files"] = np.array([[n.sentence.file for n in row] for row in self.neighbours])
            arrays["neighbour_lines"] = np.array([[n.sentence.line for n in row] for row in self.neighbours], "int32")
        return arrays


def inspect(
    model: Path | str | ModelTranslator,
    text: str,
    reference: str | None = None,
    *,
    index: Path | str | None = None,
    **changes: Any,
) -> Inspection:
    """Shows how a model translates a sentence.

    The text is read as a whole, as if it were one sentence. Models that are opened here compute in float32.

    >>> nmt.inspect("runs/demo", "The stories are old.").trace.saliency.shape  # doctest: +SKIP
    (6, 6)

    Args:
        model: a run folder (its best model), a model folder, or one that `nmt.open_translator` has opened.
        text: to translate.
        reference: a translation to read instead of the model's own.
        index: folder of `nmt index`, in which the nearest training sentences are looked up; by default that of the run
            or model folder, if it has one. That one is left out if it cannot be used; see `Inspection.index_problem`.
        **changes: settings of the section `decoding`, such as beam_size=1.

    Raises:
        UserError: this is an export or an ensemble, the text is blank or too long, the reference is blank, or the
            settings sample or have a coverage penalty. Or `index` is missing, damaged or of another model.
    """
    translator, opened = _open(model, changes)
    check_settings(translator.settings)
    run = Path(model) if isinstance(model, Path | str) else None
    neighbours, index_problem = open_index(Path(index) if index else None, run, translator)
    source_tokenizer, target_tokenizer = translator.source_tokenizer, translator.target_tokenizer
    protected = translator.terms.protect(_read_one_part(translator, text))
    source = protected.text
    if reference is not None:
        if not reference.strip():
            raise UserError("reference: expected a translation to read, found an empty text.")
        reference = protected.put_symbols(reference)
    source_ids = [*source_tokenizer.encode([source])[0], EOS_ID]
    beam = trace_beam(opened, source_ids, settings=translator.settings, banned_ids=target_tokenizer.banned_ids)
    found = beam.get_token_ids(beam.best)
    if opened.right_to_left:
        is_finished = found[-1:] == [EOS_ID]
        found = [*found[: len(found) - is_finished][::-1], *found[len(found) - is_finished :]]
    target_ids = found if reference is None else [*target_tokenizer.encode([reference])[0], EOS_ID]
    traced = trace(opened, source_ids, target_ids)
    [translation] = target_tokenizer.decode([found])
    return Inspection(
        source=source,
        translation=translation,
        target=translation if reference is None else reference,
        is_reference=reference is not None,
        source_tokens=_get_tokens(source_tokenizer, source_ids),
        target_tokens=_get_tokens(target_tokenizer, target_ids),
        alternatives=[
            [
                (target_tokenizer.get_token(int(one)), float(np.exp(log_prob)))
                for one, log_prob in zip(*row, strict=True)
            ]
            for row in zip(traced.alternative_ids, traced.alternative_log_probs, strict=True)
        ],
        trace=traced,
        beam=beam,
        beam_tokens=_get_tokens(target_tokenizer, [node.token_id for node in beam.nodes]),
        neighbours=neighbours.find_neighbours(traced.states) if neighbours else (),
        index_problem=index_problem,
    )


def write_text(found: Inspection) -> str:
    """Returns what fits a terminal: the translation and, token by token, probability, alternatives and sources."""
    console = Console(file=StringIO(), width=WIDTH, highlight=False, markup=False, emoji=False)
    console.print(f"Source       {found.source}")
    console.print(f"Translation  {found.translation}")
    if found.is_reference:
        console.print(f"Reference    {found.target}")
    console.print(f"{'Reference' if found.is_reference else 'Translation'}: {describe_probability(found)}\n")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("token", "probability", "alternatives", "attends to", "depends most on"):
        table.add_column(name, justify="right" if name == "probability" else "left")
    for t, token in enumerate(found.target_tokens):
        others = ", ".join(f"{other} {share:.3f}" for other, share in list_alternatives(found, t)[:3])
        attended, salient = (
            f"{found.source_tokens[int(row.argmax())]} {row.max():.2f}"
            for row in (found.trace.mean_attention[t], found.trace.saliency[t])
        )
        table.add_row(token, f"{np.exp(found.trace.log_probs[t]):.3f}", others, attended, salient)
    console.print(table)
    if found.neighbours:
        console.print("\nThe training sentences with the nearest attentional states (Euclidean distance):\n")
        console.print(_tabulate_neighbours(found))
    file = console.file
    assert isinstance(file, StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().removesuffix("\n").split("\n"))


def _tabulate_neighbours(found: Inspection) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("token", "distance", "nearest", "training sentence", "line"):
        table.add_column(name, justify="right" if name == "distance" else "left")
    for token, [nearest, *_] in zip(found.target_tokens, found.neighbours, strict=True):
        table.add_row(
            token, f"{nearest.distance:.3f}", nearest.token, "{}[{}]{}".format(*nearest.split_text()), nearest.location
        )
    return table


def describe_probability(found: Inspection) -> str:
    """Returns a line with the log-probability and the probability per token of the text that is traced."""
    log_probs = found.trace.log_probs
    return (
        f"log-probability {found.log_prob:.2f} nats, {np.exp(log_probs.mean()):.3f} per token "
        f"(geometric mean of {len(log_probs)})"
    )


def list_alternatives(found: Inspection, position: int) -> list[tuple[str, float]]:
    """Returns the likeliest tokens at a position other than the one that stands there, with their probabilities."""
    its = found.trace.alternative_ids[position]
    kept = its != found.trace.target_ids[position]
    return [one for one, is_other in zip(found.alternatives[position], kept, strict=True) if is_other]


def _open(model: Path | str | ModelTranslator, changes: dict[str, Any]) -> tuple[ModelTranslator, Seq2Seq]:
    """Opens a single model: what translates with it, and the model.

    Raises:
        UserError: it is an export or an ensemble.
    """
    if isinstance(model, Path | str):
        find_model_folder(Path(model))  # which refuses an export or an ensemble, and names what to give instead
        translator = open_translator(model, **{"precision": "float32", **changes})
    else:
        translator = model.with_settings(**changes)
    if not isinstance(translator, ModelTranslator) or not isinstance(translator.model, Seq2Seq):
        found = "an ensemble" if isinstance(translator, ModelTranslator) else f"a {type(translator).__name__}"
        raise UserError(
            f"nmt.inspect shows the inside of one model, but this is {found}. Expected the run folder or model folder "
            "of a single model, such as ENSEMBLE/1, the first member of an ensemble."
        )
    return translator, translator.model


def _read_one_part(translator: ModelTranslator, text: str) -> str:
    """Returns the text with its tag.

    Raises:
        UserError: it is empty, has several lines or is too long.
    """
    if not text.strip():
        raise UserError("Expected a sentence to inspect, found an empty text.")
    [split] = translator.with_settings(split_sentences="never").split_texts([text])
    if len(split.parts) != 1:
        raise UserError(
            f"Expected one sentence of at most {translator.max_tokens} tokens, which the model reads at once; found "
            f"{translator.count_tokens([text])[0]} tokens, read in {len(split.parts)} parts. Inspect them one by one."
        )
    return split.parts[0]


def _get_tokens(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    return [tokenizer.get_token(int(one)) for one in ids]
