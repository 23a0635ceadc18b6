"""The gate's answers as JSON."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import orjson

from service.api.context import rfc3339
from service.model.gate import Reason, Verdict
from service.model.users import is_user_id

_STATUS = HTTPStatus.UNPROCESSABLE_ENTITY
_ERROR = {
    "type": "about:blank",
    "title": _STATUS.phrase,
    "status": _STATUS.value,
    "detail": "neither a usable alias nor a phone number",
}


def one(account: str, given: Verdict, now: int, *, cloud: bool) -> bytes:
    """Write the answer about one user; `now` is when it was so, in Unix milliseconds.

    On an account of the Cloud API it also says by which user id the user is called, and which hash
    to send along.
    """
    return orjson.dumps(_verdict(account, given, rfc3339(now), cloud))


def many(
    account: str, given: Iterable[tuple[str, Verdict | None]], now: int, *, cloud: bool
) -> bytes:
    """Write the answers of a lookup, each with what was asked."""
    as_of = rfc3339(now)
    items = [
        {"input": asked}
        | ({"error": _ERROR} if found is None else _verdict(account, found, as_of, cloud))
        for asked, found in given
    ]
    return orjson.dumps({"items": items})


def _verdict(account: str, given: Verdict, as_of: str | None, cloud: bool) -> dict[str, Any]:
    verdict: dict[str, Any] = {
        "account": account,
        "wa_id": given.wa_id,
        "known": given.known,
        "sendable": given.sendable,
        "reasons": [_reason(reason) for reason in given.reasons],
        "warnings": [_reason(warning) for warning in given.warnings],
        "as_of": as_of,
    }
    if cloud:
        verdict |= {"user_id": given.user_id, "identity_key_hash": given.hash}
    return verdict


def _reason(reason: Reason) -> dict[str, Any]:
    written: dict[str, Any] = {
        "code": reason.code,
        "since": rfc3339(reason.since),
        "of": reason.of,
        "clears_when": reason.clears_when,
    }
    if reason.alias is not None:
        written["user_id" if is_user_id(reason.alias) else "wa_id"] = reason.alias
    if reason.until is not None:
        written["until"] = rfc3339(reason.until)
    if reason.detail is not None:
        written["detail"] = reason.detail
    return written
