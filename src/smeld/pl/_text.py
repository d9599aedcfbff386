"""Names from data files as text in a figure: shown literally, never parsed, never longer than their place."""

from __future__ import annotations

#: characters of a name that a legend or an axis has room for
MOST = 28


def shown(name: object, most: int = MOST) -> str:
    r"""A name as matplotlib should draw it, character by character.

    Dollar signs are escaped (matplotlib would read ``$\frac$`` as mathematics and fail), what cannot be
    printed (line breaks, NUL, marks that reverse the direction of writing) becomes the replacement character,
    and long names end in an ellipsis.

    >>> shown("$CD8$")
    '\\$CD8\\$'
    >>> shown("a very long name", most=7)
    'a very…'
    """
    text = "".join(c if c.isprintable() else "\ufffd" for c in str(name)) or "(no name)"
    if len(text) > most:
        text = text[: most - 1] + "…"
    return text.replace("$", r"\$")
