"""What another process sees of a pool, and may ask of it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner

import workbench
from workbench.cli import app
from workbench.engines import control
from workbench.engines.pool import ModelPool


@pytest.fixture
def pool(
    write_model: Callable[..., str],
) -> Iterator[ModelPool]:
    """A pool that is listened for, with one idle model."""
    pool = ModelPool()
    control.serve(pool)
    with pool.acquire(workbench.models.get(write_model("m"))):
        pass
    yield pool
    (control._folder() / f"{os.getpid()}.sock").unlink(missing_ok=True)
    control._folder().rmdir()


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["models", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_the_command_line_shows_what_a_process_has(pool: ModelPool):
    answer = json.loads(run("loaded", "--json"))["processes"][0]
    assert answer["process"] == os.getpid()
    assert [row["id"] for row in answer["loaded"]] == ["m"]
    assert [entry["action"] for entry in answer["log"]] == ["load"]
    assert "first use" in run("loaded")
    assert "first use; took" in run("loaded", "--log")


def test_it_can_pin_and_free(pool: ModelPool):
    run("pin", "m")
    assert pool.loaded()[0].is_pinned
    run("pin", "m", "--off")
    assert not pool.loaded()[0].is_pinned
    with pytest.raises(workbench.errors.UserInputError, match="No running process has other"):
        run("pin", "other")
    assert run("unload").strip() == "m"
    assert pool.loaded() == []
    assert "No running process" in run("loaded")


def test_nonsense_and_dead_processes_disturb_nobody(pool: ModelPool):
    path = control._folder() / f"{os.getpid()}.sock"
    for line in (b"\n", b"[]\n", b"{}\n", b'{"do": 1, "model": 2}\n', b""):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            connection.makefile("rb").readline()
    dead = control._folder() / "1.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(dead))
    assert len(control.ask("loaded")) == 1
    assert not dead.exists()


def test_a_folder_that_others_may_open_is_not_used(pool: ModelPool):
    folder = control._folder()
    folder.chmod(0o755)
    with pytest.raises(workbench.errors.Unavailable, match="open to others"):
        control.ask("loaded")
    folder.chmod(0o700)
