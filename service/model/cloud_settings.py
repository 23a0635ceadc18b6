"""How a number of the Cloud API must be set up, and what is wrong with how it is.

Follows Meta's pages on webhook overrides, on the subscribed apps of a WhatsApp Business Account
(WABA), and on the identity change check.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from service.model.client_settings import Wrong, wrong_url

IDENTITY_CHECK = Wrong(
    "identity_check_off",
    "whether it is on can't be read back: it will be switched on",
    *("user_identity_change.enable_identity_key_check", None, True, True),
)
"""What is set in any case."""


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """What Graph tells of a number; None is what it does not tell.

    `webhook_url` is where its callbacks go: to a URL of its own, else of its WABA, else of the app.
    `subscribed` is whether any app gets the WABA's callbacks.
    """

    webhook_url: str | None = None
    subscribed: bool | None = None
    quality: str | None = None


def wrong_cloud_settings(told: CloudSettings, door: str | None) -> list[Wrong]:
    """Give what is wrong, in the order in which it is to be mended.

    `door` is the URL of the app's door, None where its public address is not known.
    """
    return [*_subscribed(told), *wrong_url(told.webhook_url, door, "webhook_configuration")]


def _subscribed(told: CloudSettings) -> Iterator[Wrong]:
    if told.subscribed is False:
        yield Wrong(
            "webhook_unsubscribed",
            "no app is subscribed to the WhatsApp Business Account: no callback is sent at all",
            *("subscribed_apps", False, True, True),
        )
