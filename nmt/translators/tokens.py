"""What translators have in common that tokenize text themselves: models and exports for LiteRT."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from nmt.data.tokenizer import Tokenizer
from nmt.translators.demands import Demand, make_demands, report_unmet, split_demand
from nmt.translators.hypothesis import Hypothesis, Translation, join_translations
from nmt.translators.protocol import Translator


class TokenTranslator(Translator):
    """Translates text that it tokenizes itself.

    It reads texts of any length, in parts those that are too long.
    """

    _source_tokenizer: Tokenizer
    _encoded: Mapping[str, list[int]] = {}

    @abstractmethod
    def _translate_ids(
        self, ids: list[list[int]], n_best: int, attention: bool, demands: Sequence[Demand] | None = None
    ) -> list[list[Hypothesis]]:
        """Translates sources given as token ids without EOS, none of them empty.

        Args:
            ids: of each source.
            n_best: largest number of hypotheses per source.
            attention: whether to return attention weights.
            demands: on each translation; None if there are none.
        """

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Returns the number of source tokens of each text, without EOS."""
        return [len(ids) for ids in self._encode(texts)]

    def translate_batch(
        self,
        texts: Sequence[str],
        *,
        n_best: int = 1,
        attention: bool = False,
        prefixes: Sequence[str] | None = None,
        required: Sequence[Sequence[str]] | None = None,
    ) -> list[Translation]:
        """Translates each text as if it were alone, long ones in parts; see `Translator.translate_batch`."""
        self.check_n_best(n_best)
        encoded = self._encode(texts)
        cut = [n for n, ids in enumerate(encoded) if len(ids) > self.max_tokens]
        split = dict(zip(cut, self.cut_texts([texts[n] for n in cut]), strict=True)) if cut else {}
        rows = [
            self._encode(split[n].parts) if n in split else [ids] if ids and texts[n].strip() else []
            for n, ids in enumerate(encoded)
        ]
        demands = make_demands(len(texts), prefixes, required)
        given: dict[str, Any] = {}
        if demands is not None:
            self.check_demands(demands)
            given["demands"] = [
                one
                for n, row in enumerate(rows)
                for one in (split_demand(demands[n], split[n].parts) if n in split else [demands[n]] * len(row))
            ]
        found = iter(self._translate_ids([ids for row in rows for ids in row], n_best, attention, **given))
        translations = []
        for n, (text, row) in enumerate(zip(texts, rows, strict=True)):
            demand = demands[n] if demands else Demand()
            if n in split:
                parts = [self._describe(part, next(found)) for part in split[n].parts]
                translation = join_translations(split[n], parts)
            else:
                hypotheses = next(found) if row else [Hypothesis(demand.prefix, 0.0, 0.0)]
                translation = self._describe(text, hypotheses)
            translations.append(report_unmet(translation, demand) if demand else translation)
        return translations

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenizes texts, or remembers their tokens: parts are counted first and translated soon afterwards."""
        known = self._encoded
        if not all(text in known for text in texts):
            encoded = self._source_tokenizer.encode(texts)
            if len(texts) == 1:  # one try of many to cut a text
                return encoded
            known = self._encoded = dict(zip(texts, encoded, strict=True))
        return [known[text] for text in texts]
