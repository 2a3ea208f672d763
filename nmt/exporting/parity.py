"""Compares an artefact with its model before it gets its final name: translations, BLEU, speed and size."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nmt.backend import ops
from nmt.compilation import has_gpu
from nmt.data.tokenizer import EOS_ID, Tokenizer
from nmt.decoding.forced import ForcedDecoding
from nmt.decoding.inference import read_log_probs
from nmt.errors import ParityError, UserError
from nmt.evaluation.metrics import bleu
from nmt.exporting import fresh_process
from nmt.exporting.quantization import Quantization
from nmt.files import FULL
from nmt.progress import format_bytes
from nmt.translators.hypothesis import Hypothesis
from nmt.translators.model import ModelTranslator
from nmt.translators.protocol import split_tag

# Difference of log-probability, in nats, up to which rounding decides which of two translations is the best.
TIE = 1e-3
# Difference up to which other outputs are equal: log-probabilities in nats, attention, and probabilities. A text that
# is not the model's, or that does not fit its tokens, differs by infinity.
TOLERANCE = 0.01
GPU_TOLERANCE = 0.2  # on which the model multiplies in TF32, with 10 bits of precision
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
    outputs: dict[str, float] = field(default_factory=dict)
    """Largest difference of other outputs of the first sentences from the model's; see `compare_outputs`."""

    def as_record(self) -> dict[str, Any]:
        """Returns the comparison as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        text = (
            f"Compared {self.compared} sentences in a fresh process: {len(self.differing)} differ, {self.ties} ties, "
            f"{self.truncated} left out as too long."
        )
        if self.outputs:
            text += f" Other outputs differ by at most {max(self.outputs.values()):.1g}."
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
    parity = compare(translator, sources, expected, answers, references, costs)
    outputs = {} if quantize else compare_outputs(translator, sources, answers)
    parity = replace(parity, quantized=quantize, outputs=outputs)
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
        tolerance = GPU_TOLERANCE if has_gpu() else TOLERANCE
        for name, difference in parity.outputs.items():
            if not difference <= tolerance:
                raise ParityError(
                    f"The output {name} of the export differs from the model's by {difference:.2g}, so nothing was "
                    f"written. Expected at most {tolerance:g}."
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


def compare_outputs(
    translator: ModelTranslator, sources: Sequence[str], answers: Mapping[str, Any]
) -> dict[str, float]:
    """Compares all other outputs of the first sentences with the model's, by forced decoding.

    Returns:
        The largest difference by name: `nbest` (log-probabilities and scores of all hypotheses), `attention` and
        `confidence` (theirs), `token_log_probs`, and `complete` and `alternatives` (log-probabilities and
        probabilities), as far as the artefact has them. Infinity if texts differ.
    """
    found: dict[str, float] = {}
    forced = ForcedDecoding(translator.model, translator.source_tokenizer, translator.target_tokenizer)
    rows = zip(sources, answers.get("outputs", ()), answers["truncated"], strict=False)
    for source, outputs, is_truncated in rows:
        if is_truncated or not source.strip() or not any(outputs["nbest"]["target_tokens"][0]):
            continue
        differences = _compare_hypotheses(translator, forced, source, outputs["nbest"])
        differences |= _compare_confidence(translator, source, outputs["nbest"])
        differences["token_log_probs"] = _compare_token_log_probs(translator, forced, source, outputs)
        if "complete" in outputs:
            differences["complete"] = _compare_completed(translator, source, outputs)
            differences["alternatives"] = _compare_alternatives(translator, source, outputs)
        for name, difference in differences.items():
            found[name] = max(found.get(name, 0.0), difference)
    return found


def _compare_hypotheses(
    translator: ModelTranslator, forced: ForcedDecoding, source: str, nbest: Mapping[str, Any]
) -> dict[str, float]:
    settings, attention_difference, differences = translator.settings, 0.0, []
    for rank in range(nbest["num_hypotheses"]):
        tokens = [token for token in nbest["target_tokens"][rank] if token]
        ids = _ids(translator.target_tokenizer, tokens)
        pair = (translator.source_tokenizer.encode([source])[0], ids)
        log_probs = forced.score([pair])[0][: len(ids)]
        attention = forced.read_attention([pair])[0].weights
        log_prob, score = nbest["log_probs"][rank], nbest["scores"][rank]
        differences.append(abs(_sum_penalized(translator, log_probs, ids) - log_prob))
        if not settings.coverage_penalty:
            differences.append(abs(score - log_prob / settings.get_length_penalty(float(len(ids)))))
        if translator.target_tokenizer.decode([ids]) != [nbest["translations"][rank]]:
            differences.append(math.inf)
        weights = np.array(nbest["attention"][rank])[: len(ids), : attention.shape[1]]
        attention_difference = max(attention_difference, float(abs(weights - attention).max()))
    return {"nbest": max(differences), "attention": attention_difference}


def _compare_confidence(translator: ModelTranslator, source: str, nbest: Mapping[str, Any]) -> dict[str, float]:
    """Compares the confidence in all hypotheses; {} if it was not fitted."""
    if translator.fitted_confidence is None:
        return {}
    source = split_tag(source, translator.tags)[1]
    names = ("translations", "scores", "log_probs", "finished")
    rows = zip(*(nbest[name][: nbest["num_hypotheses"]] for name in names), strict=True)
    hypotheses = [Hypothesis(text, score, log_prob, is_finished=end) for text, score, log_prob, end in rows]
    pairs = zip(hypotheses, nbest["confidence"], strict=False)
    return {"confidence": max(abs(translator.fitted_confidence.estimate(source, one) - found) for one, found in pairs)}


def _compare_token_log_probs(
    translator: ModelTranslator, forced: ForcedDecoding, source: str, outputs: Mapping[str, Any]
) -> float:
    """Compares the log-probabilities of the tokens that SentencePiece makes of the best translation."""
    [ids] = translator.target_tokenizer.encode([outputs["nbest"]["translations"][0]])
    if len(ids) >= translator.settings.max_length:
        return 0.0  # the signature truncates it
    [log_probs] = forced.score([(translator.source_tokenizer.encode([source])[0], ids)])
    found = outputs["token_log_probs"]["token_log_probs"]
    return float(abs(np.array(found) - log_probs).max()) if len(found) == len(log_probs) else math.inf


def _compare_completed(translator: ModelTranslator, source: str, outputs: Mapping[str, Any]) -> float:
    [expected] = translator.translate_batch([source], prefixes=[outputs["prefix"]], required=[[outputs["required"]]])
    found = outputs["complete"]
    difference = abs(found["log_prob"] - expected.log_prob)
    return difference if found["translation"] == expected.text or difference < TIE else math.inf


def _compare_alternatives(translator: ModelTranslator, source: str, outputs: Mapping[str, Any]) -> float:
    found = outputs["alternatives"]
    n = len(found["alternatives"])
    [expected] = translator.list_alternatives([source], [outputs["prefix"]], n=n)
    if found["num_alternatives"] != len(expected):
        return math.inf
    here = dict(zip(found["alternatives"], found["probabilities"], strict=True))
    # One that is as improbable as the last one may take its place.
    last = min((one.probability for one in expected), default=0.0)
    return max((abs(here.get(one.text, last) - one.probability) for one in expected), default=0.0)


def _sum_penalized(translator: ModelTranslator, log_probs: np.ndarray, ids: Sequence[int]) -> float:
    """Returns a sum of log-probabilities, with `decoding.repetition_penalty` in the order in which the model writes."""
    penalty, order = translator.settings.repetition_penalty, -1 if translator.model.right_to_left else 1
    log_probs, ids = log_probs[::order], ids[::order]
    is_repeated = [one in ids[:place] for place, one in enumerate(ids)]
    return float(np.where(is_repeated, penalty * log_probs, log_probs).sum())


def compute_log_prob(translator: ModelTranslator, source: str, target_ids: Sequence[int]) -> float:
    """Returns the log-probability of a translation by the model, in nats, including its EOS if it has one.

    Like that of the search, it includes `decoding.repetition_penalty`.
    """
    source_ids = [*translator.source_tokenizer.encode([source])[0], EOS_ID]
    pair = (np.array([source_ids], "int32"), np.array([target_ids], "int32"))
    log_probs = ops.convert_to_numpy(read_log_probs(translator.model, *pair))[0]
    return _sum_penalized(translator, log_probs, target_ids)


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
