import dataclasses
import shutil
import sys
from pathlib import Path

import pytest

from midnight import doctor
from midnight.config import load_config
from midnight.config.pipeline import Cohort, Config, Gdc, Mlflow
from midnight.errors import MidnightError

DEMO = {"cohorts": {"c": {"source": "gdc"}}, "demo": {}, "data": "demo"}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    folders = {"results_dir": str(tmp_path / "results"), "data_dir": str(tmp_path / "data")}
    return load_config(DEMO | folders, "demo.yaml")


def test_a_good_machine_passes(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    doctor.doctor(config)
    out = capsys.readouterr().out
    for name in ("Python", "torch", "OpenSlide", "kaiko-eva", "Disk", "Profile slurm", "GDC"):
        assert f"{name}" in out
    assert "✗" not in out


def test_an_xformers_that_cannot_be_imported_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xformers")
    monkeypatch.setitem(sys.modules, "xformers.ops", None)
    (finding,) = (finding for finding in doctor.check_torch(config) if finding.name == "xformers")
    assert finding.status == "note"
    assert "can't be imported" in finding.detail
    assert "install its release for torch" in finding.advice


def test_unreachable_services_fail_with_the_key_to_change(config: Config) -> None:
    config = dataclasses.replace(
        config, demo=None, gdc=Gdc(api="http://127.0.0.1:9"), mlflow=Mlflow(tracking_uri="http://127.0.0.1:9")
    )
    findings = {finding.name: finding for finding in doctor.check_services(config)}
    assert findings["GDC"].status == findings["MLflow"].status == "fail"
    assert "gdc.api" in findings["GDC"].advice
    assert "mlflow.tracking_uri" in findings["MLflow"].advice


def test_full_disk_and_missing_folder_fail(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil._ntuple_diskusage(10, 10, 0)  # type: ignore[attr-defined]
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    assert {finding.status for finding in doctor.check_disk(config)} == {"fail"}
    local = dataclasses.replace(config, cohorts={"own": Cohort("local", path="/nowhere/at/all")})
    (finding,) = doctor.check_data(local)
    assert (finding.status, "cohorts.own.path" in finding.advice) == ("fail", True)


def test_a_failure_is_an_error_exit(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (lambda _: iter([doctor.Finding("x", "fail", "broken", "mend it")]),))
    with pytest.raises(MidnightError, match="1 of the checks"):
        doctor.doctor(config)
