"""POST /translate: texts of any number of sentences and lines, with search settings."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from nmt.config.schema import SearchSettings
from nmt.decoding.alignment import Alignment, align
from nmt.errors import RequestError
from nmt.server.batcher import Batcher
from nmt.server.fair_queue import DemandingOptions
from nmt.server.limits import Limits, check_texts, limit_time
from nmt.server.openapi import describe_body, describe_translate_request
from nmt.server.request_fields import Texts, as_whole_number, count_demanded, read_demands, read_fields
from nmt.server.text_cutter import TextCutter, find_client
from nmt.translators.demands import Demand, split_demand, start_with_prefix
from nmt.translators.hypothesis import PartConfidence, Translation, TranslationWarning, join_translations
from nmt.translators.markup import Markup, read_markup
from nmt.translators.protocol import Translator
from nmt.translators.settings import CHANGEABLE, TAG
from nmt.translators.terms import ProtectedText, restore_all

# Characters of a text with tags, as a multiple of those that are translated of it.
MARKUP_SHARE = 10
MAX_TERMS = 1000  # per request
# Characters of a term. The time to find terms grows with the number of different lengths.
MAX_TERM_CHARACTERS = 200
# Text in one line, without tabs and without spaces at its ends, as a glossary has it.
TERM = {
    "type": "string",
    "maxLength": MAX_TERM_CHARACTERS,
    "pattern": r"^[^\s\x00](?:[^\x00\t\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]*[^\s\x00])?$",
}

Term = Annotated[str, Field(max_length=MAX_TERM_CHARACTERS)]


class TextRequest(BaseModel):
    """Fields of a request for translations, other than search settings."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    text: Annotated[Texts, Field(description="One text or several, each of any number of sentences and lines.")]
    n_best: Annotated[int, Field(ge=1, description="Translations per text."), BeforeValidator(as_whole_number)] = 1
    alignments: Annotated[bool, Field(description="Whether to return the attention of each translated word.")] = False
    format: Annotated[
        Literal["text", "html"],
        Field(description="html: texts have tags, which come back around the same words. Not with alignments."),
    ] = "text"
    prefix: Annotated[
        str | list[str] | None,
        Field(
            description="The beginning of the translation of each text, which may end inside a word. "
            "Such a text is not split into sentences."
        ),
    ] = None
    required: Annotated[
        list[str] | list[list[str]] | None,
        Field(description="Words and phrases that the translation of each text must contain: a list for each text."),
    ] = None
    glossary: Annotated[
        dict[Term, Term] | None,
        Field(
            max_length=MAX_TERMS,
            description="Terms, as whole words or phrases, with the translation of each.",
            json_schema_extra={"propertyNames": TERM, "additionalProperties": TERM},
        ),
    ] = None
    marks: Annotated[
        bool,
        Field(description="Whether text between {{ and }} is copied. \\{, \\} and \\\\ then stand for {, } and \\."),
    ] = False


def make_request_model(settings: type[SearchSettings]) -> type[TextRequest]:
    """Returns the model of a request: the fields of `TextRequest` and, all optional, those of `settings`."""
    fields: dict[str, Any] = {}
    for name, field in settings.model_fields.items():
        kind: Any = Annotated[(field.annotation, *field.metadata, BeforeValidator(as_whole_number))]
        fields[name] = (kind | None, Field(None, description=field.description))
    return create_model("TranslateRequest", __base__=TextRequest, **fields)


# Made from the settings themselves, so that a new one needs no line here.
TranslateRequest = make_request_model(SearchSettings)


class Alternative(BaseModel):
    """A translation of a text."""

    text: str
    score: Annotated[
        float, Field(description="Score that ranks translations; the mean over the parts of a text that was split.")
    ]
    finished: Annotated[
        bool | None, Field(description="False if a part of the text reached its maximum length and was cut off.")
    ] = None
    confidence: Annotated[
        float | None,
        Field(description="Expected sentence-level chrF divided by 100, 0 to 1; absent if it was not fitted."),
    ] = None
    part_confidences: Annotated[
        list[PartConfidence] | None,
        Field(description="The confidence in each part of a text of several, as characters `start` to `end`."),
    ] = None
    alignment: Annotated[
        Alignment | None,
        Field(
            description="The words, as characters `start` to `end` (exclusive), and the attention of each target word: "
            "`weights` of the source words from number `first` on, which sum to 1."
        ),
    ] = None


class BestTranslation(Alternative):
    """The best translation of a text, and the others that were requested."""

    alternatives: list[Alternative] = []
    warnings: Annotated[
        list[TranslationWarning], Field(description="Possible mistakes, such as that it was cut off.")
    ] = []


class TranslateResponse(BaseModel):
    """Response of POST /translate: a translation per text, in order."""

    translations: list[BestTranslation]


class About(BaseModel):
    """Response of GET /about: what this server translates, and within which limits."""

    name: str
    version: int
    source_language: str | None
    target_language: str | None
    max_characters: int
    max_n_best: int
    beam_size: int


def make_translate_routes(
    name: str, translator: Translator, batcher: Batcher, cutter: TextCutter, limits: Limits
) -> APIRouter:
    """Returns the paths of nmt's own interface.

    Args:
        name: of the model.
        translator: what the batcher translates with.
        batcher: translates the texts of requests.
        cutter: cuts them to size first.
        limits: max_texts, max_characters and timeout.
    """
    router = APIRouter()
    most = {"max_n_best": translator.max_n_best, "max_length": translator.settings.max_length}
    body = describe_body(describe_translate_request(TranslateRequest, limits, **most))

    @router.get("/about")
    async def about() -> About:
        """Returns the model's languages and the server's limits."""
        return About(
            name=name,
            version=translator.version,
            source_language=translator.source_language,
            target_language=translator.target_language,
            max_characters=limits.max_characters,
            max_n_best=translator.max_n_best,
            beam_size=translator.settings.beam_size,
        )

    @router.post("/translate", openapi_extra=body, response_model_exclude_none=True)
    async def translate(request: Request) -> TranslateResponse:
        """Translates texts of any number of sentences; line breaks are kept."""
        wanted = _read_request(await request.body())
        texts = wanted.text
        is_html = wanted.format == "html"
        if not is_html:
            check_texts(texts, limits)
        changes = wanted.model_dump(exclude=set(TextRequest.model_fields), exclude_none=True)
        # Texts are split here, so that all ways of splitting share one compiled search.
        splitting = {name: changes.pop(name) for name in (CHANGEABLE, TAG) if name in changes}
        splitter = translator.with_settings(**splitting) if splitting else translator
        attention = wanted.alignments or is_html
        options = batcher.make_options(changes, n_best=wanted.n_best, attention=attention)
        demands = read_demands(wanted.prefix, wanted.required, limits, count=len(texts))
        client = find_client(request)
        async with limit_time(limits):
            # In threads: what takes long for long texts, prefixes and glossaries would delay other requests.
            if wanted.glossary or wanted.marks:
                searching = translator.with_settings(**splitting, **changes)
                add_terms = partial(searching.with_terms, wanted.glossary or None, marks=wanted.marks)
                splitter = await cutter.run_in_thread(client, add_terms)
            if demands:
                check_demands = translator.with_settings(**changes).check_demands
                await cutter.run_in_thread(client, partial(check_demands, demands))
            documents: list[Markup] = []
            if is_html:
                documents = await cutter.run_in_thread(client, partial(_read_documents, texts, translator.tags, limits))
                texts = [text for document in documents for text in document.texts]
            split, tokens = await cutter.cut(texts, options, client=client, splitter=splitter, demands=demands)
            parts: list[Any] = [part for text in split for part in text.parts]
            pairs = zip(split, demands or [Demand()] * len(split), strict=True)
            spread: Sequence[Demand] = [one for text, demand in pairs for one in split_demand(demand, text.parts)]
            protected: Sequence[ProtectedText] = ()
            if splitter.terms:
                protect = partial(splitter.terms.protect_all, parts, spread, tags=translator.tags)
                protected, spread = await cutter.run_in_thread(client, protect)
                parts = [one.text for one in protected]
            if any(spread):
                tokens = [count + count_demanded(one) for count, one in zip(tokens, spread, strict=True)]
                cutter.check_work(sum(map(options.estimate_work, tokens)))
                options = DemandingOptions(options.settings, options.n_best, options.attention)
                parts = [(part, one.prefix, *one.required) for part, one in zip(parts, spread, strict=True)]
            # Marked text needs attention. Other texts do without, so that none depends on its neighbours.
            attending = replace(options, attention=True)
            each: Any = [attending if one.marked else options for one in protected] or options
            found: Sequence[Translation] = await batcher.translate(parts, each, tokens=tokens, client=client)
            if splitter.terms:
                restore = partial(restore_all, protected, found, keep_attention=attention)
                found = await cutter.run_in_thread(client, restore)
            results = iter(found)
            translations = [join_translations(text, [next(results) for _ in text.parts]) for text in split]
            for number, demand in enumerate(demands or ()):
                translations[number] = start_with_prefix(translations[number], split[number], demand)
            if is_html:
                translations = await cutter.run_in_thread(client, partial(_join_documents, documents, translations))
            if wanted.alignments:
                return await cutter.run_in_thread(client, partial(_make_response, translations, alignments=True))
        return _make_response(translations, alignments=False)

    return router


def _read_request(body: bytes) -> TextRequest:
    """Reads a request.

    Raises:
        RequestError: 400; the message names the wrong key and what was expected of it.
    """
    wanted = read_fields(TranslateRequest, body)
    if wanted.alignments and wanted.format == "html":
        raise RequestError(
            400, "alignments: cannot be combined with format: html, because positions are those of plain text."
        )
    if wanted.format == "html" and (wanted.prefix is not None or wanted.required is not None):
        raise RequestError(400, "format: html cannot be combined with prefix and required, which are for plain text.")
    return wanted


def _read_documents(texts: Sequence[str], tags: Sequence[str], limits: Limits) -> list[Markup]:
    """Reads HTML, and checks the limits of what is translated of it."""
    most = MARKUP_SHARE * limits.max_characters
    for number, text in enumerate(texts):
        if len(text) > most:
            raise RequestError(
                400,
                f"A text with tags can have at most {most:,} characters, found {len(text):,} in text {number} (counted "
                "from 0). Split it.",
            )
    documents = [read_markup(text, tags) for text in texts]
    check_texts([document.text for document in documents], limits)
    return documents


def _join_documents(documents: Sequence[Markup], translations: Sequence[Translation]) -> list[Translation]:
    found = iter(translations)
    return [document.join([next(found) for _ in document.segments]) for document in documents]


def _make_response(translations: Sequence[Translation], *, alignments: bool) -> TranslateResponse:
    bodies = []
    for translation in translations:
        best, *others = [
            Alternative(
                text=hypothesis.text,
                score=hypothesis.score,
                finished=hypothesis.is_finished,
                confidence=hypothesis.confidence,
                part_confidences=list(hypothesis.part_confidences) or None,
                alignment=align(translation.source, hypothesis.text, hypothesis.attention) if alignments else None,
            )
            for hypothesis in translation.hypotheses
        ]
        bodies.append(BestTranslation(**dict(best), alternatives=others, warnings=list(translation.warnings)))
    return TranslateResponse(translations=bodies)
