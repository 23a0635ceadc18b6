"""How many connections the limit of open files leaves room for."""

import resource
from typing import Any

import pytest

from service.ingress import descriptors
from service.settings import Settings


def settings(**server: Any) -> Settings:
    return Settings.model_validate({"server": server})


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """A system with limits, the last of the list; what is set is appended."""
    limits = [(1024, 5000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    return limits


def test_the_soft_limit_is_raised_as_far_as_needed(system: list[tuple[int, int]]) -> None:
    wanted = settings(max_connections=2000)
    descriptors.raise_limit(wanted)
    assert system[-1] == (descriptors.needed(wanted), 5000)
    assert descriptors.connections(wanted) == 2000
    assert descriptors.shortage(wanted) is None


@pytest.mark.parametrize("server", [{}, {"internal": {}}])
def test_as_many_connections_are_taken_as_the_hard_limit_leaves_room_for(
    system: list[tuple[int, int]], server: dict[str, Any]
) -> None:
    wanted = settings(max_connections=9000, **server)
    descriptors.raise_limit(wanted)
    assert system[-1] == (5000, 5000)
    fitting = descriptors.connections(wanted)
    assert 5000 - 2 < descriptors.needed(settings(max_connections=fitting, **server)) <= 5000
    assert f"{fitting} connections are taken" in (descriptors.shortage(wanted) or "")


def test_a_limit_that_is_high_enough_is_left_alone(system: list[tuple[int, int]]) -> None:
    system.append((resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    descriptors.raise_limit(settings())
    assert len(system) == 2
    assert descriptors.shortage(settings(max_connections=1_000_000)) is None
