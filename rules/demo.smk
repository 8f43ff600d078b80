# The embedded demo: generated slides, generated benchmarks, and a GDC service on loopback that lives as long
# as the workflow runs (Snakemake's service() would group it with every download and sum their cores).
if cfg.demo:

    rule demo_slides:
        output:
            catalogue=DEMO_CATALOGUE,
        log:
            layout.log("demo_slides"),
        benchmark:
            layout.benchmark("demo_slides")
        conda:
            CONDA
        threads: 2
        resources:
            mem_mb=4000,
            runtime=30,
        params:
            slides=cfg.demo.slides,
            size=cfg.demo.size,
            seed=cfg.seed,
        message:
            "Generating {params.slides} demo slides of {params.size}² px"
        script:
            "../workflow/scripts/demo_slides.py"

    rule demo_benchmarks:
        output:
            done=DEMO_BENCHMARKS,
        log:
            layout.log("demo_benchmarks"),
        benchmark:
            layout.benchmark("demo_benchmarks")
        conda:
            CONDA
        threads: 1
        resources:
            mem_mb=4000,
            runtime=30,
        params:
            seed=cfg.seed,
            scale=cfg.demo.benchmark_scale,
        message:
            "Generating the demo's downstream data sets"
        script:
            "../workflow/scripts/demo_benchmarks.py"
