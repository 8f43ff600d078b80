# Folders of tiles that runs train on without slides: listed once, with what can't be read.


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
