"""Programs that read the description: client generators, and schemathesis with all its checks.

`make tools` installs them, into `.venv-tools` and `tests/clients/node_modules`.
"""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.acceptance.conftest import WA_ID, Install, Installation, digest_of
from tests.acceptance.sinks import Sink, sink
from tests.docs.conftest import ROOT

pytestmark = pytest.mark.tools

DESCRIPTION = ROOT / "docs/openapi.json"
CLIENTS = ROOT / "tests/clients"
PYTHON = ROOT / ".venv-tools/bin"
NODE = CLIENTS / "node_modules/.bin"
KEY = "key-of-the-program"
EXAMPLES = 8
"""Per operation and phase; with all phases that is well below a minute."""


async def run(program: Path, *arguments: object, cwd: Path, path: Sequence[Path] = ()) -> str:
    """Run a tool, and return what it said; fail where it isn't installed."""
    if shutil.which(program) is None:
        pytest.fail(f"{program.relative_to(ROOT)} is missing: run 'make tools' for this test")
    env = {**os.environ, "PATH": f"{PYTHON}:{os.environ['PATH']}", "NO_COLOR": "1"}
    env["PYTHONPATH"] = ":".join(map(str, path))
    process = await asyncio.create_subprocess_exec(
        program,
        *map(str, arguments),
        cwd=cwd,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.fixture
async def crm() -> AsyncIterator[Sink]:
    async with sink() as made:
        yield made


@pytest.fixture
async def keyed(install: Install, crm: Sink) -> Installation:
    made = await install(
        api={"keys": {"program": {"role": "admin", "sha256": digest_of(KEY)}}},
        relays={"crm": {"url": crm.url}},
    )
    made.key = KEY
    return made


async def test_the_generated_python_client_makes_a_whole_decision(
    keyed: Installation, tmp_path: Path
) -> None:
    said = await run(
        PYTHON / "openapi-python-client",
        *("generate", "--path", DESCRIPTION, "--meta", "none", "--fail-on-warning"),
        *("--output-path", tmp_path / "client"),
        cwd=tmp_path,
    )
    assert "warning" not in said.lower(), said
    await keyed.change()
    said = await run(
        PYTHON / "python", CLIENTS / "decide.py", keyed.base, KEY, cwd=tmp_path, path=[tmp_path]
    )
    told = json.loads(said)
    assert (told["wa_id"], told["state"], told["sendable"]) == (WA_ID, "acknowledged", True)
    assert told["type"] == "/docs/problems#another_hash"
    assert await keyed.reasons() == []


async def test_the_generated_typescript_client_knows_bodies_answers_and_problems(
    tmp_path: Path,
) -> None:
    said = await run(
        NODE / "openapi-typescript", DESCRIPTION, "--output", tmp_path / "api.ts", cwd=tmp_path
    )
    assert "warn" not in said.lower(), said
    shutil.copy(CLIENTS / "decide.ts", tmp_path)
    await run(NODE / "tsc", "--strict", "--noEmit", "decide.ts", cwd=tmp_path)


@pytest.mark.timeout(300)
async def test_schemathesis_finds_no_failure_with_all_checks(
    keyed: Installation, tmp_path: Path
) -> None:
    # The user and the hash of the examples, so that they come as far as a decision.
    await keyed.change("16315567001", "rHEhX5K/adk=")
    said = await run(
        PYTHON / "st",
        *("--config-file", CLIENTS / "schemathesis.toml"),
        *("run", DESCRIPTION, "--url", keyed.base, "--header", f"Authorization: Bearer {KEY}"),
        *("--checks", "all", "--max-examples", EXAMPLES, "--seed", 1),
        cwd=tmp_path,
    )
    assert re.search(r"(\d+) generated, \1 passed", said), said
