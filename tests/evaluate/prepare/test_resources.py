import re

import pytest

from midnight.config import Evaluation
from midnight.errors import ConfigError
from midnight.evaluate.prepare.resources import direct_url, find_resources
from midnight.evaluate.prepare.rules import Download, Rules, load_rules, rules_for
from midnight.evaluate.registry import configured_tasks

DOWNLOADED = {"bach", "breakhis", "crc", "monusac", "panda-small", "pcam", "pcam-10shot"}


def test_eva_knows_every_download_of_ours() -> None:
    tasks, rules = configured_tasks(Evaluation()), load_rules()
    resources = {name: find_resources(task, rules_for(task, rules)) for name, task in tasks.items()}
    assert {name for name, found in resources.items() if found} == DOWNLOADED
    for found in resources.values():
        for resource in found:
            assert re.match(r"https?://", resource.url) and "/view" not in resource.url
            assert resource.md5 is None or re.fullmatch("[0-9a-f]{32}", resource.md5)
    assert all(resource.gzipped and resource.md5 for resource in resources["pcam"])
    assert [resource.file_name for resource in resources["crc"]] == ["NCT-CRC-HE-100K.zip", "CRC-VAL-HE-7K.zip"]
    assert resources["crc"][0].md5 == "035777cf327776a71a05c95da6d6325f"
    assert resources["bach"][0].md5 == rules["bach"].downloads["ICIAR2018_BACH_Challenge.zip"].md5
    with pytest.raises(ConfigError, match=r"BACH has no download 'other\.zip'; it has: ICIAR2018_BACH_Challenge\.zip"):
        find_resources(tasks["bach"], Rules(downloads={"other.zip": Download(1)}))


def test_our_counts_are_those_of_eva() -> None:
    from eva.vision.data import datasets

    def total(name: str) -> int:
        return sum(count for pattern, count in load_rules()[name].needed.items() if not pattern.endswith(".csv"))

    assert total("breakhis") == datasets.BreaKHis._expected_dataset_lengths[None]
    assert total("bracs") == sum(datasets.BRACS._expected_dataset_lengths.values())
    assert total("arvaniti_gleason_patches") == datasets.GleasonArvaniti._expected_dataset_lengths[None]
    assert total("monusac") == sum(datasets.MoNuSAC._expected_dataset_lengths.values())


def test_pages_of_google_drive_become_addresses_of_files() -> None:
    page = "https://drive.google.com/file/d/1lxM_Z-q/view?usp=sharing"
    assert direct_url(page) == "https://drive.usercontent.google.com/download?id=1lxM_Z-q&export=download&confirm=t"
    assert direct_url("https://zenodo.org/records/1/files/x.zip") == "https://zenodo.org/records/1/files/x.zip"
