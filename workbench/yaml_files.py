"""Reads YAML that people write, so that a mistake can be named by file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from workbench.errors import SettingsError


def read_yaml(path: Path) -> tuple[Any, str]:
    """The value in a YAML file, and its text. Raises SettingsError with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
        return yaml.safe_load(text), text
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise SettingsError(f"{path}:{line}: this is not YAML.", "Correct the file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}.", "Check the path.") from None


def line_of_key(text: str, location: tuple[int | str, ...]) -> int:
    """The line (from 1) of the deepest key of ``location`` that the YAML text has."""
    node = yaml.compose(text)
    line = 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if not found:
                # pydantic puts the tag of a union between keys; it has no line of its own
                continue
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
