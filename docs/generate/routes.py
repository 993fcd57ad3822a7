"""The HTTP API, from its OpenAPI schema."""

from __future__ import annotations

import json
from functools import cache
from types import SimpleNamespace
from typing import Any

from markup import cell, code, paragraphs, table

from duodaq.web._api import make_app

METHODS = ("get", "post", "put", "patch", "delete")
ALWAYS = {"200", "400", "401", "403", "408", "413", "415", "422", "429"}


def one(words: list[str], like: list[list[str]]) -> str:
    """The routes of these tags."""
    return _table([route for route in _routes() if route["tag"] in words])


def others(words: list[str], like: list[list[str]]) -> str:
    """The routes of all tags that have no region of their own."""
    covered = {tag for tags in like for tag in tags}
    left = [route for route in _routes() if route["tag"] not in covered]
    tags = dict.fromkeys(route["tag"] for route in left)
    return "\n\n".join(f"### {tag}\n\n{_table([r for r in left if r['tag'] == tag])}" for tag in tags)


def bodies(words: list[str], like: list[list[str]]) -> str:
    """What may be sent, field by field."""
    schemas = _schema()["components"]["schemas"]
    sent = dict.fromkeys(route["body"] for route in _routes() if route["body"])
    parts = dict.fromkeys(
        part for name in sent for field in schemas[name]["properties"].values() if (part := _part(field))
    )
    names = (*sent, *parts, "RefusalAnswer")
    return "\n\n".join(f"### `{name}`\n\n{_body(schemas[name])}".strip() for name in names)


@cache
def _schema() -> dict[str, Any]:
    anything: Any = SimpleNamespace(access=None, visitors=None)  # they are asked at requests alone, and none comes
    gate: Any = make_app(anything, anything, anything, anything, 1.0)
    app = next(it for it in vars(gate).values() if hasattr(it, "openapi"))
    return app.openapi()


@cache
def _routes() -> list[dict[str, Any]]:
    return [
        {"path": path, "method": method, "tag": operation.get("tags", ["other"])[0], **_facts(operation)}
        for path, methods in _schema()["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    ]


def _facts(operation: dict[str, Any]) -> dict[str, Any]:
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    references = [part["$ref"] for part in (schema, *schema.get("anyOf", [])) if "$ref" in part]
    return {
        "words": operation.get("description", operation.get("summary", "")),
        "query": [one for one in operation.get("parameters", []) if one["in"] == "query"],
        "body": references[0].rpartition("/")[2] if references else "",
        "refusals": sorted(set(operation["responses"]) - ALWAYS),
    }


def _table(routes: list[dict[str, Any]]) -> str:
    rows = (
        (
            code(f"{route['method'].upper()} {route['path']}"),
            cell(paragraphs(route["words"])),
            "; ".join(f"{code(one['name'])} {_range(one['schema'])}" for one in route["query"]),
            f"[{code(route['body'])}](#{route['body'].lower()})" if route["body"] else "",
            ", ".join(route["refusals"]),
        )
        for route in routes
    )
    return table(("request", "meaning", "query", "body", "refused with"), rows)


def _range(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    if "enum" in schema:
        told = ", ".join(map(code, schema["enum"]))
    elif high is not None and high < 2**32:
        told = f"{low} to {high}"
    else:
        told = {"integer": "whole number", "number": "number"}.get(schema.get("type", ""), "text")
    default = schema.get("default", "")
    return f"({told}{f'; {default}' if default not in ('', None) else ''})"


def _body(schema: dict[str, Any]) -> str:
    needed = set(schema.get("required", ()))
    rows = [
        (code(name), _kind(field), "required" if name in needed else _default(field), field.get("description", ""))
        for name, field in schema["properties"].items()
    ]
    return f"{paragraphs(schema.get('description', ''))}\n\n{table(('field', 'value', 'default', 'meaning'), rows)}"


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    return code(json.dumps(value) if value is None or isinstance(value, bool) else value)


def _part(field: dict[str, Any]) -> str:
    """What a list of a body is made of, if that is an object of its own."""
    return field.get("items", {}).get("$ref", "").rpartition("/")[2]


def _kind(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_kind(one) for one in field["anyOf"] if one.get("type") != "null")
    if "enum" in field:
        return ", ".join(map(code, field["enum"]))
    if part := _part(field):
        return f"list of [{code(part)}](#{part.lower()}), at most {field['maxItems']}"
    kinds = {"string": "text", "array": "list", "object": "object", "boolean": "true or false", "number": "number"}
    told = kinds.get(field.get("type", ""), "whole number" if field.get("type") == "integer" else "anything")
    if "maxLength" in field:
        return f"{told}, at most {field['maxLength']} characters"
    return f"{told}, at most {field['maxItems']}" if "maxItems" in field else told
