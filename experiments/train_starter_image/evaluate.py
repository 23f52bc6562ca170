"""Stage `evaluate`: accuracy of the exported files, judged by the analytic checker.

Every row has its number of prompts and a Wilson 95 % interval, and beside it the score of the same
pictures against shuffled captions, which is what chance gives.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from experiments.train_starter_image.export import reload
from workbench.tasks.image.shapes.captions import Language, Wording, caption
from workbench.tasks.image.shapes.checker import CheckResult, check
from workbench.tasks.image.shapes.scene import Scene, Thing, forget, sample_scene

STEPS, GUIDANCE = 20, 2.0
ATTRIBUTES = ("background", "count", "colour", "shape", "size", "position", "relation")
SPELLED = (
    "a red circle on a white background",
    "please draw a red circle on a white background",
    "một hình tròn màu đỏ trên nền trắng",
    "vẽ một hình vuông lớn màu xanh dương ở góc trên bên trái trên nền đen",
)
SPELLED_SCENES = (
    Scene((Thing("red", "circle"),), "white"),
    Scene((Thing("red", "circle"),), "white"),
    Scene((Thing("red", "circle"),), "white"),
    Scene((Thing("blue", "square", "large", "top left"),), "black"),
)
SAMPLERS = (
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
)


@dataclass(frozen=True)
class Row:
    """One kind of prompt of the table."""

    name: str
    things: int
    language: Language = "en"
    wording: Wording = "trained"
    held_out: bool = False
    partial: bool = False  # some attributes are not said


ROWS = (
    Row("one object", 1),
    Row("one object, held-out pairs", 1, held_out=True),
    Row("one object, attributes unsaid", 1, partial=True),
    Row("two objects", 2),
    Row("two objects, held-out pairs", 2, held_out=True),
    Row("one object, unseen wordings", 1, wording="unseen"),
    Row("two objects, unseen wordings", 2, wording="unseen"),
    Row("Vietnamese, one object", 1, "vi"),
    Row("Vietnamese, two objects", 2, "vi"),
    Row("Vietnamese, one object, unseen wordings", 1, "vi", "unseen"),
    Row("Vietnamese, two objects, unseen wordings", 2, "vi", "unseen"),
    Row("one object, sealed wordings", 1, wording="sealed"),
    Row("two objects, sealed wordings", 2, wording="sealed"),
    Row("Vietnamese, one object, sealed wordings", 1, "vi", "sealed"),
    Row("Vietnamese, two objects, sealed wordings", 2, "vi", "sealed"),
)


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share."""
    z = 1.96
    share = right / count
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def prompts_of(row: Row, count: int, seed: int) -> tuple[list[str], list[Scene]]:
    """Captions and what they say."""
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(count):
        scene = sample_scene(rng, row.things, row.held_out)
        if row.partial:
            scene = forget(scene, rng)
        scenes.append(scene)
    return [caption(scene, rng, row.language, row.wording) for scene in scenes], scenes


def draw(
    pipeline: StableDiffusionPipeline,
    captions: list[str],
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    first_seed: int = 0,
) -> np.ndarray:
    """Pictures (n, 32, 32, 3) uint8; picture i has the seed `first_seed + i`."""
    parts = []
    for start in range(0, len(captions), 32):
        some = captions[start : start + 32]
        seeds = range(first_seed + start, first_seed + start + len(some))
        parts.append(
            pipeline(
                some,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="np",
            ).images
        )
    return (np.concatenate(parts) * 255).round().astype(np.uint8)


def summary(results: list[CheckResult]) -> dict[str, Any]:
    """Shares of right pictures, per attribute (of the pictures whose prompt says it) and all."""
    right = sum(result.all_right for result in results)
    table: dict[str, Any] = {"n": len(results), "all_right": round(right / len(results), 4)}
    table["wilson_95"] = [round(bound, 4) for bound in wilson(right, len(results))]
    for attribute in ATTRIBUTES:
        said = [value for r in results if (value := getattr(r, attribute)) is not None]
        table[attribute] = round(float(np.mean(said)), 4) if said else None
    table["soft_iou"] = round(float(np.mean([result.soft_iou for result in results])), 4)
    return table


def score(images: np.ndarray, scenes: list[Scene]) -> dict[str, Any]:
    """`summary` of the pictures, with the chance level from captions moved on by one."""
    pairs = zip(images, scenes, strict=True)
    table = summary([check(image, scene) for image, scene in pairs])
    shuffled = zip(images, scenes[1:] + scenes[:1], strict=True)
    chance = [check(image, scene).all_right for image, scene in shuffled]
    return table | {"chance_all_right": round(float(np.mean(chance)), 4)}


@dataclass(frozen=True)
class Job:
    """One row of one table: which prompts, drawn how."""

    table: str
    name: str
    row: Row | str  # a kind of prompt, or one spelled prompt
    count: int
    seed: int
    steps: int = STEPS
    guidance: float = GUIDANCE
    sampler: str = "DDIMScheduler"


def jobs_of(prompts: int) -> list[Job]:
    """All rows; a sweep has half as many prompts as a row of the main table."""
    half, one = max(2, prompts // 2), ROWS[0]
    rows = [Job("accuracy", row.name, row, prompts, 100 + i) for i, row in enumerate(ROWS)]
    spelled = [Job("spelled", text, text, min(prompts, 32), 70) for text in SPELLED]
    steps = [Job("steps", str(n), one, half, 900, steps=n) for n in (4, 8, 20, 50)]
    guidance = [
        Job("guidance", str(g), one, half, 901, guidance=g) for g in (1.0, 2.0, 3.0, 5.0, 7.5)
    ]
    samplers = [
        Job("sampler", f"{name}, {n} steps", one, half, 902, steps=n, sampler=name)
        for name in SAMPLERS
        for n in (8, STEPS)
    ]
    return rows + spelled + steps + guidance + samplers


def run_job(pipeline: StableDiffusionPipeline, job: Job) -> dict[str, Any]:
    """Draws and scores one row."""
    if isinstance(job.row, str):
        scene = SPELLED_SCENES[SPELLED.index(job.row)]
        captions, scenes = [job.row] * job.count, [scene] * job.count
    else:
        captions, scenes = prompts_of(job.row, job.count, job.seed)
    usual = pipeline.scheduler
    pipeline.scheduler = getattr(diffusers, job.sampler).from_config(usual.config)
    images = draw(pipeline, captions, job.steps, job.guidance, first_seed=1000 * job.seed)
    pipeline.scheduler = usual
    table = score(images, scenes)
    if isinstance(job.row, str):
        del table["chance_all_right"]  # its captions are all the same
    return table


def _speed(pipeline: StableDiffusionPipeline) -> dict[str, float]:
    """Median seconds of one picture, alone, on one thread."""
    seconds = {}
    for steps in (4, 8, 20):
        times = []
        for _ in range(5):
            started = time.perf_counter()
            draw(pipeline, [SPELLED[0]], steps=steps)
            times.append(time.perf_counter() - started)
        seconds[f"{steps}_steps"] = round(float(np.median(times)), 3)
    return seconds


def _work(directory: Path, jobs: list[Job]) -> list[tuple[Job, dict[str, Any]]]:
    torch.set_num_threads(1)
    pipeline = reload(directory)
    done = []
    for job in jobs:
        done.append((job, run_job(pipeline, job)))
        print(job.table, job.name, done[-1][1]["all_right"], flush=True)
    return done


def evaluate(directory: Path, prompts: int, processes: int = 2) -> dict[str, Any]:
    """All tables of the README for the model in `directory`, as plain data."""
    jobs = jobs_of(prompts)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        parts = [jobs[i::processes] for i in range(processes)]
        done = [row for part in pool.map(_work, [directory] * processes, parts) for row in part]
    table: dict[str, Any] = {
        "settings": {"steps": STEPS, "guidance": GUIDANCE, "sampler": "DDIM", "dtype": "float32"}
    }
    for job, result in sorted(done, key=lambda row: jobs.index(row[0])):
        table.setdefault(job.table, {})[job.name] = result
    table["seconds_per_image"] = _speed(reload(directory))
    return table
