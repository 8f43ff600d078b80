# Folders of tiles that runs train on without slides: listed once, with what can't be read.


def tile_folder_params(name):
    """Where a folder is and what it holds, by the names, sizes and times of its files."""
    from midnight.tiles.folders.listing import look

    root = Path(cfg.tile_folders[name]).expanduser()
    try:
        return {"root": str(root), "look": look(root)}
    except MidnightError as error:
        raise WorkflowError(str(error))


rule list_tiles:
    output:
        layout.tile_list("{tile_folder}"),
    log:
        layout.log("list_tiles", "{tile_folder}"),
    benchmark:
        layout.benchmark("list_tiles", "{tile_folder}")
    wildcard_constraints:
        tile_folder="|".join(map(re.escape, cfg.tile_folders)) or "none",
    conda:
        CONDA
    threads: 4
    resources:
        mem_mb=8000,
        runtime=480,
    params:
        folder=lambda wildcards: tile_folder_params(wildcards.tile_folder),
    message:
        "Listing the tiles of {wildcards.tile_folder}"
    script:
        "../workflow/scripts/list_tiles.py"
