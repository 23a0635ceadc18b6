"""What is known of recipients, however they are called: in few statements for many of them."""

from collections.abc import Mapping, Sequence

from service.model.gate import RecipientData
from service.model.names import storable
from service.model.numbers import Spelling, other_spellings, spell, spell_in_full
from service.store.database import Reads, RecipientQuery


def find_recipients(reads: Reads, queries: Sequence[RecipientQuery]) -> list[RecipientData]:
    """Answer queries together, as far as they are of the same account."""
    together: dict[RecipientQuery, list[RecipientQuery]] = {}
    for query in queries:
        together.setdefault(query._replace(asked=()), []).append(query)
    found = {}
    for alone, some in together.items():
        asked = tuple(dict.fromkeys(text for query in some for text in query.asked))
        found[alone] = _find(reads, alone._replace(asked=asked))
    return [found[query._replace(asked=())] for query in queries]


def _find(reads: Reads, query: RecipientQuery) -> RecipientData:
    """Read numbers in full off as they stand; those that lead to nobody so, by all they may mean.

    Digits that are a user's alias are that user's number: no other reading of them is looked for.
    All other texts are read by the numbering plans at once.
    """
    texts = [text for text in query.asked if storable(text)]
    spellings = {text: spell_in_full(text) or spell(text, query.country_of) for text in texts}
    data = _read(reads, query.account, spellings)
    unknown = [text for text in texts if _is_unknown(text, data)]
    if not unknown:
        return data
    again = {text: spell(text, query.country_of) for text in unknown}
    more = {text: spelling for text, spelling in again.items() if spelling != spellings[text]}
    if not more:
        return data
    return data.and_also(_read(reads, query.account, more))


def _is_unknown(text: str, data: RecipientData) -> bool:
    names = data.spellings[text].names
    return not any(name in data.users or name in data.newest for name in names)


def _read(reads: Reads, account: str, spellings: Mapping[str, Spelling]) -> RecipientData:
    """Read what is known by these spellings, and of whom their checks told."""
    names = {name for found in spellings.values() for name in (*found.names, *found.others)}
    forms = {form for found in spellings.values() for form in (*found.forms, *found.others)}
    checks = list(reads.checks(account, spellings, forms, names))
    told = {check.wa_id for check in checks if check.wa_id is not None}
    told |= {other for wa_id in told for other in other_spellings(wa_id)}
    users = reads.users(account, names | told)
    called = {user.wa_id for user in users.values() if user.wa_id}
    if more := (told | called) - names:
        checks += reads.checks(account, wa_ids=more)
    return RecipientData.of(spellings, users, dict.fromkeys(checks))
