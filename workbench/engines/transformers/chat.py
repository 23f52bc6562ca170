"""Chat with a causal language model through ``generate`` and the checkpoint's chat template."""

from __future__ import annotations

import gc
import time
from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from workbench.engines.base import (
    ChatDelta,
    ChatOptions,
    EngineSpeed,
    Message,
    StopCheck,
    Usage,
    never_stop,
)
from workbench.engines.detokenize import Detokenizer, StopStrings
from workbench.engines.worker import Emit, iterate, torch_thread
from workbench.errors import UnknownOption, UserInputError

if TYPE_CHECKING:
    import torch

    from workbench.models.spec import ModelSpec


class TransformersChat:
    """One loaded causal language model. Requests from several threads take turns."""

    def __init__(
        self,
        spec: ModelSpec,
        model: Any,
        tokenizer: Any,
        context_tokens: int | None,
        device: str = "cpu",
    ) -> None:
        from transformers import GenerationConfig

        self.spec = spec
        self._model: Any = model
        self._tokenizer = tokenizer
        # weights that wait elsewhere are on no device, so the model itself cannot tell
        self._device = device
        trained = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._context_tokens: int | None = min(
            filter(None, (context_tokens, trained)), default=None
        )
        own = model.generation_config
        ends = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
        self._ends: list[int] = [ends] if isinstance(ends, int) else list(ends or ())
        # the checkpoint's own penalties and samplers would act beside those of the request
        model.generation_config = GenerationConfig(
            bos_token_id=own.bos_token_id,
            eos_token_id=self._ends or None,
            pad_token_id=tokenizer.pad_token_id or (self._ends[0] if self._ends else None),
        )

    def close(self) -> None:
        """Free the weights. Calling it twice does nothing."""
        self._model = None
        free_memory()

    def stream(
        self,
        messages: Sequence[Message],
        options: ChatOptions,
        should_stop: StopCheck = never_stop,
    ) -> Generator[ChatDelta, None, None]:
        """Yield the answer token by token, as whole characters.

        ``should_stop`` is asked at every token; the prompt is computed in one step. Raises
        UserInputError for a prompt longer than the context, UnknownOption for a grammar or a
        schema.
        """
        if options.grammar is not None or options.json_schema is not None:
            raise UnknownOption(
                f"The engine transformers cannot hold {self.spec.id} to a grammar or a schema.",
                "Use a GGUF model, which llama.cpp runs.",
            )
        prompt = self._prompt(messages)
        prompt_tokens = prompt["input_ids"].shape[1]
        room = options.max_tokens
        if self._context_tokens is not None:
            if prompt_tokens >= self._context_tokens:
                raise UserInputError(
                    f"The prompt has {prompt_tokens} tokens and the context of {self.spec.id} "
                    f"holds {self._context_tokens}.",
                    "Shorten the prompt, or choose a model with a longer context.",
                )
            room = min(room, self._context_tokens - prompt_tokens)
        answer = _Answer(self._tokenizer, self._ends, options.stop, room)

        def work(emit: Emit[str]) -> None:
            if not should_stop():
                answer.emit = emit
                self._generate(prompt, options, room, answer, should_stop)

        with closing(iterate(work, on=torch_thread, should_stop=should_stop)) as texts:
            for text in texts:
                if text:
                    yield ChatDelta(text)
        if rest := answer.rest():
            yield ChatDelta(rest)
        yield ChatDelta(
            finish_reason=answer.finish_reason,
            usage=Usage(prompt_tokens, answer.token_count),
            speed=answer.speed(prompt_tokens),
        )

    def _prompt(self, messages: Sequence[Message]) -> Any:
        from jinja2 import TemplateError

        try:
            return self._tokenizer.apply_chat_template(
                [{"role": m.role, "content": m.content} for m in messages],
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            ).to(self._device)
        except TemplateError as error:
            raise UserInputError(
                f"The chat template of {self.spec.id} refuses this conversation: "
                f"{first_line(error)}",
                "Change the order or the roles of the messages.",
            ) from None

    def _generate(
        self,
        prompt: Any,
        options: ChatOptions,
        max_new_tokens: int,
        answer: _Answer,
        should_stop: StopCheck,
    ) -> None:
        import torch
        from transformers import StoppingCriteriaList

        def is_over(tokens: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            over = answer.is_over or should_stop()
            return torch.full((tokens.shape[0],), over, dtype=torch.bool, device=tokens.device)

        sampled = options.temperature > 0
        sampling: dict[str, Any] = {"do_sample": False}
        if sampled:
            sampling = {
                "do_sample": True,
                "temperature": options.temperature,
                "top_p": options.top_p,
                "top_k": 0,
            }
        with torch.inference_mode(), torch.random.fork_rng() if sampled else nullcontext():
            if sampled:
                torch.manual_seed(options.seed)
            self._model.generate(
                **prompt,
                **sampling,
                max_new_tokens=max_new_tokens,
                streamer=answer,
                stopping_criteria=StoppingCriteriaList([is_over]),
            )


class _Answer:
    """The streamer of one `generate`: tokens in; text, counts and times out."""

    def __init__(
        self, tokenizer: Any, ends: Sequence[int], stops: Sequence[str], max_tokens: int
    ) -> None:
        self.emit: Emit[str] = lambda text: False
        self.token_count = 0
        self.is_over = False
        self._ends = frozenset(ends)
        self._max_tokens = max_tokens
        self._text = Detokenizer(lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True))
        self._stops = StopStrings(stops)
        self._ended = False
        self._started = time.perf_counter()
        self._times: list[float] = []

    def put(self, tokens: torch.Tensor) -> None:
        """Called by `generate`: first with the prompt, then with each token."""
        if not self._times:
            self._times = [time.perf_counter()]
            return
        self._times[1:] = [*self._times[1:2], time.perf_counter()]
        for token in tokens.reshape(-1).tolist():
            # `generate` may compute one more token before it asks whether to stop
            if not self.is_over:
                self._push(token)

    def _push(self, token: int) -> None:
        self.token_count += 1
        self._ended = token in self._ends
        text = "" if self._ended else self._stops.push(self._text.push(token))
        self.is_over = self.emit(text) or self._stops.found

    def end(self) -> None:
        """Called by `generate` when it is done."""

    def rest(self) -> str:
        """Text held back as the possible beginning of a stop string."""
        return self._stops.flush()

    @property
    def finish_reason(self) -> Literal["stop", "length", "cancelled"]:
        if self._ended or self._stops.found:
            return "stop"
        return "length" if self.token_count >= self._max_tokens else "cancelled"

    def speed(self, prompt_tokens: int) -> EngineSpeed | None:
        """From the times at which `generate` started, gave the first and the last token."""
        if len(self._times) < 2:
            return None
        start, first, last = self._times[0], self._times[1], self._times[-1]
        decoded = self.token_count - 1
        return EngineSpeed(
            prompt_tokens_per_second=prompt_tokens / (first - start) if first > start else None,
            tokens_per_second=decoded / (last - first) if decoded and last > first else None,
        )


def first_line(error: Exception) -> str:
    """What a library says is wrong, without the rest of its story."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def free_memory() -> None:
    """Give back what a dropped model held, on the accelerator too."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
