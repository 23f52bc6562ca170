"""Measures what a model really takes: one request in a fresh process, peak by peak.

The process imports the engine's libraries, loads the model, runs one request of the wanted size
and reports its resident memory (RSS) after each. Nothing of an earlier model is in the figures.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from workbench.engines import registry
from workbench.engines.base import ChatOptions, ImageOptions, Message, SpeechOptions
from workbench.errors import DoesNotFit, WorkbenchError
from workbench.memory.devices import process_bytes
from workbench.memory.meter import PeakMemory
from workbench.memory.request import LoadOptions, RequestSize
from workbench.models.spec import ModelSpec

_SAMPLE_RATE_HZ = 16_000
_NEW_TOKENS = 8
_TIMEOUT_SECONDS = 900.0


class MeasuredMemory(BaseModel):
    """Resident bytes of the process: after the imports, at the peak of loading, after it, and at
    the peak of all. ``size`` is the request as it really was. ``device`` has the peaks on a GPU
    (`workbench.memory.meter.MemoryPeaks`); it is empty without one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    context_bytes: int
    load_peak_bytes: int
    loaded_bytes: int
    peak_bytes: int
    method: str
    size: RequestSize
    device: dict[str, int] = {}


def measure_memory(
    spec: ModelSpec,
    path: Path,
    options: LoadOptions | None = None,
    size: RequestSize | None = None,
    *,
    address_space_limit_bytes: int | None = None,
) -> MeasuredMemory:
    """Load and run the model in a fresh process. Raises DoesNotFit or WorkbenchError.

    ``address_space_limit_bytes`` is a hard limit (``RLIMIT_AS``) on that process.
    """
    request = {
        "spec": spec.model_dump(mode="json"),
        "path": str(path),
        "options": asdict(options or LoadOptions()),
        "size": asdict(size or RequestSize()),
        "limit": address_space_limit_bytes,
    }
    process = subprocess.run(
        [sys.executable, "-P", "-m", "workbench.engines.measure"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    last = (process.stdout.strip().splitlines() or [""])[-1]
    if process.returncode == 0:
        return MeasuredMemory.model_validate_json(last)
    said = (process.stderr.strip().splitlines() or ["it said nothing"])[-1]
    kind = DoesNotFit if process.returncode in (DoesNotFit.exit_code, -9) else WorkbenchError
    raise kind(f"Measuring {spec.id} ended with {process.returncode}: {said}", "")


def run_request(model: Any, task: str, size: RequestSize) -> RequestSize:
    """One request of about ``size``; returns its true size."""
    if task == "chat":
        return _chat(model, size)
    if task == "speech":
        return _transcribe(model, size)
    if task == "image":
        return _draw(model, size)
    model.embed(["a " * ((size.prompt_tokens or 128) - 2)] * size.batch)
    return size


# -- inside ----------------------------------------------------------------------------------


def _chat(model: Any, size: RequestSize) -> RequestSize:
    words = " a" * (size.prompt_tokens or 128)
    usage = None
    for delta in model.stream([Message("user", words)], ChatOptions(max_tokens=_NEW_TOKENS)):
        usage = delta.usage or usage
    return replace(size, prompt_tokens=usage.prompt_tokens if usage else size.prompt_tokens)


def _transcribe(model: Any, size: RequestSize) -> RequestSize:
    import numpy as np

    seconds = size.audio_seconds or 30.0
    # as good as silent: noise makes a Whisper sample again and again, which speech does not
    samples = np.full(int(seconds * _SAMPLE_RATE_HZ), 1e-5, np.float32)
    # nothing is transcribed where speech is looked for and not found: the two run one by one
    for vad in (True, False)[not size.vad :]:
        options = SpeechOptions(language="en", beam_size=size.beams, words=size.words, vad=vad)
        _, segments = model.transcribe(samples, options)
        for _ in segments:
            pass
    return replace(size, audio_seconds=seconds)


def _draw(model: Any, size: RequestSize) -> RequestSize:
    options = ImageOptions(
        "a red circle",
        width=size.width,
        height=size.height,
        steps=2,
        guidance_scale=4.0 if size.guided else 1.0,
        sampler="Euler",  # the one that models of every kind have
        batch=size.batch,
    )
    drawn = list(model.draw(options))[-1]
    width, height = drawn.images[0].size
    return replace(size, width=width, height=height)


@contextlib.contextmanager
def _limited(limit_bytes: int | None) -> Iterator[None]:
    if limit_bytes is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    yield


def main() -> None:
    """The fresh process: measure what standard input asks for, print it as one line."""
    request = json.load(sys.stdin)
    spec = ModelSpec.model_validate(request["spec"])
    options, size = LoadOptions(**request["options"]), RequestSize(**request["size"])
    for module in registry.find_engine(spec.engine).imports:
        importlib.import_module(module)
    context = process_bytes()
    try:
        with _limited(request["limit"]), PeakMemory() as peak:
            with PeakMemory() as loading:
                model = registry.load(spec, Path(request["path"]), options)
            loaded = process_bytes()
            size = run_request(model, spec.task, size)
    except MemoryError:
        sys.exit("Memory ran out.")
    except WorkbenchError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    found = MeasuredMemory(
        context_bytes=context,
        load_peak_bytes=loading.peak_bytes,
        loaded_bytes=loaded,
        peak_bytes=peak.peak_bytes,
        method=peak.method,
        size=size,
        device={k: v for k, v in peak.peaks.to_dict().items() if k != "process_bytes"},
    )
    sys.stdout.write(found.model_dump_json() + "\n")


if __name__ == "__main__":
    main()
