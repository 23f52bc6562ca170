"""Names of samplers: what is found, what is refused, what is proposed."""

from __future__ import annotations

import pytest

from workbench.engines.samplers import NO_EQUIVALENT, SAMPLERS, find_sampler
from workbench.errors import UnknownOption

DIFFUSION = {sampler.scheduler for sampler in SAMPLERS.values()}


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_name_is_found(name: str) -> None:
    assert find_sampler(name, DIFFUSION) is SAMPLERS[name]


def test_euler_of_a_flow_model_is_its_own_scheduler() -> None:
    flow = {"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"}
    assert find_sampler("Euler", flow).scheduler == "FlowMatchEulerDiscreteScheduler"


@pytest.mark.parametrize(
    ("name", "closest"),
    [("euler A", "'Euler a'"), ("DPM++2M", "'DPM++ 2M'"), ("unipc", "'UniPC'"), ("dim", "'DDIM'")],
)
def test_an_unknown_name_gets_the_closest_and_the_list(name: str, closest: str) -> None:
    with pytest.raises(UnknownOption, match="There is no sampler") as caught:
        find_sampler(name, DIFFUSION)
    assert closest in caught.value.remedy.partition("?")[0]
    assert all(known in caught.value.remedy for known in SAMPLERS)


@pytest.mark.parametrize("name", NO_EQUIVALENT)
def test_what_diffusers_does_not_have_is_said_to_be_so(name: str) -> None:
    with pytest.raises(UnknownOption, match="no equivalent in diffusers"):
        find_sampler(name, DIFFUSION)


def test_a_sampler_that_does_not_suit_the_model() -> None:
    with pytest.raises(UnknownOption, match="does not suit") as caught:
        find_sampler("DDIM", {"EulerDiscreteScheduler"})
    assert caught.value.remedy.endswith("Use one of: Euler.")
