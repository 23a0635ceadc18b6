"""A whole decision with the generated client: who waits, the decision, and the gate's answer.

Run by `test_clients.py` with the client on the path, the address and the key as arguments.
"""

import json
import sys

from client import AuthenticatedClient
from client.api.gate import gate_lookup, gate_show
from client.api.identities import identities_acknowledge, identities_hold, identities_list
from client.models import (
    DecisionBody,
    GateAnswer,
    Identity,
    IdentityList,
    LookupAnswer,
    LookupAnswers,
    LookupBody,
    LookupProblem,
    Problem,
    State,
)

address, key = sys.argv[1:]
api = AuthenticatedClient(base_url=address, token=key, raise_on_unexpected_status=True)

waiting = identities_list.sync(client=api, state=[State.PENDING])
assert isinstance(waiting, IdentityList)
[one] = waiting.items
assert isinstance(one, Identity)
assert one.wa_id is not None
assert one.changed_at is not None

closed = gate_show.sync(one.account, one.wa_id, client=api)
assert isinstance(closed, GateAnswer)
assert [reason.code for reason in closed.reasons] == ["identity_pending"]

refused = identities_acknowledge.sync(
    one.account, one.wa_id, client=api, body=DecisionBody(hash_="another")
)
assert isinstance(refused, Problem)
assert isinstance(refused.identity, Identity)
assert refused.identity.hash_ == one.hash_

held = identities_hold.sync(
    one.account, one.wa_id, client=api, body=DecisionBody(hash_=one.hash_, note="wait")
)
assert isinstance(held, Identity)
assert held.state == "held"

decided = identities_acknowledge.sync(
    one.account, one.wa_id, client=api, body=DecisionBody(hash_=one.hash_), wait=20.0
)
assert isinstance(decided, Identity)

opened = gate_show.sync(one.account, one.wa_id, client=api)
assert isinstance(opened, GateAnswer)
many = gate_lookup.sync(one.account, client=api, body=LookupBody(recipients=[one.wa_id, "n/a"]))
assert isinstance(many, LookupAnswers)
assert [type(item) for item in many.items] == [LookupAnswer, LookupProblem]

json.dump(
    {
        "wa_id": one.wa_id,
        "changed_at": one.changed_at.timestamp(),
        "state": decided.state,
        "sendable": opened.sendable,
        "type": refused.type_,
    },
    sys.stdout,
)
