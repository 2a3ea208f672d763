"""Changes the token ids of examples before they are batched: adds tags, and replaces source tokens at random.

Each class reads from another one and has the same `read_ids`, so they can be stacked. What they draw is a function of
(seed, epoch, example). Where a corpus has a weight above 1, it depends on the batch as well, so that the copies of an
example differ.
"""

from collections.abc import Callable, Sequence

import numpy as np

from nmt.config.schema import DataConfig
from nmt.data.batching import TokenizedCorpus, derive_seed
from nmt.data.subword_sampling import draw_numbers
from nmt.data.tokenizer import Tokenizer
from nmt.data.weighting import FindKeys, keep_keys
from nmt.errors import UserError

REPLACE_DRAW = 6  # part of the seeds of replacement, which sets its draws apart from all others

Rows = Sequence[Sequence[int] | np.ndarray]


class TaggedTokens:
    """Examples whose sources begin with the tag of their corpus.

    Args:
        tokens: the examples without tags.
        find_corpora: returns the number of the corpus of each given example.
        tags: token ids of the tag of each corpus; empty for none.
    """

    def __init__(
        self, tokens: TokenizedCorpus, find_corpora: Callable[[np.ndarray], np.ndarray], tags: Sequence[list[int]]
    ):
        self.tokens, self.find_corpora, self.tags = tokens, find_corpora, tags

    def read_ids(self, pairs: np.ndarray, *, epoch: int, batch: int) -> tuple[Rows, Rows]:
        """Returns the ids of both sides of these examples, without EOS."""
        sources, targets = self.tokens.read_ids(pairs, epoch=epoch, batch=batch)
        corpora = self.find_corpora(pairs).tolist()
        return [[*self.tags[corpus], *row] for corpus, row in zip(corpora, sources, strict=True)], targets


def list_tags(data: DataConfig) -> list[str]:
    """Returns the distinct tags of the corpora, in order."""
    return list(dict.fromkeys(files.tag for files in data.train if files.tag))


def put_tag(tag: str | None, text: str) -> str:
    """Returns a text with a tag before it, as training and translation write it. Blank text stays blank.

    >>> put_tag("<bt>", "a man"), put_tag("<bt>", ""), put_tag(None, "a man")
    ('<bt> a man', '', 'a man')
    """
    return f"{tag} {text}" if tag and text.strip() else text


def find_tag_ids(tokenizer: Tokenizer, tag: str, key: str) -> list[int]:
    """Returns the ids at the start of a text with a tag.

    Args:
        tokenizer: of the source.
        tag: the symbol.
        key: the key of the configuration that names it, for messages.

    Raises:
        UserError: the symbol is not one token of the tokenizer.
    """
    [alone, text, tagged] = tokenizer.encode([tag, "a", put_tag(tag, "a")])
    if [tokenizer.get_token(one) for one in alone if tokenizer.get_token(one) != "▁"] != [tag]:
        raise UserError(
            f"{key}: the source tokenizer does not have the symbol {tag}, but reads it as "
            f"{' '.join(tokenizer.tokenize(tag))}. Train a new tokenizer, which has the tags of data.train, or use one "
            "that was trained with this symbol (tokenizer.user_symbols)."
        )
    if alone + text != tagged:
        raise UserError(
            f"{key}: the source tokenizer reads a text after a tag in another way than without one, because it does "
            "not put a space before a text. Train a new tokenizer."
        )
    return alone


class ReplacedTokens:
    """Examples in whose sources a share of the tokens is replaced by random ones.

    This is SwitchOut (Wang et al. 2018) on the source side, with a fixed share instead of a temperature.

    Args:
        tokens: the unchanged examples.
        share: share of the source tokens to replace, from 0 to below 1.
        ids: int [I], the ids to draw from, all equally likely.
        seed: seed of all draws.
        find_keys: returns the keys of examples in a batch.
    """

    def __init__(
        self, tokens: TokenizedCorpus, *, share: float, ids: np.ndarray, seed: int, find_keys: FindKeys = keep_keys
    ):
        self.tokens, self.share, self.ids, self.seed, self.find_keys = tokens, share, ids, seed, find_keys

    def read_ids(self, pairs: np.ndarray, *, epoch: int, batch: int) -> tuple[Rows, Rows]:
        """Returns the ids of both sides of these examples, without EOS, with the replacements of this epoch."""
        sources, targets = self.tokens.read_ids(pairs, epoch=epoch, batch=batch)
        sizes, keys = np.array([len(row) for row in sources]), self.find_keys(pairs, batch)
        chosen, drawn = (
            draw_numbers(derive_seed(self.seed, epoch, REPLACE_DRAW, draw), keys, sizes) for draw in (0, 1)
        )
        before = np.concatenate([np.asarray(row, np.int64) for row in sources])
        others = self.ids[drawn % np.uint64(len(self.ids))]
        after = np.where(chosen / 2.0**64 < self.share, others, before)
        return np.split(after, np.cumsum(sizes)[:-1]), targets
