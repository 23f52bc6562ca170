"""The command line: parse, call one function, print. Results go to standard output, the rest
to standard error; with ``--json`` standard output holds exactly one JSON object."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from workbench.cli_models import models_app, plan
from workbench.errors import UserInputError, WorkbenchError
from workbench.terminal import AsJson, ModelName, converse, print_json, print_table, progress

if TYPE_CHECKING:
    from workbench.tasks.speech import Transcript

app = typer.Typer(
    name="workbench",
    help="Choose, run and compare models on the hardware you have.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models_app, name="models")

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
        converse(system, options)
        return
    with _recorded(record):
        stream = workbench.chat(prompt, system=system, stream=True, **options)
        for delta in stream:
            if not as_json:
                print(delta.text, end="", flush=True)
    if as_json:
        print_json(stream.result.to_dict())
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
        print_json(answer.to_dict())
    else:
        print(answer.sql)
        if answer.error is None:
            print_table(answer.columns, answer.rows, answer.row_count, answer.truncated)
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
        print_json(rows.to_dict())
    else:
        print_table(rows.columns, rows.rows, rows.row_count, rows.truncated)


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
            with _recorded(record), progress("transcribe", quiet=as_json) as (bar, row):
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
        print_json(done[0] if len(audio) == 1 else {"transcripts": done})
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

    with _recorded(record), progress("draw", quiet=as_json) as (bar, row):
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
        print_json({**pictures.to_dict(), "files": [str(file) for file in files]})
    else:
        for file, used in zip(files, pictures.seeds, strict=True):
            print(f"{file}  seed {used}  {pictures.seconds:.2f} s")


app.command("plan")(plan)


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

    with progress("sweep", quiet=as_json) as (bar, row):

        def report(done: int, total: int, what: str) -> None:
            bar.update(row, completed=done, total=total, description=what)

        study = workbench.sweep(file, executor=executor, resume=resume, fast=fast, progress=report)
    if as_json:
        print_json(study.to_dict())
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
def doctor(
    measure: Annotated[
        bool,
        typer.Option("--calibrate", help="Measure this machine for plans (less than a minute)."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what is installed, which models are here, where files go and how much memory is free."""
    if measure:
        from workbench.engines.calibrate import calibrate

        machine = calibrate(lambda line: print(line, file=sys.stderr))
        if as_json:
            print_json(machine.model_dump(mode="json"))
        else:
            print(machine.name)
        return
    from workbench.doctor import examine

    report = examine()
    if as_json:
        print_json(report)
        return
    for section, values in report.items():
        print(section)
        for name, value in values.items():
            print(f"  {name:<24}{value}")


# -- recording, serving and failing ---------------------------------------------------------


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
            print_json(
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
