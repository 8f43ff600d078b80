from pathlib import Path

import pytest

from midnight.errors import ConfigError
from midnight.slides.endpoint import api_url, is_loopback, read_token


def test_variables_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_GDC", "http://127.0.0.1:99/")
    assert api_url("$TEST_GDC") == "http://127.0.0.1:99"
    assert api_url("${TEST_GDC}v0/") == "http://127.0.0.1:99/v0"
    monkeypatch.delenv("TEST_GDC")
    with pytest.raises(ConfigError, match=r"gdc\.api: the environment variable TEST_GDC is not set"):
        api_url("$TEST_GDC")


@pytest.mark.parametrize("api", ["", "ftp://x", "api.gdc.cancer.gov", "https://", "https://me:secret@host"])
def test_bad_addresses(api: str) -> None:
    with pytest.raises(ConfigError, match=r"gdc\.api") as caught:
        api_url(api)
    assert "secret" not in str(caught.value)


def test_loopback() -> None:
    assert is_loopback("http://127.0.0.1:8") and is_loopback("http://localhost") and is_loopback("http://[::1]:1")
    assert not is_loopback("https://api.gdc.cancer.gov")


def test_token_is_never_shown_nor_sent_in_the_clear(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    assert read_token(str(path), "https://api") == "s3cret"
    assert read_token(None, "https://api") is None
    with pytest.raises(ConfigError, match="unencrypted"):
        read_token(str(path), "http://api.example.org")
    for content in (b"", b"s3cret more", b"s3cret\r\nX-Evil: 1", "s3crét".encode()):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            read_token(str(path), "https://api")
        assert "cr" not in str(caught.value).replace(str(path), "")
    with pytest.raises(ConfigError, match="can't be read"):
        read_token(str(tmp_path / "none"), "https://api")
