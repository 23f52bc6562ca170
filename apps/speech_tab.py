"""The Speech tab: a recording becomes text, segment by segment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

import workbench
from apps import files, render
from apps.messages import progress_line, waiting_line
from apps.page import QUIET, Page, play
from apps.texts import text
from workbench.engines.base import Segment, SpeechInfo
from workbench.errors import UserInputError
from workbench.settings import get_settings

TAB = "speech"
FORMATS = ("txt", "srt", "vtt", "json")
#: Languages offered by name; any other code that the model knows can be typed.
SPOKEN = (
    ("English", "en"),
    ("Tiếng Việt", "vi"),
    ("中文", "zh"),
    ("日本語", "ja"),
    ("한국어", "ko"),
    ("Français", "fr"),
    ("Deutsch", "de"),
    ("Español", "es"),
    ("Italiano", "it"),
    ("Português", "pt"),
    ("Русский", "ru"),
    ("ไทย", "th"),
)


@dataclass(frozen=True)
class Clip:
    """A sample recording with what is said in it."""

    path: str
    text: str
    language: str


class SpeechTab:
    """The tab's components and events, added to the open `gr.Blocks`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.clips = sample_clips()
        with gr.Row():
            with gr.Column(scale=1, min_width=310):
                self._lay_out_request()
            with gr.Column(scale=2, min_width=310):
                self._lay_out_result()
        self._wire()

    def _lay_out_request(self) -> None:
        make = self.page.words.make
        self.audio = make(
            gr.Audio,
            {"label": "speech.audio"},
            sources=["upload", "microphone"],
            type="filepath",
            buttons=[],
            elem_id="speech-audio",
        )
        with gr.Row():
            self.transcribe = self.page.run_button("speech.transcribe", "speech-transcribe")
            self.stop = self.page.stop_button("speech-stop")
        names = [Path(clip.path).stem for clip in self.clips]
        self.examples = self.page.examples(names, "speech-examples")
        with make(gr.Accordion, {"label": "common.options"}, open=False):
            self.model = self.page.choose_model("speech", get_settings().models.speech)
            self.spoken = make(
                gr.Dropdown,
                {"label": "speech.language", "info": "speech.language_info"},
                choices=list(SPOKEN),
                value=None,
                allow_custom_value=True,
            )
            self.words = make(gr.Checkbox, {"label": "speech.words"})
            self.translate = make(gr.Checkbox, {"label": "speech.translate"})
            self.vad = make(gr.Checkbox, {"label": "speech.vad"}, value=True)
            self.reference = make(
                gr.Textbox,
                {"label": "speech.reference", "info": "speech.reference_info"},
                value="",
                lines=2,
            )

    def _lay_out_result(self) -> None:
        make = self.page.words.make
        self.status = gr.HTML(elem_id="speech-status")
        self.segments = make(
            gr.Dataframe,
            {"label": "speech.segments"},
            value=segment_table([], self.page.words.language),
            interactive=False,
            wrap=True,
            max_height=320,
            elem_id="speech-segments",
        )
        self.said = make(
            gr.Textbox,
            {"label": "speech.text"},
            value="",
            lines=4,
            max_lines=16,
            interactive=False,
            buttons=["copy"],
            elem_id="speech-text",
        )
        self.downloads = make(
            gr.File,
            {"label": "common.downloads"},
            file_count="multiple",
            interactive=False,
            visible=False,
            elem_id="speech-downloads",
        )

    def _wire(self) -> None:
        taken = self.examples.click(
            self.take, self.examples, [self.audio, self.reference, self.spoken], **QUIET
        )
        # what was said in the last clip is not what is said in this one
        self.audio.input(lambda: "", None, self.reference, **QUIET)
        self.page.on_stop(TAB, self.stop, self.status)
        self.page.on_run(
            TAB,
            [self.transcribe.click, taken.success],
            self.run,
            [
                self.audio,
                self.model,
                self.spoken,
                self.words,
                self.translate,
                self.vad,
                self.reference,
                self.page.record,
            ],
            [self.segments, self.said, self.downloads, self.status],
            buttons=[self.transcribe],
            stop=self.stop,
            status=self.status,
            api_name="transcribe",
        )

    def run(
        self,
        audio: str | None,
        model: str,
        spoken: str | None,
        words: bool,
        translate: bool,
        vad: bool,
        reference: str,
        record: bool,
        language: str,
        request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:
        """Transcribe, redrawing the table as segments come; ``spoken`` None: find it out."""
        if not audio:
            raise UserInputError(text("speech.no_audio", language))
        work = play(
            lambda: workbench.transcribe(
                audio,
                model=model,
                language=spoken or None,
                translate=translate,
                words=words,
                vad=vad,
                stream=True,
                reference=reference.strip() or None,
            ),
            record,
        )
        yield {
            self.segments: segment_table([], language),
            self.said: "",
            self.downloads: gr.update(value=None, visible=False),
        }
        found: list[Segment] = []
        info: SpeechInfo | None = None
        started = 0.0
        for update in self.page.follow(TAB, request, work):
            for event in update.events:
                if isinstance(event, SpeechInfo):
                    info, started = event, update.seconds
                else:
                    found.append(event)
            if update.result is not None:
                break
            if info is None:
                yield {self.status: waiting_line(update, language)}
                continue
            line = audio_line(found, info, update.seconds - started, language)
            if not update.events:
                yield {self.status: line}
                continue
            yield {
                self.status: line,
                self.segments: segment_table(found, language),
                self.said: " ".join(segment.text.strip() for segment in found),
            }
        transcript = update.result
        yield {
            self.segments: segment_table(transcript.segments, language),
            self.said: transcript.text,
            self.downloads: gr.update(value=write_all(transcript, Path(audio).stem), visible=True),
            self.status: render.status(summary(transcript, language), kind="done"),
        }

    def take(self, index: int) -> tuple[str, str, str | None]:
        """The clip that was clicked: recording, what is said, and in which language."""
        clip = self.clips[index]
        known = {code for _, code in SPOKEN}
        return clip.path, clip.text, clip.language if clip.language in known else None


def sample_clips() -> list[Clip]:
    """The recordings of ``data/speech``, as its manifest lists them."""
    folder = files.speech_folder()
    manifest = folder / "manifest.jsonl"
    lines = manifest.read_text(encoding="utf-8").splitlines() if manifest.is_file() else []
    entries = [json.loads(line) for line in lines if line.strip()]
    return [Clip(str(folder / e["file"]), e["text"], e["language"]) for e in entries]


def segment_table(segments: Any, language: str) -> dict[str, Any]:
    """Start, end and text of every segment."""
    names = ("start", "end", "said")
    return {
        "headers": [text(f"speech.{name}", language) for name in names],
        "data": [
            [clock(segment.start_seconds), clock(segment.end_seconds), segment.text.strip()]
            for segment in segments
        ],
    }


def clock(seconds: float) -> str:
    """``75.5`` -> ``1:15.50``."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    head = f"{hours}:{minutes:02d}" if hours else str(minutes)
    return f"{head}:{rest:05.2f}"


def audio_line(found: list[Segment], info: SpeechInfo, seconds: float, language: str) -> str:
    """How much of the recording is done, in its own time."""
    done = found[-1].end_seconds if found else 0.0
    total = info.duration_seconds
    line = text("speech.progress", language, done=done, total=total)
    return progress_line(line, done, total, seconds, language)


def summary(transcript: Any, language: str) -> str:
    """Language, speed, and the error rate where a reference was given."""
    if not transcript.segments:
        line = text("speech.listening", language, seconds=transcript.timings.total_seconds)
        return line + text("speech.no_speech", language)
    line = text(
        "speech.done",
        language,
        spoken=transcript.language,
        probability=transcript.language_probability,
        duration=transcript.duration_seconds,
        seconds=transcript.timings.total_seconds,
        factor=transcript.timings.realtime_factor,
    )
    wer = transcript.record.quality.get("wer")
    if wer is not None:
        line += text("speech.wer", language, wer=wer)
    return line + text("chat.cancelled", language) if transcript.cancelled else line


def write_all(transcript: Any, stem: str) -> list[str]:
    """The transcript in every format, for download."""
    folder = files.new_folder()
    paths = [folder / f"{stem}.{kind}" for kind in FORMATS]
    for path in paths:
        transcript.save(path)
    return [str(path) for path in paths]
