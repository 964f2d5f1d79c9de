"""The reference of the API: an OpenAPI document as a page of Markdown."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

from .markup import code, fenced, folded, shown, table, text

JSON = "application/json"
Document = dict[str, Any]
Schema = dict[str, Any]


def reference(document: Document) -> str:
    """Describe every operation: what it takes and answers, how it fails, how it is asked.

    Parameters
    ----------
    document : dict
        OpenAPI 3.1.

    Returns
    -------
    str
        Markdown.
    """
    parts = [
        "# API",
        "`$URL` is where the service is, such as `http://127.0.0.1:8000`; `$KEY` is an API key, "
        "where one is asked for, `$TOKEN` the operator's token. The service shows the same under "
        "`/docs`, where it can be tried out. For tools: [openapi.json](openapi.json).",
    ]
    tagged: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tag = operation.get("tags", ["other"])[0]
            tagged.setdefault(tag, []).extend(_operation(document, method, path, operation))
    for tag, described in tagged.items():
        parts += [f"## {tag[0].upper()}{tag[1:]}", *described]
    return "\n\n".join([*parts, *_failure(document)]) + "\n"


def fields(document: Document, schema: Schema, path: str = "") -> Iterator[list[str]]:
    """Describe what a value consists of: path, type, whether it is required, meaning."""
    schema = _resolved(document, schema)
    if "items" in schema:
        yield from fields(document, schema["items"], f"{path}[]")
    for name, each in schema.get("properties", {}).items():
        whole, inner = f"{path}.{name}".lstrip("."), _resolved(document, each)
        required = "yes" if name in schema.get("required", ()) else "no"
        meaning = text(each.get("description", inner.get("description", "")))
        yield [code(whole), text(_type(document, each)), required, meaning]
        yield from fields(document, inner, whole)


def _resolved(document: Document, schema: Schema) -> Schema:
    """Follow references, and look through what is only there to allow null."""
    while "$ref" in schema or "anyOf" in schema:
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].split("/")[-1]]
            continue
        given = [each for each in schema["anyOf"] if each.get("type") != "null"]
        if len(given) != 1:
            break
        schema = given[0]
    return schema


def _type(document: Document, schema: Schema) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(document, each) for each in schema["anyOf"]))
    schema = _resolved(document, schema)
    given = schema.get("type", "any")
    given = " or ".join(given) if isinstance(given, list) else given
    return f"{given}: {', '.join(map(str, schema['enum']))}" if "enum" in schema else str(given)


def _sample(document: Document, schema: Schema) -> Any:
    """Make a value that shows the form of a body for which there is no example."""
    schema = _resolved(document, schema)
    if "examples" in schema:
        return schema["examples"][0]
    if "items" in schema:
        return [_sample(document, schema["items"])]
    if "properties" in schema:
        wanted = schema.get("required") or schema["properties"]
        return {name: _sample(document, schema["properties"][name]) for name in wanted}
    return "…"


def _operation(
    document: Document, method: str, path: str, operation: dict[str, Any]
) -> Iterator[str]:
    yield f"### {method.upper()} `{path}`"
    yield operation.get("description") or operation.get("summary", "")
    command = f'curl "$URL{path}"'
    if "security" in operation:
        command += ' --header "Authorization: Bearer $TOKEN"'
    elif "security" in document:
        command += ' --header "X-API-Key: $KEY"'
    if given := operation.get("parameters"):
        rows = [[code(p["name"]), p["in"], text(p.get("description", ""))] for p in given]
        yield table(["Parameter", "In", "Meaning"], rows)
    if body := operation.get("requestBody", {}).get("content", {}).get(JSON):
        heads = ["Field", "Type", "Required", "Meaning"]
        yield table(heads, fields(document, body["schema"]))
        example = body.get("example") or _sample(document, body["schema"])
        command += f" --json {shlex.quote(json.dumps(example, indent=2, ensure_ascii=False))}"
    elif method != "get":
        command += f" --request {method.upper()}"
    yield fenced("sh", command)
    failures = []
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            yield from _answer(document, response.get("content", {}).get(JSON, {}))
        else:
            failures.append([status, text(response["description"])])
    if failures:
        yield folded("Errors", table(["Status", "Meaning"], sorted(failures)))


def _answer(document: Document, content: dict[str, Any]) -> Iterator[str]:
    if "example" in content:
        yield shown(content["example"])
    if rows := [[row[0], row[1], row[3]] for row in fields(document, content.get("schema", {}))]:
        yield folded("Answer", table(["Field", "Type", "Meaning"], rows))


def _failure(document: Document) -> Iterator[str]:
    """Describe the one form that errors have."""
    rows = [[row[0], row[3]] for row in fields(document, {"$ref": "/ErrorAnswer"})]
    yield "## Errors"
    yield "Whatever fails is answered in one form; the protocols of others have their own."
    yield table(["Field", "Meaning"], rows)
