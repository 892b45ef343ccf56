r"""PURE: takes values that must not be repeated out of foreign text. No settings and no requests.

Promised of `Redactor`: the text that comes out holds none of its values, in any of these forms,
mixed as one likes and up to four layers deep:
- plain, upper and lower case of A to Z alike, a blank also as `+` or as a line break;
- percent-encoded, wholly or partly, upper or lower hexadecimal digits, also several times;
- escaped for JSON, Java, Groovy or properties: `\u00XX`, `\xXX`, a backslash before a character;
- in base64, standard or URL-safe, with or without padding, at any place of a longer base64 text,
  and what was encoded so in one of the other forms, or in base64 before.
A value of more than 16 bytes is also taken out where it begins with those 16 and goes on otherwise.
With `is_cut`, for a text whose ends were cut off, a piece of 8 bytes or more of a value goes too
where it stands at an end of the text.

Not promised: other encodings (hexadecimal dumps, quoted-printable, HTML entities, compression),
base64 broken over lines, other spellings of letters beyond A to Z, values taken apart. A value
below 4 characters is never taken out, for half of every text would go; nor one that is part of the
mark `(redacted)`. Of a value of several lines each line is a value. Values given as `words` go only
where no letter or digit adjoins them.

Time grows with the length of the text, not with the number of values; memory is a small multiple
of both.
"""

import re
from array import array
from binascii import a2b_base64
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from pyvatti.escapes import Map, layers_of, outwards, to_bytes

MARK = "(redacted)"
LEAST = 4  # bytes of a value that is taken out
HEAD = 16  # bytes by which a longer value is found
PIECE = 8  # bytes of a value at the end of a text that was cut
MOST_PIECES = 1000  # places in the values that are compared with such an end
NESTED = 2  # layers of base64

Spans = list[tuple[int, int]]

_EATEN = re.compile(rb"u?[0-9a-f]{1,4}|x[0-9a-f]{1,2}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
# what may become an escape with the bytes that follow a value
_OPEN = re.compile(rb"(?:%[0-9A-Fa-f]?|\\+(?:u+[0-9A-Fa-f]{0,3}|x[0-9A-Fa-f]?)?)\Z")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{6,}")
_STANDARD = bytes.maketrans(b"-_", b"+/")
_ALIKE = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ+\t\n\r\v\f", b"abcdefghijklmnopqrstuvwxyz      "
)


class Redactor:
    """Takes its values out of texts; compiles them at the first text."""

    def __init__(self, values: Iterable[str] = (), words: Iterable[str] = ()) -> None:
        self._values, self._words = _usable(values), _usable(words)
        self._index: _Index | None = None

    @property
    def size(self) -> int:
        """Give the bytes of all values."""
        return sum(map(len, [*self._values, *self._words]))

    def __call__(self, text: str, *, is_cut: bool = False) -> str:
        """Give the text with `(redacted)` in the place of each value."""
        return self.clean(to_bytes(text), is_cut=is_cut).decode(errors="replace")

    def clean(self, text: bytes, *, is_cut: bool = False) -> bytes:
        """Give UTF-8 with `(redacted)` in the place of each value."""
        return _masked(text, self.find(text, is_cut=is_cut))

    def find(self, text: bytes, *, is_cut: bool = False) -> Spans:
        """Give where values stand in UTF-8, as (first byte, byte after the last), in order."""
        if not text or not (self._values or self._words):
            return []
        if self._index is None:
            self._index = _Index(self._values, self._words)
        spans = self._index.spans(text, NESTED)
        if is_cut:
            spans += self._index.pieces(text)
        return _joined(spans)


class Stream:
    """Redacts UTF-8 that comes in chunks: line by line, a longer line in overlapping parts."""

    LONGEST = 2**16  # bytes without a line break that are held back
    KEPT = 2**14  # bytes of such a line that stay held back: more than any value in any form

    def __init__(self, *redactors: Redactor, last: Callable[[str], str] | None = None) -> None:
        self._redactors, self._last = redactors, last
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk; give what can be passed on."""
        held = self._held + chunk
        end = held.rfind(b"\n") + 1
        if not end and len(held) > self.LONGEST:
            end = len(held) - self.KEPT
            found = [span for redactor in self._redactors for span in redactor.find(held)]
            end = min((first for first, last in found if first < end < last), default=end)
            end = held.rfind(b" ", 0, end) + 1 or end  # a word stays whole
        self._held = held[end:]
        return self._clean(held[:end])

    def finish(self) -> bytes:
        """Give what was held back."""
        held, self._held = self._held, b""
        return self._clean(held)

    def _clean(self, text: bytes) -> bytes:
        for redactor in self._redactors:
            text = redactor.clean(text)
        if self._last is None:
            return text
        return to_bytes(self._last(text.decode(errors="replace")))


class _Index:
    """The values, compiled: found by their first bytes, then compared in full."""

    def __init__(self, values: Iterable[bytes], words: Iterable[bytes]) -> None:
        forms = {form for value in values for form in _forms(value)}
        self._needles = sorted(forms)
        self._longest = max(map(len, forms), default=0)
        self._anywhere = _compiled(b"%b", {form[:HEAD] for form in forms})
        self._rests = _rests(forms)
        self._rest = _compiled(b"%b", self._rests)
        alone = {form for word in words for form in _forms(word)}
        self._alone = _compiled(rb"(?<![0-9a-z\x80-\xff])%b(?![0-9a-z\x80-\xff])", alone)
        self._all = b"\0".join([b"", *self._needles, b""])

    def spans(self, text: bytes, nested: int) -> Spans:
        """Find all values in a text, in each layer of encoding."""
        found = list(self._in_layer(text)) + self._in_base64(text, nested)
        maps: list[Map] = []
        for inner in layers_of(text, maps):
            spans = list(self._in_layer(inner)) + self._after_eaten(inner, maps)
            found += outwards(spans, maps)
            text = inner
        if maps:
            found += outwards(self._in_base64(text, nested), maps)
        return found

    def pieces(self, text: bytes) -> Spans:
        """Find an end of a value at the beginning of a text, and a beginning at its end."""
        maps: list[Map] = []
        for inner in layers_of(text, maps):
            text = inner
        folded, found = text.translate(_ALIKE), []
        for at in _places(self._all, folded[:PIECE]):
            rest = self._all[at : self._all.index(b"\0", at)]
            if folded.startswith(rest):
                found.append((0, len(rest)))
        for at in _places(self._all, folded[-PIECE:]):
            begun = self._all[self._all.rindex(b"\0", 0, at) + 1 : at + PIECE]
            if folded.endswith(begun):
                found.append((len(folded) - len(begun), len(folded)))
        return outwards(found, maps)

    def _in_layer(self, text: bytes) -> Iterator[tuple[int, int]]:
        folded, end = text.translate(_ALIKE), 0
        while self._anywhere is not None and (match := self._anywhere.search(folded, end)):
            end = match.end()
            if end - match.start() == HEAD:
                end = match.start() + self._length(folded, match.start())
            yield match.start(), end
        if self._alone is not None:
            yield from (match.span() for match in self._alone.finditer(folded))

    def _length(self, folded: bytes, start: int, before: bytes = b"") -> int:
        """Give how many bytes from a place on, and some before, are those of a value at most.

        That value is a neighbour of the text in the sorted list.
        """
        text = before + folded[start : start + self._longest]
        at = bisect_left(self._needles, text)
        return max(_common(text, needle) for needle in self._needles[max(at - 1, 0) : at + 1])

    def _after_eaten(self, inner: bytes, maps: list[Map]) -> Spans:
        """Find values whose first bytes were read as the last ones of an escape before them."""
        if self._rest is None:
            return []
        folded, found = inner.translate(_ALIKE), []
        for match in self._rest.finditer(folded):
            for eaten in self._rests[match.group()] if match.start() else ():
                if _stands_before(eaten, match.start(), maps):
                    length = self._length(folded, match.start(), eaten) - len(eaten)
                    found.append((match.start() - 1, match.start() + length))
        return found

    def _in_base64(self, text: bytes, nested: int) -> Spans:
        """Find values in what the runs of base64 say, from each of four places on."""
        runs = [match.span() for match in _BASE64.finditer(text)] if nested else []
        found: Spans = []
        for shift in range(4) if runs else ():
            pieces = [text[start + shift : end] for start, end in runs]
            # at least three bytes of zero, so that nothing is found across two runs
            padded = [piece + b"A" * (-len(piece) % 4 + 4) for piece in pieces]
            begins = array("q", [0])
            for piece in padded:
                begins.append(begins[-1] + len(piece) // 4 * 3)
            decoded = a2b_base64(b"".join(padded).translate(_STANDARD))
            for first, last in self.spans(decoded, nested - 1):
                at = bisect_right(begins, first) - 1
                start, end = runs[at][0] + shift, runs[at][1]
                length = -((begins[at] - last) * 4 // 3)  # rounded up
                found.append((start + (first - begins[at]) * 4 // 3, min(end, start + length)))
        return found


def _usable(values: Iterable[str]) -> list[bytes]:
    given = {to_bytes(part.strip()) for value in values for part in _CONTROL.split(value)}
    return sorted(
        value
        for value in given
        if len(value) >= LEAST and value.translate(_ALIKE) not in MARK.encode()
    )


def _forms(value: bytes) -> set[bytes]:
    """Give a value as it may stand in a layer: as it is, and as it reads where it looks encoded."""
    forms = [value, *layers_of(value, [])]
    forms += [_OPEN.sub(b"", form) for form in forms]
    forms.append(value.replace(b"\\", b""))
    return {form.translate(_ALIKE) for form in forms if len(form) >= LEAST}


def _rests(forms: Iterable[bytes]) -> dict[bytes, set[bytes]]:
    """Give what is left of values of which an escape before them may take the first bytes."""
    rests: dict[bytes, set[bytes]] = {}
    for form in forms:
        for count in range(1, min(6, len(form) - LEAST + 1)):
            if _EATEN.fullmatch(form[:count]):
                rests.setdefault(form[count : count + HEAD], set()).add(form[:count])
    return rests


def _stands_before(eaten: bytes, place: int, maps: list[Map]) -> bool:
    """Tell whether some bytes stand before a place of the innermost layer in any one around it."""
    for layer in reversed(maps):
        place = layer.begin(place)
        before = layer.outer[max(place - 64, 0) : place].rstrip(b"\\")
        if before.translate(_ALIKE).endswith(eaten):
            return True
    return False


def _joined(spans: Spans) -> Spans:
    joined: Spans = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        else:
            joined.append((first, last))
    return joined


def _masked(text: bytes, spans: Spans) -> bytes:
    parts, at = [], 0
    for first, last in spans:
        parts += [text[at:first], MARK.encode()]
        at = last
    return b"".join([*parts, text[at:]])


def _common(one: bytes, other: bytes) -> int:
    """Count the bytes with which both begin."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def _places(text: bytes, piece: bytes) -> list[int]:
    if len(piece) < PIECE:
        return []
    return [match.start() for match in islice(re.finditer(re.escape(piece), text), MOST_PIECES)]


def _compiled(frame: bytes, needles: Iterable[bytes]) -> re.Pattern[bytes] | None:
    """Compile a pattern that finds the longest of the needles, inside a frame with `%b`."""
    root: dict[int | None, Any] = {}
    for needle in needles:
        node = root
        for byte in needle:
            node = node.setdefault(byte, {})
        node[None] = {}
    if not root:
        return None
    pattern = re.compile(frame % _alternatives(root))
    re.purge()  # the module's cache would keep what a finished job must not leave behind
    return pattern


def _alternatives(node: dict[int | None, Any]) -> bytes:
    branches = [
        re.escape(bytes((byte,))) + _alternatives(below)
        for byte, below in node.items()
        if byte is not None
    ]
    if None not in node and len(branches) == 1:
        return branches[0]  # a group would cost the compiler much
    inside = b"(?:" + b"|".join(branches) + b")"
    return inside if None not in node else inside + b"?" if branches else b""
