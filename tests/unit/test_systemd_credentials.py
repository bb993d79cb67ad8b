"""Credentials by name."""

from pathlib import Path

import pytest

from pounce.config.service import ServerConfig
from pounce.errors import ConfigError
from pounce.systemd.credentials import credentials_directory, resolve_credential, with_credentials


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "key").write_text("secret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    return tmp_path


def test_a_credential_is_a_path(directory: Path) -> None:
    assert credentials_directory() == directory
    assert resolve_credential("credential:key") == str(directory / "key")


def test_other_values_stay_as_they_are(directory: Path) -> None:
    assert resolve_credential("/etc/ssl/key.pem") == "/etc/ssl/key.pem"


@pytest.mark.parametrize("value", ["credential:", "credential:../key", "credential:.."])
def test_a_name_cannot_leave_the_directory(directory: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="is no credential's name"):
        resolve_credential(value)


def test_a_missing_credential_says_how_to_load_it(directory: Path) -> None:
    with pytest.raises(ConfigError, match="LoadCredential=cert:"):
        resolve_credential("credential:cert")


def test_without_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert credentials_directory() is None
    with pytest.raises(ConfigError, match="no credential 'key'"):
        resolve_credential("credential:key")


@pytest.mark.parametrize("value", ["credential:hush", "credential:hush/hush"])
def test_a_variable_is_named_without_its_value(directory: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"^environment.TOKEN: the service has no") as caught:
        with_credentials(ServerConfig(environment={"TOKEN": value}))
    assert "hush" not in str(caught.value)
