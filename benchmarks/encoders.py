"""Encoders of morphology: how many tiles a second, how long ``self`` learns, what each adds on her2st A1.

From the shell, for one of them:

    python benchmarks/encoders.py --rate
    python benchmarks/encoders.py --learning
    python benchmarks/encoders.py --added texture --seeds 5
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import _measure
import _scores
import numpy as np
from _datasets import FOLDER, SECTIONS, scored, true_number

#: multiplications and additions of ResNet50 on 224 x 224 pixels: 4.09 thousand million of each
RESNET50_GFLOP = 8.18
TILES, ROUNDS, BATCH = 41, 3, 41
SECTION = "her2st_A1"
MOBILENET = FOLDER / "mobilenet_v1" / "mobilenet_v1_0.75_224.npz"
#: encoder -> options of embed; None: no image
ENCODERS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "texture": {},
    "self": {},
    "mobilenet_v1": {"weights": MOBILENET},
    "mobilenet_v1, 250 um": {"weights": MOBILENET, "tile_um": 250.0},
}


# -- speed ---------------------------------------------------------------------------------------------------


def rates() -> list[dict[str, Any]]:
    """Tiles a second through one ResNet50 of random weights, in this process with torch's own number of threads.

    The ways take turns and the best round of each counts, so that other work on the machine weighs on all alike.
    """
    import torch

    from smeld.nn import _encoder, _encoder_libraries

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model = _encoder_libraries.timm().create_model("resnet50", pretrained=False, num_classes=0).eval()
    tiles = np.random.default_rng(0).integers(0, 256, (BATCH, 224, 224, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        files = _tile_files(Path(folder), tiles)
        alone = _one_at_a_time(torch)
        runner = _encoder.Runner(_encoder.Network(model, _encoder.Scaling(), 224), "cpu")
        best = {"matmul": 0.0, "batched": 0.0, "one at a time": 0.0, "as stLearn": 0.0}
        for _ in range(ROUNDS):
            best["matmul"] = max(best["matmul"], _matmul_gflops(torch))
            best["batched"] = max(best["batched"], _rate(lambda: runner(tiles), len(tiles), TILES))
            best["one at a time"] = max(best["one at a time"], _rate(lambda: runner(tiles[:1]), 1, 8))
            best["as stLearn"] = max(best["as stLearn"], _rate(lambda: alone(files), len(files), len(files)))
    limit = best["matmul"] / RESNET50_GFLOP
    threads = torch.get_num_threads()
    rows = [
        ("smeld, 41 tiles at a time", best["batched"]),
        ("smeld, one tile at a time", best["one at a time"]),
        ("stLearn 1.4.1's way: a file a tile, one at a time", best["as stLearn"]),
        (f"the machine's limit: {best['matmul']:.0f} GFLOP/s in products of matrices, {RESNET50_GFLOP} a tile", limit),
    ]
    return [{"how": how, "threads": threads, "tiles_per_s": rate, "share_of_limit": rate / limit} for how, rate in rows]


def _tile_files(folder: Path, tiles: np.ndarray, n: int = 8) -> list[Path]:
    from PIL import Image

    paths = [folder / f"{i}.jpeg" for i in range(n)]
    for path, tile in zip(paths, tiles):
        Image.fromarray(tile).save(path)
    return paths


def _one_at_a_time(torch: Any) -> Any:
    """stLearn 1.4.1's loop: open the tile's file, torchvision's transform, a batch of one, ResNet50 of torchvision."""
    from PIL import Image
    from torchvision import models, transforms

    model = models.resnet50(weights=None)
    model.fc = torch.nn.Identity()
    model.eval()
    prepare = transforms.Compose([transforms.ToTensor(), models.ResNet50_Weights.IMAGENET1K_V1.transforms()])

    def run(paths: list[Path]) -> list[np.ndarray]:
        found = []
        for path in paths:
            with Image.open(path) as opened, torch.inference_mode():
                tile = np.asarray(opened, dtype=np.float32)
                found.append(model(prepare(tile)[None]).numpy()[0])
        return found

    return run


def _rate(run: Any, each: int, tiles: int) -> float:
    run()
    started, done = time.perf_counter(), 0
    while done < tiles:
        run()
        done += each
    return done / (time.perf_counter() - started)


def _matmul_gflops(torch: Any, side: int = 2048) -> float:
    a = torch.randn(side, side)
    a @ a
    started = time.perf_counter()
    for _ in range(4):
        a @ a
    return float(4 * 2 * side**3 / (time.perf_counter() - started) / 1e9)


def learning(n_obs: int = 4000) -> list[dict[str, Any]]:
    """Seconds that ``self`` takes for a simulated section, learning and features together."""
    import smeld as sm

    warnings.simplefilter("ignore")
    adata = sm.datasets.simulate(n_obs, 50, seed=0)
    started = time.perf_counter()
    sm.morph.embed(adata, "self", quiet=True)
    return [{"tiles": n_obs, "seconds": time.perf_counter() - started}]


# -- what they add -------------------------------------------------------------------------------------------


def added(name: str, seeds: list[int]) -> dict[str, Any]:
    """Domains of A1 with this encoder's features, against the pathologist's regions, over seeds.

    ``ari``: the default fusion, which lets morphology in only where it predicts held-out counts; ``ari_fixed``: fixed
    weights; ``ari_alone``: k-means on ten components of the features alone; ``regions_told``: share of spots whose
    region a logistic regression on thirty components tells in parts of the section it has not seen.
    """
    import smeld as sm

    warnings.simplefilter("ignore")
    whole = SECTIONS[SECTION].read()
    runs = []
    embedded: dict[int, Any] = {}
    for seed in seeds:
        learns = name == "self"
        options = ENCODERS[name]
        adata, key = whole.copy(), None
        if options is not None:
            if learns or not embedded:
                embedded[seed if learns else 0] = sm.morph.embed(
                    whole.copy(), name.partition(",")[0], seed=seed, quiet=True, **options
                )
            result = embedded[seed if learns else 0]
            adata.obsm[result.key], key = result.features.loc[adata.obs_names], result.key
        runs.append(_one_seed(adata, key, seed))
    return {
        "encoder": name,
        **{k: float(np.mean([r[k] for r in runs])) for k in runs[0]},
        "runs": runs,
    }


def _one_seed(adata: Any, key: str | None, seed: int) -> dict[str, float]:
    import smeld as sm

    keep, truth = scored(adata), adata.obs["truth"].astype(str).to_numpy()
    found: dict[str, float] = {}
    for column, options in (("ari", {}), ("ari_fixed", {"evidence": False})):
        one = adata.copy()
        fusion = sm.fuse(one, seed=seed, morphology=key, **options)
        sm.tl.domains(one, true_number(adata), seed=seed)
        found[column] = _scores.ari(truth[keep], one.obs["domain"].astype(str).to_numpy()[keep])
        if column == "ari":
            found["let_in"] = float(fusion.facts["gamma"] + fusion.facts["n_morphology"] > 0)
    if key is not None:
        found |= _alone(adata.obsm[key].to_numpy(), adata.obsm["spatial_um"], truth, keep, seed)
    return found


def _alone(features: np.ndarray, xy: np.ndarray, truth: np.ndarray, keep: np.ndarray, seed: int) -> dict[str, float]:
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import scale

    z = scale(features[:, features.std(axis=0) > 0])
    few = PCA(min(10, z.shape[1]), random_state=0).fit_transform(z)
    groups = KMeans(len(np.unique(truth[keep])), random_state=seed, n_init=10).fit_predict(few)
    many = 0.3 * scale(PCA(min(30, z.shape[1]), random_state=0).fit_transform(z))
    part = KMeans(8, random_state=seed, n_init=5).fit_predict(xy)
    right = 0
    for one in range(8):
        learn, ask = keep & (part != one), keep & (part == one)
        if ask.any():
            right += int(
                (LogisticRegression(max_iter=500).fit(many[learn], truth[learn]).predict(many[ask]) == truth[ask]).sum()
            )
    return {
        "ari_alone": _scores.ari(truth[keep], groups[keep].astype(str)),
        "regions_told": right / int(keep.sum()),
    }


# -- for run.py ----------------------------------------------------------------------------------------------


def measure(*, seeds: int = 5) -> dict[str, list[dict[str, Any]]]:
    """Tables by key: ``encoder_rate``, ``encoder_learning``, ``encoder_added``; each part in a process of its own."""
    tables: dict[str, list[dict[str, Any]]] = {
        "encoder_rate": _in_child(["--rate"], threads=None),
        "encoder_learning": _in_child(["--learning"], threads=None),
        "encoder_added": [],
    }
    if SECTIONS[SECTION].absent:
        return tables
    for name, options in ENCODERS.items():
        if options and "weights" in options and not Path(options["weights"]).exists():
            continue
        row = _in_child(["--added", name, "--seeds", str(seeds)], threads=1)
        row.pop("runs", None)
        tables["encoder_added"].append(row)
    return tables


def _in_child(arguments: list[str], *, threads: int | None) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return _measure.run_json("encoders.py", arguments, Path(folder), threads=threads, timeout=3600)[0]
        except _measure.Failed as error:
            failed = {"note": f"not measured: {error}"}
            return {"encoder": arguments[1], **failed} if arguments[0] == "--added" else [failed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", action="store_true")
    parser.add_argument("--learning", action="store_true")
    parser.add_argument("--added", choices=list(ENCODERS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    if options.rate:
        found: Any = rates()
    elif options.learning:
        found = learning()
    else:
        found = added(options.added, list(range(options.first_seed, options.first_seed + options.seeds)))
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
