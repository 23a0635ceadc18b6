"""The login at a client: a token that is kept, renewed before it expires, and once after a 401.

Follows Meta's page on the users node. Too many wrong logins get 429, so a login is never looped:
one that is refused is tried again after a minute at the earliest, and later each time.
"""

import asyncio
import base64
import time
from datetime import UTC, datetime

import structlog
from pydantic import BaseModel, ValidationError

from service.settings import OnPremAccountSettings
from service.whatsapp.http import (
    FORBIDDEN,
    TOO_MANY,
    UNAUTHORIZED,
    LoginRefusedError,
    NoReplyError,
    NotSentError,
    Reply,
    Transport,
)

FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3600.0
RENEW_BEFORE_SECONDS = 300.0
RENEW_AGAIN_SECONDS = 30.0

log = structlog.get_logger(__name__)


class _User(BaseModel):
    token: str
    expires_after: datetime | None = None


class _Login(BaseModel):
    users: list[_User]


class Session:
    """The token of one account's client."""

    def __init__(self, name: str, account: OnPremAccountSettings, transport: Transport) -> None:
        self._name = name
        self._account = account
        self._transport = transport
        self._lock = asyncio.Lock()
        self._token: str | None = None
        self._renew_at = 0.0
        self._pause = FIRST_PAUSE_SECONDS
        self._not_before = 0.0
        self._failed = 0
        self._timed_out = False
        self.refused = self._proven = False
        self.logged_in_at: float | None = None

    @property
    def paused_for(self) -> float:
        """How long (s) the login is not to be tried, 0 where it may be."""
        return max(0.0, self._not_before - time.monotonic()) if self.refused else 0.0

    def use(self, account: OnPremAccountSettings) -> None:
        """Log in by these settings from the next login on; a new login ends a pause."""
        before, self._account = self._account, account
        if (before.username, before.password) != (account.username, account.password):
            self.refused, self._not_before, self._pause = False, 0.0, FIRST_PAUSE_SECONDS

    async def token(self, instead_of: str | None = None) -> str:
        """Return a token that should be good; a new one where `instead_of` was refused.

        Raises LoginRefusedError, and NotSentError where the login is not answered.
        """
        if instead_of is None and self._token is not None and not self._aging():
            return self._token
        failed = self._failed
        async with self._lock:
            if self._token is not None and self._token != instead_of:
                return await self._renewed(self._token) if self._aging() else self._token
            if instead_of is not None and self._token == instead_of and self._too_soon():
                return instead_of
            if self._failed != failed:
                # With a login of their own, those who wait here would wait for one time-out after
                # the other, and burden a client that is hardly up.
                raise NotSentError(
                    "login: the one that was waited for failed", timed_out=self._timed_out
                )
            try:
                self._token = await self._log_in(renewed=instead_of is not None)
            except NotSentError as error:
                self._failed += 1
                self._timed_out = error.timed_out
                raise
            return self._token

    async def _renewed(self, token: str) -> str:
        """Renew a token before it expires; where the login is not answered, return the old one."""
        try:
            self._token = await self._log_in(renewed=False)
        except NotSentError:
            self._renew_at = time.time() + RENEW_AGAIN_SECONDS
            return token
        return self._token

    def note_accepted(self, token: str) -> None:
        """Note that a call with a token was accepted; that says nothing of a token since."""
        self._proven = self._proven or token == self._token

    def _aging(self) -> bool:
        return time.time() >= self._renew_at

    def _too_soon(self) -> bool:
        """Return whether a fresh token was refused a moment ago: another would fare no better."""
        return not self._proven and time.monotonic() < self._not_before

    async def _log_in(self, *, renewed: bool) -> str:
        if self.refused and self._too_soon():
            raise LoginRefusedError("the login was refused")
        username, password = self._account.username, self._account.password.get_secret_value()
        basic = base64.b64encode(f"{username}:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {basic}"}
        try:
            reply = await self._transport.call("login", "POST", "/v1/users/login", headers=headers)
        except NoReplyError as error:
            raise NotSentError(f"login: {error}", timed_out=error.timed_out) from None
        if reply.status in {UNAUTHORIZED, FORBIDDEN, TOO_MANY}:
            self._refuse(reply)
        user = _user(reply)
        self._accept(user, renewed=renewed)
        return user.token

    def _refuse(self, reply: Reply) -> None:
        self.refused, self._proven = True, False
        self._token = None
        self._not_before = time.monotonic() + self._pause
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        log.error("login refused", account=self._name, status=reply.status, pause_seconds=pause)
        raise LoginRefusedError(f"the login was refused ({reply.status})")

    def _accept(self, user: _User, *, renewed: bool) -> None:
        now = time.time()
        left = user.expires_after.timestamp() - now if user.expires_after else 7 * 86_400
        self._renew_at = now + _good_for(left)
        self.refused = self._proven = False
        self.logged_in_at = now
        self._pause = FIRST_PAUSE_SECONDS
        self._not_before = time.monotonic() + FIRST_PAUSE_SECONDS if renewed else 0.0
        log.info("logged in", account=self._name)


def _good_for(left: float) -> float:
    """Return when (s from now) to renew a token that has so long left.

    One that has expired already, by a clock that is wrong, is used until it is refused.
    """
    return max(left - RENEW_BEFORE_SECONDS, left / 2) if left > 0 else LONGEST_PAUSE_SECONDS


def _user(reply: Reply) -> _User:
    if not reply.succeeded:
        raise NotSentError(f"the login was answered with {reply.status}")
    try:
        user = _Login.model_validate(reply.payload).users[0]
    except (ValidationError, IndexError):
        raise NotSentError("the login was answered with no token") from None
    if user.expires_after is not None and user.expires_after.tzinfo is None:
        return user.model_copy(update={"expires_after": user.expires_after.replace(tzinfo=UTC)})
    return user
