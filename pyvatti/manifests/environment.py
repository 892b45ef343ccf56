"""The environment templates run in: configuration, not code.

A template reaches the values of its context and the filters, nothing else: no attribute of Python,
no file outside the template folders, no loop without end. It is no bound on memory.
"""

from collections.abc import Iterable, Iterator, MutableMapping, Sized
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, FileSystemLoader, StrictUndefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pyvatti.manifests.serialisers import FILTERS

MAX_STEPS = 100_000  # of loops and calls in one rendering; the largest request takes 1,200
GLOBALS = ("dict", "namespace", "range")
COUNTED = "counted"


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Reads templates from folders, the first that has one. Call `begin` before each rendering."""

    def __init__(self, folders: Iterable[Path]) -> None:
        super().__init__(
            loader=ChoiceLoader([FileSystemLoader(folder) for folder in folders]),
            undefined=StrictUndefined,
            autoescape=False,  # no HTML; each format has its own filter
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            auto_reload=False,
        )
        self.globals = {name: self.globals[name] for name in GLOBALS}
        self.filters |= {**FILTERS, COUNTED: _counted}
        self._left = MAX_STEPS

    def begin(self) -> None:
        """Give the next rendering all its steps. Renderings do not overlap."""
        self._left = MAX_STEPS

    def spend(self, steps: int) -> None:
        """Count steps of a loop or a call. Raises SecurityError when none are left."""
        self._left -= steps
        if self._left < 0:
            raise SecurityError(f"more than {MAX_STEPS} steps of loops and calls")

    def make_globals(self, d: MutableMapping[str, Any] | None) -> MutableMapping[str, Any]:
        """Share plain globals: jinja's ChainMap is copied slowly at each rendering."""
        return {**self.globals, **(d or {})}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Take the short way where it is safe: keys of mappings, which all contexts are; loops."""
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        if type(obj) is LoopContext and not attribute.startswith("_"):
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def call(self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: PYI063 - jinja's signature
        """Call what a template calls, macros and recursive loops among it, as one step."""
        self.spend(1)
        return super().call(__context, __obj, *args, **kwargs)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, COUNTED, [], [], None, None, lineno=loop.lineno)
        return tree


@pass_context  # so that no loop is counted when the template is compiled
def _counted(context: Context, values: Any) -> Any:
    """Let a loop pass over its values, each of them a step."""
    environment = context.environment
    assert isinstance(environment, TemplateEnvironment)  # noqa: S101 - for the type checker
    if isinstance(values, Sized):
        environment.spend(len(values))
        return values
    return _one_by_one(environment, values)


def _one_by_one(environment: TemplateEnvironment, values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        environment.spend(1)
        yield value
