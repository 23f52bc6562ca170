"""The fast mode trains every stage on tiny settings: the loop runs and the losses fall."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "experiments" / "train_starter_image"


@pytest.mark.timeout(900)
def test_fast_mode_runs_and_losses_fall(tmp_path):
    pytest.importorskip("diffusers")
    started = time.process_time() + sum(os.times()[2:4])
    command = [sys.executable, "-m", "experiments.train_starter_image.train", "--fast"]
    done = subprocess.run(
        [*command, "--work-dir", str(tmp_path)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=880,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # Processor time, so that a busy machine does not fail the test.
    assert time.process_time() + sum(os.times()[2:4]) - started < 60
    losses = json.loads(done.stdout.splitlines()[-1])
    assert set(losses) == {"ae", "text", "unet", "polish"}
    for stage in ("ae", "text", "unet"):
        first, last = losses[stage]
        assert last < first, (stage, first, last)
    stages = {json.loads(line)["stage"] for line in (tmp_path / "training_log.jsonl").open()}
    assert "fast" in stages
    assert (tmp_path / "model" / "model_index.json").exists()


def test_accepted_numbers_have_intervals():
    accepted = json.loads((FOLDER / "accepted.json").read_text(encoding="utf-8"))
    for name, row in accepted["accuracy"].items():
        low, high = row["wilson_95"]
        assert row["n"] >= 128, name
        assert low <= row["all_right"] <= high, name
        assert row["chance_all_right"] < 0.1, name
