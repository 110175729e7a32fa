"""What an OpenAPI document and an answer must have for each other, as functions from both to what is wrong."""

import copy
from collections.abc import Iterator
from typing import Any

import jsonschema
import msgspec
import schemathesis
from sanic import Sanic

Json = dict[str, Any]
OF_THE_CONNECTION = {"connection", "content-length", "content-type"}


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


def response_of(described: Json, where: str, status: int) -> Json:
    """A response by a route and its status, or by its own name."""
    if where in described["components"]["responses"]:
        found: Json = described["components"]["responses"][where]
    else:
        found = operations(described)[where]["responses"][str(status)]
    return found


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
            examples = [it["value"] for it in part.get("examples", {}).values()]
            examples += [part["example"]] if "example" in part else []
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
    """Those of all errors that an operation can answer with."""
    responses = (resolved(described, response) for response in operation["responses"].values())
    schemas = (
        it["content"]["application/json"]["schema"] for it in responses if "application/json" in it.get("content", ())
    )
    return {code for schema in schemas for code in schema.get("properties", {}).get("code", {}).get("enum", [])}


def _read(media_type: str, body: bytes) -> Any:
    return msgspec.json.decode(body) if media_type == "application/json" else body.decode()


def untrue(described: Json, response: Json, headers: dict[str, str], body: bytes) -> list[str]:
    """What of an answer is not as the response says."""
    response = resolved(described, response)
    described_as = {name.lower(): resolved(described, it) for name, it in response["headers"].items()}
    fields = {name: it["schema"] for name, it in described_as.items() if it["required"] or name in headers}
    found = [f"{name} is not described" for name in {*headers} - {*fields} - OF_THE_CONNECTION]
    for name, schema in fields.items():
        value: Any = headers.get(name)
        if value is not None and schema.get("type") == "integer":
            value = int(value)
        if not validator(described, schema).is_valid(value):
            found.append(f"{name}: {value!r}")
    if "content" not in response:
        return found + ([f"a body: {body!r}"] if body or "content-type" in headers else [])
    ((media_type, content),) = response["content"].items()
    if headers.get("content-type") != media_type:
        found.append(f"a body of {headers.get('content-type')}")
    elif not validator(described, content["schema"]).is_valid(_read(media_type, body)):
        found.append(f"a body: {body!r}")
    return found
