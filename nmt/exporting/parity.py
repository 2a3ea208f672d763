"""Compares an artefact with its model before it gets its final name: translations, BLEU, speed and size."""

import json
import math
import os
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
from nmt.data.tokenizer import EOS_ID, Tokenizer
from nmt.errors import ParityError, UserError
from nmt.evaluation.metrics import bleu
from nmt.exporting import fresh_process
from nmt.exporting.quantization import Quantization
from nmt.files import FULL
from nmt.progress import format_bytes
from nmt.translators.hypothesis import Hypothesis
from nmt.translators.model import ModelTranslator

# Difference of log-probability, in nats, up to which rounding decides which of two translations is the best.
TIE = 1e-3
ADVICE = "Allow more with {}, or quantize less: --quantize bfloat16, or not at all."


@dataclass(frozen=True)
class Costs:
    """Speed and size of a model and its artefact. Speeds are those of this machine, without the first call."""

    sentences_per_second_model: float
    sentences_per_second_artefact: float
    bytes_model: int
    """Size of the weights in float32."""
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
    """Comparison of an artefact, in a fresh process, with its model on a sample."""

    compared: int
    truncated: int
    """Sentences left out because the artefact truncates them, while the model translates them in parts."""
    ties: int
    """Translations that differ, but have the same log-probability by the model, to within 0.001."""
    differing: list[dict[str, str]]
    """Translations that differ and are not ties, with the keys source, model and artefact."""
    bleu_model: float | None
    """On the sentences compared; None without references."""
    bleu_artefact: float | None
    costs: Costs
    quantized: Quantization | None = None
    """The quantization and the loss that it allows."""

    def as_record(self) -> dict[str, Any]:
        """Returns the comparison as JSON values."""
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
        folder: contains saved_model.pb or model.tflite.
        translator: the model that the artefact was made from.
        sources: the sample.
        references: human translations of the sample, if there are any.
        quantize: what quantized weights may change; None allows no difference except ties.

    Raises:
        ParityError: a translation differs and is not a tie, or quantization costs more than is allowed.
        UserError: the artefact truncates every sentence of the sample.
    """
    answers = run_artefact(folder, sources)
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
    """Raises ParityError if an artefact differs from its model by more than is allowed."""
    differing, allowed = parity.differing, parity.quantized
    if allowed is None:
        if differing:
            raise ParityError(
                f"The export translates {len(differing)} of {parity.compared} sentences differently from the model, so "
                f"nothing was written. For '{differing[0]['source']}', the export returns "
                f"'{differing[0]['artefact']}' and the model '{differing[0]['model']}'."
            )
    elif parity.bleu_model is not None and parity.bleu_artefact is not None:
        loss = parity.bleu_model - parity.bleu_artefact
        if loss > allowed.max_bleu_loss:
            raise ParityError(
                f"Quantization costs {loss:.2f} BLEU on {parity.compared} sentences, {parity.bleu_artefact:.2f} down "
                f"from {parity.bleu_model:.2f}, but may cost at most {allowed.max_bleu_loss:g}, so nothing was "
                f"written. {ADVICE.format('--max-bleu-loss')}"
            )
    elif len(differing) > allowed.max_differing * parity.compared:
        raise ParityError(
            f"With quantized weights, {len(differing)} of {parity.compared} translations differ from the model's. "
            f"Without references at most {allowed.max_differing:.0%} may, so nothing was written. "
            f"{ADVICE.format('--max-differing')}"
        )


def run_artefact(folder: Path, sources: Sequence[str]) -> dict[str, Any]:
    """Translates with an artefact in a fresh process without this toolkit; see `nmt.exporting.fresh_process`."""
    with tempfile.TemporaryDirectory() as scratch:
        given, answers = Path(scratch, "sentences.json"), Path(scratch, "answers.json")
        given.write_text(json.dumps(list(sources)))
        run_python([fresh_process.__file__, str(folder), str(given), str(answers)], ParityError)
        return json.loads(answers.read_text())


def run_python(arguments: list[str], failure: type[Exception], environment: dict[str, str] | None = None) -> None:
    """Runs Python without showing its output.

    Raises:
        UserError: it failed because the disk is full.
        failure: it failed otherwise; the message ends with the last lines of its output.
    """
    command = [
        sys.executable,
        "-P",
        "-W",
        "ignore",
        *arguments,
    ]  # -P: do not import files from the folder of the script
    result = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if result.returncode:
        # Python, TensorFlow and LiteRT each have an exception of their own for this; the words are the system's.
        for words in map(os.strerror, FULL):
            if words in result.stdout:
                raise UserError(f"A process of the export could not write a file, so nothing was written: {words}.")
        last = "\n".join(result.stdout.splitlines()[-20:])
        raise failure(f"A process of the export exited with code {result.returncode}:\n{last}")


def compare(
    translator: ModelTranslator,
    sources: Sequence[str],
    expected: Sequence[Hypothesis],
    answers: dict[str, Any],
    references: Sequence[str] | None,
    costs: Costs,
) -> Parity:
    """Compares the model's translations with the answers of `run_artefact`, sentence by sentence."""
    whole = [n for n, truncated in enumerate(answers["truncated"]) if not truncated]
    if not whole:
        raise UserError(
            "The export truncates every sentence of the sample. Expected at least one that is short enough to compare."
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
    """Returns the log-probability of a translation by the model, in nats, including its EOS if it has one.

    Like that of the search, it includes `decoding.repetition_penalty`.
    """
    source_ids = [*translator.source_tokenizer.encode([source])[0], EOS_ID]
    logits, _ = translator.model.read(np.array([source_ids], "int32"), np.array([target_ids], "int32"))
    log_probs = ops.convert_to_numpy(ops.log_softmax(logits, axis=-1))
    chosen = log_probs[0, np.arange(len(target_ids)), target_ids]
    is_repeated = [one in target_ids[:place] for place, one in enumerate(target_ids)]
    return float(np.where(is_repeated, translator.settings.repetition_penalty * chosen, chosen).sum())


def _translate(translator: ModelTranslator, sources: Sequence[str]) -> tuple[list[Hypothesis], float]:
    """Returns the best translation of each sentence, and sentences per second without the first call."""
    translator.translate(sources[: fresh_process.BATCH_SIZE], split=False)
    started = time.perf_counter()
    found = [translation.best for translation in translator.stream(sources, split=False)]
    return found, len(sources) / (time.perf_counter() - started)


def _count_bytes(path: Path) -> int:
    """Returns the size of a file, or of all files in a folder."""
    return sum(part.stat().st_size for part in (path, *path.rglob("*")) if part.is_file())


def _is_tie(translator: ModelTranslator, source: str, expected: Hypothesis, answers: dict[str, Any], n: int) -> bool:
    if answers["nbest_translations"][n] != answers["translations"][n]:
        return False  # the signatures disagree, and only nbest returns its tokens
    ids = _ids(translator.target_tokenizer, answers["target_tokens"][n])
    assert expected.log_prob is not None, "models return it"
    return bool(ids) and abs(compute_log_prob(translator, source, ids) - expected.log_prob) < TIE


def _ids(tokenizer: Tokenizer, tokens: Sequence[str]) -> list[int]:
    ids = {tokenizer.get_token(one): one for one in range(tokenizer.vocabulary_size)}
    return [ids[token] for token in tokens]
