"""Looks at a page in headless Chromium: console errors, sideways scroll, images, requests.

Run by hand: `python tests/report/browser.py report.html [--screenshots FOLDER]`.
"""

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

WIDTHS = (1440, 390)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
# The page is shown in a frame of the wanted width: a headless window is never narrower than about 500 px.
PROBE = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" style="border:0;width:{width}px;height:{height}px" src="{name}"></iframe><pre id="found"></pre>
<script>
document.getElementById('page').addEventListener('load', () => setTimeout(() => {{
  const page = document.getElementById('page').contentDocument, root = page.documentElement;
  const height = root.scrollHeight;
  for (const details of page.querySelectorAll('details')) details.open = true;
  const images = [...page.images];
  const outside = [...page.querySelectorAll('body *')].filter(
    (e) => e.getBoundingClientRect().right > {width} + 1 && !e.closest('.scroll') && !e.closest('pre'));
  document.getElementById('found').textContent = JSON.stringify({{
    width: root.clientWidth, scroll: Math.max(root.scrollWidth, page.body.scrollWidth), height,
    images: images.length,
    broken: images.filter((i) => !(i.complete && i.naturalWidth > 0)).map((i) => i.alt),
    unnamed: images.filter((i) => !i.alt).length,
    outside: outside.slice(0, 5).map((e) => e.tagName + '.' + e.className),
    external: [...page.querySelectorAll('[src],link[href]')].map((e) => e.getAttribute('src') || e.getAttribute('href'))
      .filter((a) => !a.startsWith('data:')),
    scripts: page.scripts.length, nan: /\\bNaN\\b|\\bNone\\b|undefined/.test(page.querySelector('main').innerText),
  }});
}}, 300));
</script>"""


@dataclass(frozen=True)
class Look:
    """What was found at one width."""

    width: int
    found: dict
    console: list[str]

    def problems(self) -> list[str]:
        """Each defect in words; none for a good page."""
        found, problems = self.found, [f"console: {line}" for line in self.console]
        if found["width"] != self.width:
            problems.append(f"laid out at {found['width']} px")
        if found["scroll"] > found["width"]:
            problems.append(f"scrolls sideways: {found['scroll']} > {found['width']} ({', '.join(found['outside'])})")
        problems += [f"broken image: {name}" for name in found["broken"]]
        problems += [f"reads from outside: {name}" for name in found["external"]]
        problems += ["images without alternative text"] * bool(found["unnamed"])
        problems += ["shows NaN, None or undefined"] * found["nan"]
        return problems


def chromium() -> str | None:
    """A Chromium on the PATH."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


def _run(arguments: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [chromium() or "chromium", *FLAGS, f"--user-data-dir={profile}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def look(page: Path, width: int, timeout: float = 120) -> Look:
    """Load `page` at `width` CSS px with every <details> open, and measure."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(page, Path(folder) / "page.html")
        probe = Path(folder) / "probe.html"
        probe.write_text(PROBE.format(width=width, height=900, name="page.html"))
        arguments = ["--allow-file-access-from-files", "--virtual-time-budget=8000", "--enable-logging=stderr"]
        result = _run([*arguments, f"--window-size={width + 20},900", "--dump-dom", probe.as_uri()], timeout)
    match = re.search(r'<pre id="found">(.+?)</pre>', result.stdout, re.S)
    if not match:
        raise RuntimeError(f"{page}: the browser showed nothing: {result.stderr[-500:]}")
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    return Look(width, json.loads(html.unescape(match[1])), console)


def screenshot(page: Path, width: int, height: int, output: Path, timeout: float = 120) -> None:
    """A PNG of the page's top `height` px at `width` CSS px."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(page, Path(folder) / "page.html")
        frame = Path(folder) / "frame.html"
        style = f"border:0;width:{width}px;height:{height}px;display:block"
        frame.write_text(f'<!DOCTYPE html><body style="margin:0"><iframe style="{style}" src="page.html"></iframe>')
        size = [f"--window-size={max(width, 500)},{height}", "--virtual-time-budget=4000"]
        _run([*size, f"--screenshot={output}", frame.as_uri()], timeout)
    if not output.is_file():
        raise RuntimeError(f"{page}: no screenshot at {width} px")
    with Image.open(output) as image:
        image.crop((0, 0, width, height)).save(output)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--screenshots", type=Path, help="folder for PNGs of the whole page")
    arguments = parser.parse_args()
    failed = False
    for width in WIDTHS:
        seen = look(arguments.page, width)
        problems = seen.problems()
        failed |= bool(problems)
        print(f"{width} px: {seen.found['images']} images, {'; '.join(problems) or 'good'}")
        if arguments.screenshots:
            arguments.screenshots.mkdir(parents=True, exist_ok=True)
            screenshot(arguments.page, width, seen.found["height"], arguments.screenshots / f"report-{width}.png")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
