from __future__ import annotations

import json
from pathlib import Path

import pytest

import workbench as wb
from workbench.errors import Unavailable, UnknownModel, UnknownOption, UserInputError
from workbench.lab import provenance, store
from workbench.lab import sweep as sweep_module
from workbench.lab.sweep import plan_sweep


def _quiet(done: int, total: int, what: str) -> None:
    pass


def test_a_sweep_is_a_parent_run_and_a_child_a_trial(stub_sweep):
    told = []
    study = wb.sweep(stub_sweep(), progress=lambda *event: told.append(event))

    assert [(done, total) for done, total, _ in told] == [(0, 2), (1, 2), (2, 2)]
    assert told[0][2] == "2 trials of 4 calls"
    assert "about" in told[1][2] and "s left" in told[1][2]

    frame = store.runs("stub_beams")
    assert sorted(frame["kind"]) == ["sweep", "trial", "trial"]
    assert set(frame["status"]) == {"FINISHED"}
    child = store.client().get_run(study.trials[1].run_id)
    assert child.data.tags["mlflow.parentRunId"] == study.run_id
    assert child.data.params["beam_size"] == "5"
    assert child.data.params["model"] == "stub-speech"
    assert {"median_seconds", "peak_memory_bytes", "quality.wer"} <= set(child.data.metrics)
    history = store.client().get_metric_history(child.info.run_id, "call_seconds")
    measured = study.trials[1].measurement.measured()
    assert [sample.value for sample in history] == [call.seconds for call in measured]
    assert store.read_artifact(study.run_id, "study.json")["trials"]


def test_the_plan_runs_nothing_and_says_what_will_run(stub_sweep):
    plan = plan_sweep(stub_sweep())
    assert [trial.run_id for trial in plan.trials] == [None, None]
    assert plan.table().splitlines()[1:] == [
        "2 trials of 4 calls",
        "    1  to run          beam_size=1",
        "    2  to run          beam_size=5",
    ]
    assert store.experiments() == []
    assert "to run" in plan._repr_html_()


def test_resume_runs_only_what_is_new(stub_sweep, monkeypatch: pytest.MonkeyPatch):
    first = wb.sweep(stub_sweep(), progress=_quiet)
    measured = []
    real = sweep_module.measure
    monkeypatch.setattr(
        sweep_module, "measure", lambda request: (measured.append(request), real(request))[1]
    )
    again = wb.sweep(stub_sweep(), progress=_quiet)
    assert measured == []
    assert again.run_id == first.run_id
    assert [t.run_id for t in again.trials] == [t.run_id for t in first.trials]
    assert [t.measurement for t in again.trials] == [t.measurement for t in first.trials]

    wider = wb.sweep(stub_sweep(grid={"beam_size": [1, 5, 7]}), progress=_quiet)
    assert [request.arguments["beam_size"] for request in measured] == [7]
    assert [t.was_measured_before for t in wider.trials] == [True, True, False]

    wb.sweep(stub_sweep(), resume=False, progress=_quiet)
    assert len(measured) == 3
    assert len(store.runs("stub_beams").query("kind == 'sweep'")) == 3


@pytest.mark.parametrize("what", ["recording", "code", "threads", "model", "repeats"])
def test_a_changed_input_is_measured_again(
    stub_sweep, recordings, write_model, monkeypatch: pytest.MonkeyPatch, what: str
):
    before = plan_sweep(stub_sweep()).trials[0].key
    assert plan_sweep(stub_sweep()).trials[0].key == before
    changes = {}
    if what == "recording":
        Path(recordings[0]).write_bytes(Path(recordings[1]).read_bytes())
    elif what == "code":
        monkeypatch.setattr(provenance, "code_version", lambda: "other")
    elif what == "threads":
        monkeypatch.setenv("OMP_NUM_THREADS", "77")
    elif what == "model":
        write_model("stub-speech", task="speech", options={"reply": "other"})
    else:
        changes = {"repeats": 2}
    assert plan_sweep(stub_sweep(**changes)).trials[0].key != before


def test_a_failed_trial_is_a_row_and_is_tried_again(stub_sweep, write_model):
    write_model("stub-broken", task="speech", options={"fail": "It is down."})
    spec = stub_sweep(grid={"model": ["stub-broken", "stub-speech"]})
    study = wb.sweep(spec, progress=_quiet)
    assert [trial.status for trial in study.trials] == ["unavailable", "finished"]
    frame = store.runs("stub_beams")
    failed = frame[frame["status"] == "FAILED"].iloc[0]
    assert "It is down." in failed["error"]
    assert [bool(trial.run_id) for trial in plan_sweep(spec).trials] == [False, True]


def test_an_interrupted_sweep_keeps_what_it_measured(stub_sweep):
    def interrupt(done: int, total: int, what: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wb.sweep(stub_sweep(), progress=interrupt)
    parent = store.runs("stub_beams").query("kind == 'sweep'").iloc[0]
    assert parent["status"] == "KILLED"
    study = wb.sweep(stub_sweep(), progress=_quiet)
    assert [trial.was_measured_before for trial in study.trials] == [True, False]
    assert study.run_id == parent["run_id"]


def test_a_lost_artifact_is_measured_again(stub_sweep, ready_store: Path):
    wb.sweep(stub_sweep(), progress=_quiet)
    for path in ready_store.rglob("measurement.json"):
        path.unlink()
    study = wb.sweep(stub_sweep(), progress=_quiet)
    assert [trial.was_measured_before for trial in study.trials] == [False, False]


def test_a_store_lost_midway_costs_no_result(stub_sweep, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args):
        raise Unavailable("The MLflow store cannot be used: gone.", "Look for it.")

    monkeypatch.setattr(store, "write_run", refuse)
    with pytest.warns(RuntimeWarning, match="The study is complete") as warned:
        study = wb.sweep(stub_sweep(), progress=_quiet)
    assert len(warned) == 1
    assert [(t.status, t.run_id) for t in study.trials] == [("finished", None)] * 2
    assert len(study.frame()) == 2


def test_fast_uses_the_fast_settings(stub_sweep):
    plan = plan_sweep(stub_sweep(fast={"limit": 1, "warmup": 0}), fast=True)
    assert (len(plan.items), plan.calls_per_trial) == (1, 2)


def test_trials_in_fresh_processes_from_a_file(stub_sweep, tmp_path: Path, capfd):
    path = tmp_path / "experiment.yaml"
    path.write_text(json.dumps(stub_sweep(isolate=True, grid={"beam_size": [1]})))
    study = wb.sweep(path)
    assert [trial.status for trial in study.trials] == ["finished"]
    out, err = capfd.readouterr()
    assert out == ""
    assert "to run" in err and "[1/1] beam_size=1: " in err


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"fixed": {"model": "no-such-model"}}, UnknownModel),
        ({"fixed": {"model": "stub-chat"}}, UnknownModel),
        ({"fixed": {"beams": 2}}, UnknownOption),
        ({"fixed": {"prompt": {1, 2}}}, UserInputError),
    ],
)
def test_mistakes_are_told_before_anything_runs(stub_sweep, changes: dict, error: type):
    with pytest.raises(error):
        wb.sweep(stub_sweep(**changes), progress=_quiet)
    assert store.experiments() == []


def test_only_the_local_executor_exists(stub_sweep):
    with pytest.raises(UnknownOption, match="'ray'"):
        wb.sweep(stub_sweep(), executor="ray")
