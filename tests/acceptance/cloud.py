"""An installation with an account of the Cloud API, whose other side is the simulator's."""

from typing import Any

from service.simulator import CloudOptions, Number
from service.simulator.cloud.cloud import Cloud
from tests.acceptance.conftest import Install, Installation, Json, merge
from tools.processes import free_port

SECRET, ACCESS, VERIFY = "0123456789abcdef" * 2, "EAAG-the-access-token", "a-verify-token-of-ours"
SECRETS = (SECRET, ACCESS, VERIFY)
NUMBER, OTHER_NUMBER, WABA = "106540352242922", "106540352242923", "102290129340398"
USER = "16505551234"


async def prepared(prepare: Install, *, options: Json | None = None, **over: Any) -> Installation:
    """Set up an installation with the account `shop`; the endpoint's public URL is its own address.

    `options` are those of the simulator's Cloud side, `over` goes over the configuration.
    """
    chosen = {
        "app_secret": SECRET,
        "access_token": ACCESS,
        "numbers": (Number(), Number(phone_number_id=OTHER_NUMBER)),
        "batch_seconds": 0.01,
        "retry_base_seconds": 0.05,
    }
    port = free_port()
    made = await prepare(sim_options={"cloud": CloudOptions(**(chosen | (options or {})))})
    shop = {
        "kind": "cloud",
        "app": "meta",
        "phone_number_id": NUMBER,
        "base_url": made.sim.graph_url,
        "access_token": ACCESS,
        "ca_file": str(made.sim.ca_file),
        "timeout_seconds": 10,
    }
    tree: Json = {
        "server": {"port": port, "public_url": f"http://127.0.0.1:{port}"},
        "inspector": {"every_seconds": 0.05},
        "apps": {"meta": {"app_secret": SECRET, "verify_token": VERIFY}},
        "accounts": {"main": None, "shop": shop},
    }
    made.tree = merge(merge(made.tree, tree), over)
    return made


def endpoint_of(made: Installation) -> str:
    return f"{made.tree['server']['public_url']}/webhooks/meta"


def cloud_of(made: Installation) -> Cloud:
    return made.sim.cloud


def posts(made: Installation) -> list[str]:
    """Give what was changed by calls of Graph, in their order."""
    operations = ("settings", "number", "subscribed_apps")
    calls = [call for each in operations for call in cloud_of(made).calls.of(each)]
    changed = [call for call in calls if call.method != "GET"]
    return [f"{call.method} {call.path}" for call in sorted(changed, key=lambda call: call.at)]
