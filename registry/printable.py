"""Text that comes from data, made harmless for whoever shows it: what would act on a terminal or a page is spelt."""

from __future__ import annotations

import re

#: Control characters of both sets but the newline, marks that turn or hide text (bidirectional overrides and isolates,
#: zero-width and format characters, tags), other line ends, and halves of surrogate pairs, which no stream can encode.
#: The joiners U+200C and U+200D stay: scripts and emoji are written with them.
_ACTING = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


_SHORT = {"\n": "\\n", "\t": "\\t"}


def printable(text: str) -> str:
    r"""Return ``text`` with every character that acts instead of showing spelt as its escape, such as ``\u001b``.

    A tab becomes blanks. In JSON the escapes mean the same characters, so that a document stays the same document.
    """
    return _ACTING.sub(_spelt, text)


def in_line(text: str) -> str:
    """Return ``text`` with every character spelt that Python would not print, line ends and tabs too."""
    return "".join(sign if sign.isprintable() else _SHORT.get(sign) or _units(sign) for sign in text)


def _spelt(match: re.Match[str]) -> str:
    sign = match[0]
    return "    " if sign == "\t" else _units(sign)


def _units(sign: str) -> str:
    units = sign.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
