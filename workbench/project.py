"""Where the project's own data folders are."""

from __future__ import annotations

from pathlib import Path

from workbench.errors import Unavailable


def project_root() -> Path:
    """The checkout: it holds ``pipelines/``, ``data/``, ``experiments/`` and ``notebooks/``.

    Raises Unavailable when the package was installed without them.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / "pipelines").is_dir():
        raise Unavailable(
            f"The project's folders are not beside the package in {root}.",
            "Install from a checkout: `pip install -e .` inside it.",
        )
    return root
