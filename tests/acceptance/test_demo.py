"""What the README's second command shows, with the configuration that `make run` uses."""

import asyncio
import sys
import tomllib
from pathlib import Path

from tests.acceptance.conftest import Install

DEVELOPMENT = Path(__file__).parents[2] / "config" / "development.toml"


async def test_the_printed_command_shows_a_refusal_a_change_and_both_ways_to_acknowledge(
    install: Install,
) -> None:
    policy = tomllib.loads(DEVELOPMENT.read_text())["accounts"]["main"]["policy"]
    ours = await install(accounts={"main": {"policy": policy}})
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "simulate", "demo"),
        *("--url", ours.sim.base_url, "--ca-file", str(ours.sim.ca_file)),
        *("--ackgate-url", ours.base),
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await demo.communicate()
    assert demo.returncode == 0
    shown = printed.decode()
    assert shown.count("refused 1028") == 2
    assert "because identity_scheduled" in shown
    assert "by the policy default" in shown
    assert "because identity_pending" in shown
    assert "Both went as promised." in shown
