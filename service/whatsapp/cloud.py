"""The Cloud API, for one account: how its number is set up, and setting it up.

Follows Meta's pages on the Graph API's errors, on business phone numbers, on webhook overrides and
on the identity change check. It is called by hand and every few minutes, hardly ever twice at once,
so that a few slots bound it, and no rate limit is needed.

The webhook is registered for the number, not for its WhatsApp Business Account (WABA) or the app:
that needs nothing but what the account has anyway, can be read back, takes precedence over the
other two, and leaves the account's other numbers alone. Whether the app is subscribed to the WABA
at all is checked and set only where `waba_id` is configured, for a number does not name its WABA.
"""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from service.model.account_checks import CloudSettings
from service.observability.metrics import Metrics
from service.settings import CloudAccountSettings
from service.whatsapp.http import (
    FORBIDDEN,
    TOO_MANY,
    UNAUTHORIZED,
    BusyError,
    CallError,
    Content,
    ForbiddenError,
    HandshakeError,
    InvalidError,
    LoginRefusedError,
    NoReplyError,
    NotThereError,
    Reachability,
    Reply,
    Sending,
    SendingPlaces,
    Transport,
)

AT_ONCE = 4
MEDIA_SHARE = 8
"""For so many messages that may be sent at once there may be one upload, beside them."""
BUSY_SECONDS = 300.0
FIELDS = "display_phone_number,verified_name,quality_rating,webhook_configuration"
LEVELS = ("phone_number", "whatsapp_business_account", "application")
"""Where a webhook URL can be set, in the order of precedence."""
TOKEN_CODES = frozenset({0, 190})
PERMISSION_CODES = frozenset({3, 10, *range(200, 300)})
THROTTLED_CODES = frozenset({4, 80007, 130429})
HANDSHAKE_CODES = frozenset({2200, 2201})
INVALID_CODES = frozenset({33, 100})
NO_SUCH_OBJECT = 33
"""The subcode of 100 that says so; versions since v16.0 need not send it."""

LoginState = Literal["none", "ok", "refused"]

_ANSWERED = re.compile(r"HTTP Status Code = (\d{3})\b")


class Graph:
    """The Cloud API, as one account's number and access token have it.

    `login` says whether the token was accepted when it was last used, since `login_since` (Unix
    ms); `last_read` is how the number was set up when that was last read.
    """

    def __init__(self, name: str, account: CloudAccountSettings, metrics: Metrics) -> None:
        self.name = name
        self._transport = Transport(name, account, metrics, max_in_flight=AT_ONCE)
        messages, media = account.max_in_flight, max(1, account.max_in_flight // MEDIA_SHARE)
        self._sending = SendingPlaces(messages=messages, media=media)
        self._sends = Transport(name, account, metrics, max_in_flight=messages + media)
        self.use(account)
        self._number = f"/{account.phone_number_id}"
        self._waba = None if account.waba_id is None else f"/{account.waba_id}"
        self.reachability = Reachability(name, metrics.reachable)
        self.login: LoginState = "none"
        self.login_since: int | None = None
        self.last_read: CloudSettings | None = None

    def use(self, account: CloudAccountSettings) -> None:
        """Make the next calls with the access token of these settings."""
        self._headers = token_header(account, account.access_token.get_secret_value())

    async def settings(self) -> CloudSettings:
        """Return how the number is set up.

        Raises LoginRefusedError where the token is refused, ForbiddenError where it may not read
        that, NotThereError where there is no such number for it, other CallErrors where there is no
        answer that can be relied on.
        """
        found = await self._call("number", "GET", f"{self._number}?fields={FIELDS}")
        registered = found.get("webhook_configuration")
        registered = registered if isinstance(registered, dict) else {}
        self.last_read = CloudSettings(
            next((url for level in LEVELS if (url := _text(registered.get(level)))), None),
            await self._subscribed(),
            _text(found.get("quality_rating")),
            own_webhook=bool(_text(registered.get(LEVELS[0]))),
        )
        return self.last_read

    async def _subscribed(self) -> bool | None:
        """Return whether any app gets the callbacks of the WABA; None where that is not known."""
        if self._waba is None:
            return None
        found = await self._call("subscribed_apps", "GET", f"{self._waba}/subscribed_apps")
        apps = found.get("data")
        return bool(apps) if isinstance(apps, list) else None

    async def enable_identity_check(self) -> None:
        """Switch the identity change check on. Raises as `settings` does."""
        body = {"user_identity_change": {"enable_identity_key_check": True}}
        await self._call("settings", "POST", f"{self._number}/settings", body)

    async def subscribe(self) -> None:
        """Let the app get the callbacks of the WABA. Raises as `settings` does."""
        await self._call("subscribed_apps", "POST", f"{self._waba}/subscribed_apps")

    async def set_webhook(self, url: str, verify_token: str) -> None:
        """Let the number's callbacks go to a URL, which Meta verifies first with a challenge.

        Raises as `settings` does, HandshakeError where that fails, and InvalidError where such a
        URL can't be set: then nothing is changed.
        """
        wanted = {"override_callback_uri": url, "verify_token": verify_token}
        await self._call("number", "POST", self._number, {"webhook_configuration": wanted})

    async def send(self, operation: Sending, content: Callable[[], Awaitable[Content]]) -> Reply:
        """Pass on a message or an upload, and return the answer, whatever it is.

        `content` is asked for just before it goes. Raises CallErrors as they are sorted by what is
        known of the effect, and what `content` raises.
        """
        path = f"{self._number}/{operation}"
        async with self._sending.place(operation):
            try:
                reply = await self._sends.send(
                    operation, "POST", path, headers=self._headers, content=content
                )
            except CallError as error:
                self.reachability.note_failure(error)
                raise
        if _refuses_token(reply):
            self._note_login("refused")
            refused = LoginRefusedError(f"the access token is refused: {operation}")
            self.reachability.note_failure(refused)
        else:
            self._note_login("ok")
            self.reachability.note_reply()
        return reply

    async def _call(
        self, operation: str, method: str, path: str, body: Any = None
    ) -> Mapping[str, Any]:
        """Make a call, return its answer, and note what that says of the API and the token."""
        try:
            reply = await self._transport.call(
                operation, method, path, headers=self._headers, body=body
            )
            payload = _payload(reply, f"{method} {operation}")
        except (ForbiddenError, HandshakeError, InvalidError, NotThereError):
            self._note_login("ok")
            self.reachability.note_reply()
            raise
        except LoginRefusedError as error:
            self._note_login("refused")
            self.reachability.note_failure(error)
            raise
        except CallError as error:
            self.reachability.note_failure(error)
            raise
        self._note_login("ok")
        self.reachability.note_reply()
        return payload

    def _note_login(self, state: LoginState) -> None:
        if state != self.login:
            self.login, self.login_since = state, time.time_ns() // 1_000_000

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()
        await self._sends.close()


def token_header(account: CloudAccountSettings, token: str) -> dict[str, str]:
    """Return the header that brings the access token: a provider's own has the bare token."""
    if account.token_header.lower() == "authorization":
        return {account.token_header: f"Bearer {token}"}
    return {account.token_header: token}


def _refuses_token(reply: Reply) -> bool:
    """Return whether an answer says that the access token is not accepted."""
    error = reply.payload.get("error") if isinstance(reply.payload, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return reply.status == UNAUTHORIZED or (type(code) is int and code in TOKEN_CODES)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _payload(reply: Reply, what: str) -> Mapping[str, Any]:
    """Return the object that a call was answered with, or raise what its error means.

    The code says what it means, as Meta asks for; the HTTP status counts where there is no error to
    read. A 2xx without an object, or one that says it was no success, can't be relied on.
    """
    answered = isinstance(reply.payload, dict)
    payload = reply.payload if answered else {}
    if reply.ok and answered and "error" not in payload and payload.get("success") is not False:
        return payload
    error = payload.get("error")
    error = error if isinstance(error, dict) else {}
    code = error.get("code")
    text = f"{what} was answered with {reply.status}"
    if type(code) is not int:
        code = None
    else:
        text = f"{text} (error {code})"
    if code in INVALID_CODES:
        # For a GET an id that does not fit is all that can be wrong.
        if what.startswith("GET") or error.get("error_subcode") == NO_SUCH_OBJECT:
            raise NotThereError(f"no such id, or not for this access token: {text}")
        raise InvalidError(f"it was not taken: {text}")
    raise _error(reply.status, code, error, text)


def _error(status: int, code: int | None, error: Mapping[str, Any], text: str) -> CallError:
    """Return what any other error of Graph means; `text` describes it, without its content."""
    if code in TOKEN_CODES or status == UNAUTHORIZED:
        return LoginRefusedError(f"the access token is refused: {text}")
    if code in THROTTLED_CODES or status == TOO_MANY:
        return BusyError(f"too many calls: {text}", BUSY_SECONDS)
    if code in HANDSHAKE_CODES:
        # Graph's text says what the endpoint answered; nothing of it but the status is repeated.
        found = _ANSWERED.search(str(error.get("message")))
        answered = f" (it was answered with {found[1]})" if found else ""
        failed = f"Meta's handshake with the webhook endpoint failed{answered}"
        return HandshakeError(f"{failed}: {text}")
    if code in PERMISSION_CODES or status == FORBIDDEN:
        return ForbiddenError(f"the access token lacks the permission: {text}")
    return NoReplyError(text)
