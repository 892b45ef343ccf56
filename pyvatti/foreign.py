"""Foreign text on its way into this process: what must come out of it, and whose job it is about.

Doors call `clean` on what others wrote before it is stored, logged or sent. What is removed: the
configured secrets (`hiding`) and, inside `about`, the personal data of one job. Beside this
registry PURE.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pyvatti.redaction import MARK, Redactor, Stream

Known = Callable[[], Redactor | None]
"""Gives what takes out the personal data of a job, None while its request is not known."""

_hidden: list[Redactor] = []
_job: ContextVar[Known | None] = ContextVar("job", default=None)

_AT_OR_SLASH = re.compile(r"[@/]|%(?:25)*(?:40|2[Ff])|\\+u00(?:40|2[Ff])|\\+x(?:40|2[Ff])")
_FILE = re.compile(
    r"\.(?:pgen|pvar|psam|bed|bim|fam|vcf|zst|gz|c4gh)(?![A-Za-z0-9])"
    r"|[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}"
)
_HOST = re.compile(r"([\"'(<\[]*[A-Za-z][A-Za-z0-9+.-]{1,15}://(?![^/]*[@%\\])[A-Za-z0-9.:-]+)(/?)")
_CONSTRAINT = re.compile(r"[\"'(]*constraints/(?:gcp|storage)\.[A-Za-z]{1,50}[\"').,:;]*")
_MARKUP = frozenset("<>&")
_TAG = re.compile(r"(?<=[A-Z0-9_]) \([^()\n]{1,512}\)")


@contextmanager
def hiding(secrets: Iterable[str]) -> Iterator[None]:
    """Take these values out of all foreign text of this process while inside."""
    redactor = Redactor(secrets)
    _hidden.append(redactor)
    try:
        yield
    finally:
        _hidden.remove(redactor)


@contextmanager
def about(job: Known) -> Iterator[None]:
    """Take one job's personal data out of all foreign text met inside, in tasks begun here too."""
    before = _job.set(job)
    try:
        yield
    finally:
        _job.reset(before)


def clean(text: str, *, is_cut: bool = False) -> str:
    """Give a text without configured secrets and without what the job at hand must not tell."""
    job = _job.get()
    if job is None:
        return without_secrets(text, is_cut=is_cut)
    return clean_for(job(), text, is_cut=is_cut)


def clean_known(text: str) -> str:
    """Give a text of ours, or one that was clean before, without what is known to be secret."""
    job = _job.get()
    known = job() if job is not None else None
    text = without_secrets(text)
    return known(text) if known is not None else text


def clean_for(known: Redactor | None, text: str, *, is_cut: bool = False) -> str:
    """Give a text about a job without configured secrets and without its personal data.

    `known` is None where the request is not known; `is_cut` as in `redaction`.
    """
    text = without_secrets(text, is_cut=is_cut)
    return clean_unknown(text) if known is None else known(text, is_cut=is_cut)


def without_secrets(text: str, *, is_cut: bool = False) -> str:
    """Give a text without the configured secrets."""
    for redactor in _hidden:
        text = redactor(text, is_cut=is_cut)
    return text


def stream(known: Redactor | None) -> Stream:
    """Give what cleans a log of a job chunk by chunk."""
    if known is None:
        return Stream(*_hidden, last=clean_unknown)
    return Stream(*_hidden, known)


def plain_line(text: str, most: int) -> str:
    """Give one clean line of at most `most` characters without control characters and markup.

    Cleaned (as by `clean_known`) before, where a value may hold such characters itself, and after,
    where a value is put together by what is taken out. Characters outside the Basic Multilingual
    Plane become "?": receivers of UTF-16 would count them twice, and some could not store them.
    """
    line = " ".join("".join(_plain(character) for character in clean_known(text)).split())
    return clean_known(line)[:most].rstrip()


def _plain(character: str) -> str:
    if character in _MARKUP or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return " "
    return character if ord(character) <= 0xFFFF else "?"


def clean_unknown(text: str) -> str:
    """Take out what may be personal of a job whose request is not known.

    Of each word, as blanks part them: all of it if it holds `@` or `/`, plain, percent-encoded or
    escaped, a UUID, or an ending of the files a request may name; of an address only its path and
    query; the name of a constraint of an organisation's policy stays. Also what stands in brackets
    after a process of Nextflow. Not found: a sampleset or a folder's name that stands by itself,
    and names in base64.
    """
    text = _TAG.sub(f" ({MARK[1:-1]})", text)
    return re.sub(r"\S++", lambda word: _clean_word(word[0]), text)


def _clean_word(word: str) -> str:
    if _CONSTRAINT.fullmatch(word) or not (_AT_OR_SLASH.search(word) or _FILE.search(word)):
        return word
    address = _HOST.match(word)
    if address is None:
        return MARK
    rest = word[address.end() :]
    return address[1] + (f"{address[2]}{MARK}" if rest else address[2])
