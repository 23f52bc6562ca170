"""`workbench models ...` and `workbench plan`: what is here, and whether it fits."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from workbench.errors import UserInputError
from workbench.terminal import AsJson, complete_model, print_json, progress

models_app = typer.Typer(help="The models that can run here.", no_args_is_help=True)


@models_app.command("list")
def models_list(
    task: Annotated[str | None, typer.Option(help="chat, speech, image or embedding.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the models and whether they are here."""
    import workbench
    from workbench.errors import ChecksumMismatch
    from workbench.units import format_bytes

    if task not in (None, "chat", "speech", "image", "embedding"):
        raise UserInputError(f"There is no task {task!r}.", "Use chat, speech, image or embedding.")
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


def plan(
    model: Annotated[str, typer.Argument(autocompletion=complete_model)],
    memory: Annotated[
        str | None, typer.Option(help="A budget such as 8GiB; default: what is free.")
    ] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of context (chat).")] = None,
    compute_type: Annotated[str | None, typer.Option(help="Such as int8 or float32.")] = None,
    as_json: AsJson = False,
) -> None:
    """Predict whether a model fits, before anything is loaded."""
    import workbench

    found = workbench.plan(model, memory, context_tokens=context, compute_type=compute_type)
    if as_json:
        print_json(found.to_dict())
    else:
        print(found.table())
    if not found.fits:
        raise typer.Exit(3)
