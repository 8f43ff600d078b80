"""Where the project's own files are: configuration, workflow, pinned versions.

Each is looked for in the working directory first, then beside the Snakefile that runs, then in the checkout that the
package was installed from or, of a wheel, in the copies inside it. So a folder of your own may hold one recipe more,
and of two checkouts each reads its own files, whichever is installed. `midnight doctor` says which they are.
"""

import os
from pathlib import Path

WORKFLOW = "MIDNIGHT_WORKFLOW"
"""Environment variable: the folder of the Snakefile that runs, which sets it for its jobs."""
PARTS = ("Snakefile", "rules", "workflow", "config", "profiles", "envs")
"""What a folder needs to run the workflow, besides the package."""


def installed() -> Path:
    """The checkout that this package runs from, or the copies inside an installed one."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "Snakefile").is_file() else Path(__file__).resolve().parent / "project"


def folders() -> list[Path]:
    """Where files are looked for, first to last."""
    running = os.environ.get(WORKFLOW)
    return list(dict.fromkeys([Path.cwd(), *([Path(running)] if running else []), installed()]))


def project_file(*parts: str) -> Path:
    """The first of `config/…`, `envs/…`, … that is there; where there is none, its place in the installed project."""
    places = [folder.joinpath(*parts) for folder in folders()]
    return next((place for place in places if place.exists()), places[-1])


def workflow_folder() -> Path:
    """The folder whose Snakefile `midnight` commands run."""
    return project_file("Snakefile").parent
