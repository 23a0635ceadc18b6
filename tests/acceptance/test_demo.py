"""What the README's second command shows, with the configuration that `make run` uses."""

import asyncio
import sys
import tomllib
from pathlib import Path

import pytest

from tests.acceptance.conftest import (
    ACCESS_TOKEN,
    OTHER_NUMBER,
    Installation,
    OpenShop,
)

DEVELOPMENT = Path(__file__).parents[2] / "config" / "development.toml"
POLICY = tomllib.loads(DEVELOPMENT.read_text())["policy"]


async def demo(ours: Installation, *words: str) -> str:
    """Walk, and give what was shown."""
    walk = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "simulate", "demo"),
        *("--url", ours.sim.base_url, "--ca-file", str(ours.sim.ca_file)),
        *("--ackgate-url", ours.base, "--access-token", ACCESS_TOKEN),
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await walk.communicate()
    assert walk.returncode == 0, printed.decode()
    return printed.decode()


@pytest.mark.slow
async def test_the_printed_command_shows_a_refusal_a_change_and_both_ways_to_acknowledge(
    open_shop: OpenShop,
) -> None:
    ours = await open_shop(policy=POLICY)
    cloud, _, client = (await demo(ours)).partition("main, an account of the On-Premises API\n")
    assert cloud.startswith("shop, an account of the Cloud API\n")
    assert cloud.count("not delivered, 137000") == 2
    assert cloud.count("by the policy default") == 1
    assert cloud.count("a message without a hash: delivered") == 1
    assert client.count("refused 1028") == 2
    assert "because identity_scheduled" in client
    assert "by the policy default" in client
    assert "because identity_pending" in client
    assert "Everything went as promised." in client
    assert {message.outcome for message in ours.meta.messages} == {"delivered", "mismatch"}


async def test_one_account_alone_is_shown_with_the_number_that_it_has(open_shop: OpenShop) -> None:
    ours = await open_shop(policy={**POLICY, "delay_seconds": 0})
    shown = await demo(ours, "--account", "outlet", "--on", OTHER_NUMBER)
    assert shown.startswith("outlet, an account of the Cloud API\n")
    assert "On-Premises" not in shown
    assert {message.phone_number_id for message in ours.meta.messages} == {OTHER_NUMBER}
