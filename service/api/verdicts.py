"""The gate's answers as JSON, written by hand: a lookup has a thousand, and a second has thousands.

`json.dumps` of the same takes five times as long.
"""

from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted

from service.api.services import rfc3339
from service.model.gate import CLEARS_WHEN, Reason, Verdict

_BOOL = {True: "true", False: "false"}
_CODES = {code: f'{{"code":"{code}","since":' for code in CLEARS_WHEN}
_CLEARS = {code: f',"clears_when":{quoted(text)}' for code, text in CLEARS_WHEN.items()}
_ERROR = (
    '"error":{"type":"about:blank","title":"Unprocessable Entity",'
    '"detail":"neither a usable alias nor a phone number"}}'
)


def one(account: str, given: Verdict, now: int) -> str:
    """Write the answer about one user; `now` is when it was so, in Unix milliseconds."""
    return f"{{{_tail(account, given, _time(now))}"


def item(account: str, asked: str, given: Verdict | None, now: int) -> str:
    """Write one answer of a lookup; an error where it can be no recipient."""
    tail = _ERROR if given is None else _tail(account, given, _time(now))
    return f'{{"input":{quoted(asked)},{tail}'


def _tail(account: str, given: Verdict, as_of: str) -> str:
    wa_id, known, reasons, warnings = given
    written = "null" if wa_id is None else quoted(wa_id)
    return (
        f'"account":"{account}","wa_id":{written},"known":{_BOOL[known]},'
        f'"sendable":{_BOOL[not reasons]},"reasons":[{_reasons(reasons)}],'
        f'"warnings":[{_reasons(warnings)}],"as_of":{as_of}}}'
    )


def _reasons(reasons: tuple[Reason, ...]) -> str:
    return ",".join([_reason(reason) for reason in reasons]) if reasons else ""


@lru_cache(maxsize=1024)
def _reason(reason: Reason) -> str:
    """Write a reason; those of an account are the same for everybody."""
    code, since, wa_id, until, detail = reason
    more = "" if wa_id is None else f',"wa_id":{quoted(wa_id)}'
    if until is not None:
        more += f',"until":{_time(until)}'
    if detail is not None:
        more += f',"detail":{quoted(detail)}'
    return f"{_CODES[code]}{_time(since)}{_CLEARS[code]}{more}}}"


def _time(at: int | None) -> str:
    return "null" if at is None else f'"{rfc3339(at)}"'
