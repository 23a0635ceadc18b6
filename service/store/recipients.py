"""What is known of recipients, however they are called: in few statements for many of them."""

from collections.abc import Iterable, Sequence

from service.model.contacts import PROCESSING
from service.model.gate import LastWord
from service.model.names import storable, usable_alias
from service.model.numbers import canonical
from service.store.database import Known, Question, Reads


def find_known(reads: Reads, questions: Sequence[Question]) -> list[Known]:
    """Answer questions together, as far as they are to the same account."""
    together: dict[Question, list[str]] = {}
    for question in questions:
        together.setdefault(question._replace(asked=()), []).extend(question.asked)
    known = {
        of: _find(reads, of._replace(asked=tuple(dict.fromkeys(asked))))
        for of, asked in together.items()
    }
    return [known[question._replace(asked=())] for question in questions]


def _find(reads: Reads, question: Question) -> Known:
    account = question.account
    texts = [text for text in question.asked if storable(text)]
    checked = reads.checked(account, texts)
    names = {text for text in texts if usable_alias(text)} | _told(checked)
    users, newest = reads.recipients(account, names, in_full=question.in_full)
    known = Known(users, checked, newest)
    strange = [text for text in texts if _is_strange(text, known)]
    return _add_alike(reads, question, known, strange) if strange else known


def _is_strange(text: str, known: Known) -> bool:
    """Tell whether nothing is known of a text as it stands, but that it is being checked."""
    word = known.checked.get(text)
    if word is not None and word.status != PROCESSING:
        return False
    return text not in known.users and text not in known.newest


def _told(checked: dict[str, LastWord]) -> set[str]:
    return {check.wa_id for check in checked.values() if check.wa_id is not None}


def _add_alike(reads: Reads, question: Question, known: Known, strange: Iterable[str]) -> Known:
    """Add what is known of other spellings of numbers that nothing was found of as they stand."""
    forms = {text: canonical(text, question.country_of) for text in strange}
    wanted = {form for form in forms.values() if form is not None}
    found = reads.alike(question.account, wanted) if wanted else {}
    alike = {text: found[form] for text, form in forms.items() if form in found}
    if not alike:
        return known
    names = _told(alike) - known.users.keys()
    users, newest = reads.recipients(question.account, names, in_full=question.in_full)
    return Known({**known.users, **users}, {**known.checked, **alike}, {**known.newest, **newest})
