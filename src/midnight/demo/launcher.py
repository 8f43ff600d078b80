"""Starting and stopping the demo's GDC service beside a running workflow."""

import os
import subprocess
import sys
import time
from pathlib import Path

from midnight.errors import ServiceError

ADDRESS_VARIABLE = "MIDNIGHT_DEMO_GDC"


def start_service(folder: Path, log: Path, timeout: float = 60.0) -> "subprocess.Popen[bytes]":
    """Serve `folder` on a free loopback port and put the address into the environment that jobs inherit.

    The service ends with this process, however it ends.

    Raises:
        ServiceError: it did not start; names the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    url_file = log.with_suffix(".url")
    url_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "midnight.demo.gdc_service", "--folder", str(folder)]
    command += ["--url-file", str(url_file), "--parent", str(os.getpid())]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    os.environ[ADDRESS_VARIABLE] = _address(url_file, process, log, timeout)
    return process


def _address(url_file: Path, process: "subprocess.Popen[bytes]", log: Path, timeout: float) -> str:
    end = time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None:
        if url_file.exists():
            return url_file.read_text().strip()
        time.sleep(0.05)
    process.kill()
    raise ServiceError(f"the demo's GDC service did not start within {timeout:.0f} s; see {log}")


def stop_service(process: "subprocess.Popen[bytes]") -> None:
    """End the service and wait for it."""
    process.terminate()
    process.wait(timeout=10)
