"""POST /score: log-probabilities of given translations, per sentence and per token."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from nmt.errors import RequestError
from nmt.server.batcher import Batcher
from nmt.server.fair_queue import ScoringOptions
from nmt.server.limits import Limits, check_texts, limit_time
from nmt.server.openapi import describe_body, describe_score_request
from nmt.server.request_fields import read_fields
from nmt.server.text_cutter import TextCutter, find_client
from nmt.translators.hypothesis import ScoredTranslation
from nmt.translators.protocol import Translator
from nmt.translators.settings import TAG


class Pair(BaseModel):
    """A text and its translation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: str
    target: str


class ScoreRequest(BaseModel):
    """Fields of a request for scores."""

    model_config = ConfigDict(extra="forbid", strict=True)

    pairs: Annotated[list[Pair], Field(description="Texts with their translations, each of which is read as a whole.")]
    tag: Annotated[str | None, Field(description="Tag before each source; null takes decoding.tag.")] = None


class Score(BaseModel):
    """The score of a translation; log-probabilities are in nats."""

    log_prob: Annotated[float, Field(description="Log-probability of the translation, EOS included.")]
    mean_log_prob: Annotated[float, Field(description="The same divided by the number of tokens.")]
    tokens: Annotated[list[str], Field(description="SentencePiece tokens of the translation, EOS included.")]
    token_log_probs: Annotated[
        list[float], Field(description="Log-probability of each token, given the source and the tokens before it.")
    ]


class ScoreResponse(BaseModel):
    """Response of POST /score: a score per pair, in order."""

    scores: list[Score]


def make_score_routes(translator: Translator, batcher: Batcher, cutter: TextCutter, limits: Limits) -> APIRouter:
    """Returns the path that scores given translations.

    Args:
        translator: what the batcher scores with.
        batcher: scores the pairs of requests.
        cutter: its threads count tokens.
        limits: max_texts, max_characters, max_work and timeout.
    """
    router = APIRouter()

    @router.post("/score", openapi_extra=describe_body(describe_score_request(ScoreRequest, limits)))
    async def score(request: Request) -> ScoreResponse:
        """Returns the log-probabilities of given translations, by a trained model or an ensemble, not by an export."""
        wanted = read_fields(ScoreRequest, await request.body())
        pairs = [(pair.source, pair.target) for pair in wanted.pairs]
        for side in zip(*pairs, strict=True):
            check_texts(side, limits)
        options = ScoringOptions(batcher.make_options({TAG: wanted.tag}).settings)
        client = find_client(request)
        async with limit_time(limits):
            tokens = await cutter.run_in_thread(client, partial(_count_tokens, translator, pairs))
            cutter.check_work(sum(map(options.estimate_work, tokens)))
            scores = await batcher.score(pairs, options, tokens=tokens, client=client)
        return ScoreResponse(scores=[_describe(one) for one in scores])

    return router


def _count_tokens(translator: Translator, pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Returns the tokens of the longer side of each pair.

    Raises:
        RequestError: 400, a side has more than the model was trained with, so that its score would mean little.
    """
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    counts = {"source": translator.count_tokens(sources), "target": translator.count_target_tokens(targets)}
    for side, lengths in counts.items():
        for number, length in enumerate(lengths):
            if length > translator.max_tokens:
                raise RequestError(
                    400,
                    f"pairs.{number}.{side}: found {length:,} tokens, but at most {translator.max_tokens:,} can be "
                    "scored at once. Score it in parts.",
                )
    return [max(lengths) for lengths in zip(*counts.values(), strict=True)]


def _describe(scored: ScoredTranslation) -> Score:
    return Score(
        log_prob=scored.log_prob,
        mean_log_prob=scored.mean_log_prob,
        tokens=list(scored.tokens),
        token_log_probs=list(scored.token_log_probs),
    )
