"""Sending through: what a business's systems send with the account's own API, the gate in between.

A message is read strictly, waits a few seconds at most for its place among the account's calls, and
only then the gate is asked. Where that is closed nothing is sent; else the message goes once, as it
was read, and what is answered is passed back as it came. A refusal because of the identity closes
the gate before that. Media and read marks reach nobody new: the gate is not asked about them.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

import structlog
from aiohttp import ClientPayloadError, web
from pydantic import ValidationError

from service.api import serializers
from service.api.auth import CALLER
from service.api.context import BODIES, RESERVATION, app_context, sees
from service.api.gate import GATE
from service.api.params import need_account
from service.api.problems import ProblemError, from_validation
from service.dialects.common import UnreadableError
from service.dialects.sends import Outgoing, read_cloud, read_onprem, read_refusal
from service.ledger.callbacks import RecordCallback
from service.webhooks.body import invite
from service.webhooks.request_ids import REQUEST_ID
from service.whatsapp.http import (
    MEDIA,
    MESSAGES,
    BusyError,
    CallError,
    Content,
    NoReplyError,
    Reply,
)

log = structlog.get_logger(__name__)

MAX_MEDIA_BYTES = 110_100_480
"""105 MiB: WhatsApp takes documents of 100 MB, and a form has something around them."""
MEDIA_SECONDS = 600.0
"""How long an upload may take, all of it."""
OFF_LOOP_BYTES = 65_536
"""Longer messages are parsed off the event loop."""
PASSED_BACK = (
    "Content-Type",
    "Retry-After",
    "X-App-Usage",
    "X-Business-Use-Case-Usage",
    "Facebook-API-Version",
)
"""The headers of an answer that are passed back with it."""
AGAIN_SECONDS = 5
_VERSION = re.compile(r"v\d{1,3}\.\d{1,2}", re.ASCII)
"""As Graph has them. It goes no further: the account's `base_url` names the one that is used."""
RESULTS = SENT, CLOSED, REFUSED, REJECTED, INVALID, NOT_SENT, UNKNOWN = (
    "sent", "closed", "refused", "rejected", "invalid", "not_sent", "unknown",
)  # fmt: skip
"""What metrics and the log call the outcome of a message."""


class Account(NamedTuple):
    """The account that something is sent through, and whether it is one of the Cloud API."""

    name: str
    cloud: bool


@dataclass(slots=True)
class Attempt:
    """What is known so far of a message that is being sent.

    `result` is what metrics call its outcome if nothing further happens. `users` are the names of
    whom it is for, and `asked_at` (Unix ms) is when the gate was asked.
    """

    account: Account
    result: str = INVALID
    users: Sequence[str] = ()
    asked_at: int = 0


# The routes


async def send_cloud(request: web.Request) -> web.StreamResponse:
    """Send a message by the Cloud API, or mark one as read, if the gate is open."""
    return await _send(request, _cloud_account(request), read_cloud)


async def send_onprem(request: web.Request) -> web.StreamResponse:
    """Send a message by the On-Premises API, if the gate is open."""
    return await _send(request, _onprem_account(request), read_onprem)


async def upload_cloud(request: web.Request) -> web.StreamResponse:
    """Upload media to the Cloud API."""
    if request.content_type != "multipart/form-data":
        raise ProblemError(400, "the body must be multipart/form-data")
    return await _upload(request, _cloud_account(request))


async def upload_onprem(request: web.Request) -> web.StreamResponse:
    """Upload media to the On-Premises API."""
    if "Content-Type" not in request.headers:
        raise ProblemError(400, "Content-Type must name the type of the file")
    return await _upload(request, _onprem_account(request))


# Which account


def _cloud_account(request: web.Request) -> Account:
    """Return the account that has the number of the path; raise a 404 where there is none to see.

    Two apps may have the number, each with a gate of its own: a key for one account tells which.
    """
    if not _VERSION.fullmatch(request.match_info["version"]):
        raise ProblemError(404, "there is no such version")
    number = request.match_info["phone_number_id"]
    accounts = app_context(request).settings.cloud_accounts
    found = [
        name
        for name, account in accounts.items()
        if account.phone_number_id == number and sees(request, name)
    ]
    if not found:
        raise ProblemError(404, "there is no such phone number")
    if len(found) > 1:
        raise ProblemError(400, "several accounts have this number: use a key that is for one")
    return Account(found[0], cloud=True)


def _onprem_account(request: web.Request) -> Account:
    """Return the account of the path; raise a 404 where there is none to see, or one of Meta's."""
    name = need_account(request)
    if name not in app_context(request).clients:
        raise ProblemError(404, "the account is one of the Cloud API: send to /graph/ instead")
    return Account(name, cloud=False)


# Messages


async def _send(
    request: web.Request, account: Account, read: Callable[[bytes], Outgoing]
) -> web.StreamResponse:
    """Send a message, count the outcome, and write one line about it."""
    attempt, status = Attempt(account), None
    try:
        outgoing = await _read(request, read)
        reply = await _pass_on(request, attempt, outgoing)
        status = reply.status
    finally:
        result = attempt.result
        app_context(request).metrics.count_send(account.name, result)
        answer = {} if status is None else {"answer": status}
        log.info("send", account=account.name, result=result, caller=request[CALLER], **answer)
    return _as_it_came(reply)


async def _read(request: web.Request, read: Callable[[bytes], Outgoing]) -> Outgoing:
    """Return what is to be sent; raise a 400 where the body has more than one meaning."""
    _require_plain(request)
    if request.content_type not in {"application/json", "application/octet-stream"}:
        raise ProblemError(400, "the body must be JSON: Content-Type: application/json")
    raw = await request.app[BODIES].read(request, request[RESERVATION])
    try:
        if len(raw) > OFF_LOOP_BYTES:
            return await asyncio.to_thread(read, raw)
        return read(raw)
    except UnreadableError as error:
        raise ProblemError(400, str(error)) from None
    except ValidationError as error:
        raise from_validation(error) from None


def _require_plain(request: web.Request) -> None:
    """Raise a 400 for a query, which would not be passed on, and for a compressed body."""
    if request.query_string:
        raise ProblemError(400, "no query parameter is taken here")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ProblemError(400, "the body must not be compressed")


async def _pass_on(request: web.Request, attempt: Attempt, outgoing: Outgoing) -> Reply:
    """Send a message once the gate let it pass; return the answer, once a refusal is recorded."""
    attempt.result = NOT_SENT
    account, context = attempt.account, app_context(request)

    async def content() -> Content:
        """Ask the gate, now that the message is next."""
        attempt.result = NOT_SENT
        require_caller(request)
        written = await _judge(request, attempt, outgoing)
        attempt.result = UNKNOWN
        return Content(written, {"Content-Type": "application/json"})

    side = context.graphs[account.name] if account.cloud else context.clients[account.name]
    try:
        reply = await answer_of(side.send(MESSAGES, content), "the message")
    except NothingSentError:
        attempt.result = NOT_SENT
        raise
    attempt.result = SENT if reply.ok else REJECTED
    await _record_refusal(request, attempt, reply)
    return reply


async def _record_refusal(request: web.Request, attempt: Attempt, reply: Reply) -> None:
    """Close the gate where the answer refuses the message because of the recipient's identity.

    That is on disk and in effect before the answer goes back to the sender.
    """
    account, ledger = attempt.account, app_context(request).ledger
    refusal = read_refusal(reply.payload, attempt.users, attempt.asked_at, cloud=account.cloud)
    if refusal:
        attempt.result = REFUSED
        id_ = request[REQUEST_ID]
        command = RecordCallback(account.name, ledger.clock(), b"", refusal, request_id=id_)
        await ledger.submit(command)


async def _judge(request: web.Request, attempt: Attempt, outgoing: Outgoing) -> bytes:
    """Ask the gate about whom a message is for; return what is to be sent.

    Raises a 409 with the reasons where it is closed, or where the sender brings another hash than
    the one that is trusted: whoever wrote that message may have meant who had the number before.
    """
    if outgoing.recipient is None:
        return outgoing.written()
    account = attempt.account
    attempt.asked_at = app_context(request).ledger.clock()
    found = await request.app[GATE].judge_send(account.name, outgoing.recipient)
    if found is None:
        attempt.result = INVALID
        raise ProblemError(400, "the recipient is no number that can be dialled, and nobody known")
    verdict, attempt.users = found
    attempt.result = CLOSED
    if not verdict.sendable:
        reasons = [serializers.gate_reason(reason) for reason in verdict.reasons]
        codes = ", ".join(dict.fromkeys(reason["code"] for reason in reasons))
        raise ProblemError(409, f"the gate is closed: {codes}", reasons=reasons)
    hash_ = verdict.hash if account.cloud else None
    if None not in (hash_, outgoing.hash) and hash_ != outgoing.hash:
        detail = "recipient_identity_key_hash is not the hash that is trusted: leave it out"
        raise ProblemError(409, detail)
    return outgoing.written(hash_)


class NothingSentError(ProblemError):
    """A 503: nothing was sent."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(503, f"nothing was sent: {reason}", retry_after=max(1, round(seconds)))


def require_caller(request: web.Request) -> None:
    """Raise NothingSentError where the sender has gone: nobody would get the answer."""
    if request.transport is None or request.transport.is_closing():
        raise NothingSentError("the connection was closed", AGAIN_SECONDS)


async def answer_of(sending: Awaitable[Reply], what: str) -> Reply:
    """Return the answer.

    Raises NothingSentError where nothing was sent, and a 502 or 504 where that is not known.
    """
    try:
        reply = await sending
    except NoReplyError as error:
        status = HTTPStatus.GATEWAY_TIMEOUT if error.timed_out else HTTPStatus.BAD_GATEWAY
        detail = f"there was no answer: it is not known whether {what} was sent"
        raise ProblemError(status, detail) from None
    except BusyError as error:
        raise NothingSentError(str(error), error.seconds) from None
    except CallError as error:
        raise NothingSentError(str(error), AGAIN_SECONDS) from None
    if reply.status in range(300, 400):
        detail = f"it was answered with a redirection: it is not known whether {what} was sent"
        raise ProblemError(HTTPStatus.BAD_GATEWAY, detail)
    return reply


def _as_it_came(reply: Reply) -> web.Response:
    headers = {name: reply.headers[name] for name in PASSED_BACK if name in reply.headers}
    return web.Response(body=reply.raw, status=reply.status, headers=headers)


# Media


async def _upload(request: web.Request, account: Account) -> web.StreamResponse:
    """Pass an upload on as it comes, within bounds of size and time."""
    _require_plain(request)
    context, status = app_context(request), None
    upload = Upload(request, context.settings.server.body_timeout_seconds)

    async def content() -> Content:
        require_caller(request)
        return Content(upload.chunks(), upload.headers, MEDIA_SECONDS)

    side = context.graphs[account.name] if account.cloud else context.clients[account.name]
    try:
        reply = await answer_of(side.send(MEDIA, content), "the file")
        status = reply.status
    except ProblemError:
        # The sender's upload failed: how the call to WhatsApp ended then says nothing.
        if upload.problem is not None:
            raise upload.problem from None
        raise
    finally:
        answer = {} if status is None else {"answer": status}
        log.info("upload", account=account.name, caller=request[CALLER], **answer)
    return _as_it_came(reply)


class Upload:
    """The body of a request, passed on as it comes; `problem` is why it ended before its end."""

    def __init__(self, request: web.Request, stall_seconds: float) -> None:
        self._request = request
        self._stall_seconds = stall_seconds
        self.problem: ProblemError | None = None
        self.headers = {"Content-Type": request.headers["Content-Type"]}
        if request.content_length is not None:
            self.headers["Content-Length"] = str(request.content_length)
            self._check(request.content_length)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body; raise a 413, 408 or 400, and keep it in `problem`, where it can't be."""
        invite(self._request)
        size = 0
        try:
            while chunk := await self._next():
                size += len(chunk)
                self._check(size)
                yield chunk
        except ProblemError as problem:
            self.problem = problem
            raise

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(self._stall_seconds):
                return await self._request.content.readany()
        except TimeoutError:
            raise ProblemError(408, "the body stalled") from None
        except (ClientPayloadError, web.RequestPayloadError, ConnectionError):
            raise ProblemError(400, "the body broke off", kind="broken_off") from None

    def _check(self, size: int) -> None:
        if size > MAX_MEDIA_BYTES:
            raise ProblemError(413, f"the body is larger than {MAX_MEDIA_BYTES} bytes")
