"""Where everything lies. The one place in which result paths are built."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths below `results_dir` (what rules write) and `data_dir` (big raw data), as strings for Snakemake.

    Arguments may be names or wildcards in braces: `layout.tissue("{cohort}", "{shard}")`.
    """

    results_dir: str
    data_dir: str

    def _at(self, *parts: str) -> str:
        return str(Path(self.results_dir, *parts))

    def manifest(self, cohort: str) -> str:
        return self._at("cohorts", cohort, "manifest.tsv")

    def shard(self, cohort: str, shard: str) -> str:
        return self._at("cohorts", cohort, "shards", f"{shard}.tsv")

    def slides(self, cohort: str, shard: str) -> str:
        return self._at("slides", cohort, f"{shard}.tsv")

    def again(self, *parts: str) -> str:
        """`again/{attempt}/`, what later runs tried again of slides that had been unavailable, or a file in it."""
        return self._at("again", *parts)

    def raw(self, cohort: str) -> str:
        return str(Path(self.data_dir, cohort))

    def tissue(self, cohort: str, shard: str) -> str:
        return self._at("tissue", cohort, f"{shard}.parquet")

    def tissue_index(self, cohort: str) -> str:
        return self._at("tissue", cohort, "index.parquet")

    def tissue_masks(self, cohort: str) -> str:
        """The masks of the index, in the form that training reads."""
        return self._at("tissue", cohort, "index.masks")

    def tissue_page(self, cohort: str) -> str:
        return self._at("tissue", cohort, "qc.html")

    def tiles(self, tileset: str, *parts: str) -> str:
        """`tiles/{tileset}/`, a set of tiles drawn beforehand, or a file in it (`index.arrow`, `plan.json`, …)."""
        return self._at("tiles", tileset, *parts)

    def tile_list(self, name: str) -> str:
        """The images of a folder of tiles that runs train on."""
        return self._at("tile_folders", f"{name}.tiles.parquet")

    def model(self, run: str, name: str = "") -> str:
        """`models/{run}/` or one file in it (`teacher.safetensors`, `model.json`, `metrics.jsonl`, …)."""
        return self._at("models", run, name) if name else self._at("models", run)

    def embeddings(self, model: str, size: str, task: str) -> str:
        return self._at("embeddings", model, size, task)

    def embedding_index(self, model: str, size: str, task: str) -> str:
        """Written last: embeddings are complete when it is there."""
        return str(Path(self.embeddings(model, size, task), "index.json"))

    def prepared(self, dataset: str) -> str:
        """What is there of a downstream data set, named as the first task that reads it."""
        return self._at("prepared", f"{dataset}.json")

    def score(self, model: str, size: str, pooling: str, task: str) -> str:
        return self._at("scores", model, size, pooling, f"{task}.json")

    def features(self, model: str, cohort: str, *parts: str) -> str:
        """`features/{model}/{cohort}/`, of whole slides, or a file in it (`{shard}.tsv`, `slides.tsv`)."""
        return self._at("features", model, cohort, *parts)

    def table(self, name: str) -> str:
        return self._at("tables", name)

    def figure(self, name: str) -> str:
        return self._at("figures", name)

    def asked(self) -> str:
        """What the last run was asked for: read by the summary."""
        return self._at("asked.json")

    def report(self) -> str:
        return self._at("report.html")

    def log(self, *parts: str) -> str:
        return self._at("logs", *parts) + ".log"

    def benchmark(self, *parts: str) -> str:
        return self._at("benchmarks", *parts) + ".tsv"
