"""The demo: generates a corpus, trains a model on it, scores it, exports it, and translates with the export."""

import json
from collections.abc import Callable
from pathlib import Path

from nmt.config.schema import Config
from nmt.data.corpus import read_lines
from nmt.demo.corpus import make_demo_corpus
from nmt.demo.scoring import score_phenomena, translate_word_by_word
from nmt.evaluation.metrics import bleu
from nmt.files import atomic_write, discard
from nmt.translators.opening import open_translator

NUM_EXAMPLES = 5

Log = Callable[[str], None]


def run_demo(settings: Config, *, seed: int, log: Log = print) -> None:
    """Runs the demo from the corpus to the export.

    A corpus with the same seed is reused, and an interrupted training resumes.

    Args:
        settings: configuration of the training; the corpus is written to the folder of its training text.
        seed: seed of the corpus.
        log: receives one message at a time.
    """
    # Importing TensorFlow takes seconds, so the corpus is generated first.
    folder = settings.data.train[0].source.parent
    _make_corpus(folder, seed, log)
    from nmt.training.train import train

    train(settings, log=log)
    run = Path(str(settings.run_dir))
    _score(run, folder, log)
    _export(run, folder, log)


def _make_corpus(folder: Path, seed: int, log: Log) -> None:
    stored_seed = folder / "seed.txt"
    is_stored = stored_seed.is_file() and stored_seed.read_text("utf-8") == f"{seed}\n"
    if is_stored and (folder / "train.en").is_file():
        log(f"Using the corpus in {folder}.")
        return
    discard(stored_seed)  # until the corpus is complete
    report = make_demo_corpus(folder, seed=seed)
    with atomic_write(stored_seed) as aside:
        aside.write_text(f"{seed}\n", encoding="utf-8")
    log(
        f"Generated a corpus in {folder}: {report.num_train:,} sentence pairs for training, {report.num_dev:,} for "
        f"development and {report.num_test:,} for testing."
    )


def _score(run: Path, folder: Path, log: Log) -> None:
    """Reports the scores of the model, BLEU of a word-by-word baseline, and the accuracy of each phenomenon."""
    from nmt.evaluation.evaluate import evaluate, report

    result = evaluate(open_translator(run), folder / "test.en", folder / "test.de")
    sources, references = read_lines(folder / "test.en"), read_lines(folder / "test.de")
    baseline = bleu([translate_word_by_word(line) for line in sources], references, target_language="de")
    log(
        f"\nScores on test sentences, whose word combinations never occur in training:\n{report(result, as_json=False)}"
    )
    log(f"BLEU of translating word by word: {baseline:.2f}")
    log("\nWords translated correctly, by grammatical phenomenon:")
    tags = [json.loads(line) for line in read_lines(folder / "test.tags.jsonl")]
    for name, share in score_phenomena(result.hypotheses, references, tags).items():
        log(f"  {name.replace('_', ' '):<17} {100 * share:5.1f} %")


def _export(run: Path, folder: Path, log: Log) -> None:
    """Exports the model as a SavedModel, and reports whether both translate some sentences alike."""
    from nmt.exporting.savedmodel import export

    sentences = read_lines(folder / "test.en")[:NUM_EXAMPLES]
    # The last example is a text of two sentences, translated at once, since the signatures of an export do not split.
    sentences.append(" ".join(sentences[:2]))
    # Exports compute in float32. In bfloat16, the model could differ from them by rounding.
    from_model = open_translator(run, precision="float32").translate(sentences, split=False)
    version = export(run, run / "export", log=log)
    from_export = open_translator(version).translate(sentences, split=False)
    log(f"\nExamples, translated by the model and by the export {version}:")
    for source, model, exported in zip(sentences, from_model, from_export, strict=True):
        log(f"  {source}\n    model:  {model}\n    export: {'the same' if exported == model else exported}")
