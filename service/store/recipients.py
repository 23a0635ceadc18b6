"""What is known of recipients, however they are called: in few statements for many of them."""

from collections.abc import Sequence

from service.model.numbers import other_spellings, spell
from service.model.recipients import RecipientData
from service.model.users import storable
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
    """Read what is known by all that the texts may mean, and of whom their checks told."""
    account = query.account
    texts = [text for text in query.asked if storable(text)]
    spellings = {text: spell(text, query.country_of) for text in texts}
    names = {name for found in spellings.values() for name in (*found.names, *found.others)}
    forms = {
        form
        for found in spellings.values()
        for form in (*found.forms, *found.completed, *found.others)
    }
    checks = list(reads.checks(account, spellings, forms, names))
    told = {check.wa_id for check in checks if check.wa_id is not None}
    told |= {other for wa_id in told for other in other_spellings(wa_id)}
    users = reads.users(account, names | told)
    called = {user.wa_id for user in users.values() if user.wa_id}
    if more := (told | called) - names:
        checks += reads.checks(account, wa_ids=more)
    return RecipientData.of(query.country_of, spellings, users, dict.fromkeys(checks))
