"""Text to token ids and back: SentencePiece (Kudo and Richardson 2018) with the same special ids in every model."""

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from nmt.data.subword_sampling import SubwordSampler
from nmt.errors import UserError, suggest_name
from nmt.files import atomic_write
from nmt.streams import open_bytes

PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3
# Far more than a model has. A file may come from anywhere, and a compressed one is unpacked as it is read.
MAX_MODEL_BYTES = 1 << 28
NORMALIZATIONS = ("identity", "nfkc", "nfkc_cf", "nmt_nfkc", "nmt_nfkc_cf")

LINE_BREAKERS = "\0\n\r"
LINE_BREAKING_BYTES = tuple(f"<0x{ord(character):02X}>" for character in LINE_BREAKERS)
RESERVED_TOKEN = re.compile(r"<pad>|<unk>|<s>|</s>|<0x[0-9A-F]{2}>")

# SentencePiece silently drops lines of more than 4,192 bytes. 1,000 characters are 4,000 bytes at most.
MAX_LINE_LENGTH = 1000
# For so few texts, starting SentencePiece's threads takes longer than the work itself.
MAX_TEXTS_WITHOUT_THREADS = 64
# Sums of floating-point numbers depend on the number of threads, so the number must not depend on the machine.
TRAINING_THREADS = 8
LOG_FATAL_ONLY = 3
NOT_A_MODEL = "Expected a SentencePiece model, which training writes to a file named *.model, found something else."

# sentencepiece creates these classes when it is imported, where mypy does not see them.
_ModelProto: Any = sentencepiece_model_pb2.ModelProto  # type: ignore[attr-defined]
_Piece = _ModelProto.SentencePiece
_TrainerSpec: Any = sentencepiece_model_pb2.TrainerSpec  # type: ignore[attr-defined]


class Tokenizer:
    """A SentencePiece model that encodes lines of text as token ids and decodes ids as lines of text.

    Pad is 0, unk 1, bos 2 and eos 3, whichever ids the model came with. Text is passed to SentencePiece unchanged, so
    that a graph with the same model (tensorflow-text) gives the same ids.

    Args:
        model: content of a SentencePiece model file, trained here or elsewhere.

    Raises:
        UserError: the content is not a SentencePiece model.
    """

    def __init__(self, model: bytes) -> None:
        try:
            self._model = normalize_special_ids(model)
            self._processor = _load_processor(self._model)
            self._sampler = _make_sampler(self._model, self._processor)
            self._banned_ids = _find_banned_ids(self._processor)
        except UnicodeDecodeError as error:  # a damaged token
            raise UserError(f"{NOT_A_MODEL} A token is not UTF-8.") from error
        self._skipped_ids = frozenset([PAD_ID, BOS_ID, EOS_ID, *self._banned_ids])

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Reads a model file, trained here or elsewhere.

        Raises:
            UserError: the file is missing, or it is not a SentencePiece model.
        """
        model = _read_model(path)
        try:
            return cls(model)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    @classmethod
    def load_pair(cls, source: Path, target: Path) -> tuple["Tokenizer", "Tokenizer"]:
        """Reads the models of both sides; if the files are equal, as for a joint model, returns one tokenizer twice."""
        first = cls.load(source)
        # The files, because a model from elsewhere has other ids there than here.
        return first, first if _read_model(target) == _read_model(source) else cls.load(target)

    def save(self, path: Path) -> None:
        """Writes the model file, which any SentencePiece program can read."""
        with atomic_write(path) as aside:
            aside.write_bytes(self._model)

    @property
    def model(self) -> bytes:
        """The serialized SentencePiece model, as `save` writes it and as a graph contains it."""
        return self._model

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the model in hexadecimal; equal fingerprints mean equal ids."""
        return hashlib.sha256(self._model).hexdigest()

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, including special and byte tokens. All ids are smaller."""
        return self._processor.get_piece_size()

    @property
    def banned_ids(self) -> list[int]:
        """Ids that a decoder must never produce, because they have no place in a line of text.

        These are pad, bos and all other control tokens except eos; tokens that contain a newline, CR or NUL; and, in a
        model with byte fallback, unk, which no text needs there.
        """
        return list(self._banned_ids)

    @property
    def text_ids(self) -> np.ndarray:
        """Ids of the tokens that ordinary text is made of: no special or byte tokens, no user symbols; int64."""
        tokens = _parse(self._model).pieces
        return np.flatnonzero([token.type == _Piece.NORMAL for token in tokens])

    @property
    def user_symbols(self) -> list[str]:
        """Strings that are always one token."""
        return _list_user_symbols(_parse(self._model))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the most probable token ids of each text, without bos and eos. Uses threads for many texts."""
        if len(texts) <= MAX_TEXTS_WITHOUT_THREADS:
            return [self._processor.encode(text) for text in texts]
        return self._processor.encode(list(texts))

    def sample(
        self, texts: Sequence[str], *, seed: int, alpha: float, keys: Sequence[int] | np.ndarray | None = None
    ) -> list[list[int]]:
        """Returns token ids drawn at random; those of a line depend on the model, the text, seed, alpha and key alone.

        A unigram model draws from all segmentations, with their probabilities to the power of `alpha` (Kudo 2018): 0 is
        uniform, and large values leave the best one. A BPE model drops each candidate merge with probability `alpha`
        (BPE-dropout, Provilkov et al. 2020): 0 gives the usual tokens, 1 gives characters.

        Args:
            texts: the lines.
            seed: 0 or more.
            alpha: at least 0; for BPE at most 1.
            keys: a number for each line, 0 or more, such as its index in the corpus; by default 0, 1, 2, …

        Raises:
            UserError: the model is neither unigram nor BPE.
        """
        if self._sampler is None:
            raise UserError("Subword sampling requires a unigram or BPE model; this model is of words or characters.")
        return self._sampler.draw(texts, range(len(texts)) if keys is None else keys, seed=seed, alpha=alpha)

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the number of tokens of each text, without bos and eos: int32 [number of texts]."""
        return np.array([len(ids) for ids in self.encode(texts)], dtype=np.int32)

    def decode(self, ids: Sequence[Sequence[int]] | np.ndarray) -> list[str]:
        """Returns the text of each row of ids as one line. Special and banned ids are skipped.

        Bytes that are not UTF-8 become U+FFFD, unknown tokens become " ⁇ ".
        """
        # Row by row, because SentencePiece takes a list of no rows for a row of no ids.
        return [self._processor.decode([int(one) for one in row if one not in self._skipped_ids]) for row in ids]

    def tokenize(self, text: str) -> list[str]:
        """Returns the tokens of `encode` as strings, with ▁ for a space; an unknown token is written as in the text."""
        return self._processor.encode(text, out_type=str)

    def get_token(self, token_id: int) -> str:
        """Returns a token as the model writes it, such as ▁the, </s> or <0x0A>."""
        return self._processor.id_to_piece(token_id)

    @property
    def token_bytes(self) -> list[bytes]:
        """The bytes that each token writes, with ▁ for a space; none for special tokens, unk among them."""
        special = (self._processor.is_control, self._processor.is_unknown, self._processor.is_unused)
        tokens = []
        for one in range(self.vocabulary_size):
            token = self.get_token(one)
            if any(is_special(one) for is_special in special):
                tokens.append(b"")
            else:
                tokens.append(bytes([int(token[3:5], 16)]) if self._processor.is_byte(one) else token.encode())
        return tokens

    def encode_tokens(self, tokens: Sequence[str]) -> list[list[int]]:
        """Returns for each token of another model the ids that spell it in this one, at least one.

        A byte token has no spelling of its own. It is unknown here, as the characters are that it helps to spell.
        """
        proto = _parse(self._model)
        # A token inside a word does not begin with a space, which `encode` would put before it.
        proto.normalizer_spec.add_dummy_prefix = False
        proto.normalizer_spec.remove_extra_whitespaces = False
        processor = _load_processor(proto.SerializeToString())
        texts = ["" if RESERVED_TOKEN.fullmatch(token) else token.replace("▁", " ") for token in tokens]
        return [processor.encode(text) or [UNK_ID] for text in texts]


def _read_model(path: Path) -> bytes:
    with open_bytes(path) as file:
        model = file.read(MAX_MODEL_BYTES + 1)
    if len(model) > MAX_MODEL_BYTES:
        raise UserError(f"{path}: expected a SentencePiece model of at most {MAX_MODEL_BYTES:,} bytes.")
    return model


def normalize_special_ids(model: bytes) -> bytes:
    """Rewrites a SentencePiece model to pad 0, unk 1, bos 2 and eos 3; other tokens keep their order and score.

    Missing special tokens are added, so that text has the same tokens as before. A model with these ids stays the same.

    Raises:
        UserError: the content is not a SentencePiece model.
    """
    proto = _parse(model)
    spec = proto.trainer_spec
    tokens = {token.piece: token for token in proto.pieces}
    # The type decides, because models written elsewhere may give another name in trainer_spec.
    spec.unk_piece = next(token.piece for token in proto.pieces if token.type == _Piece.UNKNOWN)
    names = (spec.pad_piece, spec.unk_piece, spec.bos_piece, spec.eos_piece)
    special = [tokens.pop(name, _Piece(piece=name, score=0.0)) for name in names]
    for one in (PAD_ID, BOS_ID, EOS_ID):
        special[one].type = _Piece.CONTROL
    proto.ClearField("pieces")
    proto.pieces.extend([*special, *tokens.values()])
    spec.pad_id, spec.unk_id, spec.bos_id, spec.eos_id = PAD_ID, UNK_ID, BOS_ID, EOS_ID
    return proto.SerializeToString()


def _parse(model: bytes) -> Any:
    try:
        proto = _ModelProto.FromString(model)
    except DecodeError as error:
        raise UserError(NOT_A_MODEL) from error
    # Many files parse as an empty message, an empty file among them.
    if not any(token.type == _Piece.UNKNOWN for token in proto.pieces):
        raise UserError(NOT_A_MODEL)
    return proto


def _load_processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise UserError(f"{NOT_A_MODEL} SentencePiece reports: {error}") from error


def _make_sampler(model: bytes, processor: Any) -> SubwordSampler | None:
    proto = _ModelProto.FromString(model)
    kind = proto.trainer_spec.model_type
    if kind not in (_TrainerSpec.UNIGRAM, _TrainerSpec.BPE):
        return None
    return SubwordSampler(processor, is_bpe=kind == _TrainerSpec.BPE, user_symbols=_list_user_symbols(proto))


def _list_user_symbols(proto: Any) -> list[str]:
    return [token.piece for token in proto.pieces if token.type == _Piece.USER_DEFINED]


def _find_banned_ids(processor: sentencepiece.SentencePieceProcessor) -> list[int]:
    ids = range(processor.get_piece_size())
    unneeded = {UNK_ID} if any(map(processor.is_byte, ids)) else set()
    control = {one for one in ids if processor.is_control(one)} - {EOS_ID}
    breaking = {one for one in ids if _is_line_breaking(processor.id_to_piece(one))}
    return sorted(unneeded | control | breaking)


def _is_line_breaking(token: str) -> bool:
    return token in LINE_BREAKING_BYTES or any(character in token for character in LINE_BREAKERS)


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: Literal["unigram", "bpe"],
    vocabulary_size: int,
    character_coverage: float = 0.9995,
    byte_fallback: bool = True,
    user_symbols: Sequence[str] = (),
    normalization: str = "nmt_nfkc",
    seed: int = 0,
    max_sentences: int = 2_000_000,
) -> Tokenizer:
    """Trains a tokenizer on lines of text. The same lines and settings give the same model, byte for byte.

    Args:
        texts: lines of one language, or of both for a joint model.
        kind: "unigram" (Kudo 2018) or "bpe" (Sennrich et al. 2016).
        vocabulary_size: number of tokens, including the four special tokens, byte tokens and user symbols.
        character_coverage: share of the characters in the text that become tokens. The others, by default the rarest
            one in 2,000, are spelled in bytes, or are unknown without byte fallback.
        byte_fallback: adds 256 tokens for bytes, so that no text is ever unknown.
        user_symbols: strings that are always one token.
        normalization: a SentencePiece rule, one of `NORMALIZATIONS`; the model applies it to all text.
        seed: chooses the lines if there are too many.
        max_sentences: largest number of lines to train on, drawn uniformly. A line of more than 1,000 characters is cut
            and counts as several.

    Raises:
        UserError: there is no text, the vocabulary is larger or smaller than the text allows, or a setting is invalid.
    """
    _check_normalization(normalization)
    _check_user_symbols(user_symbols)
    sentences = reservoir_sample(_cut_lines(texts), max_sentences, seed)
    if not sentences:
        raise UserError("There is no text to train a tokenizer on: expected lines of text, found none or blank lines.")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type=kind,
            vocab_size=vocabulary_size,
            character_coverage=character_coverage,
            byte_fallback=byte_fallback,
            user_defined_symbols=list(user_symbols),
            normalization_rule_name=normalization,
            pad_id=PAD_ID,
            unk_id=UNK_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            num_threads=TRAINING_THREADS,
            minloglevel=LOG_FATAL_ONLY,
        )
    except RuntimeError as error:
        if mistake := _explain_size(str(error)):
            raise mistake from error
        raise
    return Tokenizer(model.getvalue())


def _check_normalization(name: str) -> None:
    if name not in NORMALIZATIONS:
        valid = ", ".join(NORMALIZATIONS) + "." + suggest_name(name, NORMALIZATIONS)
        raise UserError(f"tokenizer.normalization: there is no rule '{name}', expected one of {valid}")


def _check_user_symbols(symbols: Sequence[str]) -> None:
    for place, symbol in enumerate(symbols):
        if symbol in symbols[:place]:
            raise UserError(f"tokenizer.user_symbols: '{symbol}' is listed twice, expected different symbols.")
        if RESERVED_TOKEN.fullmatch(symbol):
            raise UserError(f"tokenizer.user_symbols: '{symbol}' is a special token, expected another name.")
        if not symbol or re.search(r"[\s\0]", symbol):
            raise UserError(f"tokenizer.user_symbols: expected symbols without spaces, found {symbol!r}.")


def reservoir_sample(texts: Iterable[str], size: int, seed: int) -> list[str]:
    """Draws at most `size` texts, each with the same probability, in one pass (Vitter 1985, algorithm R)."""
    random = Random(seed)
    sample: list[str] = []
    for seen, text in enumerate(texts):
        if seen < size:
            sample.append(text)
        elif (place := random.randrange(seen + 1)) < size:
            sample[place] = text
    return sample


def _cut_lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        if not text.isspace():
            yield from (text[start : start + MAX_LINE_LENGTH] for start in range(0, len(text), MAX_LINE_LENGTH))


def _explain_size(message: str) -> UserError | None:
    """Returns SentencePiece's complaint about the vocabulary size in our words; None for any other complaint."""
    if found := re.search(r"size too high \((\d+)\).* value <= (\d+)", message):
        requested, largest = found.groups()
        return UserError(
            f"tokenizer.vocabulary_size: expected at most {largest} tokens for this text, found {requested}. Lower it "
            f"to {largest}, or train on more text."
        )
    if found := re.search(r"smaller than required_chars\. (\d+) vs (\d+)", message):
        requested, smallest = found.groups()
        return UserError(
            f"tokenizer.vocabulary_size: expected at least {smallest} tokens for special tokens, bytes, user symbols "
            f"and the characters of this text, found {requested}. Raise it to {smallest}, or lower "
            "tokenizer.character_coverage."
        )
    return None
