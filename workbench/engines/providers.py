"""Models that a provider runs: OpenAI, or any server that speaks its chat protocol.

LangChain's ``ChatOpenAI`` sends the request; it retries with growing pauses what is worth a
retry (no connection, 408, 409, 429, 5xx) as long as nothing was received. The key is read from
the environment when the model is loaded and appears in no message and no record.

``spec.options``: ``timeout_seconds`` (without a byte, 60) and ``max_retries`` (2).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from workbench.engines.base import ChatDelta, ChatOptions, Message, StopCheck, Usage, never_stop
from workbench.engines.worker import Emit, iterate
from workbench.errors import ProviderError, SettingsError, UnknownOption
from workbench.memory.request import LoadOptions
from workbench.models.spec import RemoteSource

if TYPE_CHECKING:
    from workbench.models.spec import ModelSpec

_OPENAI_URL = "https://api.openai.com/v1"
_DEFAULTS = {"timeout_seconds": 60.0, "max_retries": 2}
#: A server on this machine or in the house often asks for no key, but the library insists.
_NO_KEY = "no-key"
_FINISH: dict[str, Literal["stop", "length"]] = {"stop": "stop", "length": "length"}


def load(spec: ModelSpec, path: Path, options: LoadOptions) -> ProviderChat:
    """Make the client; nothing is sent yet. ``path`` and ``options`` do not matter.

    Raises ProviderError when OpenAI's key is not set, SettingsError for a wrong catalogue entry.
    """
    source = spec.sources[0]
    if not isinstance(source, RemoteSource):
        raise SettingsError(
            f"The catalogue entry {spec.id} names no provider.", "Give it a remote source."
        )
    if unknown := set(spec.options) - set(_DEFAULTS):
        raise SettingsError(
            f"The catalogue entry {spec.id} has unknown options: {', '.join(sorted(unknown))}.",
            f"Providers know {' and '.join(_DEFAULTS)}.",
        )
    url = source.base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI_URL
    key = os.environ.get(source.api_key_variable, "")
    if not key and url == _OPENAI_URL:
        raise ProviderError(
            f"{spec.id} needs a key and the environment has no {source.api_key_variable}.",
            f"Set {source.api_key_variable}, or use a local model: `workbench models list`.",
        )
    settings = {**_DEFAULTS, **spec.options}
    client = _client_class()(
        model=source.model,
        base_url=url,
        api_key=key or _NO_KEY,
        timeout=settings["timeout_seconds"],
        max_retries=settings["max_retries"],
        stream_usage=True,
        use_responses_api=False,
    )
    return ProviderChat(spec, source, url, client, key)


class ProviderChat:
    """A chat model at its provider. Holds no memory here; any number of threads may use it."""

    def __init__(
        self, spec: ModelSpec, source: RemoteSource, url: str, client: Any, key: str
    ) -> None:
        self.spec = spec
        self._source = source
        self._host = urlsplit(url).netloc.rpartition("@")[2]
        self._client = client
        self._key = key

    def close(self) -> None:
        """Nothing is held."""

    def stream(
        self,
        messages: Sequence[Message],
        options: ChatOptions,
        should_stop: StopCheck = never_stop,
    ) -> Generator[ChatDelta, None, None]:
        """Yield the answer as the provider sends it; ``should_stop`` hangs up at once.

        Raises ProviderError, UnknownOption for a grammar.
        """
        if options.grammar is not None:
            raise UnknownOption(
                f"{self.spec.id} runs at {self._host}, which takes no grammar.",
                "Use json_schema, or a local GGUF model.",
            )
        request = _request(options)
        turns = _turns(messages)

        def work(emit: Emit[Any]) -> None:
            chunks = self._client.stream(turns, **request)
            try:
                for chunk in chunks:
                    if emit(chunk):
                        return
            except Exception as error:  # whatever the library raises is the provider's failure
                raise self._failed(error) from None
            finally:
                chunks.close()

        finish: str | None = None
        usage: Usage | None = None
        # the network may be silent for a minute: a stop does not wait for it
        with closing(iterate(work, abandon_when=should_stop)) as received:
            for chunk in received:
                finish = chunk.response_metadata.get("finish_reason") or finish
                if chunk.usage_metadata:
                    counts = chunk.usage_metadata
                    usage = Usage(counts["input_tokens"], counts["output_tokens"])
                reasoning = chunk.additional_kwargs.get("reasoning_content") or ""
                if chunk.text or reasoning:
                    yield ChatDelta(str(chunk.text), reasoning)
                    if should_stop():
                        break
        if finish is None and should_stop():
            yield ChatDelta(finish_reason="cancelled", usage=usage)
        elif finish in _FINISH:
            yield ChatDelta(finish_reason=_FINISH[finish], usage=usage)
        else:
            why = f"ended its answer with {finish!r}" if finish else "broke off its answer"
            raise ProviderError(f"{self._host} {why}.", "Ask again, or use another model.")

    def _failed(self, error: Exception) -> ProviderError:
        """One line that says what failed, with no key in it. Source: the SDK's error classes."""
        import openai

        variable, model = self._source.api_key_variable, self._source.model
        match error:
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                sent = f"the key in {variable}" if self._key else f"to answer without {variable}"
                what = f"refused {sent}."
                remedy = f"Set {variable} to a key that may use {model}."
            case openai.NotFoundError():
                what = f"has no model {model!r} at this address."
                remedy = "Correct model or base_url in the catalogue entry."
            case openai.RateLimitError():
                what = "answered 429: too many requests, or the quota is used up."
                remedy = "Wait a minute, check the account, or use a local model."
            case openai.APIStatusError():
                what = f"answered {error.status_code}: {self._clean(_reason(error))}."
                remedy = "Change the request if it is at fault, else try later."
            case _ if "Timeout" in type(error).__name__:  # the SDK's, or its HTTP library's
                what = "did not answer in time."
                remedy = "Ask again, or raise timeout_seconds in the catalogue entry's options."
            case openai.APIConnectionError():
                what = "cannot be reached."
                remedy = "Check the network and base_url, or use a local model."
            case _:
                what = f"broke off its answer: {self._clean(str(error))}."
                remedy = "Ask again, or use another model."
        return ProviderError(f"{self._host} {what}", remedy)

    def _clean(self, text: str) -> str:
        """One short line without the key."""
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:300].rstrip(".") or "no reason given"


def _reason(error: Any) -> str:
    """The provider's own words, without what the libraries add."""
    body = error.body
    return str(body.get("message") if isinstance(body, dict) else error.message)


def _request(options: ChatOptions) -> dict[str, Any]:
    request: dict[str, Any] = {
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "seed": options.seed,
    }
    if options.stop:
        request["stop"] = list(options.stop)
    if options.json_schema is not None:
        # as a body field of its own: with `response_format` the SDK would parse the answer and
        # raise where it is cut short
        request["extra_body"] = {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": options.json_schema},
            }
        }
    return request


def _turns(messages: Sequence[Message]) -> list[Any]:
    """The conversation in LangChain's own message types."""
    from langchain.messages import AIMessage, HumanMessage, SystemMessage

    kinds = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
    return [kinds[message.role](message.content) for message in messages]


def _client_class() -> Any:
    """``ChatOpenAI`` that keeps what other servers add to OpenAI's protocol."""
    from langchain_openai import ChatOpenAI

    class CompatibleChatOpenAI(ChatOpenAI):  # type: ignore[misc]
        def _get_request_payload(self, input_: Any, **kwargs: Any) -> dict[str, Any]:
            payload: dict[str, Any] = super()._get_request_payload(input_, **kwargs)
            if self.openai_api_base != _OPENAI_URL and "max_completion_tokens" in payload:
                # only OpenAI has renamed it; many servers ignore the new name
                payload["max_tokens"] = payload.pop("max_completion_tokens")
            return payload

        def _convert_chunk_to_generation_chunk(
            self, chunk: dict[str, Any], *args: Any, **kwargs: Any
        ) -> Any:
            converted = super()._convert_chunk_to_generation_chunk(chunk, *args, **kwargs)
            choices = chunk.get("choices")
            if converted is not None and choices:
                # DeepSeek and vLLM call it reasoning_content, newer servers reasoning
                delta = choices[0]["delta"]
                reasoning = delta.get("reasoning_content") or delta.get("reasoning")
                if reasoning:
                    converted.message.additional_kwargs["reasoning_content"] = reasoning
            return converted

    return CompatibleChatOpenAI
