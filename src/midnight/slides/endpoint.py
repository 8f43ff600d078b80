"""Address and token of the GDC, checked before anything is sent."""

import ipaddress
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from midnight.errors import ConfigError

VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def api_url(api: str) -> str:
    """`gdc.api` with its $VARIABLES expanded, without a slash at the end.

    Raises:
        ConfigError: a variable is not set, or the result is no http(s) address.
    """
    url = VARIABLE.sub(_value, api).strip().rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"gdc.api: {url!r} is not an address that starts with http:// or https://")
    if parts.username or parts.password:
        raise ConfigError("gdc.api: must not hold a user name or password; a token goes in the file gdc.token_file")
    return url


def _value(match: re.Match[str]) -> str:
    name = match[1] or match[2]
    value = os.environ.get(name, "")
    if not value:
        raise ConfigError(f"gdc.api: the environment variable {name} is not set; set it, or write the address itself")
    return value


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(path: str | None, url: str) -> str | None:
    """The token in `gdc.token_file`; no message ever shows it.

    Raises:
        ConfigError: the file can't be read or holds no token, or `url` would send it unencrypted.
    """
    if path is None:
        return None
    if not url.startswith("https://") and not is_loopback(url):
        raise ConfigError(f"gdc.token_file: the token would be sent unencrypted to {url}; use an https address")
    try:
        token = Path(path).expanduser().read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"gdc.token_file: {path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"gdc.token_file: {path}: is not a token (not ASCII); get a new one") from None
    if not re.fullmatch(r"[!-~]+", token):
        raise ConfigError(f"gdc.token_file: {path}: is empty or holds more than one token; get a new one")
    return token
