import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midnight.config import Cohort, Gdc
from midnight.demo.gdc_service import GdcService
from midnight.errors import ConfigError, ServiceError
from midnight.slides.manifest import read_header, read_manifest
from midnight.slides.pin import pinned_sources, planned_slides

Serve = Callable[..., GdcService]
MakeGdc = Callable[..., Gdc]
Edit = Callable[..., dict[str, Any]]


def test_query_is_pinned_with_its_circumstances(serve: Serve, make_gdc: MakeGdc, fetcher: Any) -> None:
    service = serve(fail=1)
    fetcher.pin(make_gdc(service, page_size=2))
    slides, header = read_manifest(fetcher.manifest), read_header(fetcher.manifest)
    assert [slide.slide_id for slide in slides] == [f"TCGA-AB-000{number}-01Z-00-DX1.{number}" for number in range(5)]
    assert {slide.project_id for slide in slides} == {"TCGA-LAML"}
    assert slides[3].case_id == "TCGA-AB-0003" and slides[3].extra["sample_type"] == "Primary Tumor"
    assert header["data release"] == "Demo Release 1.0"
    assert header["count"] == "5" and header["bytes"] == "1500000" and header["excluded"] == "0"
    assert json.loads(header["query"])["data_format"] == ["SVS"]
    assert header["date"].startswith("20")


def test_evil_rows_are_refused_with_reasons(serve: Serve, make_gdc: MakeGdc, fetcher: Any, edit: Edit) -> None:
    edit(0, file_name="../../evil.svs")
    edit(1, file_id="../../evil")
    edit(2, md5sum="")
    service = serve()
    fetcher.pin(make_gdc(service))
    header = read_header(fetcher.manifest)
    assert [slide.case_id for slide in read_manifest(fetcher.manifest)] == ["TCGA-AB-0003", "TCGA-AB-0004"]
    assert header["refused"] == "3"
    reasons = " ".join(value for name, value in header.items() if name.startswith("refused "))
    assert "could lead out of its folder" in reasons and "md5 ''" in reasons
    assert all(status.ok for status in fetcher.fetch(make_gdc(service)))
    assert not list(fetcher.raw.parent.parent.rglob("evil*"))


def test_same_names_get_different_ids(serve: Serve, make_gdc: MakeGdc, fetcher: Any, edit: Edit) -> None:
    name = edit(0)["file_name"]
    row = edit(1, file_name=name, md5sum=edit(0)["md5sum"])
    service = serve()
    fetcher.pin(make_gdc(service))
    ids = [slide.slide_id for slide in read_manifest(fetcher.manifest)]
    assert f"{name.removesuffix('.svs')}_{row['file_id']}" in ids and len(set(ids)) == 5
    assert all(status.ok for status in fetcher.fetch(make_gdc(service)))


def test_exclude_and_limit(serve: Serve, make_gdc: MakeGdc, fetcher: Any, edit: Edit, tmp_path: Path) -> None:
    exclude = tmp_path / "exclude.csv"
    exclude.write_text(
        f"file_id,slide_id,reason\n{edit(0)['file_id']},,\n,TCGA-AB-0002-01Z-00-DX1.2,out of focus\nunknown-id,,gone\n"
    )
    service = serve()
    fetcher.pin(make_gdc(service), exclude=str(exclude), limit=2)
    assert [slide.case_id for slide in read_manifest(fetcher.manifest)] == ["TCGA-AB-0001", "TCGA-AB-0003"]
    header = read_header(fetcher.manifest)
    assert header["excluded"] == "2" and header["limit"] == "2"
    assert header["excluded TCGA-AB-0000-01Z-00-DX1.0"] == "listed in the exclude file"
    assert header["excluded TCGA-AB-0002-01Z-00-DX1.2"] == "out of focus"


def test_pinned_manifest_asks_nobody(serve: Serve, make_gdc: MakeGdc, fetcher: Any, tmp_path: Path) -> None:
    service = serve()
    fetcher.pin(make_gdc(service))
    pinned = tmp_path / "pinned.tsv"
    pinned.write_bytes(fetcher.manifest.read_bytes())
    slides = read_manifest(pinned)
    service.requests.clear()
    fetcher.pin(Gdc(api="$NOT_SET_ANYWHERE"), manifest=str(pinned), limit=3)
    assert read_manifest(fetcher.manifest) == slides[:3]
    assert planned_slides(Cohort(source="gdc", manifest=str(pinned), limit=3)) == slides[:3]
    assert read_header(fetcher.manifest)["data release"] == "Demo Release 1.0"
    assert service.requests == []


def test_what_is_known_beforehand(tmp_path: Path) -> None:
    assert planned_slides(Cohort(source="gdc")) is None
    assert planned_slides(Cohort(source="local", path=str(tmp_path))) is None
    assert pinned_sources(Cohort(source="local", path=str(tmp_path))) == []
    (tmp_path / "m.tsv").touch()
    (tmp_path / "e.csv").touch()
    cohort = Cohort(source="gdc", manifest=str(tmp_path / "m.tsv"), exclude=str(tmp_path / "e.csv"))
    assert pinned_sources(cohort) == [str(tmp_path / "m.tsv"), str(tmp_path / "e.csv")]


def test_errors_are_one_clear_line(serve: Serve, make_gdc: MakeGdc, fetcher: Any, tmp_path: Path) -> None:
    service = serve()
    with pytest.raises(ConfigError, match=r"no usable file .* for gdc\.filters"):
        fetcher.pin(make_gdc(service, filters={"data_format": ["BAM"]}))
    with pytest.raises(ConfigError, match="NOT_SET_ANYWHERE is not set"):
        fetcher.pin(Gdc(api="$NOT_SET_ANYWHERE"))
    (tmp_path / "x.csv").write_text("name\n1\n")
    with pytest.raises(ConfigError, match="needs a column file_id or slide_id; it has name"):
        fetcher.pin(make_gdc(service), exclude=str(tmp_path / "x.csv"))
    service.stop()
    with pytest.raises(ServiceError, match="check the network"):
        fetcher.pin(make_gdc(service))
    assert not fetcher.manifest.exists()


def test_real_manifest_with_known_bad_slides(shared_dir: Path, fetcher: Any) -> None:
    folder = shared_dir / "data" / "tcga"
    manifest, bad = folder / "gdc_manifest_tcga_dx_2024-08.tsv.gz", folder / "known_bad_slides.csv"
    if not (manifest.is_file() and bad.is_file()):
        pytest.skip("no pinned GDC manifest in ../shared/data/tcga")
    fetcher.pin(Gdc(), manifest=str(manifest), exclude=str(bad))
    header = read_header(fetcher.manifest)
    assert len(read_manifest(fetcher.manifest)) == 11_765 - 13
    assert header["excluded"] == "13" and header["refused"] == "0"
