import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import yaml

from midnight.config import Evaluation
from midnight.errors import ConfigError
from midnight.evaluate import registry
from midnight.evaluate.entries import Model

COLUMNS = {"pc10", "bach", "brcs", "bkhs", "crc", "glsn", "mhst", "pc", "c16", "pnd", "cnsp", "mnsc", "hest"}
TASK = """
tasks:
  mine:
    kind: tile
    label: Mine
    column: mine
    metric: MulticlassAccuracy
    scored: val
    classes: 2
    dataset: {class_path: eva.vision.data.datasets.BACH, root: mine, splits: {train: train, val: val}}
    protocols:
      paper:
        runs: 2
        max_steps: 10
        batch_size: 4
        lr: 0.001
        weight_decay: 0.01
        scheduler: {name: ConstantLR, args: {factor: 1.0}}
        patience: 3
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "registry.yaml"
    path.write_text(text)
    return path


def test_the_papers_columns_are_all_there_and_demo_has_some_of_them() -> None:
    tasks = registry.configured_tasks(Evaluation())
    assert {task.column for task in tasks.values()} == COLUMNS
    assert sum(task.column == "hest" for task in tasks.values()) == 9
    assert len(tasks) == 12 + 9
    demo = registry.configured_tasks(Evaluation(protocol="demo"))
    assert {task.column for task in demo.values()} == {"bach", "pc10", "cnsp", "hest"}
    assert all(task.data == "demo" for task in demo.values())
    assert set(registry.configured_tasks(Evaluation(protocol="eva-default"))) == set(tasks)
    assert list(registry.configured_tasks(Evaluation(tasks="all"))) == list(tasks)
    assert registry.configured_tasks(Evaluation(tasks=[])) == {}, "[] is none; it used to mean all"


@pytest.mark.parametrize(
    ("task", "runs", "patience", "lr"),
    [
        ("pcam-10shot", 50, 9, 3e-4),
        ("bach", 5, 12500, 3e-4),
        ("camelyon16-small", 5, 10, 1e-3),
        ("panda-small", 20, 8, 1e-3),
        ("consep", 5, 12500, 2e-3),
        ("monusac", 20, 12500, 2e-3),
    ],
)
def test_values_of_the_paper(task: str, runs: int, patience: int, lr: float) -> None:
    values = registry.select_tasks([task], "paper")[task].values
    assert (values.runs, values.patience, values.lr) == (runs, patience, lr)
    assert values.weight_decay == 0.01
    assert values.scheduler.name != "ConstantLR"


def test_ten_shots_leave_ten_tiles_per_class_to_each_run() -> None:
    for protocol in ("paper", "eva-default"):
        assert registry.select_tasks(["pcam-10shot"], protocol)["pcam-10shot"].values.shots == 10


def test_every_row_of_table_a1_has_a_model(repository: Path) -> None:
    rows = (repository / "src/midnight/report/published/tablea1.csv").read_text().splitlines()[1:]
    published = {row.split(",")[0] for row in rows if row}
    assert published == {model.published for model in registry.load_models().values()} - {None}


def test_sizes_registers_and_gates_of_the_published_rows() -> None:
    rows = [model for model in registry.load_models().values() if model.published]
    assert all(model.sizes == [int((model.published or "").partition("/")[2] or 224)] for model in rows)
    zoo = {model.published: model for model in rows if model.source in ("eva", "timm")}
    registers = {name: model.registers for name, model in zoo.items() if model.registers}
    assert registers == {"UNI-2": 8, "UNI-2/392": 8, "Virchow2": 4, "H-Optimus-0": 4, "Hibou-L": 4}
    gated = {name for name, model in zoo.items() if model.gate}
    assert gated == {"UNI", "UNI/512", "UNI-2", "UNI-2/392", "Virchow2", "Prov-GigaPath", "Hibou-L"}
    assert all(model.licence for model in zoo.values())
    halves = {name for name, model in zoo.items() if model.mean == model.std == (0.5, 0.5, 0.5)}
    assert halves == {"Midnight-12k", "Kaiko-B8", "vitg14 (nat. img.)"}
    natural = zoo["vitg14 (nat. img.)"]
    assert (natural.model_name, natural.registers) == ("vit_giant_patch14_dinov2.lvd142m", 0)
    kinds = {model.published: model.source for model in rows if model.published not in zoo}
    assert kinds == {"Midnight-92k": "run", "Midnight-92k/392": "run", "tcga-100M": "run", "vitg14 (initial)": "init"}


def test_names_of_the_zoo_are_those_of_the_libraries() -> None:
    eva = Path(find_spec("eva").submodule_search_locations[0]) / "vision/models/networks/backbones/pathology"
    code = "".join(path.read_text() for path in eva.glob("*.py"))
    names = {model.model_name for model in registry.load_models().values() if model.source == "eva"}
    assert len(names) == 11
    assert all(f'register("{name}")' in code for name in names)


VARIANT = "  {name}: {{variant_of: {of}, perturb: {perturb}}}\n"


def test_a_variant_is_one_entry_that_only_its_name_selects(tmp_path: Path) -> None:
    path = write(
        tmp_path, TASK + VARIANT.format(name="theirs", of="mine", perturb="{hed_sigma: 0.1, magnification: 2}")
    )
    chosen = registry.select_tasks(["theirs"], "paper", path)
    assert list(chosen) == ["mine", "theirs"]
    assert chosen["theirs"].label == "Mine, stain σ 0.1, magnification × 2"
    assert chosen["theirs"].column == "theirs"
    assert registry.default_tasks("paper", path) == ["mine"]
    known = registry.load_tasks()
    variants = [name for name, task in known.items() if task.variant_of]
    assert len(variants) == 8 * 3
    assert {known[name].variant_of for name in variants} >= {"bach", "pcam", "demo-bach"}


@pytest.mark.parametrize(
    ("of", "perturb", "words"),
    [
        ("nobody", "{hed_sigma: 0.1}", "variant_of: 'nobody' is no tile task"),
        ("theirs", "{hed_sigma: 0.1}", "variant_of: 'theirs' is no tile task"),
        ("mine", "{}", "perturb: changes nothing"),
        ("mine", "{hed_sigma: 0.9}", "perturb.hed_sigma"),
        ("mine", "{magnification: 0.5}", "perturb.magnification"),
        ("mine", "{sigma: 0.5}", "'sigma'"),
        ("mine", "{hed_sigma: 0.1}, scored: val", "'scored'"),
    ],
)
def test_a_wrong_variant_is_named_with_its_key(tmp_path: Path, of: str, perturb: str, words: str) -> None:
    path = write(tmp_path, TASK + VARIANT.format(name="theirs", of=of, perturb=perturb))
    with pytest.raises(ConfigError, match=r"tasks\.theirs") as caught:
        registry.load_tasks(path)
    assert words in str(caught.value)


def test_models_by_default_are_those_of_the_zoo_and_of_the_runs() -> None:
    models = registry.select_models(None, ["midnight-12k"])
    assert registry.select_models("all", ["midnight-12k"]) == models
    assert registry.select_models([], ["midnight-12k"]) == {}
    assert {"midnight-12k", "vitg14-initial", "uni", "colour-statistics"} <= set(models)
    assert not {"demo", "local", "midnight-92k"} & set(models)
    assert list(registry.select_models(["demo-random", "demo"], ["demo"])) == ["demo-random", "demo"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    metric:", "    perturb: {hed_sigma: 0.1}\n    metric:", "tasks.mine.perturb: only a variant"),
        ("kind: tile", "kind: tyle", "tasks.mine: kind"),
        ("label: Mine", "lable: Mine", "'lable'"),
        ("    metric: MulticlassAccuracy\n", "", "'metric'"),
        ("weight_decay: 0.01", "weight_decay: -1", "protocols.paper.weight_decay"),
        ("        weight_decay: 0.01\n", "", "'weight_decay'"),
        ("max_steps: 10", "max_steps: 10\n        max_epochs: 2", "exactly one of 'max_steps' and 'max_epochs'"),
        ("splits: {train: train, val: val}", "splits: {train: train}", "splits: missing key 'val'"),
        ("scored: val", "scored: test", "splits: missing key 'test'"),
        ("class_path: eva.vision.data.datasets.BACH, ", "", "'class_path'"),
        ("tasks:", "task:", "'task'"),
    ],
)
def test_a_wrong_task_is_named_with_its_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = write(tmp_path, TASK.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        registry.load_tasks(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value).splitlines()[0]


def test_a_task_is_one_entry(tmp_path: Path) -> None:
    task = registry.select_tasks(["mine"], "paper", write(tmp_path, TASK))["mine"]
    assert task.values.max_steps == 10
    assert task.monitor == "val/MulticlassAccuracy"


def test_unknown_names_and_protocols(tmp_path: Path) -> None:
    path = write(tmp_path, TASK)
    with pytest.raises(ConfigError, match=r"evaluation\.tasks: no task 'yours'.*known: mine"):
        registry.select_tasks(["yours"], "paper", path)
    with pytest.raises(ConfigError, match=r"task 'mine' has no protocol 'eva-default'; it has: paper"):
        registry.select_tasks(["mine"], "eva-default", path)
    with pytest.raises(ConfigError, match=r"evaluation\.models: no model 'nobody'"):
        registry.select_models(["nobody"], [])
    with pytest.raises(ConfigError, match=r"'demo' is of run 'demo', not among runs: other"):
        registry.select_models(["demo"], ["other"])


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{source: run, label: A, sizes: [14]}", "needs the key 'run'"),
        ("{source: eva, label: A, sizes: [14], model_name: x}", "needs the key 'mean'"),
        ("{source: run, run: b, label: A, sizes: [14]}", "called like its run"),
        ("{source: dir, path: x, label: A, sizes: []}", "sizes"),
        ("7", "models.a: must be a mapping"),
    ],
)
def test_a_wrong_model_is_named_with_its_key(tmp_path: Path, entry: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        registry.load_models(write(tmp_path, f"models:\n  a: {entry}\n"))


def test_weights_of_a_configuration_are_models_with_their_random_init() -> None:
    weights = {"uni": "/w/uni", "b": {"path": "/w/b.pth", "mean": [0.5, 0.5, 0.5], "sizes": [98], "label": "B"}}
    models = registry.select_models(None, [], weights=weights)
    assert list(models) == ["uni", "uni-random", "b", "b-random"]
    assert [(m.source, m.path, m.sizes) for m in models.values()] == [
        ("weights", "/w/uni", [224]),
        ("random", "/w/uni", [224]),
        ("weights", "/w/b.pth", [98]),
        ("random", "/w/b.pth", [98]),
    ]
    assert models["b-random"].mean == (0.5, 0.5, 0.5)
    assert models["b-random"].label == "B, random init"
    chosen = registry.select_models(["colour-statistics", "uni"], [], weights=weights)
    assert list(chosen) == ["colour-statistics", "uni", "uni-random", "b", "b-random"]
    assert registry.find_model("uni", weights).path == "/w/uni"
    assert registry.find_model("uni").source == "eva"
    single = registry.own_models({"r": {"source": "random", "path": "/w"}, "z": {"source": "dir", "path": "/z"}})
    assert [model.source for model in single.values()] == ["random", "dir"]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"a/b": "/w"}, "evaluation.weights.a/b: a name of a model"),
        ({"a": {"pth": "/w"}}, "'pth'"),
        ({"a": {"mean": [1, 1, 1]}}, "evaluation.weights.a: a model of source 'weights' needs the key 'path'"),
        ({"a": 7}, "evaluation.weights.a: path: 7 is not"),
    ],
)
def test_wrong_weights_are_named_with_their_key(weights: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.own_models(weights)
    assert words in str(caught.value)


def test_changed_weights_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    folder, file = (Model("weights", "W", [14], path=str(path)) for path in (tmp_path, tmp_path / "model.safetensors"))
    before = [registry.look_at(model) for model in (folder, file)]
    assert [[entry[1] for entry in look] for look in before] == [[3], [3]]
    (tmp_path / "model.safetensors").write_bytes(b"abcd")
    assert all(registry.look_at(model) != look for model, look in zip((folder, file), before, strict=True))
    assert registry.look_at(Model("weights", "W", [14], path=str(tmp_path / "absent"))) == []


def test_embeddings_depend_on_the_images_only() -> None:
    tasks = registry.load_tasks()
    assert registry.data_settings(tasks["pcam"]) == registry.data_settings(tasks["pcam-10shot"])
    assert registry.data_settings(tasks["pcam"]) != registry.data_settings(tasks["bach"])


def test_schemas_accept_the_files(repository: Path) -> None:
    for name in ("tasks", "models"):
        content = yaml.safe_load((repository / "config" / f"{name}.yaml").read_text())
        jsonschema.validate(content, registry.registry_schema(name))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(content | {"extra": 1}, registry.registry_schema(name))


def test_the_registry_is_light() -> None:
    heavy = "('torch', 'eva', 'pandas', 'sklearn', 'numpy')"
    code = (
        f"import sys, midnight.evaluate.registry as r; r.load_tasks(); print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_schema_files_are_those_of_the_code(repository: Path, tmp_path: Path) -> None:
    for path in registry.write_schemas(tmp_path):
        assert (repository / "config" / "schemas" / path.name).read_text() == path.read_text()


def test_folders_of_a_configuration_are_tasks_by_their_names(tmp_path: Path) -> None:
    folders = {"lung": str(tmp_path / "lung"), "Polyps.2": "polyps.csv"}
    own = Evaluation(folders=folders)
    tasks = registry.configured_tasks(own)
    assert list(tasks) == ["lung", "Polyps.2"]
    roots = {name: task.dataset.root for name, task in tasks.items()}
    assert roots == {"lung": str(tmp_path / "lung"), "Polyps.2": str(Path("polyps.csv").absolute())}
    assert {(task.name, task.label, task.column) for task in tasks.values()} == {(name,) * 3 for name in folders}
    assert not any(registry.is_paper(task) for task in tasks.values())
    registered = registry.load_tasks()["folder"]
    assert tasks["lung"].protocols["paper"] == registered.protocols["paper"]
    assert not registered.is_own and tasks["lung"].is_own
    with_others = Evaluation(tasks=["bach", "lung"], folders=folders)
    assert list(registry.configured_tasks(with_others)) == ["bach", "lung", "Polyps.2"]
    everything = registry.configured_tasks(Evaluation(tasks="all", folders=folders))
    assert list(everything) == [*registry.configured_tasks(Evaluation()), *folders]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["a/b"], "'a/b' is no name: use letters"),
        ([""], "'' is no name"),
        (["bach"], "'bach' is the name of another task or column"),
        (["HEST"], "'HEST' is the name of another task or column"),  # a column of the paper's table
        (["lung", "Lung"], "'Lung' is the name of another task or column"),
    ],
)
def test_names_of_folders_that_can_not_be_tasks(names: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"evaluation.folders: {problem}"):
        registry.configured_tasks(Evaluation(folders=dict.fromkeys(names, "/x")))


@pytest.mark.parametrize(("name", "source"), [("mine", "run"), ("mine-random", "init")])
def test_a_run_without_an_entry_is_told_which_line_to_add(name: str, source: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no entry in") as caught:
        registry.select_models([name], ["mine"])
    line = re.search(r"add the line (.+}), with", str(caught.value))
    assert line
    entry = yaml.safe_load(line[1])
    assert entry[name]["source"] == source and entry[name]["run"] == "mine"
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump({"models": entry}))
    assert list(registry.select_models([name], ["mine"], path)) == [name]
