"""``python _write_section.py NAME FILE.npz``: a section for peers, its K and its labels as JSON on standard output."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

from _datasets import SECTIONS, scored, true_number, write_npz


def main(name: str, path: str) -> None:
    warnings.simplefilter("ignore")
    adata = SECTIONS[name].read()
    write_npz(adata, Path(path))
    truth = [str(t) if s else "" for t, s in zip(adata.obs["truth"], scored(adata))]
    json.dump({"k": true_number(adata), "truth": truth}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
