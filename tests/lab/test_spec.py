from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from workbench.errors import SettingsError, UnknownOption, UserInputError
from workbench.lab.spec import SweepSpec, load_items, parse

FIELDS = {
    "name": "a_sweep",
    "question": "Why?",
    "task": "transcribe",
    "items": [{"file": "a.wav", "text": "hello"}],
    "grid": {"beam_size": [1, 5]},
}


def _write(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_mapping_a_file_and_its_folder_are_the_same(tmp_path: Path):
    path = _write(tmp_path, yaml.safe_dump(FIELDS))
    assert parse(path) == parse(str(tmp_path))
    assert parse(FIELDS).grid == parse(path).grid == {"beam_size": (1, 5)}


def test_configurations_are_every_combination_in_the_order_written():
    spec = parse({**FIELDS, "grid": {"compute_type": ["int8", "float32"], "beam_size": [5, 1]}})
    assert [tuple(c.values()) for c in spec.configurations()] == [
        ("int8", 5),
        ("int8", 1),
        ("float32", 5),
        ("float32", 1),
    ]
    assert list(parse({**FIELDS, "grid": {}}).configurations()) == [{}]


@pytest.mark.parametrize(
    ("change", "line", "says"),
    [
        ("repeats: 0", 5, "repeats: Input should be greater"),
        ("repeets: 2", 5, "repeets: Extra inputs"),
        ("task: sing", 5, "task: Input should be"),
        ("fixed:\n  beam_size: 2", 1, "beam_size is in fixed and in grid"),
        ("fast:\n  grid: {}", 6, "fast.grid: Extra inputs"),
    ],
)
def test_a_mistake_in_a_file_is_named_by_file_and_line(
    tmp_path: Path, change: str, line: int, says: str
):
    head = "name: a_sweep\nquestion: Why?\nitems: [{file: a.wav}]\ngrid: {beam_size: [1, 5]}\n"
    task = "" if change.startswith("task") else "task: transcribe\n"
    path = _write(tmp_path, f"{head}{change}\n{task}")
    with pytest.raises(SettingsError) as caught:
        parse(path)
    assert caught.value.message.startswith(f"{path}:{line}: {says}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1\nb: 2\n", ":2: this is not YAML"),
        ("- a\n", ":1: this is not a sweep"),
        ("", ":1: this is not a sweep"),
    ],
)
def test_a_file_that_is_no_sweep(tmp_path: Path, text: str, says: str):
    with pytest.raises(SettingsError, match=says):
        parse(_write(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(SettingsError, match="cannot be read"):
        parse(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("group", "says"),
    [
        ({"fixed": {"beam": 3}}, "'beam' is not a parameter of transcribe"),
        ({"grid": {"beam": [3]}}, "'beam' is not a parameter of transcribe"),
        ({"grid": {"audio": ["a.wav"]}}, "'audio' comes from the items"),
        ({"fixed": {"stream": True}}, "'stream' comes from"),
    ],
)
def test_a_parameter_that_the_task_lacks_is_refused(tmp_path: Path, group: dict, says: str):
    with pytest.raises(UnknownOption, match=says) as caught:
        parse({**FIELDS, **group})
    assert "beam_size" in caught.value.remedy
    path = _write(tmp_path, yaml.safe_dump({**FIELDS, **group}, sort_keys=False))
    with pytest.raises(UnknownOption, match=r"experiment.yaml:\d+: ") as caught:
        parse(path)
    number = int(caught.value.message.split(":")[1])
    assert says.split("'")[1] in path.read_text().splitlines()[number - 1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"grid": {"beam_size": []}}, "grid.beam_size is empty"),
        ({"grid": {"beam_size": [1, 1]}}, "has a value twice"),
        ({"isolate": False, "timeout_seconds": 5}, "timeout_seconds needs isolate"),
        ({"name": "Two words"}, "name"),
    ],
)
def test_contradictions_are_refused(change: dict, says: str):
    with pytest.raises(SettingsError, match=says):
        parse({**FIELDS, **change})


def test_a_spec_is_frozen():
    with pytest.raises(ValidationError):
        parse(FIELDS).repeats = 2


def test_the_fast_settings_change_only_what_they_name():
    spec = SweepSpec(**{**FIELDS, "repeats": 4, "fast": {"limit": 2, "warmup": 0}}).faster()
    assert (spec.limit, spec.warmup, spec.repeats) == (2, 0, 4)


# -- items -----------------------------------------------------------------------------------


def _manifest(folder: Path, *items: dict) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(json.dumps(item) for item in items) + "\n\n", encoding="utf-8")
    return path


def test_a_manifest_is_read_beside_its_own_files(tmp_path: Path):
    speech = {"file": "a.wav", "text": "chữ", "language": "vi", "kind": "speech", "source": "us"}
    silence = {"file": "b.wav", "text": "", "language": "none", "kind": "silence"}
    path = _manifest(tmp_path, speech, silence)
    spec = parse({**FIELDS, "items": str(path)})
    assert load_items(spec) == (
        {"audio": str(tmp_path / "a.wav"), "reference": "chữ", "language": "vi"},
        {"audio": str(tmp_path / "b.wav"), "reference": ""},
    )
    assert len(load_items(spec.model_copy(update={"limit": 1}))) == 1
    assert len(load_items(spec.model_copy(update={"where": {"kind": "silence"}}))) == 1


def test_what_the_sweep_sets_wins_over_an_item(tmp_path: Path):
    path = _manifest(tmp_path, {"file": "a.wav", "language": "vi"})
    spec = parse({**FIELDS, "items": str(path), "fixed": {"language": "en"}})
    assert "language" not in load_items(spec)[0]


def test_items_of_a_yaml_file_are_found_beside_it_or_in_the_project(tmp_path: Path):
    _manifest(tmp_path, {"file": "a.wav"})
    path = _write(tmp_path, yaml.safe_dump({**FIELDS, "items": "manifest.jsonl"}))
    assert load_items(parse(path))[0]["audio"] == str(tmp_path / "a.wav")
    path = _write(tmp_path, yaml.safe_dump({**FIELDS, "items": "data/speech/manifest.jsonl"}))
    assert Path(load_items(parse(path))[0]["audio"]).is_file()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{not json}", ":2: this is not a JSON object"),
        ("[1]", ":2: this is not a JSON object"),
        ('{"text": "x"}', ":2: the item has no 'audio'"),
    ],
)
def test_a_mistake_in_a_manifest_is_named_by_file_and_line(tmp_path: Path, line: str, says: str):
    path = tmp_path / "manifest.jsonl"
    path.write_text(f'{{"file": "a.wav"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(UserInputError, match=says):
        load_items(parse({**FIELDS, "items": str(path)}))


def test_an_item_written_into_the_sweep_may_not_have_a_typo():
    with pytest.raises(UnknownOption, match="Item 1: 'fille'"):
        load_items(parse({**FIELDS, "items": [{"fille": "a.wav"}]}))


def test_no_items_left_is_said():
    with pytest.raises(UserInputError, match="no items"):
        load_items(parse({**FIELDS, "where": {"kind": "none"}}))
