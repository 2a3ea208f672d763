"""Whether a written artefact translates as the model does that it was made of: the check before it gets its name."""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nmt.backend import ops
from nmt.data.tokenizer import BOS_ID, EOS_ID, Tokenizer
from nmt.errors import ParityError, UserError
from nmt.evaluation.metrics import bleu
from nmt.exporting import fresh_process
from nmt.exporting.quantization import Quantization
from nmt.progress import format_bytes
from nmt.translators.hypothesis import Hypothesis
from nmt.translators.model import ModelTranslator

TIE = 1e-3
"""Nats between two translations that rounding may exchange."""


@dataclass(frozen=True)
class Costs:
    """What a model and its artefact cost, speeds on this machine and after a first call."""

    sentences_per_second_model: float
    sentences_per_second_artefact: float
    bytes_model: int
    """Of its weights, in float32."""
    bytes_artefact: dict[str, int]
    """By file or folder."""

    def __str__(self) -> str:
        large = {name: size for name, size in self.bytes_artefact.items() if size >= 50_000}
        sizes = ", ".join(f"{name} {format_bytes(size)}" for name, size in large.items())
        return (
            f"{self.sentences_per_second_model:.1f} sentences/s (model), {self.sentences_per_second_artefact:.1f} "
            f"(artefact). Weights {format_bytes(self.bytes_model)} (model); {sizes}."
        )


@dataclass(frozen=True)
class Parity:
    """How an artefact in a fresh process compares with its model on a sample."""

    compared: int
    truncated: int
    """Sentences left out, since the artefact cuts what the model translates in parts."""
    ties: int
    """Other texts to which the model gives the same log-probability, to within 1e-3."""
    differing: list[dict[str, str]]
    """Other texts that are no ties: source, model's and artefact's."""
    bleu_model: float | None
    """Detokenised and cased, on the sentences compared; None without references."""
    bleu_artefact: float | None
    costs: Costs
    quantized: Quantization | None = None
    """What was allowed."""

    @property
    def precision(self) -> str:
        """Of the artefact's arithmetic."""
        return self.quantized.precision if self.quantized else "float32"

    def as_record(self) -> dict[str, Any]:
        """Returns it as JSON takes it."""
        return asdict(self)

    def __str__(self) -> str:
        text = (
            f"Compared {self.compared} sentences in a fresh process: {len(self.differing)} differ, {self.ties} ties, "
            f"{self.truncated} left out as too long."
        )
        if self.bleu_model is not None:
            text += f" BLEU {self.bleu_model:.2f} (model), {self.bleu_artefact:.2f} (artefact)."
        return f"{text} {self.costs}"


def check_parity(
    folder: Path,
    translator: ModelTranslator,
    sources: Sequence[str],
    references: Sequence[str] | None,
    quantize: Quantization | None = None,
) -> Parity:
    """Translates a sample with the artefact, in a process that cannot import the toolkit, and with the model.

    Args:
        folder: holds saved_model.pb, or model.tflite.
        translator: the model that the artefact was made of.
        sources: the sample.
        references: their human translations, if there are any.
        quantize: what smaller weights may change; None allows no text to differ, unless it is a tie.

    Raises:
        ParityError: a text differs and is no tie, or quantising loses more than it may.
        UserError: the sample has no sentence short enough to compare.
    """
    answers = translate_fresh(folder, sources)
    expected, speed = _translate(translator, sources)
    costs = Costs(
        sentences_per_second_model=speed,
        sentences_per_second_artefact=answers["sentences_per_second"],
        bytes_model=sum(4 * math.prod(variable.shape) for variable in translator.model.trainable_variables),
        bytes_artefact={part.name: _count_bytes(part) for part in sorted(folder.iterdir()) if _count_bytes(part)},
    )
    parity = replace(compare(translator, sources, expected, answers, references, costs), quantized=quantize)
    check_difference(parity)
    return parity


def check_difference(parity: Parity) -> None:
    """Raises ParityError where an artefact differs from its model by more than is allowed."""
    differing, allowed = parity.differing, parity.quantized
    if allowed is None:
        if differing:
            raise ParityError(
                f"The exported graph translates {len(differing)} of {parity.compared} sentences otherwise than the "
                f"model, so that nothing was written. The first: '{differing[0]['source']}' is "
                f"'{differing[0]['artefact']}', and '{differing[0]['model']}' by the model."
            )
    elif parity.bleu_model is not None and parity.bleu_artefact is not None:
        loss = parity.bleu_model - parity.bleu_artefact
        if loss > allowed.max_bleu_loss:
            raise ParityError(
                f"Quantised weights lose {loss:.2f} BLEU, {parity.bleu_model:.2f} to {parity.bleu_artefact:.2f} on "
                f"{parity.compared} sentences, where {allowed.max_bleu_loss:g} are allowed, so that nothing was "
                "written. Allow more by --max-bleu-loss, or keep more of the weights: --quantize bfloat16, or none."
            )
    elif len(differing) > allowed.max_differing * parity.compared:
        raise ParityError(
            f"With quantised weights {len(differing)} of {parity.compared} sentences are translated otherwise, where "
            f"{allowed.max_differing:.0%} are allowed and no reference says how good they are, so that nothing was "
            "written. Allow more by --max-differing, or keep more of the weights: --quantize bfloat16, or none."
        )


def translate_fresh(folder: Path, sources: Sequence[str]) -> dict[str, Any]:
    """What the artefact says in a fresh process without the toolkit; see `nmt.exporting.fresh_process`."""
    with tempfile.TemporaryDirectory() as scratch:
        given, wanted = Path(scratch, "sentences.json"), Path(scratch, "answers.json")
        given.write_text(json.dumps(list(sources)))
        run_python([fresh_process.__file__, str(folder), str(given), str(wanted)], ParityError)
        return json.loads(wanted.read_text())


def run_python(arguments: list[str], failure: type[Exception], environment: dict[str, str] | None = None) -> None:
    """Runs Python to its end, its chatter kept back; what it said last is in the `failure` raised if it fails."""
    command = [sys.executable, "-P", "-W", "ignore", *arguments]  # -P: the files beside a script are no modules
    result = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if result.returncode:
        last = "\n".join(result.stdout.splitlines()[-20:])
        raise failure(f"A process for the export ended with code {result.returncode}:\n{last}")


def compare(
    translator: ModelTranslator,
    sources: Sequence[str],
    expected: Sequence[Hypothesis],
    answers: dict[str, Any],
    references: Sequence[str] | None,
    costs: Costs,
) -> Parity:
    """Sets the model's translations against the answers of `translate_fresh`, sentence by sentence."""
    whole = [n for n, truncated in enumerate(answers["truncated"]) if not truncated]
    if not whole:
        raise UserError(
            "The sample has no sentence short enough to compare: expected one that the export does not cut."
        )
    found = answers["translations"]
    others = [n for n in whole if found[n] != expected[n].text]
    ties = [n for n in others if _is_tie(translator, sources[n], expected[n], answers, n)]
    scores: list[float | None] = [None, None]
    if references is not None:
        kept = [references[n] for n in whole]
        texts = ([expected[n].text for n in whole], [found[n] for n in whole])
        scores = [bleu(one, kept, target_language=translator.target_language) for one in texts]
    return Parity(
        compared=len(whole),
        truncated=len(sources) - len(whole),
        ties=len(ties),
        differing=[
            {"source": sources[n], "model": expected[n].text, "artefact": found[n]} for n in others if n not in ties
        ],
        bleu_model=scores[0],
        bleu_artefact=scores[1],
        costs=costs,
    )


def compute_log_prob(translator: ModelTranslator, source: str, target_ids: Sequence[int]) -> float:
    """The log-probability that the model gives to a translation, in nats, its EOS counted if it has one."""
    source_ids = [*translator.source_tokenizer.encode([source])[0], EOS_ID]
    before = [BOS_ID, *target_ids[:-1]]
    model = translator.model
    decoded = model(np.array([source_ids], "int32"), np.array([before], "int32"))
    log_probs = ops.convert_to_numpy(ops.log_softmax(model.projection(decoded.states), axis=-1))
    return float(log_probs[0, np.arange(len(target_ids)), target_ids].sum())


def _translate(translator: ModelTranslator, sources: Sequence[str]) -> tuple[list[Hypothesis], float]:
    """The best translation of each sentence, and sentences/s after a first call."""
    translator.translate(sources[: fresh_process.BATCH_SIZE])
    started = time.perf_counter()
    found = [translation.best for translation in translator.stream(sources)]
    return found, len(sources) / (time.perf_counter() - started)


def _count_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(part.stat().st_size for part in (path, *path.rglob("*")) if part.is_file())


def _is_tie(translator: ModelTranslator, source: str, expected: Hypothesis, answers: dict[str, Any], n: int) -> bool:
    if answers["nbest_translations"][n] != answers["translations"][n]:
        return False  # the two signatures disagree, and only one of them tells its pieces
    ids = _ids(translator.target_tokenizer, answers["target_tokens"][n])
    return bool(ids) and abs(compute_log_prob(translator, source, ids) - expected.log_prob) < TIE


def _ids(tokenizer: Tokenizer, pieces: Sequence[str]) -> list[int]:
    by_piece = {tokenizer.get_token(one): one for one in range(tokenizer.vocabulary_size)}
    return [by_piece[piece] for piece in pieces]
