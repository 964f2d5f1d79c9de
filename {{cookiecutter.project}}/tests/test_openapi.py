import pytest

from {{ cookiecutter.package }} import openapi

ROW = {
    "type": "object",
    "properties": {
        "Höhe|cm": {"type": ["number", "null"], "description": "1 to 2 <in training>"},
        "bed": {"enum": ["N", "S"], "type": "string", "examples": ["S"]},
    },
    "required": ["bed"],
}
BODY = {"type": "object", "properties": {"rows": {"type": "array", "items": {"$ref": "#/Row"}}}}
NULLABLE = {"anyOf": [{"$ref": "#/E"}, {"type": "null"}]}
DOCUMENT = {
    "paths": {
        "/ask": {
            "post": {
                "tags": ["model"],
                "description": "Ask.",
                "requestBody": {"content": {"application/json": {"schema": BODY}}},
                "responses": {
                    "503": {"description": "away"},
                    "422": {"description": "wrong"},
                    "200": {"content": {"application/json": {"example": {"say": "it's"}}}},
                },
            }
        },
        "/{name}": {
            "delete": {
                "summary": "Forget",
                "parameters": [{"name": "name", "in": "path", "description": "Whose."}],
                "security": [{"bearer": []}],
                "responses": {"200": {"description": "Done"}},
            }
        },
    },
    "components": {
        "schemas": {
            "Row": ROW,
            "ErrorAnswer": {"properties": {"error": NULLABLE}},
            "E": {"type": "object", "properties": {"code": {"type": "string"}}},
        }
    },
    "security": [{"key": []}],
}
PAGE = """\
## Model

### POST `/ask`

Ask.

<table>
<thead><tr><th>Field</th><th>Type</th><th>Required</th><th>Meaning</th></tr></thead>
<tbody>
<tr><td><code>rows</code></td><td>array</td><td>no</td><td></td></tr>
<tr><td><code>rows&#91;].Höhe|cm</code></td><td>number or null</td><td>no</td>\
<td>1 to 2 &lt;in training&gt;</td></tr>
<tr><td><code>rows&#91;].bed</code></td><td>string: N, S</td><td>yes</td><td></td></tr>
</tbody>
</table>

```sh
curl "$URL/ask" --header "X-API-Key: $KEY" --json '{
  "rows": [
    {
      "bed": "S"
    }
  ]
}'
```

```json
{
  "say": "it's"
}
```

<details><summary>Errors</summary>
<table>
<thead><tr><th>Status</th><th>Meaning</th></tr></thead>
<tbody>
<tr><td>422</td><td>wrong</td></tr>
<tr><td>503</td><td>away</td></tr>
</tbody>
</table>
</details>

## Other

### DELETE `/{name}`

Forget

<table>
<thead><tr><th>Parameter</th><th>In</th><th>Meaning</th></tr></thead>
<tbody>
<tr><td><code>name</code></td><td>path</td><td>Whose.</td></tr>
</tbody>
</table>

```sh
curl "$URL/{name}" --header "Authorization: Bearer $TOKEN" --request DELETE
```

## Errors

Whatever fails is answered in one form; the protocols of others have their own.

<table>
<thead><tr><th>Field</th><th>Meaning</th></tr></thead>
<tbody>
<tr><td><code>error</code></td><td></td></tr>
<tr><td><code>error.code</code></td><td></td></tr>
</tbody>
</table>
"""


def test_reference():
    """Each operation has its fields, a call that shows them, an answer and its errors."""
    start, page = openapi.reference(DOCUMENT).split("\n\n", 2)[1:]
    assert start.endswith("For tools: [openapi.json](openapi.json).")
    assert PAGE == page


@pytest.mark.parametrize(
    ("schema", "type_"),
    [
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "integer or null"),
        ({"anyOf": [{"type": "array"}, {"type": "array"}]}, "array"),
        ({"$ref": "#/E"}, "object"),
        ({}, "any"),
    ],
)
def test_types(schema, type_):
    """A type is said in words, whatever way the schema has it."""
    found = next(openapi.fields(DOCUMENT, {"properties": {"x": schema}}))
    assert type_ == found[1]
