"""The text that all systems share, cut by one SentencePiece model: Multi30k where it is at hand, else the demo corpus.

Peers read pieces that were cut beforehand and write pieces; ours reads and writes text, and cuts it on the way. That is
a gift to them: nobody can say that a peer was slowed down by its tokenizer.
"""

import json
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.settings import MAX_LENGTH, NUM_PIECES
from nmt.data.corpus import read_lines
from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.demo.corpus import make_demo_corpus

ROOT = Path(__file__).parent.parent
SOURCE, TARGET = "en", "de"
# The demonstration's grammar has few words.
DEMO_PIECES = 1500
SPECIAL_IDS = range(4)
NUM_DEV = 200


@dataclass(frozen=True)
class Text:
    """A folder with PART.en and PART.de as people write them, PART.pieces.en and PART.pieces.de, and the model."""

    folder: Path
    name: str
    """In words, for the page."""
    num_train: int
    num_pieces: int
    """In the vocabulary."""
    source_length: float
    """Mean pieces of a training source, EOS counted."""
    target_length: float
    """Mean pieces of a training target, EOS counted."""

    def prefix(self, part: str, *, pieces: bool) -> Path:
        """What stands before .en and .de of train, dev or test: text, or its pieces with spaces between."""
        return self.folder / (f"{part}.pieces" if pieces else part)

    def file(self, part: str, language: str, *, pieces: bool = False) -> Path:
        """One side of a part."""
        return self.folder / f"{self.prefix(part, pieces=pieces).name}.{language}"

    @property
    def tokenizer(self) -> Path:
        """The SentencePiece model of both languages."""
        return self.folder / "joint.model"

    @property
    def vocabulary(self) -> Path:
        """Its pieces, one a line, without the four special ones, which each system has of its own."""
        return self.folder / "vocabulary.txt"

    def joined(self, lines: Iterable[str]) -> list[str]:
        """The text of lines of pieces, for peers' translations; what is no piece, such as <unk>, leaves no trace."""
        places = {piece: place for place, piece in enumerate(read_lines(self.vocabulary), start=len(SPECIAL_IDS))}
        ids = [[places[piece] for piece in line.split(" ") if piece in places] for line in lines]
        return Tokenizer.load(self.tokenizer).decode(ids)


def make_text(folder: Path) -> Text:
    """Lays the shared text out in a folder, or finds it there."""
    facts = folder / "text.json"
    if not facts.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        found = _write_text(folder)
        facts.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return Text(folder=folder, **json.loads(facts.read_text(encoding="utf-8")))


def multi30k() -> Path | None:
    """The folder of Multi30k: in NMT_MIRROR, or beside the repository; None where it is not at hand."""
    mirrors = [os.environ.get("NMT_MIRROR"), ROOT.parent / "shared" / "data"]
    folders = [Path(mirror) / "multi30k" for mirror in mirrors if mirror]
    return next((folder for folder in folders if (folder / "train.en.gz").is_file()), None)


def _write_text(folder: Path) -> dict:
    home = multi30k()
    if home is None:
        make_demo_corpus(folder / "demo", seed=1)
        name, num_pieces = "the demo corpus (`nmt.demo.corpus`, seed 1)", DEMO_PIECES
        parts = {part: (folder / "demo", part, "") for part in ("train", "dev", "test")}
    else:
        name, num_pieces = "Multi30k, English to German", NUM_PIECES
        parts = {
            "train": (home, "train", ".gz"),
            "dev": (home, "val", ".gz"),
            "test": (home, "test_2016_flickr", ".gz"),
        }
    # Only ours reads the dev text, at the end of training, and in no figure of speed.
    longest = {"dev": NUM_DEV}
    sides = {
        part: [read_lines(where / f"{stem}.{language}{ending}")[: longest.get(part)] for language in (SOURCE, TARGET)]
        for part, (where, stem, ending) in parts.items()
    }
    tokenizer = train_tokenizer([*sides["train"][0], *sides["train"][1]], kind="unigram", vocabulary_size=num_pieces)
    tokenizer.save(folder / "joint.model")
    _write(folder / "vocabulary.txt", (tokenizer.piece(n) for n in range(len(SPECIAL_IDS), tokenizer.vocabulary_size)))
    lengths = {part: _write_part(folder, part, pairs, tokenizer) for part, pairs in sides.items()}
    num_train = len(lengths["train"])
    return {
        "name": name,
        "num_train": num_train,
        "num_pieces": tokenizer.vocabulary_size,
        "source_length": 1 + sum(source for source, _ in lengths["train"]) / num_train,
        "target_length": 1 + sum(target for _, target in lengths["train"]) / num_train,
    }


def _write_part(folder: Path, part: str, sides: Sequence[list[str]], tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """Writes the pairs that every system can read, and returns their lengths in pieces."""
    kept = []
    for source, target in zip(*sides, strict=True):
        pieces = tokenizer.pieces(source), tokenizer.pieces(target)
        # Only of training is anything left out: each system has its own way with what is empty or too long.
        if part != "train" or all(1 <= len(side) < MAX_LENGTH for side in pieces):
            kept.append((source, target, *pieces))
    _write(folder / f"{part}.{SOURCE}", (pair[0] for pair in kept))
    _write(folder / f"{part}.{TARGET}", (pair[1] for pair in kept))
    _write(folder / f"{part}.pieces.{SOURCE}", (" ".join(pair[2]) for pair in kept))
    _write(folder / f"{part}.pieces.{TARGET}", (" ".join(pair[3]) for pair in kept))
    return [(len(pair[2]), len(pair[3])) for pair in kept]


def noisy(lines: Sequence[str], count: int, *, seed: int) -> Iterator[str]:
    """Repeats lines until there are `count`; after the first round each has a word dropped or two words exchanged."""
    rng = random.Random(seed)
    for n in range(count):
        line = lines[n % len(lines)]
        yield line if n < len(lines) else _disturbed(line, rng)


def _disturbed(line: str, rng: random.Random) -> str:
    words = line.split()
    if len(words) < 3:
        return line
    at = rng.randrange(len(words) - 1)
    if rng.random() < 0.5:
        del words[at]
    else:
        words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words)


def _write(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
