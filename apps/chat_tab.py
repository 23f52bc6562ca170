"""The Chat tab: a conversation that streams, with its speed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

import workbench
from apps import render
from apps.markdown import harmless
from apps.messages import waiting_line
from apps.page import QUIET, Page, page_of, play
from apps.texts import text
from workbench.engines.base import Message
from workbench.errors import UserInputError, WorkbenchError
from workbench.settings import get_settings

TAB = "chat"
Turn = dict[str, str]

EXAMPLES = (
    "Write a Python function that says whether a number is prime.",
    "Explain in two sentences what a database index is.",
    "Viết một câu chào khách hàng bằng tiếng Việt.",
    "Viết hàm Python đảo ngược một chuỗi.",
)


class ChatTab:
    """The tab's components and events, added to the open `gr.Blocks`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._lay_out()
        self._lay_out_options()
        self._wire()

    def _lay_out(self) -> None:
        make = self.page.words.make
        self.history = gr.State([])
        self.chatbot = make(
            gr.Chatbot,
            {"label": "chat.conversation", "placeholder": "chat.placeholder"},
            height="52vh",
            min_height=260,
            examples=[{"text": example} for example in EXAMPLES],
            allow_tags=False,
            buttons=["copy", "copy_all"],
            layout="bubble",
            elem_id="chat-conversation",
        )
        self.status = gr.HTML(elem_id="chat-status")
        with gr.Row(equal_height=True):
            self.message = make(
                gr.Textbox,
                {"label": "chat.message", "placeholder": "chat.message"},
                value="",
                show_label=False,
                lines=1,
                max_lines=8,
                scale=8,
                min_width=220,
                autofocus=True,
                elem_id="chat-message",
            )
            self.send = self.page.run_button("chat.send", "chat-send")
            self.stop = self.page.stop_button("chat-stop")

    def _lay_out_options(self) -> None:
        make = self.page.words.make
        with make(gr.Accordion, {"label": "common.options"}, open=False), gr.Row():
            self.model = self.page.choose_model("chat", get_settings().models.chat)
            self.system = make(
                gr.Textbox,
                {"label": "chat.system", "placeholder": "chat.system_placeholder"},
                value="",
                lines=2,
                min_width=240,
            )
            self.max_tokens = make(
                gr.Slider,
                {"label": "chat.max_tokens"},
                minimum=16,
                maximum=4096,
                step=16,
                value=512,
                min_width=200,
            )
            self.temperature = make(
                gr.Slider,
                {"label": "chat.temperature", "info": "chat.temperature_info"},
                minimum=0,
                maximum=2,
                step=0.05,
                value=0,
                min_width=200,
            )

    def _wire(self) -> None:
        chosen = self.chatbot.example_select(self.choose, None, self.message, **QUIET)
        retried = self.chatbot.retry(
            self.again, self.history, [self.history, self.message], **QUIET
        )
        self.chatbot.clear(self.clear, None, [self.history, self.chatbot, self.status], **QUIET)
        self.page.on_stop(TAB, self.stop, self.status)
        self.page.on_run(
            TAB,
            [self.message.submit, self.send.click, chosen.success, retried.success],
            self.run,
            [
                self.message,
                self.history,
                self.model,
                self.system,
                self.max_tokens,
                self.temperature,
                self.page.record,
            ],
            [self.chatbot, self.history, self.message, self.status],
            buttons=[self.send],
            stop=self.stop,
            status=self.status,
            api_name="chat",
        )

    def run(
        self,
        prompt: str,
        turns: list[Turn],
        model: str,
        system: str,
        max_tokens: float,
        temperature: float,
        record: bool,
        language: str,
        request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:
        """Answer ``prompt`` after ``turns``, redrawing the conversation as it grows."""
        if not prompt.strip():
            raise UserInputError(text("chat.empty", language))
        asked = [*turns, {"role": "user", "content": prompt}]
        work = play(
            lambda: workbench.chat(
                [Message(turn["role"], turn["content"]) for turn in asked],  # type: ignore[arg-type]
                model=model,
                system=system.strip() or None,
                stream=True,
                max_tokens=int(max_tokens),
                temperature=float(temperature),
            ),
            record,
        )
        yield {self.message: "", self.chatbot: shown_turns(asked)}
        answer = reasoning = ""
        first_seconds = 0.0
        try:
            for update in self.page.follow(TAB, request, work):
                answer += "".join(delta.text for delta in update.events)
                reasoning += "".join(delta.reasoning for delta in update.events)
                if update.result is not None:
                    break
                if not answer and not reasoning:
                    yield {self.status: waiting_line(update, language)}
                    continue
                first_seconds = first_seconds or update.seconds
                line = text("chat.writing", language, first=first_seconds)
                yield {
                    self.chatbot: shown_turns(asked, answer, reasoning, language),
                    self.status: render.status(line),
                }
        except WorkbenchError:
            # the question goes back into its box, so that nothing has to be typed again
            yield {self.message: prompt, self.chatbot: shown_turns(turns)}
            raise
        reply = update.result
        yield {
            self.chatbot: shown_turns(asked, reply.text, reply.reasoning, language),
            self.history: [*asked, {"role": "assistant", "content": reply.text}],
            self.status: render.status(summary(reply, language), kind="done"),
        }

    def choose(self, event: gr.SelectData) -> str:
        """The text of the example that was clicked."""
        return str(event.value["text"])

    def again(self, turns: list[Turn]) -> tuple[list[Turn], str]:
        """Take the last question back, to ask it again."""
        last = max(i for i, turn in enumerate(turns) if turn["role"] == "user")
        return turns[:last], turns[last]["content"]

    def clear(self, request: gr.Request) -> tuple[list[Turn], list[Any], str]:
        """Forget the conversation, and stop what still writes in it."""
        self.page.jobs.stop(page_of(request), TAB)
        return [], [], ""


def shown_turns(
    turns: list[Turn], answer: str = "", reasoning: str = "", language: str = "en"
) -> list[dict[str, Any]]:
    """The conversation as the page shows it: harmless Markdown, reasoning folded away."""
    messages: list[dict[str, Any]] = [
        {"role": turn["role"], "content": harmless(turn["content"])} for turn in turns
    ]
    if reasoning:
        title = text("chat.reasoning", language)
        messages.append(
            {"role": "assistant", "content": harmless(reasoning), "metadata": {"title": title}}
        )
    if answer:
        messages.append({"role": "assistant", "content": harmless(answer)})
    return messages


def summary(reply: Any, language: str) -> str:
    """How fast the answer was and why it ended."""
    reasons = {"length": "chat.length", "cancelled": "chat.cancelled"}
    reason = reasons.get(reply.finish_reason)
    return text(
        "chat.done",
        language,
        rate=reply.timings.tokens_per_second or 0.0,
        first=reply.timings.first_token_seconds or 0.0,
        tokens=reply.usage.completion_tokens if reply.usage else 0,
        seconds=reply.timings.total_seconds,
        reason=text(reason, language) if reason else "",
    )
