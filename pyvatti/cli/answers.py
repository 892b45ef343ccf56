"""What all commands share: exit codes, the forms of output, the one message of a failure.

No command here.
"""

import contextlib
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, NoReturn

import typer

from pyvatti.errors import ConfigurationError

REFUSED, MISUSED, UNREACHABLE = 1, 2, 3


class Output(StrEnum):
    """How to print."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", help="How to print the answer.")]


def say(text: str) -> None:
    """Print at once, also into a file or a pipe."""
    print(text, flush=True)


def fail(code: int, text: str) -> NoReturn:
    """End with one message and an exit code."""
    print(f"pyvatti: {text}", file=sys.stderr)
    raise typer.Exit(code)


@contextlib.contextmanager
def configured() -> Iterator[None]:
    """Turn what the operator must change into one message and exit code 2."""
    try:
        yield
    except ConfigurationError as error:
        fail(MISUSED, str(error))
    except OSError as error:
        fail(MISUSED, f"{error.filename}: {error.strerror}")
