"""`workbench models ...` and `workbench plan`: what is here, and whether it fits."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from workbench.errors import DoesNotFit, UserInputError
from workbench.memory.request import CacheType, Offload, Quantization
from workbench.models.spec import Task
from workbench.terminal import AsJson, complete_model, print_json, progress

if TYPE_CHECKING:
    from workbench.engines.measure import MeasuredMemory
    from workbench.memory.plan import MemoryPlan

models_app = typer.Typer(help="The models that can run here.", no_args_is_help=True)


def _complete(*choices: str) -> Callable[[str], list[str]]:
    """A completion of the words that an option takes."""

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def require_task(task: str | None) -> None:
    """Raise UserInputError unless ``task`` is one, or None."""
    if task not in (None, *get_args(Task)):
        raise UserInputError(f"There is no task {task!r}.", "Use chat, speech, image or embedding.")


@models_app.command("list")
def models_list(
    task: Annotated[str | None, typer.Option(help="chat, speech, image or embedding.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the models and whether they are here."""
    import workbench
    from workbench.errors import ChecksumMismatch
    from workbench.units import format_bytes

    require_task(task)
    rows: list[dict[str, Any]] = []
    for spec in workbench.models.list(task):  # type: ignore[arg-type]
        try:
            state = (
                "at its provider"
                if spec.is_remote
                else ("here" if workbench.models.locate(spec.id) else "not here")
            )
        except ChecksumMismatch:
            state = "damaged"
        rows.append(
            {
                "id": spec.id,
                "task": spec.task,
                "engine": spec.engine,
                "state": state,
                "size_bytes": spec.size_bytes,
                "starter": spec.starter,
                "licence": spec.licence,
            }
        )
    if as_json:
        print_json({"models": rows})
        return
    for row in rows:
        size = format_bytes(row["size_bytes"]) if row["size_bytes"] else ""
        print(f"{row['id']:<22}{row['task']:<11}{row['engine']:<13}{size:>11}  {row['state']}")


@models_app.command("pull")
def models_pull(
    names: Annotated[list[str] | None, typer.Argument(autocompletion=complete_model)] = None,
    starters: Annotated[bool, typer.Option("--starters", help="All starter models.")] = False,
    force: Annotated[bool, typer.Option(help="Even if it is here.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch models; every file is checked against its sha256."""
    import workbench

    wanted = [*(names or [])]
    if starters:
        wanted += [spec.id for spec in workbench.models.list() if spec.starter]
    if not wanted:
        raise UserInputError("Nothing to pull.", "Name a model, or use --starters.")
    paths = {}
    for name in wanted:
        with progress(f"pull {name}", quiet=as_json, in_bytes=True) as (bar, row):

            def report(done: int, total: int | None, what: str, bar=bar, row=row) -> None:  # type: ignore[no-untyped-def]
                bar.update(row, completed=done, total=total)
                if what.endswith("source."):
                    bar.console.print(what, markup=False, highlight=False)

            paths[name] = str(workbench.models.pull(name, report, force))
    if as_json:
        print_json({"models": paths})
    else:
        for name, path in paths.items():
            print(f"{name}  {path}")


@models_app.command("loaded")
def models_loaded(
    log: Annotated[bool, typer.Option("--log", help="Also the last decisions, with why.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what the running processes of the workbench (app, notebooks) have loaded, and why."""
    from workbench.engines import control
    from workbench.units import format_bytes

    answers = control.ask("loaded")
    if as_json:
        print_json({"processes": answers})
        return
    for answer in answers:
        print(f"process {answer['process']} ({answer['program']})")
        for row in answer["loaded"]:
            use = (
                f"{row['users']} requests" if row["users"] else f"idle {row['idle_seconds']:.0f} s"
            )
            pinned = ", pinned" if row["is_pinned"] else ""
            size = format_bytes(row["measured_bytes"])
            print(f"  {row['id']:<22}{size:>11}  {use}{pinned}  {row['reason']}")
        for entry in answer["log"] if log else ():
            size = format_bytes(entry["bytes"]) if entry["bytes"] else ""
            print(f"  {entry['action']:<8}{entry['model']:<22}{size:>11}  {entry['reason']}")
    if not any(answer["loaded"] for answer in answers):
        print("No running process of the workbench has a model loaded.")


@models_app.command("unload")
def models_unload(
    name: Annotated[str | None, typer.Argument(autocompletion=complete_model)] = None,
    as_json: AsJson = False,
) -> None:
    """Free idle models (or one) in every running process of the workbench."""
    from workbench.engines import control

    answers = control.ask("unload", name)
    freed = [model for answer in answers for model in answer["freed"]]
    if as_json:
        print_json({"freed": freed})
    else:
        print("\n".join(freed) or "Nothing was idle.")


@models_app.command("pin")
def models_pin(
    name: Annotated[str, typer.Argument(autocompletion=complete_model)],
    off: Annotated[bool, typer.Option("--off", help="Let it go again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep a loaded model in the running processes that have it, whatever needs its memory."""
    from workbench.engines import control

    answers = control.ask("unpin" if off else "pin", name)
    where = [answer["process"] for answer in answers if answer["done"]]
    if not where:
        raise UserInputError(
            f"No running process has {name} loaded.", "See `workbench models loaded`."
        )
    if as_json:
        print_json({"model": name, "pinned": not off, "processes": where})
    else:
        print(f"{name} {'may go' if off else 'stays'} in process {', '.join(map(str, where))}")


@models_app.command("verify")
def models_verify(
    name: Annotated[str, typer.Argument(autocompletion=complete_model)], as_json: AsJson = False
) -> None:
    """Hash a model's files again and compare them with the catalogue."""
    import workbench

    checks = workbench.models.verify(name)
    right = bool(checks) and all(c.state in ("ok", "no checksum known") for c in checks)
    if as_json:
        print_json({"model": name, "ok": right, "files": [vars(check) for check in checks]})
    else:
        for check in checks:
            print(f"{check.state:<18}{check.name}")
    if not right:
        print(f"error: fetch it again: workbench models pull {name} --force", file=sys.stderr)
        raise typer.Exit(4)


Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, cuda:N or mps; with --memory also one that is not here.",
        autocompletion=_complete("cpu", "cuda", "mps"),
    ),
]
Quantized = Annotated[
    str | None,
    typer.Option(
        help="What large weights are stored in: none, int8, int4, nf4 or fp8.",
        autocompletion=_complete("none", *get_args(Quantization)),
    ),
]
Offloaded = Annotated[
    str | None,
    typer.Option(
        help="Where weights wait: none, model, group, group_stream, sequential or disk.",
        autocompletion=_complete(*get_args(Offload)),
    ),
]
Computed = Annotated[
    str | None,
    typer.Option(
        help="Such as int8, bfloat16 or float32.",
        autocompletion=_complete("float32", "bfloat16", "float16", "int8", "int8_float32"),
    ),
]
Cached = Annotated[
    str | None,
    typer.Option(
        help="What a GGUF model's cache is stored in: f16, bf16, f32, q8_0 or q4_0.",
        autocompletion=_complete(*get_args(CacheType)),
    ),
]


def plan(
    model: Annotated[
        str,
        typer.Argument(help="A catalogue id, a path, or org/name.", autocompletion=complete_model),
    ],
    memory: Annotated[
        str | None, typer.Option(help="A budget such as 8GiB; default: what is free.")
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Search for the best way to load that fits.")
    ] = False,
    device: Device = None,
    context: Annotated[int | None, typer.Option(help="Tokens of context (chat).")] = None,
    prompt_tokens: Annotated[int | None, typer.Option(help="Tokens that are read.")] = None,
    batch: Annotated[int, typer.Option(help="Pictures or sequences computed together.")] = 1,
    size: Annotated[str | None, typer.Option(help="A picture's, such as 1024x1024.")] = None,
    audio: Annotated[
        str | None, typer.Option(help="Length of a recording, such as 90s, 10m or 1h.")
    ] = None,
    beam: Annotated[int | None, typer.Option(help="Candidates of a transcription.")] = None,
    words: Annotated[bool | None, typer.Option(help="With the time of every word.")] = None,
    vad: Annotated[bool | None, typer.Option(help="Look for speech first.")] = None,
    guided: Annotated[
        bool | None, typer.Option(help="Pictures: every step twice, for the guidance.")
    ] = None,
    compute_type: Computed = None,
    quantization: Quantized = None,
    offload: Offloaded = None,
    cache_type: Cached = None,
    gpu_layers: Annotated[
        int | None, typer.Option(help="Layers of a GGUF model on the device.")
    ] = None,
    vae_tiling: Annotated[bool | None, typer.Option(help="Decode pictures by tiles.")] = None,
    vae_slicing: Annotated[bool | None, typer.Option(help="Decode pictures one by one.")] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="What an org/name of the hub does: chat, speech, image or embedding.",
            autocompletion=_complete(*get_args(Task)),
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run it too, in a fresh process, and compare.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Predict whether a model fits, before anything is loaded."""
    import workbench
    from workbench.units import parse_seconds

    require_task(task)
    found = workbench.plan(
        model,
        memory,
        best=best,
        task=task,  # type: ignore[arg-type]
        device=device,
        context_tokens=context,
        compute_type=compute_type,
        quantization=quantization,
        offload=offload,  # type: ignore[arg-type]
        cache_type=cache_type,  # type: ignore[arg-type]
        gpu_layers=gpu_layers,
        vae_tiling=vae_tiling,
        vae_slicing=vae_slicing,
        prompt_tokens=prompt_tokens,
        batch=batch,
        audio_seconds=None if audio is None else parse_seconds(audio),
        beam_size=beam,
        words=words,
        vad=vad,
        size=size,
        guided=guided,
    )
    shown = found.to_dict()
    compared = None
    if found.fits and measure:
        from workbench.planning import measure as measure_plan

        # what ran: the prompt as it was tokenized, and a process with nothing in it
        found, measured = measure_plan(found)
        compared = comparison(found, measured)
        shown = {**found.to_dict(), "measured": measured.model_dump(mode="json")}
    if as_json:
        print_json(shown)
    else:
        print(found.table())
        if compared is not None:
            print(compared)
    if not found.fits:
        print(f"error: {found.refusal()} To make it fit: {found.remedy()}.", file=sys.stderr)
        raise typer.Exit(DoesNotFit.exit_code)


def comparison(plan: MemoryPlan, measured: MeasuredMemory) -> str:
    """Predicted beside measured, in two lines."""
    from workbench.units import format_bytes

    error = plan.peak_bytes / measured.peak_bytes - 1
    side = "above" if error > 0 else "below"
    return (
        f"  {'measured':<20}{format_bytes(measured.peak_bytes):>12}  {measured.method}, in a fresh "
        f"process\n  {'predicted':<20}{format_bytes(plan.peak_bytes):>12}  "
        f"{abs(error):.1%} {side} the measured peak; kept for the next plans"
    )
