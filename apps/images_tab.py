"""The Images tab: the arrangement that users of A1111 know, on `workbench.draw`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

import workbench
from apps import files, render
from apps.messages import progress_line, waiting_line
from apps.page import QUIET, Page, play
from apps.texts import text
from workbench.engines.base import ImageStep
from workbench.engines.samplers import SAMPLERS
from workbench.errors import UserInputError
from workbench.models.spec import ModelSpec
from workbench.settings import get_settings

TAB = "images"
USUAL_SIZES = (512, 640, 768, 896, 1024)

EXAMPLES = (
    "a large red circle in the center on a white background",
    "a small blue square above a yellow triangle",
    "a green star",
    "một hình tròn màu đỏ lớn ở giữa trên nền trắng",
)


class ImagesTab:
    """The tab's components and events, added to the open `gr.Blocks`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        default = workbench.models.get(get_settings().models.image)
        with gr.Row():
            self.model = page.choose_model("image", default.id)
        self._lay_out_prompt()
        with gr.Row():
            with gr.Column(scale=1, min_width=310):
                self._lay_out_options(suited(default))
            with gr.Column(scale=1, min_width=310):
                self._lay_out_pictures()
        self._wire()

    def _lay_out_prompt(self) -> None:
        make = self.page.words.make
        with gr.Row(equal_height=True):
            with gr.Column(scale=5, min_width=300):
                self.prompt = make(
                    gr.Textbox,
                    {"label": "images.prompt", "placeholder": "images.prompt_placeholder"},
                    value="",
                    lines=1,
                    max_lines=5,
                    elem_id="images-prompt",
                )
                self.negative = make(
                    gr.Textbox,
                    {"label": "images.negative", "placeholder": "images.negative_placeholder"},
                    value="",
                    lines=1,
                    max_lines=5,
                )
            with gr.Column(scale=1, min_width=140):
                self.generate = self.page.run_button("images.generate", "images-generate")
                self.interrupt = self.page.stop_button("images-interrupt", "images.interrupt")
        self.examples = self.page.examples(EXAMPLES, "images-examples")
        self.status = gr.HTML(elem_id="images-status")

    def _lay_out_options(self, suits: dict[str, dict[str, Any]]) -> None:
        make = self.page.words.make
        self.sampler = make(gr.Dropdown, {"label": "images.sampler"}, **suits["sampler"])
        with gr.Row():
            self.steps = make(
                gr.Slider,
                {"label": "images.steps"},
                minimum=1,
                maximum=150,
                step=1,
                **suits["steps"],
            )
            self.guidance = make(
                gr.Slider,
                {"label": "images.guidance"},
                minimum=1,
                maximum=30,
                step=0.5,
                **suits["guidance"],
            )
        with gr.Row():
            self.width = make(
                gr.Dropdown, {"label": "images.width"}, min_width=90, **suits["width"]
            )
            self.height = make(
                gr.Dropdown, {"label": "images.height"}, min_width=90, **suits["height"]
            )
            self.batch = make(
                gr.Slider, {"label": "images.batch"}, minimum=1, maximum=8, step=1, value=1
            )
        with gr.Row(elem_classes="low"):
            self.seed = make(
                gr.Number,
                {"label": "common.seed", "info": "images.seed_info"},
                value=-1,
                precision=0,
                minimum=-1,
                scale=2,
                min_width=120,
            )
            self.dice = make(gr.Button, {"value": "images.random"}, size="sm", min_width=100)
            self.recycle = make(gr.Button, {"value": "images.reuse"}, size="sm", min_width=100)
        self.last_seed = gr.State(-1)

    def _lay_out_pictures(self) -> None:
        make = self.page.words.make
        self.gallery = make(
            gr.Gallery,
            {"label": "images.gallery"},
            columns=4,
            height=420,
            object_fit="contain",
            preview=True,
            format="png",
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id="images-gallery",
        )
        self.saved = make(
            gr.File,
            {"label": "images.files"},
            file_count="multiple",
            interactive=False,
            visible=False,
            elem_id="images-files",
        )
        with make(gr.Accordion, {"label": "images.recipe"}, open=False):
            self.recipe = gr.JSON(show_label=False, max_height=320, elem_id="images-recipe")

    def _wire(self) -> None:
        fitting = [self.sampler, self.steps, self.guidance, self.width, self.height]
        self.model.change(self.suit, self.model, fitting, **QUIET)
        self.dice.click(lambda: -1, None, self.seed, **QUIET)
        self.recycle.click(lambda seed: seed, self.last_seed, self.seed, **QUIET)
        taken = self.examples.click(lambda i: EXAMPLES[i], self.examples, self.prompt, **QUIET)
        self.page.on_stop(TAB, self.interrupt, self.status)
        self.page.on_run(
            TAB,
            [self.generate.click, self.prompt.submit, self.negative.submit, taken.success],
            self.run,
            [
                self.prompt,
                self.negative,
                self.model,
                *fitting,
                self.batch,
                self.seed,
                self.page.record,
            ],
            [self.gallery, self.saved, self.recipe, self.last_seed, self.status],
            buttons=[self.generate],
            stop=self.interrupt,
            status=self.status,
            api_name="draw",
        )

    def run(
        self,
        prompt: str,
        negative_prompt: str,
        model: str,
        sampler: str,
        steps: float,
        guidance_scale: float,
        width: int,
        height: int,
        batch: float,
        seed: float,
        record: bool,
        language: str,
        request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:
        """Draw, with progress a step; a negative seed means a new one."""
        if not prompt.strip():
            raise UserInputError(text("images.no_prompt", language))
        work = play(
            lambda: workbench.draw(
                prompt,
                model=model,
                negative_prompt=negative_prompt,
                size=(int(width), int(height)),
                steps=int(steps),
                guidance_scale=float(guidance_scale),
                sampler=sampler,
                seed=None if seed < 0 else int(seed),
                batch=int(batch),
                stream=True,
            ),
            record,
        )
        first_seconds: float | None = None
        for update in self.page.follow(TAB, request, work):
            if update.result is not None:
                break
            step = next((e for e in reversed(update.events) if isinstance(e, ImageStep)), None)
            if step is None:
                if first_seconds is None:
                    yield {self.status: waiting_line(update, language)}
                continue
            if first_seconds is None:
                first_seconds = update.seconds
            line = text("images.step", language, done=step.done, total=step.total)
            spent = update.seconds - first_seconds
            changed: dict[Any, Any] = {
                self.status: progress_line(line, step.done, step.total, spent, language)
            }
            if step.preview is not None:
                changed[self.gallery] = [step.preview]
            yield changed
        pictures = update.result
        paths = [str(path) for path in pictures.save(files.new_folder())]
        captions = [text("images.caption", language, seed=number) for number in pictures.seeds]
        yield {
            self.gallery: gr.update(
                value=list(zip(paths, captions, strict=True)), selected_index=0
            ),
            self.saved: gr.update(value=paths, visible=True),
            self.recipe: pictures.recipe,
            self.last_seed: pictures.seeds[0],
            self.status: render.status(summary(pictures, language), kind="done"),
        }

    def suit(self, model: str) -> list[Any]:
        """Set sampler, steps and sizes to what a model likes."""
        changed = suited(workbench.models.get(model))
        return [gr.update(**options) for options in changed.values()]


def suited(spec: ModelSpec) -> dict[str, dict[str, Any]]:
    """Choices and values that suit a model: those of its catalogue entry."""
    chosen = spec.defaults
    return {
        "sampler": {
            "choices": list(SAMPLERS),
            "value": chosen.get("sampler", "DPM++ 2M"),
        },
        "steps": {"value": chosen.get("steps", 20)},
        "guidance": {"value": chosen.get("guidance_scale", 7.0)},
        "width": sizes(spec.options.get("widths"), chosen.get("width", 512)),
        "height": sizes(spec.options.get("heights"), chosen.get("height", 512)),
    }


def sizes(possible: list[int] | None, chosen: int) -> dict[str, Any]:
    """The sizes a model can draw; where it does not say, the usual ones."""
    return {"choices": possible or sorted({*USUAL_SIZES, chosen}), "value": chosen}


def summary(pictures: Any, language: str) -> str:
    """How long it took, the seeds, and what the checker found where there is one."""
    line = text(
        "images.done",
        language,
        seconds=pictures.seconds,
        seeds=", ".join(str(number) for number in pictures.seeds),
    )
    quality = pictures.record.quality
    if not quality:
        return line
    found = ", ".join(f"{name.replace('_', ' ')} {value:.0%}" for name, value in quality.items())
    return f"{line} · {text('images.verdict', language)}: {found}"
