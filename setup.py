"""What pyproject.toml can't say: a wheel also holds the workflow and its configuration, for `midnight init`."""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithProject(build_py):
    """Copies the project's files into the package; an editable install reads them where they are."""

    def run(self) -> None:
        """See setuptools."""
        super().run()
        if self.editable_mode:
            return
        for part in runpy.run_path(str(ROOT / "src" / "midnight" / "home.py"))["PARTS"]:
            target = Path(self.build_lib) / "midnight" / "project" / part
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / part, target)


setup(cmdclass={"build_py": BuildWithProject})
