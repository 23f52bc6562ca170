"""What the workbench costs over the bare library: the same work, same process, alternating.

    python benchmarks/overhead.py [--rounds N] [--json]

Each row is the ratio of the medians (workbench / library): 1.00 is free, 1.03 is 3 % slower.
The interval is a bootstrap of the ratio of medians (2,000 resamples, 95 %).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import workbench
from workbench.engines.worker import torch_thread
from workbench.models import sources
from workbench.project import project_root

CHAT_PROMPT = "Write a short story about a lighthouse keeper and a storm."
CHAT_TOKENS = 96
IMAGE_PROMPT = "a red circle on a white background"
IMAGE_STEPS = 20


def main() -> None:
    """Run every comparison and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=["chat", "speech", "image"])
    arguments = parser.parse_args()
    rows = []
    for name, make in (("chat", chat_pair), ("speech", speech_pair), ("image", image_pair)):
        if arguments.only in (None, name):
            rows.append(compare(name, *make(), rounds=arguments.rounds))
    if arguments.json:
        print(json.dumps(rows))
        return
    print(f"{'task':<8}{'unit':<22}{'library':>10}{'workbench':>11}{'ratio':>8}   95 % interval")
    for row in rows:
        print(
            f"{row['task']:<8}{row['unit']:<22}{row['library']:>10.3f}{row['workbench']:>11.3f}"
            f"{row['ratio']:>8.3f}   {row['low']:.3f} - {row['high']:.3f}"
        )


def compare(
    name: str, unit: str, bare: Callable[[], float], ours: Callable[[], float], rounds: int
) -> dict[str, Any]:
    """Alternate the two, order drawn anew each round, and compare their medians."""
    draw = random.Random(0)
    bare(), ours()  # warm up both
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(rounds):
        for which in draw.sample(["bare", "ours"], 2):
            times[which].append(bare() if which == "bare" else ours())
    ratios = sorted(
        statistics.median(draw.choices(times["ours"], k=rounds))
        / statistics.median(draw.choices(times["bare"], k=rounds))
        for _ in range(2000)
    )
    library, workbench_value = (statistics.median(times[which]) for which in ("bare", "ours"))
    return {
        "task": name,
        "unit": unit,
        "library": library,
        "workbench": workbench_value,
        "ratio": workbench_value / library,
        "low": ratios[49],
        "high": ratios[1949],
        "rounds": rounds,
    }


def chat_pair() -> tuple[str, Callable[[], float], Callable[[], float]]:
    """Milliseconds a token of decoding, from the first token to the last as they arrive."""
    import psutil
    import xllamacpp

    spec = workbench.models.get("qwen2.5-coder-0.5b")
    params = xllamacpp.CommonParams()
    params.model.path = str(sources.require(spec))
    params.n_ctx = spec.context_tokens
    params.n_parallel = 1
    params.verbosity = -1
    threads = workbench.settings.get_settings().threads or psutil.cpu_count(logical=False)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)
    request = {
        "messages": [{"role": "user", "content": CHAT_PROMPT}],
        "max_tokens": CHAT_TOKENS,
        "temperature": 0.0,
        "top_k": 1,
        "stream": True,
        "cache_prompt": False,
    }

    def bare() -> float:
        arrivals: list[float] = []

        def arrived(chunk: Any) -> bool:
            choices = chunk.get("choices")
            if choices and choices[0]["delta"].get("content"):
                arrivals.append(time.perf_counter())
            return False

        server.handle_chat_completions(request, arrived)
        return _milliseconds_a_token(arrivals)

    def ours() -> float:
        arrivals = []
        for delta in workbench.chat(CHAT_PROMPT, max_tokens=CHAT_TOKENS, stream=True):
            if delta.text:
                arrivals.append(time.perf_counter())
        return _milliseconds_a_token(arrivals)

    return "ms / token, decode", bare, ours


def _milliseconds_a_token(arrivals: list[float]) -> float:
    return 1000 * (arrivals[-1] - arrivals[0]) / (len(arrivals) - 1)


def speech_pair() -> tuple[str, Callable[[], float], Callable[[], float]]:
    """Seconds for the longest sample that a person speaks, from the file to the text."""
    from faster_whisper import WhisperModel

    spec = workbench.models.get("whisper-base")
    threads = workbench.settings.get_settings().threads or 0
    library = WhisperModel(
        str(sources.require(spec)), device="cpu", compute_type="int8", cpu_threads=threads
    )
    folder = project_root() / "data" / "speech"
    entries = [json.loads(line) for line in (folder / "manifest.jsonl").open(encoding="utf-8")]
    spoken = [entry for entry in entries if entry["source"].startswith("human")]
    audio = folder / max(spoken, key=lambda entry: entry["duration_seconds"])["file"]

    def bare() -> float:
        started = time.perf_counter()
        segments, _ = library.transcribe(
            str(audio), beam_size=5, vad_filter=True, condition_on_previous_text=False
        )
        list(segments)
        return time.perf_counter() - started

    def ours() -> float:
        started = time.perf_counter()
        workbench.transcribe(audio)
        return time.perf_counter() - started

    return "s / recording", bare, ours


def image_pair() -> tuple[str, Callable[[], float], Callable[[], float]]:
    """Seconds for one picture. The library runs in the thread in which the workbench computes:
    a second thread with its own OpenMP team would slow both."""
    import torch
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    spec = workbench.models.get("shapes-32")
    path: Path = sources.require(spec)

    def load() -> Any:
        pipeline = StableDiffusionPipeline.from_pretrained(
            path, variant="fp16", dtype=torch.float32, local_files_only=True, safety_checker=None
        )
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    pipeline = torch_thread.run(load)

    def draw() -> float:
        started = time.perf_counter()
        pipeline(
            IMAGE_PROMPT,
            num_inference_steps=IMAGE_STEPS,
            guidance_scale=2.0,
            generator=torch.Generator("cpu").manual_seed(1),
        )
        return time.perf_counter() - started

    def ours() -> float:
        started = time.perf_counter()
        workbench.draw(IMAGE_PROMPT, steps=IMAGE_STEPS, guidance_scale=2.0, seed=1)
        return time.perf_counter() - started

    return "s / picture", lambda: torch_thread.run(draw), ours


if __name__ == "__main__":
    main()
