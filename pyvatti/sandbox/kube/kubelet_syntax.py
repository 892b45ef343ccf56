"""PURE: reads a small subset of sh into a tree.

No execution. Left out: pipes, substitution, subshells, functions, here-documents.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

_OPERATORS = re.compile(r"&&|\|\||>>|>&|[;&|<>()\n]")
_SEPARATORS = (";", "\n", "&")
_CLOSERS = ("do", "done", "then", "else", "elif", "fi")


class ShellSyntaxError(Exception):
    """The text is outside the subset."""


@dataclass(frozen=True, slots=True)
class Simple:
    """One command; `redirects` are (descriptor, operator, target) triples."""

    words: tuple[str, ...]
    redirects: tuple[tuple[int, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Loop:
    """`while`, `until` (negated), or `for` over `items`."""

    condition: "Sequence[Step]"
    body: "Sequence[Step]"
    negated: bool = False
    variable: str = ""
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """`if`."""

    condition: "Sequence[Step]"
    then: "Sequence[Step]"
    otherwise: "Sequence[Step]" = ()


Command: TypeAlias = Simple | Loop | Choice


@dataclass(frozen=True, slots=True)
class Step:
    """A command and when it runs: `after` is "" (always), "&&" or "||"."""

    command: Command
    after: str = ""
    background: bool = False


def parse(text: str) -> list[Step]:
    """Read a script. Raises ShellSyntaxError."""
    parser = _Parser(_tokens(text))
    steps = parser.steps()
    if parser.peek() is not None:
        raise ShellSyntaxError(f"unexpected {parser.peek()!r}")
    return steps


@dataclass(slots=True)
class _Token:
    text: str
    operator: bool


def _tokens(text: str) -> list[_Token]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t\r", "", True
    found: list[_Token] = []
    try:
        for raw in lexer:
            operators = _OPERATORS.findall(raw)
            if operators and "".join(operators) == raw:
                found += [_Token(item, True) for item in operators]
            else:
                found.append(_Token(raw, False))
    except ValueError as error:
        raise ShellSyntaxError(str(error)) from error
    return found


@dataclass(slots=True)
class _Parser:
    tokens: list[_Token]
    at: int = field(default=0)

    def peek(self) -> str | None:
        return self.tokens[self.at].text if self.at < len(self.tokens) else None

    def _is_operator(self) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at].operator

    def _take(self) -> str:
        text = self.peek()
        if text is None:
            raise ShellSyntaxError("unexpected end")
        self.at += 1
        return text

    def _expect(self, word: str) -> None:
        if (found := self._take()) != word:
            raise ShellSyntaxError(f"expected {word!r}, found {found!r}")

    def _skip(self) -> None:
        while self.peek() in (";", "\n") and self._is_operator():
            self.at += 1

    def steps(self) -> list[Step]:
        found: list[Step] = []
        after = ""
        self._skip()
        while (word := self.peek()) is not None and word not in _CLOSERS:
            command = self._command()
            joiner = self.peek() if self._is_operator() else None
            found.append(Step(command, after, joiner == "&"))
            after = joiner if joiner in ("&&", "||") else ""
            if joiner in (*_SEPARATORS, "&&", "||"):
                self.at += 1
            self._skip()
        return found

    def _command(self) -> Command:
        word = self.peek()
        if word in ("while", "until"):
            return self._while()
        if word == "for":
            return self._for()
        return self._if() if word == "if" else self._simple()

    def _while(self) -> Loop:
        negated = self._take() == "until"
        condition = self.steps()
        return Loop(condition, self._body(), negated)

    def _for(self) -> Loop:
        self.at += 1
        variable = self._take()
        self._expect("in")
        items: list[str] = []
        while self.peek() is not None and not self._is_operator():
            items.append(self._take())
        self._skip()
        return Loop((), self._body(), variable=variable, items=tuple(items))

    def _body(self) -> list[Step]:
        self._expect("do")
        body = self.steps()
        self._expect("done")
        return body

    def _if(self) -> Choice:
        self.at += 1
        condition = self.steps()
        self._expect("then")
        then = self.steps()
        if self.peek() == "elif":
            return Choice(condition, then, [Step(self._if())])
        otherwise: list[Step] = []
        if self.peek() == "else":
            self.at += 1
            otherwise = self.steps()
        self._expect("fi")
        return Choice(condition, then, otherwise)

    def _simple(self) -> Simple:
        words: list[str] = []
        redirects: list[tuple[int, str, str]] = []
        while self.peek() is not None:
            if not self._is_operator():
                words.append(self._take())
            elif self.peek() in (">", ">>", ">&"):
                descriptor = 2 if words and words[-1] == "2" else 1
                if descriptor == 2:
                    words.pop()
                redirects.append((descriptor, self._take(), self._take()))
            else:
                break
        if (not words and not redirects) or self.peek() in ("|", "(", ")", "<"):
            raise ShellSyntaxError(f"unexpected {self.peek()!r}")
        return Simple(tuple(words), tuple(redirects))
