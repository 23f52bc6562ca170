from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.lab import statistics
from workbench.lab.spec import SweepSpec
from workbench.lab.statistics import Spread
from workbench.lab.study import Study, Trial, label_of
from workbench.lab.trial import Call, Measurement


def _call(item: int, seconds: float, kind: Any = "measured", **changes) -> Call:
    fields = {
        "item": item,
        "kind": kind,
        "seconds": seconds,
        "phase_seconds": {"total": seconds},
        "metrics": {"realtime_factor": seconds / 10},
        "quality": {},
        "weights": {},
        "peak_bytes": 100 * 2**20,
    }
    return Call(**{**fields, **changes})


def _trial(beam: int, *calls: Call, **changes) -> Trial:
    return Trial({"beam_size": beam}, Measurement(calls=list(calls), **changes), f"run{beam}")


def _study(*trials: Trial) -> Study:
    spec = SweepSpec(
        name="s", question="Is <b> it?", task="transcribe", items="m", grid={"beam_size": (1, 5)}
    )
    return Study(spec, 6, trials, "parent")


def _six(factor: float, **changes) -> list[Call]:
    return [_call(item, factor * (item + 1), **changes) for item in range(6)]


def test_the_first_call_and_the_warm_up_enter_no_statistic_but_memory():
    measurement = Measurement(
        calls=[
            _call(0, 50.0, "first", peak_bytes=900 * 2**20),
            _call(0, 20.0, "warmup"),
            _call(0, 1.0),
            _call(1, 3.0),
        ]
    )
    assert statistics.seconds(measurement) == Spread(2.0, 1.0, 3.0, 2)
    assert statistics.first_call_seconds(measurement) == 50.0
    assert statistics.metrics(measurement) == {"realtime_factor": pytest.approx(0.2)}
    assert statistics.peak_bytes(measurement) == 900 * 2**20


def test_an_error_rate_is_that_of_all_words():
    one = _call(0, 1.0, quality={"wer": 1.0}, weights={"wer": 1})
    nine = _call(1, 1.0, quality={"wer": 0.0}, weights={"wer": 9})
    assert statistics.quality(Measurement(calls=[one, nine])) == {"wer": pytest.approx(0.1)}
    even = [_call(0, 1.0, quality={"match": 1.0}), _call(1, 1.0, quality={"match": 0.0})]
    assert statistics.quality(Measurement(calls=even)) == {"match": 0.5}


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=8), st.floats(0.1, 10))
def test_paired_ratios_find_a_factor_whatever_the_items(seconds, factor):
    base = Measurement(calls=[_call(i, s) for i, s in enumerate(seconds)])
    other = Measurement(calls=[_call(i, s * factor) for i, s in enumerate(seconds)])
    ratio = statistics.paired_ratio(other, base)
    assert ratio is not None
    assert ratio.median == pytest.approx(factor)
    assert ratio.n == len(seconds)
    same = statistics.paired_ratio(base, base)
    assert same is not None and (same.low, same.high) == (1.0, 1.0)


def test_items_measured_once_only_are_not_compared():
    assert (
        statistics.paired_ratio(
            Measurement(calls=[_call(0, 1.0)]), Measurement(calls=[_call(1, 1.0)])
        )
        is None
    )


@pytest.mark.parametrize(
    ("spread", "text"),
    [(Spread(1.0, 1.0, 1.0, 1), "1 (n=1)"), (Spread(2.0, 1.0, 3.456, 3), "2 (1 to 3.46, n=3)")],
)
def test_a_spread_says_its_n(spread: Spread, text: str):
    assert str(spread) == text


def test_the_frame_has_a_row_a_trial():
    quality = {"quality": {"wer": 0.25}}
    study = _study(
        _trial(1, *_six(1.0, **quality)),
        _trial(5, *_six(2.0, **quality)),
        _trial(7, failure="timeout", error="It took longer than 5 s."),
    )
    frame = study.frame()
    assert list(frame["beam_size"]) == [1, 5, 7]
    assert list(frame["status"]) == ["finished", "finished", "timeout"]
    assert list(frame["n"]) == [6, 6, 0]
    assert list(frame["seconds_ratio"][:2]) == [1.0, 2.0]
    assert list(frame["wer"][:2]) == [0.25, 0.25]
    assert list(frame["median_seconds"][:2]) == [3.5, 7.0]
    assert list(frame["realtime_factor"][:2]) == pytest.approx([0.35, 0.7])
    assert frame["peak_mib"][0] == 100.0


def test_the_summary_is_honest_about_n():
    fast, slow = _trial(1, *_six(1.0)), _trial(5, *_six(2.0))
    text = _study(fast, slow).summary()
    assert "n=6" in text
    assert "p95" not in text and "p99" not in text
    assert text.endswith("beam_size=5: 2 (2 to 2, n=6)")

    few = _study(_trial(1, _call(0, 1.0)), _trial(5, _call(0, 2.0))).summary()
    assert "6 items that agree would be needed" in few
    mixed = _trial(5, *[_call(item, 1.0) for item in range(6)])
    assert "do not agree" in _study(fast, mixed).summary()


@pytest.mark.parametrize(("load", "is_said"), [(0.9, False), (5.2, True), (None, False)])
def test_a_busy_machine_is_said(load: float | None, is_said: bool):
    study = _study(_trial(1, *_six(1.0), load_per_core=load), _trial(5, *_six(2.0)))
    assert ("busy with other work" in study.summary()) == is_said
    accepted = study.accepted()
    assert accepted["load_per_core"] == load
    assert ("seconds_ratio" in accepted["trials"][0]) != is_said


def test_a_study_of_failures_says_so_and_still_draws():
    study = _study(_trial(1, failure="crash", error="It was killed by SIGKILL."))
    assert "crash: It was killed by SIGKILL." in study.summary()
    assert "fewer than two trials finished" in study.summary()
    assert study.plot().axes[0].get_ylabel()
    assert study.accepted()["trials"][0]["status"] == "crash"


def test_the_figure_is_labelled():
    quality = {"quality": {"cer": 0.1, "wer": 0.25}}
    study = _study(_trial(1, *_six(1.0, **quality)), _trial(5, *_six(2.0, **quality)))
    figure = study.plot()
    axes = figure.axes[0]
    assert axes.get_ylabel() == "wer (lower is better)"
    assert "seconds" in axes.get_xlabel()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["beam_size=1 (n=6)", "beam_size=5 (n=6)"]
    without = _study(_trial(1, *_six(1.0))).plot()
    assert "MiB" in without.axes[0].get_ylabel()


def test_what_is_kept_of_a_study_is_json_and_has_no_seconds_where_accepted():
    study = _study(_trial(1, *_six(1.0)), _trial(5, *_six(2.0, peak_bytes=50 * 2**20)))
    assert json.loads(json.dumps(study.to_dict()))["trials"][1]["median_seconds"] == 7.0
    accepted = json.dumps(study.accepted())
    assert "median_seconds" not in accepted
    second = json.loads(accepted)["trials"][1]
    assert (second["seconds_ratio"], second["peak_memory_ratio"]) == (2.0, 0.5)


def test_html_is_escaped():
    page = _study(_trial(1, failure="crash", error="<script>"))._repr_html_()
    assert "<script>" not in page and "Is &lt;b&gt; it?" in page


def test_labels():
    assert label_of({"a": 1, "b": "x"}) == "a=1 b=x"
    assert label_of({}) == "(no grid)"
