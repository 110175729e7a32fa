"""The OpenAPI document: valid, of exactly the routes that there are, and true for real answers of every status."""

import copy
import re
import sys
import tomllib
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import schemathesis
from sanic import Sanic

from api.errors import REFUSALS, STATUS
from api.gate import WHY
from api.openapi import VERSION, document
from models.accounts import _check_username
from models.errors import InvalidInput
from models.settings import Settings
from tests.api.conftest import PASSWORD, Api, Start, decoded
from tests.api.test_answers import SITUATIONS, get

Json = dict[str, Any]
OF_THE_CONNECTION = {"connection", "content-length", "content-type"}

EVERYWHERE = {"invalid_request", "incomplete_request", "request_timeout", "payload_too_large", "uri_too_long"} | {
    "expectation_failed", "headers_too_large", "internal_error", "unavailable"
}  # fmt: skip
CODES: dict[str, set[str]] = {
    "POST /signup": {"signup_disabled", "username_taken", "unsupported_media_type", "overloaded", "store_unavailable"},
    "POST /login": {"invalid_credentials", "login_throttled", "unsupported_media_type", "overloaded"}
    | {"store_unavailable"},
    "POST /logout": {*WHY, "store_unavailable"},
    "GET /session": {*WHY, "store_unavailable"},
    "GET /ping": {*WHY, "rate_limited", "store_unavailable"},
    "GET /top": {"store_unavailable"},
    "GET /count": {"store_unavailable"},
    "GET /health/live": set(),
    "GET /health/ready": {"not_ready", "store_unavailable"},
    "GET /openapi.json": set(),
}
"""Route → the codes that it can answer, besides those that every route can."""


@pytest.fixture(scope="module")
def described(settings: Settings) -> Json:
    return document(settings)


def operations(described: Json) -> dict[str, Json]:
    """Route → operation."""
    return {
        f"{method.upper()} {path}": operation
        for path, item in described["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


def resolved(described: Json, given: Json) -> Json:
    """What a reference refers to, or what is no reference."""
    if "$ref" not in given:
        return given
    found: Any = described
    for name in given["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return resolved(described, found)


def parts(given: Any) -> Iterator[Json]:
    """Every object in it."""
    if isinstance(given, dict):
        yield given
        for value in given.values():
            yield from parts(value)
    elif isinstance(given, list | tuple):
        for value in given:
            yield from parts(value)


def validator(described: Json, schema: Json) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({"components": described["components"]} | schema)


def invalid(described: Json) -> list[str]:
    """What is against OpenAPI 3.1, JSON Schema 2020-12, or the document itself."""
    try:
        schemathesis.openapi.from_dict(copy.deepcopy(described)).validate()
    except Exception as error:
        return [f"no OpenAPI: {error}"]
    found = []
    for part in parts(described):
        if "$ref" in part:
            try:
                resolved(described, part)
            except KeyError:
                found.append(f"{part['$ref']} refers to nothing")
        if isinstance(part.get("schema"), dict):
            jsonschema.Draft202012Validator.check_schema(part["schema"])
            examples = [it["value"] for it in part.get("examples", {}).values()] + [part[it] for it in part if it == "example"]
            found += [f"{it} is no example" for it in examples if not validator(described, part["schema"]).is_valid(it)]
    for schema in described["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    names = [operation["operationId"] for operation in operations(described).values()]
    return found + [f"{name} is the name of two" for name in names if names.count(name) > 1]


def unlike_the_routes(described: Json, app: Sanic[Any, Any]) -> set[str]:
    """Routes that are only in one of the two."""
    routes = {f"{method} /{route.path}" for route in app.router.routes for method in route.methods}
    return routes ^ set(operations(described))


def codes(described: Json, operation: Json) -> set[str]:
    responses = (resolved(described, response) for response in operation["responses"].values())
    schemas = (it["content"]["application/json"]["schema"] for it in responses if "content" in it)
    return {code for schema in schemas for code in schema.get("properties", {}).get("code", {}).get("enum", [])}


def unlike_the_codes(described: Json) -> set[str]:
    """Route and code that only one of the document and the list above has."""
    listed = {f"{route} {code}" for route, found in CODES.items() for code in found | EVERYWHERE}
    return listed ^ {
        f"{route} {code}" for route, operation in operations(described).items() for code in codes(described, operation)
    }


def untrue(described: Json, response: Json, headers: dict[str, str], body: bytes) -> list[str]:
    """What of an answer is not as the response says."""
    response = resolved(described, response)
    found, fields = [], {name.lower(): resolved(described, it) for name, it in response["headers"].items()}
    for name, field in fields.items():
        value: Any = headers.get(name)
        if field["schema"].get("type") == "integer" and value:
            value = int(value)
        if not validator(described, field["schema"]).is_valid(value):
            found.append(f"{name}: {value!r}")
    found += [f"{name} is not described" for name in {*headers} - {*fields} - OF_THE_CONNECTION]
    if "content" in response:
        (media_type,) = response["content"]
        schema = response["content"][media_type]["schema"]
        right = headers.get("content-type") == media_type and validator(described, schema).is_valid(decoded_body(body))
        return found if right else [*found, f"{headers.get('content-type')}: {body!r}"]
    return found + ([f"a body: {body!r}"] if body else [])


def decoded_body(body: bytes) -> Any:
    import msgspec

    return msgspec.json.decode(body)


def test_the_document_is_valid(described: Json) -> None:
    assert invalid(described) == []


def test_it_is_served_as_it_is(api: Api) -> None:
    answer = api.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert decoded(answer) == document(api.settings)


def test_it_has_the_routes_that_there_are(api: Api, described: Json) -> None:
    assert unlike_the_routes(described, api._app) == set()


def test_every_error_is_described_where_it_can_occur(described: Json) -> None:
    assert unlike_the_codes(described) == set()
    anywhere = {code for part in parts(described["components"]["responses"]) for code in part.get("enum", []) if part}
    ours = {kind.code for kind in STATUS} | {code for _, code in REFUSALS.values()} | {*WHY}
    assert ours | {"rate_limited", "not_ready", "internal_error", "incomplete_request"} == anywhere - {
        "GET, HEAD", "POST"
    }  # fmt: skip
