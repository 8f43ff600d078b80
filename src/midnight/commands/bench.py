"""`midnight bench`: how fast this machine is."""

import argparse
import dataclasses
import json
from typing import Any

from midnight.config.recipes import find_recipe
from midnight.options import at_least_one


def add_bench(commands: Any) -> None:
    """The commands, to argparse's own."""
    bench = commands.add_parser("bench", help="measure this machine").add_subparsers(required=True, metavar="COMMAND")
    train = bench.add_parser("train", help="a recipe's training steps on one GPU (or the CPU), on random crops")
    train.add_argument("recipe", help="a name from config/recipes/, or a recipe's file")
    train.add_argument("--batch", type=at_least_one, help="tiles per step (default: the recipe's, per GPU)")
    train.add_argument("--steps", type=at_least_one, default=20, help="that are timed (default: %(default)s)")
    train.add_argument("--json", action="store_true", help="for programs")
    train.set_defaults(run=run_bench_train)


def run_bench_train(arguments: argparse.Namespace) -> None:
    """`midnight bench train RECIPE`.

    Raises:
        MidnightError: there is no such recipe, or its batch does not fit.
    """
    recipe = find_recipe(arguments.recipe)
    training = recipe.training
    if arguments.batch:
        training = dataclasses.replace(training, batch_size=arguments.batch)
    from midnight.ssl.bench import bench, text  # importing torch takes seconds

    found = bench(dataclasses.replace(recipe, training=training), arguments.steps)
    print(json.dumps(found, indent=2) if arguments.json else text(found))
