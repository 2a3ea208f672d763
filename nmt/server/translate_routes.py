"""POST /translate: texts of any number of sentences and lines, with options."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from nmt.decoding.alignment import Alignment, align
from nmt.errors import RequestError, nearest
from nmt.server.batcher import Batcher
from nmt.server.engine import Answer, Engine, Options
from nmt.server.limits import Limits, check_texts, limit_time
from nmt.server.openapi import describe_body, describe_translate_request
from nmt.server.passages import Passage, translate_whole
from nmt.server.tfserving_bodies import abbreviate, check_surrogates, read_json


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 4.0 is the integer 4."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Size = Annotated[int, Field(ge=1, le=64), BeforeValidator(_whole)]


class TranslateRequest(BaseModel):
    """What POST /translate takes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: Annotated[str | list[str], Field(description="A text, or several; of any number of sentences and lines.")]
    n_best: Annotated[Size, Field(description="Translations a text.")] = 1
    beam_size: Annotated[Size | None, Field(description="Hypotheses kept; 1 is greedy search.")] = None
    length_penalty: Annotated[
        float | None, Field(ge=0, le=5, allow_inf_nan=False, description="Exponent of the length penalty.")
    ] = None
    alignments: Annotated[bool, Field(description="Whether to tell what each target word attended to.")] = False


class Translated(BaseModel):
    """One translation of a text."""

    text: str
    score: Annotated[float, Field(description="Log-probability over the length penalty; the mean of several parts.")]
    alignment: Annotated[
        Alignment | None,
        Field(
            description="Where the words are, in characters from `start` up to `end`, and what each target word "
            "attended to: `weights` of the source words from number `first` on, whose sum is 1."
        ),
    ] = None


class Translation(Translated):
    """The best translation of a text, and the others that were asked for."""

    alternatives: list[Translated] = []


class TranslateResponse(BaseModel):
    """What POST /translate answers: a translation for each text, in order."""

    translations: list[Translation]


class About(BaseModel):
    """What GET /about answers: what this server translates, and within which limits."""

    name: str
    version: int
    source_language: str | None
    target_language: str | None
    max_characters: int
    max_n_best: int


def make_translate_routes(name: str, engine: Engine, batcher: Batcher, limits: Limits) -> APIRouter:
    """The paths for people and their scripts."""
    router = APIRouter()
    body = describe_body(describe_translate_request(TranslateRequest, limits))

    @router.get("/about")
    async def about() -> About:
        """The model's languages and the server's limits."""
        source, target = engine.languages
        return About(
            name=name,
            version=engine.version,
            source_language=source,
            target_language=target,
            max_characters=limits.max_characters,
            max_n_best=engine.nbest,
        )

    @router.post("/translate", openapi_extra=body, response_model_exclude_none=True)
    async def translate(request: Request) -> TranslateResponse:
        """Translates texts of any number of sentences; line breaks are kept."""
        asked = read_request(await request.body())
        texts = [asked.text] if isinstance(asked.text, str) else asked.text
        check_texts(texts, limits)
        options = engine.settle(
            Options(
                n_best=asked.n_best,
                beam_size=asked.beam_size,
                length_penalty=asked.length_penalty,
                attention=asked.alignments,
            )
        )

        async def ask(parts: list[str]) -> list[Answer]:
            return await batcher.translate(parts, options)

        passages = [Passage.split(text) for text in texts]
        async with limit_time(limits):
            found = iter(await translate_whole(ask, [part for passage in passages for part in passage.parts]))
        answers = [passage.join([next(found) for _ in passage.parts]) for passage in passages]
        if not asked.alignments:
            return _response(texts, answers, alignments=False)
        # Of a long text, this takes long enough to keep others waiting.
        return await asyncio.to_thread(_response, texts, answers, alignments=True)

    return router


def read_request(body: bytes) -> TranslateRequest:
    """Reads what was asked.

    Raises:
        RequestError: 400, with the key that is wrong and what was expected of it.
    """
    document = read_json(body)
    for key in document:
        if key not in TranslateRequest.model_fields:
            raise RequestError(400, f"{key[:80]}: unknown key.{nearest(key[:80], TranslateRequest.model_fields)}")
    if "text" not in document:
        raise RequestError(400, "text: missing; expected a text or a list of texts.")
    texts: Any = [document["text"]] if isinstance(document["text"], str) else document["text"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RequestError(400, "text: expected a text or a list of texts.")
    for text in texts:
        check_surrogates(text)
    try:
        return TranslateRequest.model_validate(document)
    except ValidationError as error:
        [first, *_] = error.errors()
        raise RequestError(
            400, f"{first['loc'][0]}: {first['msg'].lower()}; found {abbreviate(first['input'])[:80]}."
        ) from error


def _response(texts: Sequence[str], answers: Sequence[Answer], *, alignments: bool) -> TranslateResponse:
    found = []
    for text, answer in zip(texts, answers, strict=True):
        best, *others = [
            Translated(
                text=candidate.text,
                score=candidate.score,
                alignment=align(text, candidate.text, candidate.attended) if alignments else None,
            )
            for candidate in answer.candidates
        ]
        found.append(Translation(**dict(best), alternatives=others))
    return TranslateResponse(translations=found)
