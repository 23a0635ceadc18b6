"""What is known of recipients, however they are called: in few statements for many of them."""

from collections.abc import Iterable, Sequence

from service.model.contacts import PROCESSING
from service.model.gate import LastWord
from service.model.names import storable, usable_alias
from service.model.numbers import canonical
from service.store.database import Known, Question, Reads


def find_known(reads: Reads, questions: Sequence[Question]) -> list[Known]:
    """Answer questions together, as far as they are to the same account."""
    together: dict[tuple[str, str | None], list[str]] = {}
    for account, country_of, asked in questions:
        together.setdefault((account, country_of), []).extend(asked)
    known = {key: _find(reads, *key, dict.fromkeys(asked)) for key, asked in together.items()}
    return [known[account, country_of] for account, country_of, _ in questions]


def _find(reads: Reads, account: str, country_of: str | None, asked: Iterable[str]) -> Known:
    texts = [text for text in asked if storable(text)]
    checked = reads.checked(account, texts)
    names = {text for text in texts if usable_alias(text)} | _told(checked)
    users, newest = reads.recipients(account, names)
    known = Known(users, checked, newest)
    strange = [text for text in texts if _is_strange(text, known)]
    return _add_alike(reads, account, country_of, known, strange) if strange else known


def _is_strange(text: str, known: Known) -> bool:
    """Tell whether nothing is known of a text as it stands, but that it is being checked."""
    word = known.checked.get(text)
    if word is not None and word.status != PROCESSING:
        return False
    return text not in known.users and text not in known.newest


def _told(checked: dict[str, LastWord]) -> set[str]:
    return {check.wa_id for check in checked.values() if check.wa_id is not None}


def _add_alike(
    reads: Reads, account: str, country_of: str | None, known: Known, strange: Iterable[str]
) -> Known:
    """Add what is known of other spellings of numbers that nothing was found of as they stand."""
    forms = {text: canonical(text, country_of) for text in strange}
    wanted = {form for form in forms.values() if form is not None}
    found = reads.alike(account, wanted) if wanted else {}
    alike = {text: found[form] for text, form in forms.items() if form in found}
    if not alike:
        return known
    users, newest = reads.recipients(account, _told(alike) - known.users.keys())
    return Known({**known.users, **users}, {**known.checked, **alike}, {**known.newest, **newest})
