"""The error tree and its exit codes."""

from __future__ import annotations

import pickle

import pytest

from workbench import errors


def _tree(root: type) -> list[type]:
    return [root, *[leaf for child in root.__subclasses__() for leaf in _tree(child)]]


@pytest.mark.parametrize("kind", _tree(errors.WorkbenchError), ids=lambda kind: kind.__name__)
def test_message_and_remedy_are_one_line_and_survive_a_process_border(kind):
    error = pickle.loads(pickle.dumps(kind("It is wrong.", "Do this.")))
    assert str(error) == "It is wrong. Do this."
    assert error.remedy == "Do this."


def test_the_docstring_draws_every_error():
    for kind in _tree(errors.WorkbenchError):
        assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.WorkbenchError, 1),
        (errors.UnsafeSQL, 2),
        (errors.DoesNotFit, 3),
        (errors.ModelMissing, 4),
        (errors.ProviderError, 5),
    ],
)
def test_exit_codes(kind, code: int):
    assert kind.exit_code == code
