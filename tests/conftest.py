"""How deep the property tests look, and which programs of the system the tests may use."""

import shutil

import pytest
from hypothesis import settings

settings.register_profile("broad", max_examples=60, deadline=None)
settings.register_profile("deep", max_examples=300, deadline=None)
settings.load_profile("broad")


def installed(program: str) -> str:
    """Return the path of a program that a test with the mark `tools` needs; fail without it."""
    found = shutil.which(program)
    if found is None:
        pytest.fail(f"{program} is not installed, and `make test-all` needs it; see .ci/run")
    return found
