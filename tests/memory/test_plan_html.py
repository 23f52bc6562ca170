"""The picture of a plan: every part is in it, and nothing of a model's name is markup."""

from __future__ import annotations

import re

import workbench
from workbench.memory.plan import MemoryPlan
from workbench.memory.plan_html import plan_html


def plan(**changes: object) -> MemoryPlan:
    """The plan of the image starter, which is part of the project."""
    found = workbench.plan("shapes-32", memory="4GiB", batch=2)
    return found.model_copy(update=changes)


def test_the_bar_has_every_term_once_and_the_bound():
    found = plan()
    page = plan_html(found)
    names = {term.name for term in found.terms if term.size_bytes}
    bars = re.findall(r'<div style="width:([\d.]+)%;background', page)
    assert len(bars) == len(names) + 1  # and the way up to the bound
    assert sum(map(float, bars)) <= 100.1
    for name in (*names, *found.phases):
        assert name in page


def test_the_budget_is_marked_where_it_is_inside_the_picture():
    found = plan()
    tight = plan(available_bytes=found.upper_bytes + 1)
    wide = plan(available_bytes=100 * found.upper_bytes)
    assert 'title="available"' in plan_html(tight)
    assert 'title="available"' not in plan_html(wide)


def test_what_does_not_fit_says_so_and_what_would_help():
    page = plan_html(plan(fits=False, cheapest_fixes=("--batch 1 (needs 1 MiB)",)))
    assert "does not fit" in page
    assert "<li>--batch 1" in page


def test_names_are_escaped():
    assert "<script>" not in plan_html(plan(model="<script>", reason="<script>"))
