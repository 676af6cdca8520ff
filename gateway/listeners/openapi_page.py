"""An OpenAPI document as one page of plain HTML: no script, and nothing fetched from elsewhere.

A gateway often stands in a network that reaches nothing else, where a page that loads its code
from the Internet stays blank. All text is escaped; the only markup in it is `code`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

Json = Mapping[str, Any]

_METHODS = ("get", "post", "put", "patch", "delete")
_CODE = re.compile(r"`([^`]*)`")
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --dim: #777; --code: #8881 }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 64rem;
  padding: 2rem 1.5rem }
h1 { font-size: 1.7rem; margin: 0 } h1 small { color: var(--dim); font-weight: 400 }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .1rem } h2 + p { margin: 0 0 .6rem; color: var(--dim) }
h3 { font-size: .78rem; letter-spacing: .06em; text-transform: uppercase; color: var(--dim);
  margin: 1rem 0 .3rem }
nav { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; margin: 1rem 0 }
a { color: #2a6fc9 } p { max-width: 46rem }
code, pre { font: 13px/1.5 ui-monospace, monospace }
code { background: var(--code); padding: 0 .25em; border-radius: 3px }
pre { background: var(--code); padding: .7rem .9rem; border-radius: 6px; overflow-x: auto;
  margin: 0 }
details { border: 1px solid var(--line); border-radius: 6px; margin: .35rem 0 }
summary { display: flex; gap: .8rem; align-items: baseline; padding: .4rem .8rem; cursor: pointer;
  list-style: none } summary::-webkit-details-marker { display: none }
summary:hover { background: var(--soft) } summary span { color: var(--dim); margin-left: auto;
  text-align: right }
summary code { background: none; padding: 0; overflow-wrap: anywhere }
.in { padding: .2rem .9rem 1rem; border-top: 1px solid var(--line) }
b.m { font: 700 11px/1.7 ui-monospace, monospace; color: #fff; border-radius: 3px; min-width: 4.2em;
  text-align: center; flex: none; background: #666 }
b.get { background: #2a6fc9 } b.post { background: #2c8a57 } b.delete { background: #b8433a }
b.put, b.patch { background: #a86b14 }
table { border-collapse: collapse; width: 100% } td { border-top: 1px solid var(--line);
  padding: .25rem .8rem .25rem 0; vertical-align: top }
td:first-child { white-space: nowrap; width: 9rem }
tr:first-child td { border-top: 0 }
"""


def render(document: Json) -> str:
    """Return the page."""
    info = document["info"]
    tags = document.get("tags", [])
    links = " ".join(f'<a href="#{_anchor(t["name"])}">{escape(t["name"])}</a>' for t in tags)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}: API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
        f"<p>{_text(info.get('description', ''))}</p>"
        f'<nav>{links} <a href="openapi.json">openapi.json</a></nav>'
        f"{''.join(_section(document, tag) for tag in tags)}</body></html>"
    )


def _section(document: Json, tag: Json) -> str:
    parts = [
        f'<h2 id="{_anchor(tag["name"])}">{escape(tag["name"])}</h2>',
        f"<p>{_text(tag.get('description', ''))}</p>",
    ]
    for path, item in document["paths"].items():
        for method in _METHODS:
            operation = item.get(method)
            if operation is not None and tag["name"] in operation.get("tags", ()):
                parts.append(_operation(document, path, method, item, operation))
    return "".join(parts)


def _operation(document: Json, path: str, method: str, item: Json, operation: Json) -> str:
    inside = [f"<p>{_text(operation['description'])}</p>"] if "description" in operation else []
    inside += _table("Parameters", _parameters(operation))
    body = operation.get("requestBody", {}).get("content", {})
    for media, content in body.items():
        inside += _table(f"Body: {media}", _fields(document, content.get("schema", {})))
    inside += _table("Answers", _answers(document, operation))
    inside.append(f"<h3>Try it</h3><pre>{escape(_curl(document, path, method, item, body))}</pre>")
    return (
        f'<details><summary><b class="m {method}">{method.upper()}</b><code>{escape(path)}</code>'
        f"<span>{_text(operation.get('summary', ''))}</span></summary>"
        f'<div class="in">{"".join(inside)}</div></details>'
    )


def _table(title: str, rows: Iterator[tuple[str, str]]) -> list[str]:
    cells = [f"<tr><td><code>{escape(a)}</code></td><td>{_text(b)}</td></tr>" for a, b in rows]
    return [f"<h3>{escape(title)}</h3><table>{''.join(cells)}</table>"] if cells else []


def _parameters(operation: Json) -> Iterator[tuple[str, str]]:
    for one in operation.get("parameters", ()):
        needed = "" if one.get("required") else ", optional"
        told = one.get("description", "")
        yield one["name"], f"in the {one['in']}{needed}{': ' if told else ''}{told}"


def _fields(document: Json, schema: Json) -> Iterator[tuple[str, str]]:
    resolved = _resolved(document, schema)
    required = resolved.get("required", ())
    for name, field in resolved.get("properties", {}).items():
        told = field.get("description", "")
        kind = _kind(field)
        parts = [kind, "" if name in required else "optional", told]
        yield name, ", ".join(part for part in parts if part)
    if resolved.get("additionalProperties") is True:
        yield "…", "all else that the backend's own API takes"


def _answers(document: Json, operation: Json) -> Iterator[tuple[str, str]]:
    for status, answer in operation.get("responses", {}).items():
        told = answer.get("description", "")
        for media, content in answer.get("content", {}).items():
            schema = _resolved(document, content.get("schema", {}))
            for example in schema.get("examples", ())[:1]:
                told += f": `{json.dumps(example)}`"
            if not media.endswith("/json"):
                told += f"; or as {media}"
        yield status, told


def _curl(document: Json, path: str, method: str, item: Json, body: Json) -> str:
    """Return a call to copy; on the admin plane by a path alone, whose host the reader has."""
    url = _url(item) + path.replace(":path}", "}")
    verb = f"-X {method.upper()} " if method not in ("get", "post") or not body else ""
    verb = "" if method == "get" else verb
    line = f"curl {verb}{url}"
    for media, content in body.items():
        if media.startswith("multipart/"):
            return f"{line} -F model=MODEL -F file=@FILE"
        example = content.get("example", _example(document, content.get("schema", {})))
        quoted = json.dumps(example).replace("'", "'\\''")
        return f"{line} \\\n  -H 'content-type: {media}' \\\n  -d '{quoted}'"
    return line


def _url(item: Json) -> str:
    for server in item.get("servers", ()):
        url = str(server["url"])
        for name, variable in server.get("variables", {}).items():
            url = url.replace(f"{{{name}}}", variable["default"])
        return url
    return "http://localhost:8082"


def _example(document: Json, schema: Json) -> object:
    resolved = _resolved(document, schema)
    properties = resolved.get("properties", {})
    return {
        name: (field.get("examples") or [field.get("default")])[0]
        for name, field in properties.items()
        if name in resolved.get("required", ())
    }


def _resolved(document: Json, schema: Json) -> Json:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Json = document["components"]["schemas"][reference.rpartition("/")[2]]
    return found


def _kind(field: Json) -> str:
    if "anyOf" in field:
        return " or ".join(_kind(one) for one in field["anyOf"] if one.get("type") != "null")
    return str(field.get("type", ""))


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _text(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text))
