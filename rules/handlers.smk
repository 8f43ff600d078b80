# What happens when a run starts and ends, besides its jobs. No rules.
SERVICES = []


def forget_failures():
    """Runs that failed may be tried again: somebody may have mended the cause."""
    from midnight.ssl.launch import attempts

    attempts.forget_failures(Path(layout.model(run, ".")) for run in cfg.runs)


def give_up_permanent_errors():
    """No `retries` for what no further attempt can mend."""
    from midnight.screen.permanent import retry_no_permanent_errors

    retry_no_permanent_errors()


def know_slurm_ends():
    """No job that Slurm preempted or forgot is waited for."""
    from midnight.screen.slurm_status import know_all_ends

    know_all_ends(requeued=not getattr(workflow.executor_settings, "no_requeue", False))


def start_services():
    """The demo's GDC service: jobs find its address in their environment."""
    if cfg.demo:
        from midnight.demo.launcher import start_service

        SERVICES.append(
            start_service(Path(DEMO_CATALOGUE).parent, Path(layout.log("gdc_service")))
        )


def stop_services():
    for process in SERVICES:
        from midnight.demo.launcher import stop_service

        stop_service(process)


def report_failures():
    """After an error: the report of the models that have scores, which names those that failed."""
    from midnight.report.partial import report_partly

    scores = {
        (model, size): [
            layout.score(model, size, pooling, task)
            for pooling in cfg.evaluation.poolings
            for task in tasks
        ]
        for model, size in model_sizes()
    }
    try:
        failed = report_partly(plain(cfg), models, scores)
    except MidnightError as error:
        logger.error(f"midnight: error: {error}")
        return
    for model, reason in failed.items():
        logger.error(f"midnight: no scores of {model}: {reason}")
    if failed and Path(layout.report()).exists():
        logger.error(f"midnight: the report of the others: {layout.report()}")
