"""Finds the training sentences whose attentional states are nearest to the one that chose a word.

An index is a folder:

    index.json        format, fingerprint of the model, sizes, digest of the sentences
    states.KEY.npy    float16 [N, L], the attentional states that predict the tokens of training sentences
    starts.KEY.npy    int64 [I + 1], where the states of each sentence begin; the last one is N
    sentences.jsonl   file, line, source and target of each sentence

States are the keys, and tokens the values, of nearest-neighbour machine translation (Khandelwal et al. 2021). Here they
explain a word instead of choosing it.

N target tokens of I sentences, L units of the attentional state, T target tokens of an inspected sentence, K
neighbours.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nmt.compilation import compile_function
from nmt.config.schema import AugmentConfig, Config, PlaceholderConfig
from nmt.data.batching import split_chunks
from nmt.data.corpus import CHUNK_BYTES, DamagedCacheError, map_array, open_growing_array
from nmt.data.preparation import TrainingData, prepare_training_data
from nmt.data.tokenizer import BOS_ID, EOS_ID
from nmt.decoding.forced import MAX_WEIGHTS, Pair, pad_rows, split_batches
from nmt.errors import FormatError, UserError
from nmt.files import (
    atomic_replace,
    compute_file_digest,
    discard,
    get_current_version,
    read_limited,
    start_digest,
)
from nmt.model_folder import INDEX, ModelFolder, find_model_folder
from nmt.models.decoder import shift_right
from nmt.models.direction import reverse_targets
from nmt.models.seq2seq import Seq2Seq
from nmt.translators.model import ModelTranslator
from nmt.weights import get_arrays

FORMAT, RECORD, SENTENCES = 1, "index.json", "sentences.jsonl"
MAX_RECORD_BYTES = 1 << 16
NUM_TOKENS, NUM_NEIGHBOURS = 100_000, 3
CHUNK = 1024  # sentences that are read, and sorted by length, at once
BLOCK_BYTES = 1 << 25  # of states that are compared at once, as float64


class Sentence(NamedTuple):
    """A training pair and where it is from."""

    file: str
    line: int
    """From 1."""
    source: str
    target: str


@dataclass(frozen=True)
class Neighbour:
    """A place in a training sentence where the model was in a similar state."""

    distance: float
    """Euclidean distance of the two attentional states."""
    sentence: Sentence
    tokens: Sequence[str]
    """Those of the sentence's target, with EOS."""
    position: int
    """Index of the token that the state predicts."""

    @property
    def token(self) -> str:
        """The token that the state predicts."""
        return self.tokens[self.position]

    def split_text(self) -> tuple[str, str, str]:
        """Returns the text of the target before the token, the token, and the text after it, as it is tokenized."""
        sides = self.tokens[: self.position], self.tokens[self.position + 1 : -1]
        before, after = ("".join(side).replace("▁", " ") for side in sides)
        token = self.token.replace("▁", " ")
        space = " " if token.startswith(" ") else ""
        return f"{before}{space}".lstrip(), token.removeprefix(" "), after

    @property
    def location(self) -> str:
        """File and line of the source."""
        return f"{self.sentence.file}:{self.sentence.line}"


class IndexRecord(NamedTuple):
    """The content of index.json."""

    fingerprint: str
    """Identifies the model that computed the states."""
    num_sentences: int
    num_tokens: int
    units: int
    sentences_digest: str

    @property
    def num_bytes(self) -> int:
        """Bytes of the states."""
        return 2 * self.num_tokens * self.units


def build_index(run: Path, into: Path | None = None, *, num_tokens: int = NUM_TOKENS) -> IndexRecord:
    """Stores the attentional states of a sample of the training tokens of a model.

    The sample consists of whole sentences, different from each other, of those that cleaning keeps. The same text
    gives the same sample.

    Args:
        run: run folder (its best model) or model folder. The training text must be where its configuration says.
        into: folder of the index, which is replaced if it exists; `index` in the run folder by default.
        num_tokens: most target tokens of the sample, EOS included.

    Raises:
        UserError: there is no such model, the text is missing, every sentence is longer than `num_tokens`, or the
            folder is not an index or cannot be written.
    """
    folder = find_model_folder(run)
    into = into or run / INDEX
    if into.exists() and not (into / RECORD).is_file():
        raise UserError(f"{into} exists and is not an index: there is no {RECORD} in it. Expected a new name.")
    translator = ModelTranslator.load(folder, precision="float32")
    model = translator.model
    assert isinstance(model, Seq2Seq)
    fingerprint = compute_fingerprint(translator)
    with atomic_replace(into) as aside:
        aside.mkdir()
        data = _read_text(ModelFolder.load(folder).config, folder, run / "cache", aside / "cache")
        chosen = _choose_pairs(data, num_tokens)
        num_sentences = total = 0
        with (
            open_growing_array(_name_array(aside, "states", fingerprint), "<f2", columns=_count_units(model)) as append,
            open_growing_array(_name_array(aside, "starts", fingerprint), "<i8") as append_start,
            (aside / SENTENCES).open("w", encoding="utf-8") as sentences,
        ):
            append_start(np.array([0]))
            for sentence, states in _read_states(model, data, chosen):
                append(states)
                total += len(states)
                num_sentences += 1
                append_start(np.array([total]))
                sentences.write(json.dumps(sentence, ensure_ascii=False) + "\n")
        discard(aside / "cache")
        digest = compute_file_digest(aside / SENTENCES)
        record = IndexRecord(fingerprint, num_sentences, total, _count_units(model), digest)
        (aside / RECORD).write_text(json.dumps({"format": FORMAT, **record._asdict()}) + "\n", encoding="utf-8")
    return record


class NeighbourIndex:
    """An index in a folder. States stay on the disk, of which one block at a time is read.

    Args:
        folder: written by `build_index`.
        translator: the model that it was made from, in float32.

    Raises:
        FormatError: another version of nmt wrote the index.
        UserError: there is no index, it is damaged, or it was made from another model.
    """

    def __init__(self, folder: Path, translator: ModelTranslator):
        folder = get_current_version(folder)
        record = _read_record(folder)
        if record.fingerprint != compute_fingerprint(translator):
            raise UserError(
                f"{folder} is stale: its states are those of another model than this one, or of this model in another "
                "precision. Run nmt index again, or remove the folder."
            )
        self._tokenizer = translator.target_tokenizer
        self._sentences = folder / SENTENCES
        try:
            self._states, self._starts = (
                map_array(_name_array(folder, name, record.fingerprint)) for name in ("states", "starts")
            )
        except (FileNotFoundError, DamagedCacheError) as error:
            raise UserError(f"{folder} is damaged: {error}. Run nmt index again.") from error
        sizes = (len(self._starts) - 1, *self._states.shape)
        if sizes != record[1:4] or compute_file_digest(self._sentences) != record.sentences_digest:
            raise UserError(f"{folder} is damaged: its files do not belong together. Run nmt index again.")

    def find_neighbours(self, states: np.ndarray, count: int = NUM_NEIGHBOURS) -> list[list[Neighbour]]:
        """Finds the sentences with the nearest states, by exact search.

        Args:
            states: [T, L].
            count: K.

        Returns:
            For each state the K nearest sentences, nearest first, each at its nearest place; fewer if the index has
            fewer.
        """
        queries = np.asarray(states, "float64")
        sentences = self._search(queries, min(count, len(self._starts) - 1))
        found = _read_sentences(self._sentences, set(sentences.ravel().tolist()))
        return [
            [self._place(query, found[number], number) for number in row]
            for query, row in zip(queries, sentences.tolist(), strict=True)
        ]

    def _search(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Returns the numbers of the nearest sentences, [T, K]."""
        distances, best = np.full((len(queries), count), np.inf), np.full((len(queries), count), -1)
        for first, last in self._split_blocks():
            starts = self._starts[first:last]
            states = self._states[starts[0] : self._starts[last]].astype("float64")
            # Squared distances but for the square of the query, which changes no order.
            squares = np.square(states).sum(axis=1) - 2 * queries @ states.T
            nearest = np.minimum.reduceat(squares, starts - starts[0], axis=1)  # [T, sentences of the block]
            numbers = np.broadcast_to(np.arange(first, last), nearest.shape)
            nearest, numbers = np.append(distances, nearest, axis=1), np.append(best, numbers, axis=1)
            order = np.argsort(nearest, axis=1, kind="stable")[:, :count]
            distances, best = np.take_along_axis(nearest, order, axis=1), np.take_along_axis(numbers, order, axis=1)
        return best

    def _split_blocks(self) -> Iterator[tuple[int, int]]:
        """Yields the first sentence of each block, and the one after its last."""
        rows = max(1, BLOCK_BYTES // (8 * self._states.shape[1]))
        bounds = [0]
        while bounds[-1] < len(self._starts) - 1:
            end = np.searchsorted(self._starts, self._starts[bounds[-1]] + rows, side="right") - 1
            bounds.append(max(int(end), bounds[-1] + 1))
        yield from pairwise(bounds)

    def _place(self, query: np.ndarray, sentence: Sentence, number: int) -> Neighbour:
        states = self._states[self._starts[number] : self._starts[number + 1]].astype("float64")
        distances = np.linalg.norm(states - query, axis=1)
        position = int(distances.argmin())
        tokens = [*self._tokenizer.tokenize(sentence.target), self._tokenizer.get_token(EOS_ID)]
        return Neighbour(float(distances[position]), sentence, tokens, position)


def find_index(run: Path) -> Path | None:
    """Returns the index in a run or model folder, or None."""
    folder = get_current_version(run / INDEX)
    return folder if (folder / RECORD).is_file() else None


def open_index(folder: Path | None, run: Path | None, translator: ModelTranslator) -> tuple[NeighbourIndex | None, str]:
    """Opens the index in a folder or, without one, that of a run or model folder.

    Returns:
        The index, or None, and why that of the run cannot be used, in words: further training makes it stale.

    Raises:
        UserError: the folder was given and holds no index of this model.
    """
    if folder is not None:
        return NeighbourIndex(folder, translator), ""
    own = find_index(run) if run else None
    if own is None:
        return None, ""
    try:
        return NeighbourIndex(own, translator), ""
    except UserError as error:
        return None, f"The nearest training sentences are left out. {error}"


def compute_fingerprint(translator: ModelTranslator) -> str:
    """Returns a digest of the weights of a model and of its tokenizers."""
    digest = start_digest()
    for name, array in sorted(get_arrays(translator.model.trainable_variables).items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    for tokenizer in (translator.source_tokenizer, translator.target_tokenizer):
        digest.update(tokenizer.fingerprint.encode())
    return digest.hexdigest()


def _read_text(config: Config, folder: Path, cache: Path, new_cache: Path) -> TrainingData:
    """Returns the text that a model was trained on, one example per pair, as it is when nothing is drawn at random."""
    plain: dict[str, Any] = {"join_pairs": 0.0, "replace_tokens": 0.0, "augment": AugmentConfig()}
    plain["placeholders"] = PlaceholderConfig()
    # The cache of the run is used if it is there. Its files are of the same text, and named after it.
    caches = [one for one in (config.data.cache, cache) if one is not None and one.is_dir()]
    plain["cache"] = caches[0] if caches else new_cache
    tokenizer = config.tokenizer.model_copy(update={"sampling_alpha": None})
    training = config.training.model_copy(update={"guided_alignment": 0.0})  # whose links are not needed here
    data = config.data.model_copy(update=plain)
    changed = config.model_copy(update={"data": data, "tokenizer": tokenizer, "training": training})
    return prepare_training_data(changed, folder, log=lambda line: None)


def _choose_pairs(data: TrainingData, num_tokens: int) -> np.ndarray:
    """Returns examples in random order that have at most so many target tokens together."""
    order = np.random.default_rng(0).permutation(len(data.kept))
    chosen = order[np.cumsum(data.lengths[order, 1], dtype=np.int64) <= num_tokens]
    if not len(chosen):
        raise UserError(
            f"Expected room for a sentence, found {num_tokens:,} tokens: the first one has "
            f"{data.lengths[order[0], 1]:,}."
        )
    return data.kept[chosen]


def _read_states(model: Seq2Seq, data: TrainingData, chosen: np.ndarray) -> Iterator[tuple[Sentence, np.ndarray]]:
    """Yields different sentence pairs and their states, float32 [tokens, L], in reading order."""
    run = compile_function(lambda *ids: read_states(model, *ids), model.variables, num_inputs=2)
    seen: set[tuple[str, str]] = set()
    for numbers in split_chunks(chosen.tolist(), CHUNK):
        pairs = np.array(numbers)
        sides = data.tokenized.read_ids(pairs, epoch=0, batch=0)
        texts = data.texts.read_texts(pairs, 0)
        rows = []
        for number, source, target, *text in zip(numbers, *sides, *texts, strict=True):
            if tuple(text) not in seen:
                seen.add((text[0], text[1]))
                file, _, line = data.corpus.locate(number).rpartition(":")
                rows.append(((list(source), list(target)), Sentence(file, int(line), *text)))
        rows.sort(key=lambda row: (len(row[0][1]), len(row[0][0])))
        found = _run_batches(run, [pair for pair, _ in rows], _count_units(model))
        yield from ((sentence, states) for (_, sentence), states in zip(rows, found, strict=True))


def _run_batches(run: Any, pairs: Sequence[Pair], units: int) -> Iterator[np.ndarray]:
    for batch in split_batches(pairs, MAX_WEIGHTS, units):
        states = np.asarray(run(*(pad_rows(side) for side in zip(*batch, strict=True))))
        for (_, target), row in zip(batch, states, strict=True):
            yield row[: len(target) + 1]


def read_states(model: Seq2Seq, source: Any, target: Any) -> Any:
    """Returns the states [B, T, L] that predict the tokens of translations int [B, T] of sources int [B, S]."""
    order = reverse_targets(target) if model.right_to_left else target
    states = model(source, shift_right(order, BOS_ID)).states
    return reverse_targets(target, states) if model.right_to_left else states


def _count_units(model: Seq2Seq) -> int:
    return model.decoder.output_units


def _name_array(folder: Path, name: str, fingerprint: str) -> Path:
    return folder / f"{name}.{fingerprint[:12]}.npy"


def _read_record(folder: Path) -> IndexRecord:
    path = folder / RECORD
    if not path.is_file():
        raise UserError(f"{folder} is not an index: expected {RECORD} in it. nmt index writes one.")
    try:
        values = json.loads(read_limited(path, MAX_RECORD_BYTES))
        found = values.pop("format")
        if found == FORMAT:
            return IndexRecord(**values)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__}: {error}. Run nmt index again.") from error
    raise FormatError(f"{path} has format {found}, but this version of nmt reads format {FORMAT}. Run nmt index again.")


def _read_sentences(path: Path, numbers: set[int]) -> dict[int, Sentence]:
    """Returns the sentences with these numbers, without holding others in memory."""
    with path.open(encoding="utf-8", buffering=CHUNK_BYTES) as lines:
        return {number: Sentence(*json.loads(line)) for number, line in enumerate(lines) if number in numbers}
