"""Prepares the text that all systems share: Multi30k if it is available, otherwise the demo corpus.

All systems use one SentencePiece model. Peers read and write tokenized text, so their tokenizers cost them no time. nmt
reads and writes plain text and tokenizes it itself.
"""

import json
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.settings import MAX_LENGTH, VOCABULARY_SIZE
from nmt.data.corpus import read_lines
from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.demo.corpus import make_demo_corpus

ROOT = Path(__file__).parent.parent
SOURCE, TARGET = "en", "de"
# The grammar of the demo corpus has few words.
DEMO_VOCABULARY_SIZE = 1500
SPECIAL_IDS = range(4)
NUM_DEV = 200


@dataclass(frozen=True)
class Text:
    """A folder with plain text PART.en and PART.de, the tokens PART.pieces.en and PART.pieces.de, and the tokenizer."""

    folder: Path
    name: str
    """Name on the page."""
    num_train: int
    vocabulary_size: int
    source_length: float
    """Mean tokens of a training source, with EOS."""
    target_length: float
    """Mean tokens of a training target, with EOS."""

    def get_prefix(self, part: str, *, tokens: bool) -> Path:
        """Returns the path of train, dev or test without its language suffix, as plain text or as tokens."""
        return self.folder / (f"{part}.pieces" if tokens else part)

    def get_file(self, part: str, language: str, *, tokens: bool = False) -> Path:
        """Returns the file of one language."""
        return self.folder / f"{self.get_prefix(part, tokens=tokens).name}.{language}"

    @property
    def tokenizer(self) -> Path:
        """Path of the SentencePiece model of both languages."""
        return self.folder / "joint.model"

    @property
    def vocabulary(self) -> Path:
        """Path of the vocabulary, one token per line. Special tokens are left out, because each system has its own."""
        return self.folder / "vocabulary.txt"

    def join_tokens(self, lines: Iterable[str]) -> list[str]:
        """Detokenizes the translations of peers."""
        return join_tokens(Tokenizer.load(self.tokenizer), lines)

    def describe(self) -> dict[str, Any]:
        """Returns what is stored about it. The size of the vocabulary has an older name there."""
        facts = {name: value for name, value in asdict(self).items() if name not in ("folder", "vocabulary_size")}
        return {**facts, "num_pieces": self.vocabulary_size}


def make_text(folder: Path) -> Text:
    """Prepares the shared text in a folder, unless it is there already."""
    facts = folder / "text.json"
    if not facts.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        text = _write_text(folder)
        facts.write_text(json.dumps(text.describe(), indent=2) + "\n", encoding="utf-8")
    stored = json.loads(facts.read_text(encoding="utf-8"))
    return Text(folder=folder, vocabulary_size=stored.pop("num_pieces"), **stored)


def find_multi30k() -> Path | None:
    """Finds the folder of Multi30k in NMT_MIRROR or next to the repository, or returns None."""
    mirrors = [os.environ.get("NMT_MIRROR"), ROOT.parent / "shared" / "data"]
    folders = [Path(mirror) / "multi30k" for mirror in mirrors if mirror]
    return next((folder for folder in folders if (folder / "train.en.gz").is_file()), None)


def _write_text(folder: Path) -> Text:
    home = find_multi30k()
    if home is None:
        make_demo_corpus(folder / "demo", seed=1)
        name, size = "Demo corpus (`nmt.demo.corpus`, seed 1)", DEMO_VOCABULARY_SIZE
        parts = {part: (folder / "demo", part, "") for part in ("train", "dev", "test")}
    else:
        name, size = "Multi30k, English to German", VOCABULARY_SIZE
        parts = {
            "train": (home, "train", ".gz"),
            "dev": (home, "val", ".gz"),
            "test": (home, "test_2016_flickr", ".gz"),
        }
    # Only nmt reads the dev text, at the end of training, when no speed is measured.
    longest = {"dev": NUM_DEV}
    sides = {
        part: [read_lines(where / f"{stem}.{language}{ending}")[: longest.get(part)] for language in (SOURCE, TARGET)]
        for part, (where, stem, ending) in parts.items()
    }
    tokenizer = train_tokenizer([*sides["train"][0], *sides["train"][1]], kind="unigram", vocabulary_size=size)
    tokenizer.save(folder / "joint.model")
    write_lines(folder / "vocabulary.txt", list_tokens(tokenizer))
    lengths = {part: _write_part(folder, part, pairs, tokenizer) for part, pairs in sides.items()}
    num_train = len(lengths["train"])
    return Text(
        folder,
        name,
        num_train=num_train,
        vocabulary_size=tokenizer.vocabulary_size,
        source_length=1 + sum(source for source, _ in lengths["train"]) / num_train,
        target_length=1 + sum(target for _, target in lengths["train"]) / num_train,
    )


def _write_part(folder: Path, part: str, sides: Sequence[list[str]], tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """Writes the pairs that every system can read, and returns their lengths in tokens."""
    kept = []
    for source, target in zip(*sides, strict=True):
        tokens = tokenizer.tokenize(source), tokenizer.tokenize(target)
        # Systems differ in how they train on empty or long sentences, so such pairs are left out of training.
        if part != "train" or all(1 <= len(side) < MAX_LENGTH for side in tokens):
            kept.append((source, target, *tokens))
    write_lines(folder / f"{part}.{SOURCE}", (pair[0] for pair in kept))
    write_lines(folder / f"{part}.{TARGET}", (pair[1] for pair in kept))
    write_lines(folder / f"{part}.pieces.{SOURCE}", (" ".join(pair[2]) for pair in kept))
    write_lines(folder / f"{part}.pieces.{TARGET}", (" ".join(pair[3]) for pair in kept))
    return [(len(pair[2]), len(pair[3])) for pair in kept]


def add_noise(lines: Sequence[str], count: int, *, seed: int) -> Iterator[str]:
    """Repeats lines until there are `count`. Every repeated line has one word dropped or two words swapped."""
    rng = random.Random(seed)
    for n in range(count):
        line = lines[n % len(lines)]
        yield line if n < len(lines) else _disturb(line, rng)


def _disturb(line: str, rng: random.Random) -> str:
    words = line.split()
    if len(words) < 3:
        return line
    at = rng.randrange(len(words) - 1)
    if rng.random() < 0.5:
        del words[at]
    else:
        words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words)


def list_tokens(tokenizer: Tokenizer) -> list[str]:
    """Returns the tokens in the order of their ids, without the special ones: each system has its own."""
    return [tokenizer.get_token(n) for n in range(len(SPECIAL_IDS), tokenizer.vocabulary_size)]


def join_tokens(tokenizer: Tokenizer, lines: Iterable[str]) -> list[str]:
    """Joins the tokens of each line to text. Tokens that the tokenizer does not have, such as <unk>, are dropped."""
    ids = {token: n for n, token in enumerate(list_tokens(tokenizer), start=len(SPECIAL_IDS))}
    return tokenizer.decode([[ids[token] for token in line.split(" ") if token in ids] for line in lines])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes one line per entry."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
