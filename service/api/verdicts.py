"""The gate's answers as JSON, written by hand: a lookup has a thousand, and a second has thousands.

`json.dumps` of the same takes five times as long.
"""

from collections.abc import Iterable
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted

from service.api.services import rfc3339
from service.model.gate import CLEARS_WHEN, Reason, Verdict
from service.model.names import is_user_id

_BOOL = {True: "true", False: "false"}
_CODES = {code: f'{{"code":"{code}","since":' for code in CLEARS_WHEN}
_CLEARS = {code: f',"clears_when":{quoted(text)}' for code, text in CLEARS_WHEN.items()}
_ERROR = (
    '"error":{"type":"about:blank","title":"Unprocessable Entity",'
    '"detail":"neither a usable alias nor a phone number"}}'
)


def one(account: str, given: Verdict, now: int, *, cloud: bool = False) -> str:
    """Write the answer about one user; `now` is when it was so, in Unix milliseconds.

    On an account of the Cloud API it also says by which user id the user is called, and which hash
    to send along.
    """
    more = _more(given) if cloud else ""
    return f"{{{_head(account)}{_rest(given)}{_time(now)}{more}}}"


def many(
    account: str, given: Iterable[tuple[str, Verdict | None]], now: int, *, cloud: bool = False
) -> str:
    """Write answers of a lookup, each with what was asked: to be put `together`."""
    head, as_of = _head(account), _time(now)
    items = [
        f'{{"input":{quoted(asked)},'
        + (
            _ERROR
            if verdict is None
            else f"{head}{_rest(verdict)}{as_of}{_more(verdict) if cloud else ''}}}"
        )
        for asked, verdict in given
    ]
    return ",".join(items)


def together(parts: Iterable[str]) -> str:
    """Write the answer of a lookup, of which there is at least one part."""
    return f'{{"items":[{",".join(parts)}]}}'


def _head(account: str) -> str:
    return f'"account":"{account}","wa_id":'


def _more(given: Verdict) -> str:
    return f',"user_id":{_text(given.user_id)},"identity_key_hash":{_text(given.hash)}'


def _text(value: str | None) -> str:
    return "null" if value is None else quoted(value)


def _rest(given: Verdict) -> str:
    wa_id, known, reasons, warnings, _, _ = given
    return f"{_text(wa_id)}{_findings(known, reasons, warnings)}"


@lru_cache(maxsize=1024)
def _findings(known: bool, reasons: tuple[Reason, ...], warnings: tuple[Reason, ...]) -> str:
    """Write what was found; for most it is the same."""
    return (
        f',"known":{_BOOL[known]},"sendable":{_BOOL[not reasons]},'
        f'"reasons":[{_reasons(reasons)}],"warnings":[{_reasons(warnings)}],"as_of":'
    )


def _reasons(reasons: tuple[Reason, ...]) -> str:
    return ",".join([_reason(reason) for reason in reasons])


def _reason(reason: Reason) -> str:
    code, since, alias, until, detail = reason
    more = ""
    if alias is not None:
        more = f',"{"user_id" if is_user_id(alias) else "wa_id"}":{quoted(alias)}'
    if until is not None:
        more += f',"until":{_time(until)}'
    if detail is not None:
        more += f',"detail":{quoted(detail)}'
    return f"{_CODES[code]}{_time(since)}{_CLEARS[code]}{more}}}"


def _time(at: int | None) -> str:
    return "null" if at is None else f'"{rfc3339(at)}"'
