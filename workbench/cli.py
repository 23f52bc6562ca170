"""The command line: parse, call one function, print. Results go to standard output, the rest
to standard error; with ``--json`` standard output holds exactly one JSON object."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from workbench.errors import UserInputError, WorkbenchError

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from workbench.tasks.speech import Transcript

app = typer.Typer(
    name="workbench",
    help="Choose, run and compare models on the hardware you have.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="The models that can run here.", no_args_is_help=True)
app.add_typer(models_app, name="models")


def _complete_model(incomplete: str) -> list[str]:
    import workbench

    return [spec.id for spec in workbench.models.list() if spec.id.startswith(incomplete)]


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="A catalogue id, a path, or org/name.", autocompletion=_complete_model
    ),
]
Record = Annotated[
    str | None, typer.Option(metavar="EXPERIMENT", help="Record the run in MLflow under this name.")
]


# -- tasks -----------------------------------------------------------------------------------


@app.command()
def chat(
    prompt: Annotated[str | None, typer.Argument(help="Without it: a conversation.")] = None,
    model: ModelName = None,
    system: Annotated[str | None, typer.Option(help="How the model should behave.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(help="0 is greedy and repeatable.")] = 0.0,
    seed: Annotated[int, typer.Option(help="For temperatures above 0.")] = 0,
    record: Record = None,
    as_json: AsJson = False,
) -> None:
    """Talk to a language model."""
    import workbench

    options: dict[str, Any] = {
        "model": model,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
    }
    if prompt is None:
        if as_json:
            raise UserInputError(
                "--json needs a prompt.", "Give one: workbench chat PROMPT --json."
            )
        _converse(system, options)
        return
    with _recorded(record):
        stream = workbench.chat(prompt, system=system, stream=True, **options)
        for delta in stream:
            if not as_json:
                print(delta.text, end="", flush=True)
    if as_json:
        _print_json(stream.result.to_dict())
    else:
        print()
        print(stream.result.summary(), file=sys.stderr)


@app.command()
def ask(
    database: Annotated[str, typer.Argument(help="DuckDB, SQLite, CSV, Parquet or Excel.")],
    question: Annotated[str, typer.Argument(help="In any language the model knows.")],
    model: ModelName = None,
    hint: Annotated[str | None, typer.Option(help="What the schema does not say.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows to fetch.")] = 1000,
    timeout_seconds: Annotated[
        float, typer.Option("--timeout", help="Seconds a query may run.")
    ] = 30.0,
    record: Record = None,
    as_json: AsJson = False,
) -> None:
    """Ask a database a question in words. Only reads."""
    import workbench

    with _recorded(record):
        answer = workbench.ask(
            database,
            question,
            model=model,
            hint=hint,
            limit=limit,
            timeout_seconds=timeout_seconds,
        )
    if as_json:
        _print_json(answer.to_dict())
    else:
        print(answer.sql)
        if answer.error is None:
            _print_table(answer.columns, answer.rows, answer.row_count, answer.truncated)
    if answer.error is not None:
        print(f"error: {answer.error}", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def query(
    database: Annotated[str, typer.Argument(help="DuckDB, SQLite, CSV, Parquet or Excel.")],
    sql: Annotated[str, typer.Argument(help="One SELECT.")],
    limit: Annotated[int, typer.Option(min=1, help="Most rows to fetch.")] = 1000,
    timeout_seconds: Annotated[
        float, typer.Option("--timeout", help="Seconds a query may run.")
    ] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Run SQL that only reads, under the guard, without a model."""
    import workbench

    rows = workbench.sql.execute(database, sql, limit=limit, timeout_seconds=timeout_seconds)
    if as_json:
        _print_json(rows.to_dict())
    else:
        _print_table(rows.columns, rows.rows, rows.row_count, rows.truncated)


@app.command()
def transcribe(
    audio: Annotated[list[Path], typer.Argument(help="Audio or video files.")],
    model: ModelName = None,
    language: Annotated[
        str | None, typer.Option("--language", "-l", help="Such as en or vi; default: detect.")
    ] = None,
    translate: Annotated[bool, typer.Option(help="Into English.")] = False,
    words: Annotated[bool, typer.Option(help="With the time of every word.")] = False,
    vad: Annotated[bool, typer.Option(help="Skip what is not speech.")] = True,
    beam_size: Annotated[int, typer.Option(min=1, help="1 is fastest.")] = 5,
    prompt: Annotated[str | None, typer.Option(help="Text that sets style and names.")] = None,
    hotwords: Annotated[str | None, typer.Option(help="Words to prefer.")] = None,
    compute_type: Annotated[str | None, typer.Option(help="Such as int8 or float32.")] = None,
    reference: Annotated[str | None, typer.Option(help="The true text: adds WER and CER.")] = None,
    form: Annotated[
        str, typer.Option("--format", "-f", help="txt, srt, vtt, tsv or json.")
    ] = "txt",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder for the files.")
    ] = None,
    record: Record = None,
    as_json: AsJson = False,
) -> None:
    """Turn speech into text or subtitles."""
    import workbench
    from workbench.tasks.speech import FORMATS

    if form not in FORMATS:
        raise UserInputError(f"There is no format {form!r}.", f"Use one of: {', '.join(FORMATS)}.")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    done: list[dict[str, Any]] = []
    failed: WorkbenchError | None = None
    for path in audio:
        try:
            with _recorded(record), _progress("transcribe", quiet=as_json) as (bar, row):
                stream = workbench.transcribe(
                    path,
                    model=model,
                    language=language,
                    translate=translate,
                    words=words,
                    vad=vad,
                    beam_size=beam_size,
                    prompt=prompt,
                    hotwords=hotwords,
                    compute_type=compute_type,
                    reference=reference,
                    stream=True,
                )
                for event in stream:
                    if hasattr(event, "duration_seconds"):
                        bar.update(row, total=event.duration_seconds)
                    else:
                        bar.update(row, completed=event.end_seconds)
            transcript: Transcript = stream.result
        except WorkbenchError as error:
            if len(audio) == 1:
                raise
            failed = error
            print(f"error: {error}", file=sys.stderr)
            done.append({"file": str(path), "error": str(error)})
            continue
        entry = {"file": str(path), **transcript.to_dict()}
        if output is not None:
            entry["output"] = str(transcript.save(output / f"{path.stem}.{form}"))
        done.append(entry)
        if not as_json:
            print(
                entry["output"] if output is not None else transcript.to_format(form).rstrip("\n")
            )
    if as_json:
        _print_json(done[0] if len(audio) == 1 else {"transcripts": done})
    if failed is not None:
        raise typer.Exit(failed.exit_code)


@app.command()
def draw(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG, JPEG or WebP; overwritten.")],
    model: ModelName = None,
    negative_prompt: Annotated[str, typer.Option(help="What to avoid.")] = "",
    steps: Annotated[int | None, typer.Option(help="Default: what suits the model.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="How strictly to follow.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: a new one, which is printed.")] = None,
    size: Annotated[str | None, typer.Option(help="Width x height, such as 512x512.")] = None,
    sampler: Annotated[str | None, typer.Option(help="Such as 'DPM++ 2M' or 'Euler a'.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="How many; picture i uses seed + i.")] = 1,
    record: Record = None,
    as_json: AsJson = False,
) -> None:
    """Draw a picture from a text."""
    import workbench

    with _recorded(record), _progress("draw", quiet=as_json) as (bar, row):
        stream = workbench.draw(
            prompt,
            model=model,
            negative_prompt=negative_prompt,
            steps=steps,
            guidance_scale=guidance_scale,
            seed=seed,
            size=size,
            sampler=sampler,
            batch=batch,
            stream=True,
        )
        for step in stream:
            bar.update(row, total=step.total, completed=step.done)
    pictures = stream.result
    files = pictures.save(output)
    if as_json:
        _print_json({**pictures.to_dict(), "files": [str(file) for file in files]})
    else:
        for file, used in zip(files, pictures.seeds, strict=True):
            print(f"{file}  seed {used}  {pictures.seconds:.2f} s")


# -- models and memory -----------------------------------------------------------------------


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
        _print_json({"models": rows})
        return
    for row in rows:
        size = format_bytes(row["size_bytes"]) if row["size_bytes"] else ""
        print(f"{row['id']:<22}{row['task']:<11}{row['engine']:<13}{size:>11}  {row['state']}")


@models_app.command("pull")
def models_pull(
    names: Annotated[list[str] | None, typer.Argument(autocompletion=_complete_model)] = None,
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
        with _progress(f"pull {name}", quiet=as_json, in_bytes=True) as (bar, row):

            def report(done: int, total: int | None, what: str, bar=bar, row=row) -> None:  # type: ignore[no-untyped-def]
                bar.update(row, completed=done, total=total)
                if what.endswith("source."):
                    bar.console.print(what, markup=False, highlight=False)

            paths[name] = str(workbench.models.pull(name, report, force))
    if as_json:
        _print_json({"models": paths})
    else:
        for name, path in paths.items():
            print(f"{name}  {path}")


@models_app.command("verify")
def models_verify(
    name: Annotated[str, typer.Argument(autocompletion=_complete_model)], as_json: AsJson = False
) -> None:
    """Hash a model's files again and compare them with the catalogue."""
    import workbench

    checks = workbench.models.verify(name)
    right = bool(checks) and all(c.state in ("ok", "no checksum known") for c in checks)
    if as_json:
        _print_json({"model": name, "ok": right, "files": [vars(check) for check in checks]})
    else:
        for check in checks:
            print(f"{check.state:<18}{check.name}")
    if not right:
        print(f"error: fetch it again: workbench models pull {name} --force", file=sys.stderr)
        raise typer.Exit(4)


@app.command()
def plan(
    model: Annotated[str, typer.Argument(autocompletion=_complete_model)],
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
        _print_json(found.to_dict())
    else:
        print(found.table())
    if not found.fits:
        raise typer.Exit(3)


# -- experiments, app and the rest -----------------------------------------------------------


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="An experiment.yaml or its folder.")],
    resume: Annotated[bool, typer.Option(help="Skip trials that were measured already.")] = True,
    executor: Annotated[str, typer.Option(help="local")] = "local",
    fast: Annotated[
        bool, typer.Option("--fast", help="The experiment's own fast settings.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure every combination of an experiment and record it in MLflow."""
    import workbench

    with _progress("sweep", quiet=as_json) as (bar, row):

        def report(done: int, total: int, what: str) -> None:
            bar.update(row, completed=done, total=total, description=what)

        study = workbench.sweep(file, executor=executor, resume=resume, fast=fast, progress=report)
    if as_json:
        _print_json(study.to_dict())
    else:
        print(study.summary())


@app.command("mlflow")
def mlflow_ui(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
) -> None:
    """Open MLflow's own pages on the recorded runs."""
    from workbench.lab.store import ui_command

    _run_server(ui_command(host, port), host, port)


@app.command("app")
def open_app(
    host: Annotated[str, typer.Option(help="0.0.0.0 lets others in; use --auth.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    share: Annotated[bool, typer.Option("--share", help="A public link; needs --auth.")] = False,
    auth: Annotated[
        str | None,
        typer.Option(
            metavar="USER:PASSWORD",
            help="Or set WORKBENCH_AUTH, which no list of processes shows.",
            envvar="WORKBENCH_AUTH",
        ),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open it in the browser.")] = True,
    language: Annotated[str | None, typer.Option(help="en or vi")] = None,
) -> None:
    """Open the app: chat, SQL, speech, images, models and experiments in the browser."""
    # by name: nothing in the package imports the faces, which import the package
    from importlib import import_module

    import_module("apps.app").launch(
        host=host,
        port=port,
        share=share,
        auth=_user_and_password(auth),
        open_browser=browser,
        language=language,
    )


@app.command()
def lab(port: Annotated[int, typer.Option(min=1, max=65535)] = 8888) -> None:
    """Start JupyterLab in the notebooks folder."""
    from workbench.project import project_root

    folder = project_root() / "notebooks"
    command = [sys.executable, "-m", "jupyterlab", f"--port={port}", "--port-retries=0"]
    _run_server([*command, f"--ServerApp.root_dir={folder.parent}"], "127.0.0.1", port)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Show what is installed, which models are here, where files go and how much memory is free."""
    from workbench.doctor import examine

    report = examine()
    if as_json:
        _print_json(report)
        return
    for section, values in report.items():
        print(section)
        for name, value in values.items():
            print(f"  {name:<24}{value}")


# -- printing and failing --------------------------------------------------------------------


def _converse(system: str | None, options: dict[str, Any]) -> None:
    """A conversation until the end of input; Ctrl+C stops the answer, not the conversation."""
    from workbench.tasks.chat import Conversation

    conversation = Conversation(system=system, **options)
    print("An empty line or Ctrl+D ends the conversation; Ctrl+C stops an answer.", file=sys.stderr)
    while True:
        try:
            prompt = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not prompt:
            return
        _say(conversation.say(prompt, stream=True))


def _say(stream: Any) -> None:
    """Print an answer as it comes; Ctrl+C stops it and keeps the text so far."""
    # an exception would end the stream itself, and with it the text
    before = signal.signal(signal.SIGINT, lambda *_: stream.stop())
    try:
        for delta in stream:
            print(delta.text, end="", flush=True)
    finally:
        signal.signal(signal.SIGINT, before)
    print()
    print(stream.result.summary(), file=sys.stderr)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False, default=str))


def _print_table(columns: Any, rows: Any, row_count: int, truncated: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*[str(column) for column in columns])
    for row in rows[:50]:
        table.add_row(*["" if value is None else str(value) for value in row])
    Console().print(table, markup=False)
    shown = min(50, len(rows))
    note = f"{shown} of {row_count} rows" if shown < row_count else f"{row_count} rows"
    print(note + (" (cut at the limit: there are more)" if truncated else ""), file=sys.stderr)


@contextmanager
def _progress(what: str, *, quiet: bool, in_bytes: bool = False) -> Iterator[tuple[Bar, Any]]:
    """A bar with the time left, on standard error, only where a person watches."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn()]
    columns += [DownloadColumn()] if in_bytes else [TextColumn("{task.percentage:>3.0f}%")]
    columns.append(TimeRemainingColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        yield bar, bar.add_task(what, total=None)


@contextmanager
def _recorded(experiment: str | None) -> Iterator[None]:
    if experiment is None:
        yield
        return
    import workbench

    with workbench.track(experiment):
        yield


def _user_and_password(auth: str | None) -> tuple[str, str] | None:
    if auth is None:
        return None
    user, colon, password = auth.partition(":")
    if not (user and colon and password):
        raise UserInputError(
            "--auth is not USER:PASSWORD.", "Write, for example, --auth an:secret."
        )
    return user, password


def _run_server(command: list[str], host: str, port: int) -> NoReturn:
    """Replace this process by the server, after a look whether the port is free."""
    from workbench.ports import require_free_port

    require_free_port(host, port)
    os.execv(command[0], command)  # noqa: S606 - a list built here, no shell


def main() -> None:
    """The entry point: errors become one line and the exit code of `workbench.errors`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8")
    try:
        app()
    except WorkbenchError as error:
        if "--json" in sys.argv:
            _print_json(
                {"error": error.message, "remedy": error.remedy, "exit_code": error.exit_code}
            )
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
