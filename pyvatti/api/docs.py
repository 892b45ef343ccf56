"""`/docs`: the OpenAPI document as one plain page that needs no script and no other host.

Only how it looks; what is said comes from the routes and their models.
"""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { border-bottom: 1px solid #999; margin-top: 3rem } h3 { margin-top: 2rem }
code, pre { font: 14px/1.4 ui-monospace, monospace } pre { background: #eee; padding: .7rem }
pre { overflow: auto } table { border-collapse: collapse }
td, th { border: 1px solid #ccc; padding: .2rem .6rem; text-align: left; vertical-align: top }
"""

Node = dict[str, Any]


@router.get("/docs")
async def show_docs(request: Request) -> HTMLResponse:
    """Show the API to a person."""
    base = str(request.base_url).rstrip("/")
    page = "\n".join(_page(request.app.openapi(), base))
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})


def _page(document: Node, base: str) -> Iterator[str]:
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    yield f"<style>{STYLE}</style><h1>{title}</h1><p>{escape(info.get('summary', ''))}.</p>"
    yield '<p>For programs: <a href="openapi.json">openapi.json</a>.</p><h2>Routes</h2>'
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield from _operation(f"{method.upper()} {path}", operation)
            yield f"<pre>{escape(_curl(method.upper(), base + path, operation))}</pre>"
    yield "<h2>Shapes</h2>"
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield f'<h3 id="{escape(name)}">{escape(name)}</h3>'
        yield f"<p>{escape(schema.get('description', ''))}</p>"
        fields = schema.get("properties", {}).items()
        rows = [[_code(key), _kind(value), escape(_about(value))] for key, value in fields]
        yield from _table(["field", "type", ""], rows)


def _operation(name: str, operation: Node) -> Iterator[str]:
    yield f"<h3><code>{escape(name)}</code></h3>"
    open_to_all = " Open to everybody." if "security" not in operation else ""
    yield f"<p>{escape(operation.get('description', '') + open_to_all)}</p>"
    parameters = [
        [_code(item["name"]), item["in"], _kind(item["schema"]), escape(_about(item))]
        for item in operation.get("parameters", [])
    ]
    yield from _table(["parameter", "in", "type", ""], parameters)
    answers = [
        [code, escape(answer["description"]), ", ".join(_contents(answer))]
        for code, answer in sorted(operation["responses"].items())
    ]
    yield from _table(["status", "means", "body"], answers)


def _contents(answer: Node) -> Iterator[str]:
    for media_type, content in answer.get("content", {}).items():
        yield f"{_code(media_type)} {_kind(content.get('schema', {}))}"


def _curl(method: str, url: str, operation: Node) -> str:
    lines = [f"curl -X {method} '{url}'"]
    if "security" in operation:
        lines.append('-H "Authorization: Bearer $TOKEN"')
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    examples = body.get("schema", {}).get("examples", [])
    lines += [f"--json '{json.dumps(example, indent=2)}'" for example in examples]
    return " \\\n  ".join(lines)


def _kind(schema: Node) -> str:
    """Say in a few words what a schema takes."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_kind(item) for item in schema[key])
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if values:
        return " or ".join(_code(json.dumps(value)) for value in values)
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    pattern = f" {_code(schema['pattern'])}" if "pattern" in schema else ""
    return escape(str(schema.get("type", "anything"))) + pattern


def _about(item: Node) -> str:
    return str(item.get("description", ""))


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    if rows:
        yield f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>"
        for row in rows:
            yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        yield "</table>"
