"""Text from data on its way into a table that a spreadsheet opens."""

from __future__ import annotations


def inert(text: str) -> str:
    """The text without NUL; one that a spreadsheet would take for a formula gets a leading apostrophe.

    >>> inert("=1+1"), inert("CD3E")
    ("'=1+1", 'CD3E')
    """
    text = text.replace("\x00", "")
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
