"""POST /complete: alternatives for the next word after a prefix, for interactive editors."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from nmt.server.batcher import Batcher
from nmt.server.fair_queue import CompletingOptions
from nmt.server.limits import Limits, check_texts, limit_time
from nmt.server.openapi import describe_body, describe_complete_request
from nmt.server.request_fields import Texts, as_whole_number, count_demanded, read_demands, read_fields
from nmt.server.text_cutter import TextCutter, find_client
from nmt.translators.demands import MAX_ALTERNATIVES, Demand
from nmt.translators.hypothesis import Continuation
from nmt.translators.protocol import Translator


class CompleteRequest(BaseModel):
    """Fields of a request for alternatives."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: Annotated[Texts, Field(description="One text or several, each of which is read as a whole.")]
    prefix: Annotated[
        str | list[str], Field(description="The beginning of the translation of each text; it may end inside a word.")
    ] = ""
    n: Annotated[
        int, Field(ge=1, le=MAX_ALTERNATIVES, description="Alternatives per text."), BeforeValidator(as_whole_number)
    ] = 5


class CompleteResponse(BaseModel):
    """Response of POST /complete: the alternatives of each text, in order, most probable first."""

    alternatives: list[list[Continuation]]


def make_complete_routes(translator: Translator, batcher: Batcher, cutter: TextCutter, limits: Limits) -> APIRouter:
    """Returns the path that lists alternatives.

    Args:
        translator: what the batcher translates with.
        batcher: translates the texts of requests.
        cutter: its threads count tokens.
        limits: max_texts, max_characters, max_work and timeout.
    """
    router = APIRouter()

    @router.post("/complete", openapi_extra=describe_body(describe_complete_request(CompleteRequest, limits)))
    async def complete(request: Request) -> CompleteResponse:
        """Returns the most probable alternatives for the next word after a prefix, each with its best translation."""
        wanted = read_fields(CompleteRequest, await request.body())
        texts = wanted.text
        check_texts(texts, limits)
        prefix = [""] * len(texts) if wanted.prefix == "" else wanted.prefix
        demands = read_demands(prefix, None, limits, count=len(texts)) or [Demand()] * len(texts)
        options = CompletingOptions(batcher.make_options().settings, num_alternatives=wanted.n)
        client = find_client(request)
        async with limit_time(limits):
            await cutter.run_in_thread(client, partial(translator.check_demands, demands))
            counts = await cutter.run_in_thread(client, partial(translator.count_tokens, texts))
            pairs = zip(counts, demands, strict=True)
            tokens = [min(count, translator.max_tokens) + count_demanded(one) for count, one in pairs]
            cutter.check_work(sum(map(options.estimate_work, tokens)))
            jobs = [(text, demand.prefix) for text, demand in zip(texts, demands, strict=True)]
            return CompleteResponse(alternatives=await batcher.translate(jobs, options, tokens=tokens, client=client))

    return router
