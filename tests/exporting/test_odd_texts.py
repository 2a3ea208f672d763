"""Whatever bytes a client sends, every text of a request is translated."""

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from nmt.cli.main import app
from nmt.data.tokenizer import LINE_BREAKERS
from nmt.translators.savedmodel import SavedModelTranslator
from tests.exported_model import SENTENCES

GOOD = [SENTENCES[0], SENTENCES[77], SENTENCES[140]]
ODD = {
    "no UTF-8": b"a man\xff sees \xc3",
    "half a character": b"\xed\xa0\x80 \xf0\x9f\x98",
    "every byte": bytes(range(256)),
    "empty": b"",
    "blank": " \t\u3000\u0085".encode(),
    "10,000 characters": ("der Mann sieht das große Haus! " * 400)[:10_000].encode(),
    "10,000 characters without a space": b"x" * 10_000,
    "10,000 blanks": b" " * 10_000,
    "10,000 bytes that are no UTF-8": b"\xff" * 10_000,
    "NUL": b"\0a man\0sees\0",
    "newline": b"a man\nsees\r\na dog\n",
}


def ask(exported, name: str, texts: list) -> dict[str, np.ndarray]:
    inputs = {"source": texts, "target": texts[::-1]} if name == "token_log_probs" else {"text": texts}
    found = exported.signatures[name](**{key: tf.constant(value, tf.string) for key, value in inputs.items()})
    return {key: value.numpy() for key, value in found.items()}


def without_padding(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Removes the columns that longer neighbours added, which must be padding."""
    kept = x[tuple(slice(size) for size in like.shape)]
    padding = b"" if x.dtype == object else 0
    assert np.count_nonzero(x != padding) == np.count_nonzero(kept != padding)
    return kept


@pytest.mark.parametrize("name", ["serving_default", "nbest", "token_log_probs"])
def test_odd_texts_do_not_affect_their_neighbours(exported, name):
    # Odd texts first, in between and last. Source and target of a pair are both good or both odd.
    odd = list(ODD.values())
    texts = [*odd, GOOD[0], *odd, GOOD[1], *odd[::-1], GOOD[2], *odd[::-1]]
    if name == "token_log_probs":
        texts = [*odd, *GOOD, *odd[::-1]]
    places = [n for n, text in enumerate(texts) if text in GOOD]
    alone, among = ask(exported, name, GOOD), ask(exported, name, texts)
    for key, expected in alone.items():
        assert among[key].shape[0] == len(texts)
        found = without_padding(among[key][places], expected)
        if expected.dtype == np.float32:
            np.testing.assert_allclose(found, expected, atol=1e-4)
        else:
            assert (found == expected).all()
    for values in among.values():
        if values.dtype == np.float32:
            assert np.isfinite(values).all() and (values >= -1e9 * 1.001).all()


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_text_is_translated_as_python_reads_it(exported, kind):
    """Unless the export truncates it."""
    text = ODD[kind]
    best = exported.call("serving_default", [text])
    assert best["truncated"][0] == (len(text) > 200 and bool(text.strip()))
    if not best["truncated"][0]:
        expected = exported.translator.translate([text.decode("utf-8", "replace")], split=False)
        assert [found.decode() for found in best["translation"]] == expected
    assert not set(best["translation"][0].decode()) & set(LINE_BREAKERS)


def test_translators_and_commands_agree_with_serving_default(exported, tmp_path):
    """One translation comes from the same signature whoever asks: text, score and log-probability are equal bits."""
    translator = SavedModelTranslator.load(exported.version)
    texts = [text.decode("utf-8", "replace") for text in ODD.values()] + SENTENCES[::3]
    answer = exported.call("serving_default", [text.encode() for text in texts])
    found = translator.translate_batch(texts)
    assert [one.text.encode() for one in found] == answer["translation"].tolist()
    assert [one.score for one in found] == answer["score"].tolist()
    assert [one.log_prob for one in found] == answer["log_prob"].tolist()
    assert [one.is_truncated for one in found] == answer["truncated"].tolist()
    # Commands copy what has no letters and divide what is too long.
    whole = translator.with_settings(split_sentences="never")
    lines = [(n, text) for n, text in enumerate(texts) if whole.split_texts([text])[0].parts == [text]]
    assert len(lines) > len(SENTENCES[::3])
    (tmp_path / "source").write_text("".join(f"{text}\n" for _, text in lines), encoding="utf-8", newline="")
    files = ["--input", str(tmp_path / "source"), "--output", str(tmp_path / "target")]
    done = CliRunner().invoke(app, ["translate", str(exported.version), *files, "decoding.split_sentences=never"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "target").read_bytes().split(b"\n")[:-1] == [answer["translation"][n] for n, _ in lines]
