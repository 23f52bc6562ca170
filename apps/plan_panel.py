"""The what-if part of the Models & memory tab: sliders for a request, and the plan as a picture."""

from __future__ import annotations

from typing import Any

import gradio as gr

import workbench
from apps import render
from apps.messages import message_of, shown_errors
from apps.model_tables import plan_table
from apps.page import Page
from apps.texts import text
from workbench.errors import DoesNotFit, WorkbenchError
from workbench.memory.matrix import candidates
from workbench.models.spec import ModelSpec
from workbench.settings import get_settings

#: How a model is loaded: the workbench's own choice, or the best way that fits.
AS_USUAL, BEST = "usual", "best"


class PlanPanel:
    """Model, budget and request size in; verdict, picture and terms out. Loads nothing."""

    def __init__(self, page: Page) -> None:
        self.page = page
        make = page.words.make
        chosen = get_settings().models.chat
        with gr.Row():
            self.model = make(
                gr.Dropdown,
                {"label": "common.model"},
                choices=[spec.id for spec in workbench.models.list()],
                value=chosen,
                min_width=220,
                elem_id="models-model",
            )
            self.budget = make(
                gr.Textbox,
                {"label": "models.budget", "info": "models.budget_info"},
                value="",
                max_lines=1,
                min_width=160,
                elem_id="models-budget",
            )
            self.precision = make(
                gr.Dropdown,
                {"label": "plan.precision"},
                choices=precisions(chosen, page.words.language),
                value=AS_USUAL,
                min_width=160,
                elem_id="models-precision",
            )
        with gr.Row():
            self.context = self._slider("plan.context", 512, 131_072, 512, 8192, "context")
            self.minutes = self._slider("plan.minutes", 0.5, 180, 0.5, 1, "minutes")
            self.side = self._slider("plan.side", 32, 2048, 8, 512, "side")
            self.batch = self._slider("plan.batch", 1, 16, 1, 1, "batch")

    @property
    def inputs(self) -> list[Any]:
        """What `what_if` takes, in its order."""
        sliders = [self.context, self.minutes, self.side, self.batch]
        return [self.model, self.budget, self.precision, *sliders, self.page.language]

    def wire(self, button: Any, status: Any, picture: Any, terms: Any) -> None:
        """Plan at a click, at the end of a drag, and when a choice changes."""
        outputs = [status, picture, terms]
        button.click(self.show_plan, self.inputs, outputs, api_name="plan", show_progress="hidden")
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        for slider in (self.context, self.minutes, self.side, self.batch):
            slider.release(self.show_plan, self.inputs, outputs, **quiet)
        self.precision.input(self.show_plan, self.inputs, outputs, **quiet)
        self.budget.submit(self.show_plan, self.inputs, outputs, **quiet)
        sliders = [self.precision, self.context, self.minutes, self.side, self.batch]
        self.model.change(self.suit, [self.model, self.page.language], sliders, **quiet).then(
            self.show_plan, self.inputs, outputs, **quiet
        )

    def suit(self, model: str, language: str) -> list[Any]:
        """Show the sliders that mean something for the model, at its own values."""
        with shown_errors(language):
            spec = workbench.models.get(model)
            is_chat, is_speech = spec.task == "chat", spec.task == "speech"
            is_image = spec.task == "image"
            width = spec.defaults.get("width") or 512
            return [
                gr.update(choices=precisions(model, language), value=AS_USUAL),
                gr.update(visible=is_chat, value=spec.context_tokens or 4096),
                gr.update(visible=is_speech),
                gr.update(visible=is_image, value=width),
                gr.update(visible=is_image or spec.task == "embedding"),
            ]

    def show_plan(
        self,
        model: str,
        memory: str,
        precision: str,
        context: float,
        minutes: float,
        side: float,
        batch: float,
        language: str,
    ) -> tuple[str, Any, Any]:
        """Whether it fits, with every number that led to the answer; an error in one line."""
        try:
            spec = workbench.models.get(model)
            request = _request(spec, precision, context, minutes, side, batch)
            found = workbench.plan(model, memory.strip() or None, **request)
        except DoesNotFit as error:
            line = render.status(str(error), kind="error")
            return line, gr.update(value=""), gr.update(visible=False)
        except WorkbenchError as error:
            line = render.status(message_of(error, language), kind="error")
            return line, gr.update(value=""), gr.update(visible=False)
        key = "models.fits" if found.fits else "models.fits_not"
        line = " · ".join([text(key, language, model=model), *found.cheapest_fixes])
        return (
            render.status(line, kind="done" if found.fits else "error"),
            gr.update(value=found._repr_html_()),
            gr.update(value=plan_table(found, language), visible=True),
        )

    def _slider(
        self, key: str, low: float, high: float, step: float, value: float, name: str
    ) -> Any:
        visible = name == "context"
        return self.page.words.make(
            gr.Slider,
            {"label": key},
            minimum=low,
            maximum=high,
            step=step,
            value=value,
            visible=visible,
            min_width=160,
            elem_id=f"models-{name}",
        )


def precisions(model: str, language: str) -> list[tuple[str, str]]:
    """(what is shown, value) of the ways in which a model can be loaded here."""
    shown = [
        (text("plan.as_usual", language), AS_USUAL),
        (text("plan.best", language), BEST),
    ]
    spec = workbench.models.get(model)
    for options in candidates(spec.engine, spec.task, "cpu"):
        parts = (options.compute_type, options.quantization, options.cache_type)
        value = "/".join(part or "" for part in parts)
        label = " + ".join(part for part in parts if part)
        if label and (label, value) not in shown:
            shown.append((label, value))
    return shown


def _request(
    spec: ModelSpec, precision: str, context: float, minutes: float, side: float, batch: float
) -> dict[str, Any]:
    """The arguments of `workbench.plan`: those that mean something for the model's task."""
    request: dict[str, Any] = {}
    if precision == BEST:
        request["best"] = True
    elif precision != AS_USUAL:
        names = ("compute_type", "quantization", "cache_type")
        request = {n: v for n, v in zip(names, precision.split("/"), strict=True) if v}
    if spec.task == "chat":
        request["context_tokens"] = int(context)
    elif spec.task == "speech":
        request["audio_seconds"] = 60 * minutes
    else:
        request["batch"] = int(batch)
        if spec.task == "image":
            request["size"] = f"{int(side)}x{int(side)}"
    return request
