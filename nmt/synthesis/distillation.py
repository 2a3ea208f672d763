"""Sequence-level knowledge distillation (Kim and Rush 2016): a student learns from the teacher's translations."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.config.schema import Config
from nmt.errors import UserError, suggest_name
from nmt.evaluation.metrics import SENTENCE_METRICS, make_sentence_metric
from nmt.model_folder import CONFIG
from nmt.synthesis.pairs import Line, PairMaker, Text, make_synthetic_pairs, read_stored_config
from nmt.translators.protocol import Translator


@dataclass(frozen=True)
class Distillation(PairMaker):
    """Pairs of each line and its translation.

    Args:
        nearest: bleu or chrf takes the hypothesis of the beam that is nearest to the reference (sequence-level
            interpolation in Kim and Rush 2016); None takes the best one.
    """

    nearest: str | None = None

    @property
    def record(self) -> dict[str, Any]:
        """What the pairs depend on."""
        return {"command": "nmt distill", "nearest": self.nearest or "none"}

    def make_pairs(self, translator: Translator, text: Text, lines: Sequence[Line]) -> Iterable[tuple[str, str]]:
        """Returns each line and its translation."""
        sources = [line.text for line in lines]
        if tag := text.entry.get("tag"):
            translator = translator.with_settings(tag=tag)
        if self.nearest is None:
            return zip(sources, translator.translate(sources), strict=True)
        measure = make_sentence_metric(self.nearest, translator.target_language)
        translations = translator.stream(sources, n_best=_count_hypotheses(translator))
        return (
            # The first of equals, which the model prefers.
            (line.text, max((one.text for one in translation.hypotheses), key=lambda text: measure(text, reference)))
            for line, translation in zip(lines, translations, strict=True)
            for reference in [line.reference]
        )


def distill(
    model: Path,
    *,
    into: Path,
    config: Config | None = None,
    sources: Sequence[Path] = (),
    nearest: str | None = None,
    settings: Mapping[str, Any] | None = None,
    workers: int | None = None,
    address: str | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Translates the training text of a configuration.

    Args:
        model: the teacher: a run folder, a model folder, an ensemble or an export.
        into: folder for the pairs.
        config: the configuration whose training text is translated; None means the model's own.
        sources: files to translate instead of training text.
        nearest: see `Distillation`.
        settings: decoding settings that replace the model's.
        workers: see `nmt.cluster.pool.translate_missing`.
        address: see `nmt.cluster.pool.translate_missing`.
        log: prints a line.

    Returns:
        The fragment: a YAML file with the entries of `data.train`.

    Raises:
        UserError: see `make_synthetic_pairs`, or the options do not go together.
        InterruptionError: a signal arrived; what is finished stays.
    """
    if nearest is not None and nearest not in SENTENCE_METRICS:
        raise UserError(
            f"--nearest: expected {' or '.join(SENTENCE_METRICS)}, found '{nearest}'."
            f"{suggest_name(nearest, SENTENCE_METRICS)}"
        )
    if sources and config:
        raise UserError("--source and --config both say what to translate; give one of the two.")
    if sources and nearest:
        raise UserError("--nearest needs references, which text given by --source does not have.")
    texts = [Text(path) for path in sources]
    if not sources:
        chosen = _choose_config(model, config)
        texts = _list_texts(chosen, with_references=bool(nearest))
        for files in chosen.data.train:
            if files.weights:
                log(f"{files.weights}: the pairs have no sentence weights, since some lines may be left out.")
            if files.alignments:
                log(f"{files.alignments}: the pairs have no word alignments, since their targets differ.")
    return make_synthetic_pairs(
        model,
        texts,
        Distillation(nearest),
        into=into,
        name="distilled",
        settings=settings,
        workers=workers,
        address=address,
        log=log,
    )


def _choose_config(model: Path, config: Config | None) -> Config:
    own = read_stored_config(model)
    if config is None and own is None:
        raise UserError(f"{model} has no {CONFIG} that lists training text. Give a configuration with --config.")
    if config and own:
        _check_languages(config, own)
    return config or own  # type: ignore[return-value]


def _check_languages(config: Config, own: Config) -> None:
    asked, known = ((one.data.source_language, one.data.target_language) for one in (config, own))
    if asked != known:
        raise UserError(
            f"--config: the model translates from {known[0]} to {known[1]}; found a configuration for {asked[0]} to "
            f"{asked[1]}."
        )


def _list_texts(config: Config, *, with_references: bool) -> list[Text]:
    return [
        Text(
            files.source,
            files.target if with_references else None,
            # Not the files of sentence weights and word alignments, since some lines may be left out.
            files.model_dump(mode="json", include={"weight", "tag"}, exclude_defaults=True),
        )
        for files in config.data.train
    ]


def _count_hypotheses(translator: Translator) -> int:
    """Returns how many hypotheses to choose from: those of the beam.

    Raises:
        UserError: there is only one.
    """
    count = min(translator.settings.beam_size, translator.max_n_best)
    if count == 1:
        raise UserError("--nearest chooses among the hypotheses of a beam: expected a beam size of 2 or more, found 1.")
    return count
