"""Writes what values.yaml says into chart/README.md and values.schema.json (`make chart-docs`).

The one source of a value's sentence is the comment above its key; nothing is invented here.
"""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from chart_tools import CHART, permission_table, rendered_rules, values_of

KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][A-Za-z0-9]*):(?: |$)")


def sentences() -> dict[str, str]:
    """Give {"group.key": sentence} for every key of values.yaml that has a comment above it."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in (CHART / "values.yaml").read_text().splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.removeprefix("#").strip())
            continue
        match = KEY.match(line)
        if match:
            indent = len(match["indent"])
            path = [*((i, key) for i, key in path if i < indent), (indent, match["key"])]
            if comment:
                found[".".join(key for _, key in path)] = " ".join(comment)
        comment = []
    return found


def defaults() -> dict[str, Any]:
    """Read values.yaml."""
    return values_of(CHART / "values.yaml")


def leaves(values: dict[str, Any], documented: set[str], prefix: str = "") -> Iterator[str]:
    """Give the path of every value: a key with a sentence, or one without children."""
    for key, value in values.items():
        path = f"{prefix}{key}"
        children = isinstance(value, dict) and any(
            other.startswith(f"{path}.") for other in documented
        )
        if children:
            yield from leaves(value, documented, f"{path}.")
        else:
            yield path


def value_at(values: dict[str, Any], path: str) -> Any:
    """Follow a dotted path."""
    found: Any = values
    for key in path.split("."):
        found = found[key]
    return found


def table() -> str:
    """Write the values as a Markdown table."""
    said, values = sentences(), defaults()
    rows = [
        f"| `{path}` | {said[path]} | `{json.dumps(value_at(values, path))}` |"
        for path in leaves(values, set(said))
    ]
    return "\n".join(["| value | meaning | default |", "|---|---|---|", *rows])


def between_marks(text: str, name: str, content: str) -> str:
    """Replace what stands between `<!-- name: begin -->` and `<!-- name: end -->`."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{content.strip()}\n{end}{after}"


def readme() -> str:
    """Give README.md with its two tables."""
    text = (CHART / "README.md").read_text()
    text = between_marks(text, "permissions", permission_table(rendered_rules()))
    return between_marks(text, "values", table())


def schema() -> str:
    """Give values.schema.json with each sentence as the description of its key."""
    document = json.loads((CHART / "values.schema.json").read_text())
    for path, sentence in sentences().items():
        node = document
        for key in path.split("."):
            node = node["properties"][key]
        node["description"] = sentence
    return json.dumps(document, indent=2) + "\n"


def main() -> None:
    """Write both documents."""
    (CHART / "README.md").write_text(readme())
    (CHART / "values.schema.json").write_text(schema())
    sys.stdout.write("chart/README.md and chart/values.schema.json are up to date\n")


if __name__ == "__main__":
    main()
