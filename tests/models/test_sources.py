"""Pulling: the real pip and hub clients against local servers, faults included."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import workbench
from tests.servers.model_hub import model_hub
from tests.servers.package_index import make_wheel, package_index
from workbench.errors import (
    ChecksumMismatch,
    ModelMissing,
    SourceUnreachable,
    Unavailable,
    UserInputError,
)
from workbench.models import sources

PARTS = [b"first " * 5000, b"second" * 4000]
WHOLE = b"".join(PARTS)
SHA = hashlib.sha256(WHOLE).hexdigest()
PACKAGES = [
    make_wheel("tiny-model-part1", "1.0", {"data/p1.bin": PARTS[0], "data/config.json": b"{}"}),
    make_wheel("tiny-model-part2", "1.0", {"data/p2.bin": PARTS[1]}),
]
PACKAGE_SOURCE = {
    "kind": "package",
    "packages": ["tiny-model-part1==1.0", "tiny-model-part2==1.0"],
    "parts": {"model.bin": ["*/data/p1.bin", "*/data/p2.bin"], "config.json": ["*/config.json"]},
}
HUB_SOURCE = {"kind": "hub", "repo": "org/tiny"}


@pytest.fixture
def tiny(write_model: Callable[..., str]) -> Callable[..., str]:
    """Write the entry of a two-file model with the given sources."""

    def write(*chosen: dict, sha256: str = SHA) -> str:
        files = [
            {"name": "model.bin", "size_bytes": len(WHOLE), "sha256": sha256},
            {"name": "config.json"},
        ]
        return write_model("tiny", files=files, sources=list(chosen))

    return write


@pytest.fixture(autouse=True)
def _no_real_network(monkeypatch: pytest.MonkeyPatch):
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def _leftovers(home: Path) -> list[str]:
    return [p.name for p in (home / "models").rglob("*") if "partial" in p.name or "new" in p.name]


def test_parts_of_packages_are_joined(home: Path, tiny, monkeypatch):
    name = tiny(PACKAGE_SOURCE)
    told: list[tuple[int, int | None]] = []
    with package_index(*PACKAGES) as (index, _):
        monkeypatch.setenv("PIP_INDEX_URL", index)
        path = workbench.models.pull(name, lambda done, total, what: told.append((done, total)))
    assert (path / "model.bin").read_bytes() == WHOLE
    assert (path / "config.json").read_bytes() == b"{}"
    assert told[-1][0] >= len(WHOLE)
    assert not _leftovers(home)
    assert not (home / "downloads" / name).exists()
    assert workbench.models.locate(name) == path
    assert [check.state for check in workbench.models.verify(name)] == ["ok", "no checksum known"]


def test_a_wrong_sum_leaves_nothing(home: Path, tiny, monkeypatch):
    name = tiny(PACKAGE_SOURCE, sha256="0" * 64)
    with package_index(*PACKAGES) as (index, _):
        monkeypatch.setenv("PIP_INDEX_URL", index)
        with pytest.raises(ChecksumMismatch, match="thrown away"):
            workbench.models.pull(name)
    assert not _leftovers(home)
    assert workbench.models.locate(name) is None
    with pytest.raises(ModelMissing, match="workbench models pull tiny"):
        sources.require(workbench.models.get(name))


def test_a_broken_off_pull_goes_on(home: Path, tiny, monkeypatch):
    name = tiny(PACKAGE_SOURCE)
    with package_index(PACKAGES[0]) as (index, _):
        monkeypatch.setenv("PIP_INDEX_URL", index)
        with pytest.raises(SourceUnreachable, match="tiny-model-part2==1.0"):
            workbench.models.pull(name)
    with package_index(*PACKAGES) as (index, asked):
        monkeypatch.setenv("PIP_INDEX_URL", index)
        workbench.models.pull(name)
    assert not any("part1" in path for path in asked)


def test_an_unreachable_hub_fails_fast_and_the_next_source_is_tried(home, tiny, monkeypatch):
    name = tiny(HUB_SOURCE, PACKAGE_SOURCE)
    said: list[str] = []
    with package_index(*PACKAGES) as (index, _):
        monkeypatch.setenv("PIP_INDEX_URL", index)
        workbench.models.pull(name, lambda done, total, what: said.append(what))
    assert (
        "model hub: The model hub cannot be reached (ConnectError). Trying the next source." in said
    )


def test_no_network_at_all(home: Path, tiny, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(SourceUnreachable, match=r"hub cannot be reached.*Check the network"):
        workbench.models.pull(tiny(HUB_SOURCE, PACKAGE_SOURCE))
    assert not _leftovers(home)


def test_offline_asks_nobody(home: Path, tiny, monkeypatch):
    monkeypatch.setenv("WORKBENCH_OFFLINE", "true")
    with package_index(*PACKAGES) as (index, asked):
        monkeypatch.setenv("PIP_INDEX_URL", index)
        with pytest.raises(SourceUnreachable, match="offline is set"):
            workbench.models.pull(tiny(HUB_SOURCE, PACKAGE_SOURCE))
    assert not asked


def test_from_the_hub(home: Path, tiny, monkeypatch):
    name = tiny(HUB_SOURCE)
    with model_hub("org/tiny", {"model.bin": WHOLE, "config.json": b"{}"}) as (endpoint, _):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        path = workbench.models.pull(name)
    assert (path / "model.bin").read_bytes() == WHOLE
    assert not (home / "downloads" / name).exists()


def test_a_file_that_the_hub_lacks(home: Path, tiny, monkeypatch):
    with model_hub("org/tiny", {"config.json": b"{}"}) as (endpoint, _):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(SourceUnreachable, match="did not give org/tiny"):
            workbench.models.pull(tiny(HUB_SOURCE))
    assert not _leftovers(home)


def test_a_whole_repository_without_its_pickles(home: Path, write_model, monkeypatch):
    name = write_model("org/tiny", sources=[HUB_SOURCE])
    files = {"config.json": b"{}", "model.safetensors": WHOLE, "pytorch_model.bin": b"pickle"}
    with model_hub("org/tiny", files) as (endpoint, _):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        path = workbench.models.pull(name)
    assert sorted(p.name for p in path.iterdir() if p.name[0] != ".") == [
        "config.json",
        "model.safetensors",
    ]


def test_a_file_changed_later_is_noticed(home: Path, tiny, monkeypatch):
    name = tiny(PACKAGE_SOURCE)
    with package_index(*PACKAGES) as (index, _):
        monkeypatch.setenv("PIP_INDEX_URL", index)
        path = workbench.models.pull(name)
        damaged = bytearray(WHOLE)
        damaged[100] ^= 1
        (path / "model.bin").write_bytes(damaged)
        with pytest.raises(ChecksumMismatch, match="--force"):
            workbench.models.locate(name)
        assert workbench.models.verify(name)[0].state == "wrong sha256"
        assert workbench.models.pull(name, force=True) == path
    assert (path / "model.bin").read_bytes() == WHOLE


def test_touching_a_file_does_not_refuse_it(home: Path, tiny, monkeypatch):
    name = tiny(PACKAGE_SOURCE)
    with package_index(*PACKAGES) as (index, _):
        monkeypatch.setenv("PIP_INDEX_URL", index)
        path = workbench.models.pull(name)
    os.utime(path / "model.bin", (1, 1))
    assert workbench.models.locate(name) == path


def test_a_full_disk_is_said_before_the_download(home: Path, tiny, monkeypatch):
    usage = shutil.disk_usage(home)._replace(free=10)
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda path: usage)
    with package_index(*PACKAGES) as (index, asked):
        monkeypatch.setenv("PIP_INDEX_URL", index)
        with pytest.raises(Unavailable, match=r"disk of .* is full .* WORKBENCH_HOME"):
            workbench.models.pull(tiny(PACKAGE_SOURCE))
    assert not asked


def test_a_disk_that_fills_up_while_writing(home: Path, tiny, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sources.os, "fsync", full)
    with package_index(*PACKAGES) as (index, _):
        monkeypatch.setenv("PIP_INDEX_URL", index)
        with pytest.raises(Unavailable, match="is full"):
            workbench.models.pull(tiny(PACKAGE_SOURCE))
    assert not _leftovers(home)
    assert not (home / "models" / "tiny").exists()


def test_a_home_that_cannot_be_made(tmp_path: Path, tiny, monkeypatch):
    name = tiny(PACKAGE_SOURCE)
    spec = workbench.models.get(name)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "file" / "home"))
    workbench.settings.get_settings.cache_clear()
    with pytest.raises(Unavailable, match="Set WORKBENCH_HOME"):
        sources.pull(spec)


def test_a_remote_model_is_not_pulled(write_model):
    remote = [{"kind": "remote", "provider": "openai", "model": "x"}]
    with pytest.raises(UserInputError, match="runs at its provider"):
        workbench.models.pull(write_model("remote", engine="providers", sources=remote))


@pytest.mark.models
@pytest.mark.parametrize("name", [spec.id for spec in workbench.models.list() if spec.starter])
def test_every_starter_is_here(name: str):
    assert workbench.models.locate(name), f"run `workbench models pull {name}`"
