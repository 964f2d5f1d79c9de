"""Parts of Markdown pages; text from data is shown as it stands, whatever it is."""

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any


def text(value: Any) -> str:
    """Write text for HTML within Markdown, where a bracket could still begin a link."""
    return html.escape(str(value)).replace("[", "&#91;")


def code(value: Any) -> str:
    """Write text as code."""
    return f"<code>{text(value)}</code>"


def folded(summary: str, content: str) -> str:
    """Put HTML behind a line that opens it."""
    return f"<details><summary>{summary}</summary>\n{content}\n</details>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out cells of HTML, as a table in Markdown cannot hold every text."""
    head = "".join(f"<th>{each}</th>" for each in heads)
    body = "".join(f"<tr>{''.join(f'<td>{each}</td>' for each in row)}</tr>\n" for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def shown(value: Any) -> str:
    """Show JSON as a block of code."""
    return fenced("json", json.dumps(value, indent=2, ensure_ascii=False))


def fenced(language: str, content: str) -> str:
    """Write a block of code, behind a fence that does not stand in it."""
    fence = "```"
    while fence in content:
        fence += "`"
    return f"{fence}{language}\n{content}\n{fence}"
