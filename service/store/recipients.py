"""What is known of recipients, however they are called: in few statements for many of them."""

from collections.abc import Iterable, Mapping, Sequence

from service.model.contacts import PROCESSING
from service.model.gate import LastWord
from service.model.names import storable, usable_alias
from service.model.numbers import canonical
from service.store.database import Known, Question, Reads


def find_known(reads: Reads, questions: Sequence[Question]) -> list[Known]:
    """Answer questions together, as far as they are to the same account."""
    together: dict[Question, list[Question]] = {}
    for question in questions:
        together.setdefault(_alone(question), []).append(question)
    known = {of: _find(reads, _united(some)) for of, some in together.items()}
    return [known[_alone(question)] for question in questions]


def _alone(question: Question) -> Question:
    """Give what those questions have in common that are answered together."""
    since = question.fresh_since
    return question._replace(asked=(), fresh_since=None if since is None else 0)


def _united(questions: Sequence[Question]) -> Question:
    """Make one of questions with much in common: what is fresh for the latest is so for all."""
    asked = dict.fromkeys(text for question in questions for text in question.asked)
    since = [question.fresh_since for question in questions if question.fresh_since is not None]
    return questions[0]._replace(asked=tuple(asked), fresh_since=max(since, default=None))


def _find(reads: Reads, question: Question) -> Known:
    """Tell the many of whom there is little to tell from the rest, who take more to be read."""
    texts = [text for text in question.asked if storable(text)]
    if question.fresh_since is None:
        return _find_in_full(reads, question, texts, texts)
    told = reads.told(question.account, texts, question.fresh_since)
    usual = _usual(reads, question, texts, told)
    rest = [text for text in texts if text not in usual]
    if not rest:
        return Known({}, {}, {}, usual)
    checked = [text for text in rest if text in told]
    return _find_in_full(reads, question, rest, checked)._replace(usual=usual)


def _usual(
    reads: Reads, question: Question, texts: Iterable[str], told: Mapping[str, str | None]
) -> dict[str, str]:
    """Give the wa_ids of those who are as usual by every name that they have."""
    names = {text for text in texts if usable_alias(text)}
    wa_ids = {wa_id for wa_id in told.values() if wa_id is not None}
    found = reads.usual(question.account, names | wa_ids, question.fresh_since or 0)
    usual = {}
    for text in texts:
        wa_id = told.get(text, text)
        if wa_id is not None and wa_id in found and (text in found or text not in names):
            usual[text] = wa_id
    return usual


def _find_in_full(
    reads: Reads, question: Question, texts: Sequence[str], inputs: Sequence[str]
) -> Known:
    """Find all that is known of texts, of which `inputs` may have been checked as they stand."""
    account = question.account
    checked = reads.checked(account, inputs) if inputs else {}
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


def _told(checked: Mapping[str, LastWord]) -> set[str]:
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
