"""The viewer in a notebook: the page in a frame, and what is selected there as rows of the table here."""

from __future__ import annotations

import functools
import importlib
from importlib.util import find_spec
from typing import Any

import numpy as np

from smeld import _check

#: runs in the notebook's page: it listens to its own frame only
ESM = """
function render({ model, el }) {
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "allow-scripts allow-downloads");
  frame.title = "smeld";
  frame.style.cssText = `width:100%;height:${model.get("height_px")}px;border:0`;
  frame.srcdoc = model.get("page");
  let said = "";
  const heard = (event) => {
    if (event.source !== frame.contentWindow) return;
    const told = event.data;
    if (!told || told.smeld !== "selection" || !Number.isInteger(told.section)) return;
    const rows = Array.from(told.rows, Number).filter((row) => Number.isInteger(row) && row >= 0);
    const picked = { ...model.get("picked"), [String(told.section)]: rows };
    said = JSON.stringify(picked);
    model.set("picked", picked);
    model.save_changes();
  };
  // what was selected before the page was there is told again until the page has said it, too
  let left = 40;
  const again = () => {
    if (left-- > 0 && !said && Object.values(model.get("picked")).some((rows) => rows.length)) {
      tell();
      setTimeout(again, 500);
    }
  };
  const tell = () => {
    const picked = model.get("picked");
    if (JSON.stringify(picked) === said) return;
    for (const [section, rows] of Object.entries(picked)) {
      frame.contentWindow.postMessage({ smeld: "select", section: Number(section), rows: Uint32Array.from(rows) }, "*");
    }
  };
  window.addEventListener("message", heard);
  model.on("change:picked", tell);
  frame.addEventListener("load", again);
  el.append(frame);
  return () => {
    window.removeEventListener("message", heard);
    model.off("change:picked", tell);
    frame.remove();
  };
}
export default { render };
"""


def view(data: Any, *, genes: list[str] | None = None, height_px: int = 720) -> Any:
    """Show a section in a notebook, and get back which cells are selected there.

    The page is that of ``smeld view``: the section with its image, colours by column or gene, the embedding beside it,
    lasso and polygon. It lies in the notebook as a whole, data included, and asks no server.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table, with ``obsm["spatial_um"]``; or the path of a result. At most 200,000
        cells; larger ones open with ``smeld view``.
    genes
        Names of the genes that go along; the first markers and the genes of tested pairs if None, at most 200.
    height_px
        Height of the frame, pixels of the screen.

    Returns
    -------
    widget
        With ``selection`` (row numbers, which may also be set), ``selected`` (names of the selected cells) and
        ``selected_mask`` (bool [n_obs]).

    Raises
    ------
    InputError
        anywidget is not installed, the section is too large, or a gene is not in the table.

    Examples
    --------
    >>> widget = sm.view(adata)  # doctest: +SKIP
    >>> widget  # the page; draw a lasso  # doctest: +SKIP
    >>> adata[widget.selected_mask].obs["domain"].value_counts()  # doctest: +SKIP
    """
    if find_spec("anywidget") is None:
        cure = "pip install anywidget; or smeld view RESULT, which opens the same page"
        raise _check.problem("sm.view needs anywidget", found="it is not installed", cure=cure)
    # late: the viewer's server loads this package, and should say its address at once
    from smeld.viewer import _export
    from smeld.viewer._answers import Answers
    from smeld.viewer._source import open_result

    result = open_result(data)
    try:
        names = _names(data, result)
        if len(names) > _export.MOST_SINGLE:
            cure = "save it, and open it with smeld view RESULT"
            raise _check.problem("the section is too large for a notebook", found=f"{len(names):,} cells", cure=cure)
        choice = _export.Choice(genes=None if genes is None else tuple(genes), single=True)
        held = _export.contents(Answers(result), choice, title=result.title, single=True, notebook=True)
        page = _export.single_page(dict(held))
        rows = [np.arange(len(names)) if s.rows is None else s.rows for s in result.sections]
    finally:
        result.close()
    return _widget()(page=page, height_px=height_px, rows=rows, names=names)


def _names(data: Any, result: Any) -> np.ndarray[Any, Any]:
    """Names of the cells, in the table's order; one file's, for rows of several would not be rows of one table."""
    from smeld import _adapt
    from smeld.viewer import _stored

    if not isinstance(data, str) and not hasattr(data, "parent"):
        return np.asarray(_adapt.table(data).obs_names.astype(str))
    if len(result.files) > 1:
        raise _check.problem(
            "a notebook shows one table", found=f"{len(result.files)} results", cure="name one of them"
        )
    return np.asarray(_stored.names(result.files[0].root["obs"]))


@functools.cache
def _widget() -> Any:
    """The widget's class; made once anywidget is known to be there."""
    anywidget, traitlets = (importlib.import_module(name) for name in ("anywidget", "traitlets"))

    def __init__(self: Any, *, page: str, height_px: int, rows: list[Any], names: Any) -> None:
        self._rows, self._names = rows, names
        anywidget.AnyWidget.__init__(self, page=page, height_px=height_px)

    def selected(self: Any) -> Any:
        """Names of the selected cells."""
        return self._names[np.asarray(self.selection, dtype=np.intp)]

    def selected_mask(self: Any) -> Any:
        """True for the selected cells, bool [n_obs]."""
        mask = np.zeros(len(self._names), dtype=bool)
        mask[np.asarray(self.selection, dtype=np.intp)] = True
        return mask

    def known(self: Any, proposal: Any) -> list[int]:
        """Rows of the table, each once."""
        found: list[int] = np.unique(_within(proposal["value"], len(self._names))).tolist()
        return found

    def by_section(self: Any, proposal: Any) -> dict[str, list[int]]:
        """Rows of sections that there are."""
        given = {str(k): v for k, v in proposal["value"].items() if str(k).isdecimal() and int(k) < len(self._rows)}
        return {k: _within(v, len(self._rows[int(k)])).tolist() for k, v in given.items()}

    def picked_there(self: Any, change: Any) -> None:
        """The page has selected: the table's rows."""
        found = [self._rows[int(k)][np.asarray(v, dtype=np.intp)] for k, v in change["new"].items()]
        self.selection = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *found])).tolist()

    def picked_here(self: Any, change: Any) -> None:
        """Python has selected: rows by section, for the page."""
        wanted = np.asarray(change["new"], dtype=np.int64)
        self.picked = {str(k): np.flatnonzero(np.isin(rows, wanted)).tolist() for k, rows in enumerate(self._rows)}

    body = {
        "__doc__": "The page of a section; ``selection`` holds the rows that are selected in it.",
        "__module__": __name__,
        "__init__": __init__,
        "_esm": ESM,
        "page": traitlets.Unicode().tag(sync=True),
        "height_px": traitlets.Int(720).tag(sync=True),
        "picked": traitlets.Dict().tag(sync=True),
        "selection": traitlets.List(traitlets.Int()),
        "selected": property(selected),
        "selected_mask": property(selected_mask),
        "_known": traitlets.validate("selection")(known),
        "_by_section": traitlets.validate("picked")(by_section),
        "_picked_there": traitlets.observe("picked")(picked_there),
        "_picked_here": traitlets.observe("selection")(picked_here),
    }
    return type("Viewer", (anywidget.AnyWidget,), body)


def _within(rows: Any, n: int) -> np.ndarray[Any, Any]:
    """Row numbers below ``n``."""
    found = np.asarray(rows, dtype=np.int64).ravel()
    if len(found) and not (found.min() >= 0 and found.max() < n):
        raise _check.problem("there is no such row", found=f"{found.min()} to {found.max()} of {n}", cure="name rows")
    return found
