"""Figures as bytes and files: vector text, no dates, the same bytes for the same figure."""

from __future__ import annotations

import base64
import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from smeld import _check
from smeld.pl import _canvas

#: metadata by format; None leaves out the date and the name of the program, which would change the bytes
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": "smeld"},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": "smeld", "Producer": None},
}
_EMBEDDED = re.compile(rb'data:image/png;base64,([A-Za-z0-9+/=\s]+)"')
JPEG_QUALITY = 88


def render(figure: Figure, kind: str, *, dpi: float = 150.0) -> bytes:
    """The figure as "svg", "png" or "pdf"; ``dpi`` also holds for the pixel parts of a vector file."""
    out = io.BytesIO()
    with _canvas.style(), warnings.catch_warnings():
        # a reader's browser has more fonts than matplotlib: a glyph missing here need not be missing there
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(out, format=kind, dpi=dpi, bbox_inches="tight", pad_inches=0.06, metadata=_METADATA[kind])
    return _lighter(out.getvalue()) if kind == "svg" else out.getvalue()


def _lighter(svg: bytes) -> bytes:
    """Photographs inside an SVG as JPEG, a tenth of the size. Pictures with transparency stay PNG."""
    from PIL import Image

    def smaller(found: re.Match[bytes]) -> bytes:
        raw = base64.b64decode(found[1])
        with Image.open(io.BytesIO(raw)) as opened:
            picture = opened.convert("RGBA")
        if np.asarray(picture)[:, :, 3].min() < 255:
            return found[0]
        packed = io.BytesIO()
        picture.convert("RGB").save(packed, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        if len(packed.getvalue()) >= len(raw):
            return found[0]
        return b"data:image/jpeg;base64," + base64.b64encode(packed.getvalue()) + b'"'

    return _EMBEDDED.sub(smaller, svg)


def save(plot: Axes | Figure | NDArray[Any], path: str | Path, *, dpi: float = 150.0) -> Path:
    """Write a plot as .svg, .png or .pdf, with text as text and without a date.

    Parameters
    ----------
    plot
        What a function of ``sm.pl`` returned, or a figure.
    path
        File to write; its ending says the format. It is replaced as a whole or left alone.
    dpi
        Dots per inch (default 150) of pixel formats and of the pixel parts of vector formats.
    """
    from smeld.io._write import replacing

    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _METADATA:
        raise _check.unknown("figure format", kind, _METADATA)
    owner = np.asarray(plot, dtype=object).ravel()[0] if not isinstance(plot, Figure) else plot
    figure = owner if isinstance(owner, Figure) else owner.get_figure(root=True)
    content = render(figure, kind, dpi=dpi)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path
