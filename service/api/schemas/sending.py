"""What is sent through: the answers are those of WhatsApp's APIs, which may hold more."""

from typing import Annotated, NotRequired

from pydantic import ConfigDict, Field, JsonValue
from typing_extensions import TypedDict

from service.api.schemas.fields import Text, UserId, WaId
from service.api.schemas.recipients import Reason

MESSAGE_ID = "wamid.HBgLMTYzMTU1NjcwMDEVAgARGBI5QTNDQTVCM0Q0Q0Q2RTY3RTcA"
SENT: JsonValue = {
    "messaging_product": "whatsapp",
    "contacts": [{"input": "+1 631-556-7001", "wa_id": "16315567001"}],
    "messages": [{"id": MESSAGE_ID, "message_status": "accepted"}],
}


class GraphRecipient(TypedDict):
    """Whom a message went to, as the Cloud API understood it."""

    input: Annotated[str, Field(examples=["+1 631-556-7001"])]
    wa_id: NotRequired[WaId]
    user_id: NotRequired[UserId]


class GraphMessage(TypedDict):
    """A message that was taken; its status callbacks name the id."""

    id: Annotated[str, Field(examples=[MESSAGE_ID])]
    message_status: NotRequired[Annotated[str, Field(examples=["accepted"])]]


class GraphSent(TypedDict):
    """The Cloud API's answer to a message; to a read mark it is `success` alone."""

    __pydantic_config__ = ConfigDict(json_schema_extra={"examples": [SENT]})  # type: ignore[misc]

    messaging_product: NotRequired[Annotated[str, Field(examples=["whatsapp"])]]
    contacts: NotRequired[list[GraphRecipient]]
    messages: NotRequired[list[GraphMessage]]
    success: NotRequired[bool]


class GraphUploaded(TypedDict):
    """The Cloud API's answer to an upload."""

    id: Annotated[str, Field(examples=["1013859600285441"])]


class GraphErrorData(TypedDict):
    """What an error is about; `reasons` are those of Ackgate's gate, where that is closed."""

    messaging_product: NotRequired[Annotated[str, Field(examples=["whatsapp"])]]
    details: NotRequired[Annotated[str, Field(examples=["the gate is closed"])]]
    reasons: NotRequired[list[Reason]]


class GraphError(TypedDict):
    """An error of the Cloud API; of type `AckgateException` where Ackgate itself refused."""

    message: Annotated[str, Field(examples=["(#409) Ackgate: the gate is closed"])]
    type: Annotated[str, Field(examples=["AckgateException"])]
    code: Annotated[int, Field(examples=[409])]
    error_subcode: NotRequired[int]
    error_data: NotRequired[GraphErrorData]
    fbtrace_id: Annotated[str, Field(description="Of Ackgate: the request's id.", examples=["a"])]


class GraphFailure(TypedDict):
    """How the Cloud API says that something failed."""

    error: GraphError


class OnPremisesSent(TypedDict):
    """The client's answer to a message."""

    messages: list[GraphMessage]
    contacts: NotRequired[list[GraphRecipient]]
    meta: NotRequired[dict[str, JsonValue]]


class OnPremisesFile(TypedDict):
    """A file that was taken."""

    id: Annotated[str, Field(examples=["f043afd0-f0ae-4b9c-ab3d-696fb4c8cd68"])]


class OnPremisesUploaded(TypedDict):
    """The client's answer to an upload."""

    media: list[OnPremisesFile]
    meta: NotRequired[dict[str, JsonValue]]


class OnPremisesError(TypedDict):
    """One error of the client; `reason` is one of Ackgate's gate, where that is closed."""

    code: Annotated[int, Field(examples=[409])]
    title: Annotated[str, Field(examples=["Ackgate: the gate is closed: identity_pending"])]
    details: NotRequired[Text]
    href: NotRequired[str]
    reason: NotRequired[Reason]


class OnPremisesFailure(TypedDict):
    """How the client says that something failed."""

    errors: list[OnPremisesError]
    meta: NotRequired[dict[str, JsonValue]]
