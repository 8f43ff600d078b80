from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.config import Recipe, build
    from midnight.ssl.exports.model_folder import init_model

    recipe = build(Recipe, snakemake.params.recipe, "recipe")
    init_model(recipe, Path(snakemake.output.weights).parent, snakemake.params.data)
