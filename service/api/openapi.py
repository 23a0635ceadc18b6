"""The description of the API in OpenAPI 3.1, made from the routes and the types of their answers.

`docs/openapi.json` holds it too: `make openapi` writes that file anew.
"""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from service import __version__
from service.api.auth import Resource
from service.api.kinds import KINDS, type_of
from service.api.params import MAX_ID, Query
from service.api.problems import MEDIA_TYPE
from service.api.schemas import Problem, Reason
from service.api.wire import Refusal, Shape
from service.settings import Role

Json = dict[str, Any]
JSON = "application/json"
STREAM = "text/event-stream"
SCHEMAS = "#/components/schemas/"
REFERENCE = SCHEMAS + "{model}"
TAGS = {
    "gate": "May I write to this user now? And blocks by hand.",
    "identities": "Identities, their history, and a person's decisions.",
    "contacts": "Checks of phone numbers (On-Premises API).",
    "accounts": "The accounts, and counts over all of them.",
    "issues": "What is wrong with the accounts, and how to cure it.",
    "relays": "What arrives goes on to other systems.",
    "journal": "Callbacks as they came, and the audit trail.",
    "privacy": "A person is erased, or told what is kept of them.",
    "events": "What happened, told to whoever must act on it.",
    "compat": "An identity as the On-Premises API shows it.",
    "sending": "Sending through: messages and media, as the account's own API takes them.",
    "webhooks": "Where WhatsApp sends callbacks to; no key is needed.",
    "health": "Health and metrics; no key is needed.",
    "pages": "This description; no key is needed.",
}
"""The parts of the API, by the module that answers."""

_PATH: dict[str, Json] = {
    "account": {
        "description": "The account's name in the configuration.",
        "schema": {"type": "string", "minLength": 1, "examples": ["main"]},
    },
    "user": {
        "description": "A wa_id, another alias of the user, or a phone number in any spelling.",
        "schema": {
            "type": "string", "minLength": 1, "maxLength": 256, "examples": ["16315567001"],
        },
    },
    "version": {
        "description": "A version of Graph. The one that the account is configured with is used.",
        "schema": {"type": "string", "pattern": r"^v\d+\.\d+$", "examples": ["v25.0"]},
    },
    "phone_number_id": {
        "description": "The id of the business phone number.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,32}$", "examples": ["106540352242922"]},
    },
    "wa_id": {
        "description": "A wa_id, or another alias of the user.",
        "schema": {"type": "string", "minLength": 1, "examples": ["16315567001"]},
    },
    "id": {
        "description": "The id of the entry.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_ID, "examples": [13]},
    },
    "relay": {
        "description": "The relay's name in the configuration.",
        "schema": {"type": "string", "minLength": 1, "examples": ["crm"]},
    },
    "code": {
        "description": "The code of the issues.",
        "schema": {"type": "string", "minLength": 1, "examples": ["unknown_number"]},
    },
    "token": {
        "description": "The webhook token of the account.",
        "schema": {"type": "string", "minLength": 1, "examples": ["a-token-of-24-characters"]},
    },
}  # fmt: skip
_REQUEST_ID_SCHEMA = {
    "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$", "examples": ["order-4711"],
}  # fmt: skip
_HEADERS: dict[str, Json] = {
    "RequestId": {
        "description": "The id of the request: as it was sent, or a new one.",
        "schema": _REQUEST_ID_SCHEMA,
    },
    "Allow": {
        "description": "The methods that the path has.",
        "schema": {"type": "string", "examples": ["GET"]},
    },
    "CacheControl": {
        "description": "No cache may keep the answer.",
        "schema": {"type": "string", "examples": ["no-store"]},
    },
    "RetryAfter": {
        "description": "After how many seconds to try again.",
        "schema": {"type": "integer", "minimum": 1, "examples": [5]},
    },
    "WWWAuthenticate": {
        "description": "What is needed.",
        "schema": {"type": "string", "examples": ["Bearer"]},
    },
    "IdempotencyReplayed": {
        "description": "Whether this is the answer of an earlier request with the same key.",
        "schema": {"type": "string", "examples": ["true"]},
    },
}
_ON_STATUS = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}
REQUEST_ID: Json = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "An id of yours, for the log and for problems: at most 64 letters, digits, `.`, "
    "`_` and `-`. Anything else is replaced by an id of ours.",
    "schema": {"type": "string", "examples": ["order-4711"]},
}
IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A repetition with the same key within 24 hours gets the same answer.",
    "schema": {
        "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$",
        "examples": ["import-17"],
    },
}  # fmt: skip
LAST_EVENT_ID: Json = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event seen, as `after`; it comes before that.",
    "schema": {"type": "string", "examples": ["first"]},
}
SIGNATURE: Json = {
    "name": "X-Hub-Signature-256",
    "in": "header",
    "description": "`sha256=` and the HMAC-SHA256 of the body with the app's secret.",
    "schema": {"type": "string", "examples": ["sha256=" + 64 * "0"]},
}
VERIFICATION: tuple[Json, ...] = tuple(
    {
        "name": f"hub.{name}",
        "in": "query",
        "required": True,
        "description": description,
        "schema": {"type": "string", "examples": [example]},
    }
    for name, description, example in (
        ("mode", "Always `subscribe`.", "subscribe"),
        ("verify_token", "The app's verify token.", "a-verify-token"),
        ("challenge", "What is answered.", "1158201444"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a route answers: the type of the JSON, or another media type, and its statuses.

    One that `streams` answers with server-sent events too, if they are accepted.
    """

    type: Any = str
    statuses: tuple[int, ...] = (200,)
    media: str = JSON
    streams: bool = False
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Errors:
    """The errors of a route that has none as problems: type, shape, and what each status means."""

    type: Any
    shape: Shape
    meanings: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Route:
    """One route; `role` is None where no key is needed.

    `query` is None where any query passes. `problems` are the kinds of problems of its own, beside
    those that its parts entail; `more` are further parameters. `name` is the operation id where
    that of the resource won't do, `title` the summary. `errors` take the place of all problems;
    `upload` is the media type of a body that is passed on as it comes.
    """

    method: str
    path: str
    role: Role | None
    resource: Resource
    body: Any = None
    query: type[Query] | None = None
    answer: Answer = Answer()
    problems: tuple[str, ...] = ()
    more: tuple[Json, ...] = ()
    name: str = ""
    title: str = ""
    errors: Errors | None = None
    upload: str = ""

    @property
    def summary(self) -> str:
        """The first line of the resource's docstring."""
        return self.title or (inspect.getdoc(self.resource) or "").splitlines()[0]

    @property
    def tag(self) -> str:
        """The part of the API that it belongs to."""
        return "webhooks" if self.path.startswith("/webhooks") else _module(self.resource)

    @property
    def operation_id(self) -> str:
        """The name of the operation, in generated clients that of a function."""
        return self.name or f"{self.tag}_{self.resource.__name__.strip('_')}"

    @property
    def kinds(self) -> list[str]:
        """Every kind of problem that it may answer with."""
        if self.errors is not None:
            return []
        found = list(self.problems)
        if self.role is not None:
            found += ["no_key", "role_too_low"]
            if "{account}" in self.path:
                found.append("no_such_account")
        if self.query is not None or self.body is not None:
            found.append("not_valid")
        if self.body is not None:
            found += ["broken_off", "too_slow", "too_large"]
            if self.role is not None:
                found.append("not_json")
        found += ["not_local", "internal"]
        if self.role is not None or self.body is not None:
            found.append("unavailable")
        return list(dict.fromkeys(found))


def _module(resource: Resource) -> str:
    return resource.__module__.rpartition(".")[2]


class _Plain(GenerateJsonSchema):
    """Leaves out titles of fields, which would only repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  as it is called
        return False


class _Bodies(_Plain):
    """Leaves out defaults too: some generators take a field with a default for a required one."""

    def default_schema(self, schema: Any) -> Json:
        return self.generate_inner(schema["schema"])


def describe(routes: Iterable[tuple[str, Route]]) -> Json:
    """Return the description of routes, each below a prefix."""
    listed = [(prefix + route.path, route) for prefix, route in routes]
    types = _Types([route for _, route in listed])
    paths: Json = {}
    for path, route in listed:
        paths.setdefault(path, {})[route.method.lower()] = _operation(path, route, types)
    used = {route.tag for _, route in listed}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ackgate",
            "version": __version__,
            "summary": "Whom may I write to, and who decides it?",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "The service that shows this."}],
        "tags": [{"name": n, "description": text} for n, text in TAGS.items() if n in used],
        "paths": paths,
        "components": {
            "schemas": types.schemas,
            "headers": _HEADERS,
            "examples": {kind: {"value": _example(kind, types)} for kind in KINDS},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


class _Types:
    """The schemas of all that routes take and give."""

    def __init__(self, routes: Iterable[Route]) -> None:
        wanted: dict[tuple[Any, JsonSchemaMode], TypeAdapter[Any]] = {
            (Problem, "serialization"): _of(Problem)
        }
        for route in routes:
            if route.answer.media == JSON:
                wanted[route.answer.type, "serialization"] = _of(route.answer.type)
            if route.body is not None:
                wanted[route.body, "validation"] = _of(route.body)
            if route.errors is not None:
                wanted[route.errors.type, "serialization"] = _of(route.errors.type)
        found, whole = TypeAdapter.json_schemas(
            [(*key, adapter) for key, adapter in wanted.items()],
            ref_template=REFERENCE,
            schema_generator=_Bodies,
        )
        self._found = found
        self.schemas: Json = whole.get("$defs", {})

    def content(self, type_: Any, mode: JsonSchemaMode) -> Json:
        """Return schema and example of a type, as the content of a request or of a response."""
        schema = self._found[type_, mode]
        return {JSON: {"schema": schema, "example": self.example(schema)}}

    def example(self, schema: Any) -> Any:
        """Return an example, put together from those of the fields."""
        if examples := schema.get("examples"):
            return examples[0]
        if reference := schema.get("$ref"):
            return self.example(self.schemas[reference.removeprefix(SCHEMAS)])
        if one_of := schema.get("anyOf"):
            return self.example(one_of[0])
        if schema.get("type") == "array":
            return [self.example(schema["items"])]
        if schema.get("type") == "object":
            return self._object(schema)
        return schema.get("default", schema.get("enum", [None])[0])

    def _object(self, schema: Json) -> Json:
        fields, needed = schema.get("properties", {}), schema.get("required", ())
        values = schema.get("additionalProperties")
        if isinstance(values, dict):
            return {"acknowledge": self.example(values)}
        return {name: self.example(field) for name, field in fields.items() if name in needed}


def _of(type_: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_)


def _operation(path: str, route: Route, types: _Types) -> Json:
    described: Json = {
        "operationId": route.operation_id,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [*_in_path(path), *_in_query(route, types), *route.more],
        "responses": _responses(route, types),
    }
    if route.role is not None:
        described["parameters"].append(REQUEST_ID)
        described["description"] = f"Needs the role `{route.role}`."
        described["security"] = [{"key": []}]
        described["x-role"] = route.role
    if route.body is not None:
        content = types.content(route.body, "validation")
        described["requestBody"] = {"required": True, "content": content}
    if route.upload:
        content = {route.upload: {"schema": _UPLOADS[route.upload]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


_FILE: Json = {"type": "string", "format": "binary"}
FORM, FILE = "multipart/form-data", "application/octet-stream"
_UPLOADS: Mapping[str, Json] = {
    FILE: _FILE,
    FORM: {
        "type": "object",
        "properties": {
            "messaging_product": {"type": "string", "const": "whatsapp"},
            "type": {"type": "string", "examples": ["image/jpeg"]},
            "file": _FILE,
        },
        "required": ["messaging_product", "type", "file"],
    },
}
"""The schemas of what is uploaded, by media type."""


def _in_path(path: str) -> list[Json]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, **_PATH[name]} for name in names]


def _in_query(route: Route, types: _Types) -> list[Json]:
    if route.query is None:
        return []
    model = route.query.model_json_schema(ref_template=REFERENCE, schema_generator=_Plain)
    types.schemas |= model.get("$defs", {})
    return [_parameter(name, field) for name, field in model.get("properties", {}).items()]


def _parameter(name: str, field: Json) -> Json:
    """Return a query parameter; one that may be null in the model may be left out here."""
    field = dict(field)
    description = field.pop("description", "")
    if "anyOf" in field:
        [schema] = [one for one in field.pop("anyOf") if one != {"type": "null"}]
        field |= schema
        field.pop("default", None)
    return {"name": name, "in": "query", "description": description, "schema": field}


def _responses(route: Route, types: _Types) -> Json:
    answer = route.answer
    content = {answer.media: {"schema": {"type": "string"}}}
    if answer.media == JSON:
        content = types.content(answer.type, "serialization")
    if answer.streams:
        content[STREAM] = {"schema": {"type": "string"}}
    found: Json = {
        str(status): {
            "description": HTTPStatus(status).phrase,
            "headers": _headers(*answer.headers),
            "content": content,
        }
        for status in answer.statuses
    }
    if route.errors is not None:
        found |= _errors(route.errors, types)
    for status in sorted({KINDS[kind].status for kind in route.kinds} - set(answer.statuses)):
        kinds = [kind for kind in route.kinds if KINDS[kind].status == status]
        found[str(status)] = _problem(status, kinds)
    return found


def _errors(errors: Errors, types: _Types) -> Json:
    content = types.content(errors.type, "serialization")[JSON]
    closed = [types.example(types.schemas[Reason.__name__])]

    def example(status: int, meaning: str) -> Any:
        reasons = closed if status == HTTPStatus.CONFLICT else ()
        return errors.shape(Refusal(status, meaning.lower(), reasons), "order-4711")

    return {
        str(status): {
            "description": meaning,
            "headers": _headers(*filter(None, [_ON_STATUS.get(status)])),
            "content": {JSON: content | {"example": example(status, meaning)}},
        }
        for status, meaning in errors.meanings.items()
    }


def _problem(status: int, kinds: list[str]) -> Json:
    schema = {"$ref": SCHEMAS + Problem.__name__}
    examples = {kind: {"$ref": f"#/components/examples/{kind}"} for kind in kinds}
    return {
        "description": "; ".join(KINDS[kind].meaning for kind in kinds),
        "headers": _headers("Cache-Control", *filter(None, [_ON_STATUS.get(status)])),
        "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }


_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "not_valid": ("errors",),
    "another_hash": ("identity",),
    "too_late": ("identity",),
    "not_acknowledged": ("identity",),
    "several_users": ("candidates",),
    "other_spelling": ("candidates", "other_spelling"),
    "over_budget": ("reason",),
    "over_rate": ("reason", "retry_after"),
}
"""The further members that problems of a kind have."""


def _example(kind: str, types: _Types) -> Json:
    schema = types.schemas[Problem.__name__]
    whole = types.example(schema) | {
        "type": type_of(kind),
        "title": HTTPStatus(KINDS[kind].status).phrase,
        "status": KINDS[kind].status,
        "detail": KINDS[kind].meaning.lower(),
    }
    more = {name: types.example(schema["properties"][name]) for name in _MEMBERS.get(kind, ())}
    return {**whole, **more}


def _headers(*names: str) -> Json:
    return {
        name: {"$ref": f"#/components/headers/{name.replace('-', '')}"}
        for name in (*names, "X-Request-ID")
    } | {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
