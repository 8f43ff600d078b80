"""`midnight`: what a person runs by hand. The workflow itself is `snakemake`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from midnight import __version__
from midnight.commands.bench import add_bench
from midnight.commands.init import add_init
from midnight.config import (
    Config,
    Evaluation,
    Features,
    Tissue,
    build,
    load_config,
    load_recipe,
    plain,
    read_yaml,
)
from midnight.config.recipes import find_recipe, recipe_lines
from midnight.errors import MidnightError
from midnight.home import project_file
from midnight.logs import end_of, leave_at_once, sigterm_as_interrupt
from midnight.options import add_config, add_force, add_rates, add_training, add_weights, assigned, positive

if TYPE_CHECKING:
    from midnight.evaluate.entries import Model

SEGMENTERS = get_args(get_type_hints(Tissue)["segmenter"])
POOLINGS = get_args(get_type_hints(Features)["pooling"])
ACCELERATORS = get_args(get_type_hints(Evaluation)["accelerator"])
FOREGROUND = "least share of tissue in a tile (default: %(default)s)"
WEIGHTS = (
    "weights: a run's folder or one of its checkpoints/step_*, a file of DINOv2's hub, a folder of timm or Hugging Face"
)
TILES = (
    "folder with a sub-folder of images per class (or train, val, test with these), or a CSV: path,label[,split,group]"
)
Commands = Any  # argparse's own class of `add_subparsers` has no public name


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; a `MidnightError` is one line on standard error and exit status 1, Ctrl-C one and 130."""
    arguments = parser().parse_args(argv)
    leave_at_once()
    try:
        with sigterm_as_interrupt():
            arguments.run(arguments)
    except KeyboardInterrupt as interrupt:
        status = end_of(interrupt)
        sys.stdout.flush()
        os._exit(status)  # without waiting for threads that are reading or downloading
    except MidnightError as error:
        sys.exit(f"midnight: error: {error}")
    except BrokenPipeError:
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(prog="midnight", description=__doc__)
    top.add_argument("--version", action="version", version=f"midnight {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    groups = (_doctor_commands, _config_commands, _slides_commands, _tiles_commands, _tasks_commands, _model_commands)
    for add in (add_init, *groups, add_bench, _embed_command, _summary_commands):
        add(commands)
    return top


def _doctor_commands(commands: Commands) -> None:
    doctor = commands.add_parser("doctor", help="check this machine and say what to do about each failure")
    add_config(doctor)
    doctor.set_defaults(run=run_doctor)


def _config_commands(commands: Commands) -> None:
    config = commands.add_parser("config", help="show recipes, write JSON schemas").add_subparsers(
        required=True, metavar="COMMAND"
    )
    show = config.add_parser("show", help="print a recipe with everything resolved, and what a run of it takes")
    show.add_argument("recipe", help="a name from config/recipes/, a recipe's file, or with RUN a configuration's file")
    show.add_argument("of", metavar="RUN", nargs="?", help="a run of that configuration, with its overrides")
    add_rates(show)
    show.set_defaults(run=run_config_show)
    check = config.add_parser(
        "check", help="look for everything that is wrong in a configuration, before anything runs"
    )
    check.add_argument("configfile", type=Path, help="YAML file, e.g. config/local.yaml")
    check.set_defaults(run=run_config_check)
    recipes = config.add_parser("recipes", help="list the recipes, with a line on each")
    recipes.set_defaults(run=lambda _: print("\n".join(recipe_lines())))
    schemas = config.add_parser("schemas", help="write config/schemas/*.json from the dataclasses")
    schemas.set_defaults(run=run_config_schemas)


def _slides_commands(commands: Commands) -> None:
    slides = commands.add_parser("slides", help="query and pin slide manifests").add_subparsers(
        required=True, metavar="COMMAND"
    )
    pin = slides.add_parser("pin", help="write a cohort's manifest: what `manifest:` in the configuration can name")
    pin.add_argument("cohort", help="a cohort of the configuration")
    pin.add_argument("output", type=Path, help="TSV to write")
    add_force(pin)
    add_config(pin)
    pin.set_defaults(run=run_slides_pin)


def _tiles_commands(commands: Commands) -> None:
    tiles = commands.add_parser("tiles", help="look at tiles").add_subparsers(required=True, metavar="COMMAND")
    sheet = tiles.add_parser("show", help="contact sheet of accepted and rejected tiles of a slide")
    sheet.add_argument("slide", type=Path, help="any format that OpenSlide reads")
    sheet.add_argument("--recipe", default="midnight-12k", help="whose tile settings (default: %(default)s)")
    sheet.add_argument("--output", type=Path, default=Path("tiles.png"), help="PNG to write (default: %(default)s)")
    sheet.add_argument("--count", type=int, default=24, help="tiles of each kind (default: %(default)s)")
    sheet.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    sheet.add_argument("--mpp", type=positive, help="µm/px at level 0, for a slide that does not state it or is wrong")
    sheet.add_argument("--segmenter", choices=SEGMENTERS, help="how its tissue is found (default: hsv)")
    add_force(sheet)
    sheet.set_defaults(run=run_tiles_show)
    plan = tiles.add_parser("plan", help="disk and time of the tiles that a recipe draws beforehand")
    plan.add_argument("--recipe", default="tcga-100M", help="or a run of the configuration (default: %(default)s)")
    plan.add_argument("--cores", type=int, help="to state the hours for (default: this machine's)")
    plan.add_argument("--sample", type=int, default=256, help="tiles to measure on (default: %(default)s)")
    add_config(plan)
    plan.set_defaults(run=run_tiles_plan)


def _tasks_commands(commands: Commands) -> None:
    tasks = commands.add_parser("tasks", help="look at and fetch downstream data sets").add_subparsers(
        required=True, metavar="COMMAND"
    )
    status = tasks.add_parser("status", help="which data sets are complete, what is missing, how to get it")
    status.add_argument("--verify", action="store_true", help="also compare published md5s (reads whole files)")
    status.add_argument("--json", action="store_true", help="as JSON, with every missing file")
    add_config(status)
    status.set_defaults(run=run_tasks_status)
    prepare = tasks.add_parser("prepare", help="download data sets that need no form or account")
    prepare.add_argument("task", nargs="+", help="tasks of the configuration")
    add_config(prepare)
    prepare.set_defaults(run=run_tasks_prepare)


def _model_commands(commands: Commands) -> None:
    train = commands.add_parser("train", help="train one run of the configuration, with what it needs, and no more")
    add_training(train)
    add_config(train)
    train.set_defaults(run=run_train)
    export = commands.add_parser("export", help="a trained model for timm, transformers or kaiko-eva")
    export.add_argument("run_folder", type=Path, help="results/models/RUN, or one of its checkpoints/step_*")
    export.add_argument("output", type=Path, help="folder to write")
    export.add_argument("--to", choices=("timm", "hf", "eva"), required=True, help="hf: transformers' Dinov2Model")
    add_force(export)
    export.set_defaults(run=run_export)
    evaluate = commands.add_parser("evaluate", help="from weights and a folder of labelled tiles to a report")
    evaluate.add_argument("weights", nargs="+", help=f"{WEIGHTS}; or a name from config/models.yaml")
    evaluate.add_argument("--tiles", type=Path, required=True, help=TILES)
    evaluate.add_argument("--out", type=Path, help="folder of the results (default: results/evaluate/WEIGHTS)")
    evaluate.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="(default: %(default)s)")
    evaluate.add_argument("--config-only", action="store_true", help="write OUT/config.yaml and run nothing")
    add_weights(evaluate)
    add_force(evaluate)
    evaluate.set_defaults(run=run_evaluate)
    quick = commands.add_parser("quick-check", help="nearest neighbours and a linear probe of a model on a task")
    quick.add_argument("model", type=Path, help=WEIGHTS)
    add_weights(quick)
    quick.add_argument("--task", required=True, help="a tile or folder task of config/tasks.yaml")
    quick.add_argument("--json", action="store_true", help="print one JSON object")
    add_config(quick)
    quick.set_defaults(run=run_quick_check)


def _embed_command(commands: Commands) -> None:
    embed = commands.add_parser("embed", help="features of whole slides for MIL: one HDF5 file per slide")
    embed.add_argument("weights", help=f"{WEIGHTS}; or a name from config/models.yaml")
    embed.add_argument("slides", help="a folder of slides, a CSV with a column `path` (and optionally mpp), or a slide")
    embed.add_argument("output", type=Path, help="folder to write: h5_files/SLIDE.h5 and slides.tsv")
    cut, run = Features(), Evaluation()
    embed.add_argument("--mpp", type=positive, default=cut.mpp, help="µm/px of the tiles (default: %(default)s)")
    embed.add_argument("--size", type=int, default=cut.size, help="side of a tile, px (default: %(default)s)")
    embed.add_argument("--overlap", type=int, default=cut.overlap, help="px that tiles share (default: %(default)s)")
    embed.add_argument("--foreground", type=float, default=cut.foreground, help=FOREGROUND)
    embed.add_argument("--pooling", choices=POOLINGS, default=cut.pooling, help="(default: %(default)s)")
    embed.add_argument("--segmenter", choices=SEGMENTERS, default=Tissue().segmenter, help="(default: %(default)s)")
    embed.add_argument("--batch-size", type=int, default=run.batch_size, help="tiles (default: %(default)s)")
    embed.add_argument("--workers", type=int, default=run.workers, help="reading threads (default: %(default)s)")
    embed.add_argument("--accelerator", choices=ACCELERATORS, default=run.accelerator, help="(default: %(default)s)")
    add_force(embed)
    embed.set_defaults(run=run_embed)


def _summary_commands(commands: Commands) -> None:
    summary = commands.add_parser("summary", help="what a run has made: slides, scores, what failed, where it is")
    summary.add_argument("results", nargs="?", type=Path, help="results_dir (default: the newest below results)")
    summary.set_defaults(run=run_summary)


def _config(arguments: argparse.Namespace) -> Config:
    return load_config(read_yaml(arguments.configfile), str(arguments.configfile))


def run_doctor(arguments: argparse.Namespace) -> None:
    """`midnight doctor`."""
    from midnight.doctor import doctor

    doctor(_config(arguments))


def run_config_show(arguments: argparse.Namespace) -> None:
    """`midnight config show RECIPE`."""
    import yaml

    recipe = find_recipe(arguments.recipe, arguments.of)
    if not arguments.json:
        print(yaml.safe_dump(plain(recipe), sort_keys=False), end="", flush=True)
    # After the recipe is out, since importing torch takes seconds.
    from midnight.ssl.budget import as_dict, budget_of, rates_of
    from midnight.ssl.budget.text import describe

    rates = rates_of(arguments.gpu, arguments.mfu, arguments.price, arguments.watts, arguments.memory)
    budget = budget_of(recipe, rates)
    print(json.dumps({"recipe": plain(recipe), **as_dict(budget)}, indent=2) if arguments.json else describe(budget))


def run_config_check(arguments: argparse.Namespace) -> None:
    """`midnight config check CONFIG`."""
    from midnight.evaluate.start import read_start, summary

    print(summary(read_start(read_yaml(arguments.configfile), str(arguments.configfile))))


def run_config_schemas(_: argparse.Namespace) -> None:
    """`midnight config schemas`."""
    from midnight.config import schemas
    from midnight.evaluate import registry
    from midnight.evaluate.prepare import rules

    folder = project_file("config", "schemas")
    for path in [*schemas.write_schemas(folder), *registry.write_schemas(folder), rules.write_schema(folder)]:
        print(path)


def run_slides_pin(arguments: argparse.Namespace) -> None:
    """`midnight slides pin COHORT FILE`."""
    from midnight.slides.pin import check_pin, pin_manifest

    config = _config(arguments)
    if arguments.cohort not in config.cohorts:
        raise MidnightError(f"no cohort {arguments.cohort!r} in {arguments.configfile}; it has {list(config.cohorts)}")
    cohort = config.cohorts[arguments.cohort]
    check_pin(cohort, arguments.cohort, arguments.configfile, arguments.output, arguments.force)
    pin_manifest(arguments.cohort, cohort, config.gdc, arguments.output)
    print(arguments.output)


def run_tiles_show(arguments: argparse.Namespace) -> None:
    """`midnight tiles show SLIDE`."""
    from midnight.tiles.draw.examples import check_sheet, write_sheet

    tiles = load_recipe(arguments.recipe).tiles
    check_sheet(arguments.output, arguments.slide, arguments.force)
    tissue = Tissue(segmenter=arguments.segmenter) if arguments.segmenter else Tissue()
    write_sheet(arguments.slide, tiles, arguments.count, arguments.seed, arguments.output, tissue, mpp=arguments.mpp)
    print(arguments.output)


def run_tiles_plan(arguments: argparse.Namespace) -> None:
    """`midnight tiles plan`."""
    from midnight.paths import Layout
    from midnight.tiles.predrawn.plan import describe, measure
    from midnight.tiles.predrawn.tileset import find_set

    config = _config(arguments)
    tile_set, layout = find_set(config, arguments.recipe), Layout(config.results_dir, config.data_dir)
    indexes = {name: Path(layout.tissue_index(name)) for name, _ in tile_set.cohorts}
    plan = measure(tile_set, indexes, config.draw, arguments.sample)
    print(describe(plan, tile_set, Path(layout.tiles(tile_set.name)), arguments.cores))


def run_tasks_status(arguments: argparse.Namespace) -> None:
    """`midnight tasks status`."""
    from midnight.evaluate.prepare.commands import status

    sys.exit(status(_config(arguments).evaluation, arguments.verify, arguments.json))


def run_tasks_prepare(arguments: argparse.Namespace) -> None:
    """`midnight tasks prepare TASK…`."""
    from midnight.evaluate.prepare.commands import prepare_tasks

    sys.exit(prepare_tasks(_config(arguments).evaluation, arguments.task))


def run_train(arguments: argparse.Namespace) -> None:
    """`midnight train RUN`."""
    from midnight.evaluate.command import run_workflow
    from midnight.paths import Layout
    from midnight.ssl.checkpoint.continuation import prepare

    config = _config(arguments)
    values = assigned(arguments.continue_with)
    if line := prepare(config, arguments.run_name, values, str(arguments.configfile)):
        print(line, flush=True)
    if not arguments.prepare_only:
        target = Layout(config.results_dir, config.data_dir).model(arguments.run_name, "teacher.safetensors")
        place = ["--profile", arguments.profile] if arguments.profile else ["--cores", str(arguments.cores)]
        sys.exit(run_workflow(arguments.configfile.resolve(), [target, *place], Path.cwd()))


def run_export(arguments: argparse.Namespace) -> None:
    """`midnight export RUN_FOLDER OUTPUT --to LIBRARY`."""
    from midnight.evaluate.weights.checkpoint import as_run
    from midnight.report.scores import results_of
    from midnight.ssl.exports import export_run

    results = results_of(arguments.run_folder)
    with as_run(arguments.run_folder, arguments.to) as folder:
        *loading, upload = export_run(folder, arguments.to, arguments.output, arguments.force, results)
    print(
        arguments.output,
        "",
        "# load it",
        *loading,
        "",
        "# give it to others (its README.md is the card)",
        upload,
        sep="\n",
    )


def run_summary(arguments: argparse.Namespace) -> None:
    """`midnight summary [RESULTS_DIR]`."""
    from midnight.report.summary import newest_results, summary

    print(summary(arguments.results or newest_results()))


def _weights_entry(path: Path, arguments: argparse.Namespace) -> "Model":
    from midnight.evaluate.entries import Model

    mean, std = (None if value is None else tuple(value) for value in (arguments.mean, arguments.std))
    sizes = [arguments.size] if arguments.size else []
    name = path.name or path.resolve().name
    return Model("weights", name, sizes, path=str(path), arch=arguments.arch, mean=mean, std=std, name=name)


def run_evaluate(arguments: argparse.Namespace) -> None:
    """`midnight evaluate WEIGHTS… --tiles FOLDER`."""
    import torch

    from midnight.evaluate import command

    if not arguments.tiles.exists():
        raise MidnightError(f"--tiles: there is no {arguments.tiles}; give a {TILES}")
    shared = _weights_entry(Path(arguments.weights[0]), arguments)
    models = [command.find_weights(given, shared) for given in arguments.weights]
    out = arguments.out or Path("results", "evaluate", "-".join(model.name for model in models))
    config = command.make_config(models, arguments.tiles, out, torch.cuda.is_available())
    path = command.write_config(config, out, arguments.cores, arguments.force)
    print(f"Configuration: {path}", flush=True)
    if not arguments.config_only:
        status = command.run_workflow(path, ["--cores", str(arguments.cores)])
        print(f"Report: {out.resolve() / 'report.html'}" if not status else "The workflow failed; see above")
        sys.exit(status)


def run_quick_check(arguments: argparse.Namespace) -> None:
    """`midnight quick-check MODEL --task TASK`."""
    from midnight.evaluate.quick import quick_check

    model = _weights_entry(arguments.model, arguments)
    check = quick_check(model, arguments.task, _config(arguments).evaluation)
    print(json.dumps(plain(check)) if arguments.json else check.text)
    if check.warning:
        print(f"warning: {check.warning}", file=sys.stderr)


def run_embed(arguments: argparse.Namespace) -> None:
    """`midnight embed WEIGHTS SLIDES OUT`."""
    given = vars(arguments)
    cut = {name: given[name] for name in ("mpp", "size", "overlap", "pooling", "foreground")}
    features = build(Features, cut, "midnight embed")
    run = {name: given[name] for name in ("batch_size", "workers", "accelerator")}
    evaluation = build(Evaluation, run, "midnight embed")
    from midnight.mil.command import embed_command

    tissue = Tissue(segmenter=arguments.segmenter)
    embed_command(arguments.weights, arguments.slides, arguments.output, features, tissue, evaluation, arguments.force)


if __name__ == "__main__":
    main()
