"""Noise for back-translated sources (Edunov et al. 2018): words are dropped, blanked and moved."""

import numpy as np

DROP, BLANKED = 0.1, 0.1  # shares of the words
DISTANCE = 3  # words by which a word moves at most
BLANK = "<blank>"


def add_noise(line: str, seed: int, number: int) -> str:
    """Drops a tenth of the words, replaces a tenth of the others by BLANK, and moves words by up to three places.

    At least one word is kept.

    Args:
        line: words separated by spaces.
        seed, number: the noise is a function of these, the number being that of the line.
    """
    words = line.split()
    if not words:
        return line
    random = np.random.default_rng([seed, number])
    kept = [word for word, draw in zip(words, random.random(len(words)), strict=True) if draw >= DROP]
    kept = kept or [words[random.integers(len(words))]]
    blanked = [BLANK if draw < BLANKED else word for word, draw in zip(kept, random.random(len(kept)), strict=True)]
    # Sorted by place plus up to DISTANCE + 1, a word passes at most DISTANCE others (Lample et al. 2018).
    places = np.arange(len(kept)) + random.uniform(0, DISTANCE + 1, len(kept))
    return " ".join(blanked[place] for place in np.argsort(places, kind="stable"))
