"""`workbench.plan`: whether a model fits, and how to load it best, before anything is loaded."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from workbench.engines.facts import known_facts, with_activations
from workbench.engines.measure import MeasuredMemory, measure_memory
from workbench.engines.planner import held_engines
from workbench.engines.pool import default_pool, read_device
from workbench.errors import SourceUnreachable, UnknownOption, UserInputError
from workbench.memory import devices
from workbench.memory.correction import parts_of
from workbench.memory.devices import Budget
from workbench.memory.facts import ModelFacts
from workbench.memory.history import History, Observation
from workbench.memory.machine import get_machine, library_versions
from workbench.memory.matrix import device_kind
from workbench.memory.plan import MemoryPlan, plan_model, rank_plans
from workbench.memory.request import CacheType, LoadOptions, Offload, Quantization, RequestSize
from workbench.models import get, sources
from workbench.models.spec import HubSource, ModelSpec, PackageSource, Task
from workbench.settings import get_settings
from workbench.units import parse_bytes, parse_size

#: Sizes of a request -> the tasks for which they mean something.
_MEANT_FOR: dict[str, tuple[Task, ...]] = {
    "prompt_tokens": ("chat", "embedding"),
    "audio_seconds": ("speech",),
    "beam_size": ("speech",),
    "words": ("speech",),
    "vad": ("speech",),
    "size": ("image",),
    "guided": ("image",),
}


def plan(
    model: str,
    memory: str | None = None,
    *,
    best: bool = False,
    task: Task | None = None,
    device: str | None = None,
    context_tokens: int | None = None,
    compute_type: str | None = None,
    quantization: str | None = None,
    offload: Offload | None = None,
    cache_type: CacheType | None = None,
    gpu_layers: int | None = None,
    vae_tiling: bool | None = None,
    vae_slicing: bool | None = None,
    prompt_tokens: int | None = None,
    batch: int = 1,
    audio_seconds: float | None = None,
    beam_size: int | None = None,
    words: bool | None = None,
    vad: bool | None = None,
    size: str | tuple[int, int] | None = None,
    guided: bool | None = None,
) -> MemoryPlan:
    """Predict the memory of ``model`` and one request, and say whether it fits.

    With nothing fixed it is the plan of what the workbench would do by itself. ``best=True``
    searches every way to load that agrees with the options that are given (``quantization="none"``
    fixes that there is none) and returns the best that fits, or the one that lacks least.

    ``memory`` is a budget such as ``"8GiB"``; None: what is free here, idle models counted as
    free. With a budget, ``device`` may be one that is not here (``"cuda"``). ``size`` is a
    picture's, "WxH" or (width, height). ``task`` says what a model of the hub does.

    A model that is not here is planned from the headers of its files on the hub.

    Raises UnknownModel, ModelMissing, SourceUnreachable, UnknownOption, UserInputError.
    """
    given = {
        "context_tokens": context_tokens,
        "compute_type": compute_type,
        "quantization": quantization,
        "offload": offload,
        "cache_type": cache_type,
        "gpu_layers": gpu_layers,
        "vae_tiling": vae_tiling,
        "vae_slicing": vae_slicing,
    }
    fixed = {name: value for name, value in given.items() if value is not None}
    asked = {
        "prompt_tokens": prompt_tokens,
        "audio_seconds": audio_seconds,
        "beam_size": beam_size,
        "words": words,
        "vad": vad,
        "size": size,
        "guided": guided,
    }
    sizes = {name: value for name, value in asked.items() if value is not None}
    _check_numbers({**fixed, **sizes, "batch": batch})
    spec = get(model, task or _task_of_sizes(model, sizes))
    if spec.is_remote:
        raise UserInputError(
            f"The model {spec.id} runs at its provider.", "It takes no memory here; just use it."
        )
    options = _load_options(device, fixed)
    request = _request_size(spec, batch, sizes)
    context = options.context_tokens or spec.context_tokens
    if context and (request.prompt_tokens or 0) > context:
        raise UserInputError(
            f"A prompt of {request.prompt_tokens} tokens is longer than the context of {context}.",
            "Give a shorter prompt or a longer context.",
        )
    held: frozenset[str] = frozenset()
    if memory is not None:
        budget = _given_budget(options.device, memory)
    else:
        budget = _free_budget(spec, options, request)
        held = held_engines(spec, options)
    facts, notes = _facts(spec)
    machine = get_machine()
    if best:
        order = rank_plans(facts, budget, options, request, machine, held, fixed=tuple(fixed))
        found = order[0]
    else:
        found = plan_model(facts, budget, options, request, machine, held)
    return found.model_copy(update={"notes": (*notes, *found.notes)})


def measure(plan: MemoryPlan) -> tuple[MemoryPlan, MeasuredMemory]:
    """Run what was planned in a fresh process and keep predicted and measured in the history.

    Returns the plan of the request as it really was (a prompt has a few tokens more than asked
    for) and what it took. Raises ModelMissing, DoesNotFit, UserInputError, WorkbenchError.
    """
    if device_kind(plan.options.device) != "cpu":
        raise UserInputError(
            f"Only the CPU's memory can be measured so, not that of {plan.device}.",
            "Leave out --measure, or plan for the CPU.",
        )
    spec = get(plan.model)
    path = sources.require(spec)
    measured = measure_memory(spec, path, plan.options, plan.size)
    budget = Budget(plan.device, plan.available_bytes, plan.reason)
    facts = known_facts(spec, path)
    ran = plan_model(facts, budget, plan.options, measured.size, get_machine())
    parts = parts_of(ran.estimate)
    History().add(
        Observation(
            model=plan.model,
            family=ran.family,
            device=device_kind(plan.options.device),
            options=asdict(plan.options),
            size=asdict(measured.size),
            terms={
                "context": measured.context_bytes,
                "weights": parts.weights_bytes,
                "dynamic": parts.dynamic_bytes,
            },
            predicted_bytes=ran.peak_bytes,
            upper_bytes=ran.upper_bytes,
            measured_bytes=measured.peak_bytes,
            method=measured.method,
            versions=library_versions(),
        )
    )
    return ran, measured


# -- inside ----------------------------------------------------------------------------------


def _check_numbers(given: dict[str, Any]) -> None:
    """Raise UserInputError for a size that cannot be."""
    least = {"context_tokens": 1, "prompt_tokens": 1, "batch": 1, "beam_size": 1, "gpu_layers": 0}
    names = {"context_tokens": "The context", "prompt_tokens": "The prompt", "batch": "A batch"}
    units = {"context_tokens": "token", "prompt_tokens": "token", "gpu_layers": "layers"}
    for name, minimum in least.items():
        if name in given and given[name] < minimum:
            what = names.get(name, name)
            unit = f" {units[name]}" if name in units else ""
            raise UserInputError(f"{what} must be at least {minimum}{unit}.", "Give a larger one.")
    if "audio_seconds" in given and not 0 < given["audio_seconds"] < float("inf"):
        raise UserInputError("A recording must be longer than 0 s.", "Give its length.")


def _task_of_sizes(model: str, sizes: dict[str, Any]) -> Task | None:
    """What a bare ``org/name`` must do, told by what is asked of it; None: nothing tells."""
    if "/" not in model or Path(model).expanduser().exists():
        return None
    tasks = {_MEANT_FOR[name] for name in sizes if len(_MEANT_FOR[name]) == 1}
    return tasks.pop()[0] if len(tasks) == 1 else None


def _load_options(device: str | None, fixed: dict[str, Any]) -> LoadOptions:
    """The options as the engines know them. Raises UnknownOption for a value of no engine."""
    choices = {
        "offload": get_args(Offload),
        "cache_type": get_args(CacheType),
        "quantization": ("none", *get_args(Quantization)),
    }
    for name, allowed in choices.items():
        if name in fixed and fixed[name] not in allowed:
            raise UnknownOption(
                f"There is no {name.replace('_', ' ')} {fixed[name]!r}.",
                f"Use one of: {', '.join(allowed)}.",
            )
    values: dict[str, Any] = dict(fixed)
    if values.get("quantization") == "none":
        values["quantization"] = None
    return LoadOptions(device=device or LoadOptions().device, **values)


def _request_size(spec: ModelSpec, batch: int, sizes: dict[str, Any]) -> RequestSize:
    """The request, the model's own defaults where nothing is said."""
    for name in sizes:
        if spec.task not in _MEANT_FOR[name]:
            raise UserInputError(
                f"{spec.id} does {spec.task}, and {name} says nothing about that.",
                f"It is for {' and '.join(_MEANT_FOR[name])} models; leave it out.",
            )
    width, height = spec.defaults.get("width"), spec.defaults.get("height")
    if "size" in sizes:
        given = sizes["size"]
        width, height = parse_size(given) if isinstance(given, str) else given
        for name, value in (("widths", width), ("heights", height)):
            allowed = spec.options.get(name)
            if allowed and value not in allowed:
                raise UnknownOption(
                    f"{spec.id} cannot draw {width}x{height}.",
                    f"Its {name} are {', '.join(map(str, allowed))}.",
                )
    guided = sizes.get("guided", float(spec.defaults.get("guidance_scale", 2.0)) > 1.0)
    return RequestSize(
        prompt_tokens=sizes.get("prompt_tokens"),
        batch=batch,
        audio_seconds=sizes.get("audio_seconds"),
        beams=sizes.get("beam_size", RequestSize().beams),
        words=sizes.get("words", RequestSize().words),
        vad=sizes.get("vad", RequestSize().vad),
        width=width,
        height=height,
        guided=guided,
    )


def _given_budget(device: str, memory: str) -> Budget:
    """A budget that was given in words, on a device that need not be here."""
    if device_kind(device) not in ("cpu", "cuda", "mps"):
        raise UnknownOption(f"There is no device {device!r}.", "Use cpu, cuda, cuda:N or mps.")
    return Budget(device, parse_bytes(memory), f"the budget given is {memory}")


def _free_budget(spec: ModelSpec, options: LoadOptions, size: RequestSize) -> Budget:
    """What is free on the device, idle models counted as free."""
    try:
        there = read_device(options.device)
    except UnknownOption as error:
        raise UnknownOption(
            error.message,
            f"{error.remedy} To plan for one that is not here, say how much it has: --memory 8GiB.",
        ) from None
    if sources.locate(spec) is None:
        return devices.budget(there, 0)
    found = default_pool().plan(spec, LoadOptions(device=options.device), size)
    return Budget(found.device, found.available_bytes, found.reason)


def _facts(spec: ModelSpec) -> tuple[ModelFacts, tuple[str, ...]]:
    """The facts of the model, and a line that says so where they come from the hub."""
    path = sources.locate(spec)
    if path is not None:
        return known_facts(spec, path), ()
    on_hub = any(isinstance(source, HubSource) for source in spec.sources)
    if not on_hub or get_settings().offline:
        sources.require(spec)  # raises ModelMissing with the command that fetches it
    from workbench.memory.remote_facts import read_remote_facts

    try:
        facts = read_remote_facts(spec)
    except SourceUnreachable:
        if any(isinstance(source, PackageSource) for source in spec.sources):
            sources.require(spec)
        raise
    note = "the files are not here: planned from their headers on the hub"
    return with_activations(_told_by_files(facts)), (note,)


def _told_by_files(facts: ModelFacts) -> ModelFacts:
    """A bare ``org/name`` says nothing about its engine; the files do."""
    names = {part.name for part in facts.components}
    if "vae" in names or not names.isdisjoint({"unet", "transformer"}):
        return facts.model_copy(update={"task": "image", "engine": "diffusers"})
    if "general.architecture" in facts.components[0].config:
        return facts.model_copy(update={"task": "chat", "engine": "llama_cpp"})
    return facts
