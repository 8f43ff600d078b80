"""t-SNE maps of a task's embeddings."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from midnight.errors import MidnightError
from midnight.report.figures import style

MAX_POINTS = 1000


def read_embeddings(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features float [N, 2D] and classes str [N] of `embeddings/{model}/{size}/{task}/`.

    A class is called as the index says, else like its folder where images lie in one folder per class, else "class 0".

    Raises:
        MidnightError: the task has no classes, or their number is not the features'.
    """
    features = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
    samples = pd.read_parquet(folder / "samples.parquet")
    if "target" not in samples or samples["target"].isna().any():
        raise MidnightError(f"{folder}/samples.parquet: has no classes; choose a classification task for t-SNE")
    if len(samples) != len(features):
        raise MidnightError(f"{folder}: {len(features)} features but {len(samples)} samples; embed the task again")
    index = folder / "index.json"
    names = json.loads(index.read_text(encoding="utf-8")).get("classes") if index.is_file() else None
    return features, np.array(names)[samples["target"].astype(int)] if names else _classes(samples)


def _classes(samples: pd.DataFrame) -> np.ndarray:
    targets = samples["target"].astype(int)
    folders = samples["name"].astype(str).map(lambda name: Path(name).parent.name)
    named = pd.DataFrame({"target": targets, "folder": folders}).drop_duplicates()
    if len(named) == targets.nunique() == folders.nunique() and folders.ne("").all():
        return folders.to_numpy(dtype=str)
    return targets.map("class {}".format).to_numpy(dtype=str)


def embed_2d(features: np.ndarray, seed: int) -> np.ndarray:
    """Seeded t-SNE of float [N, D] (standardised, at most 50 principal components first) to float [N, 2]."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    values = features.astype(np.float64)
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-9)
    kept = min(50, *values.shape)
    values = PCA(kept, random_state=seed, svd_solver="full").fit_transform(values)
    perplexity = min(30.0, max(1.0, (len(values) - 1) / 3))
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(values)


def draw_tsne(
    embeddings: Mapping[str, tuple[np.ndarray, np.ndarray]],
    output: Path,
    task: str,
    seed: int = 0,
) -> None:
    """One map per model, points coloured by class.

    Args:
        embeddings: model's label: (features float [N, D], class labels [N]), e.g. from `read_embeddings`.
        output: `tsne-{task}.png` or `.svg`.
        task: name for the title.
        seed: of the subsample (at most 1000 points, the same for all models of equal size) and of t-SNE.
    """
    title = f"t-SNE of {task}"
    if not embeddings or min(len(features) for features, _ in embeddings.values()) < 5:
        style.missing(output, title, f"Too few embeddings of {task} for t-SNE.")
        return
    known = sorted({label for _, labels in embeddings.values() for label in labels.tolist()})
    with style.figure(style.WIDTH / 2 * -(-len(embeddings) // 2) + 0.7) as drawn:
        axes = drawn.subplots(-(-len(embeddings) // 2), 2, squeeze=False)
        for axis in axes.flat[len(embeddings) :]:
            axis.axis("off")
        for axis, (name, (features, labels)) in zip(axes.flat, embeddings.items(), strict=False):
            points, shown = _sample(features, labels, seed)
            places = embed_2d(points, seed)
            for i, label in enumerate(known):
                colour = style.PALETTE[i % len(style.PALETTE)]
                axis.scatter(*places[shown == label].T, s=7, color=colour, alpha=0.8, linewidths=0)
            axis.set(title=name, xticks=[], yticks=[])
            axis.spines[:].set(visible=True, color="#d5d8de")
        names = [str(label) for label in known]
        marks = [
            axes[0, 0].scatter([], [], s=18, color=style.PALETTE[i % len(style.PALETTE)]) for i in range(len(known))
        ]
        drawn.legend(marks, names, loc="outside lower center", ncols=min(len(known), 4), handletextpad=0.2)
        alt = f"t-SNE maps of {task} for {', '.join(embeddings)}, coloured by {len(known)} classes: {', '.join(names)}."
        style.save(drawn, output, title, alt, f"CLS+Mean embeddings; seed {seed}; at most {MAX_POINTS} images.")


def _sample(features: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    keep = np.sort(np.random.default_rng(seed).permutation(len(features))[:MAX_POINTS])
    return features[keep], labels[keep]
