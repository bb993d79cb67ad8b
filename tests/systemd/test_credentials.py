"""Secrets that systemd passes to the service (LoadCredential=, systemd.exec(5))."""

from tests.systemd.instance import Instance
from tests.systemd.machine import Machine


def test_a_credential_is_where_the_configuration_says(instance: Instance) -> None:
    instance.machine.write("/etc/pounce/secret", "hush")
    instance.amend(instance.service, "[Service]\nLoadCredential=database:/etc/pounce/secret\n")
    instance.configure(environment={"SECRET": "credential:database"})
    instance.start()
    assert instance.curl("/secret").stdout == '"hush"'


def test_a_missing_credential_is_bad_configuration(machine: Machine, instance: Instance) -> None:
    instance.configure(environment={"SECRET": "credential:nothing"})
    assert machine.systemctl("start", instance.service, check=False).returncode == 1
    assert instance.show("ExecMainStatus") == "78"
    said = [entry["MESSAGE"] for entry in instance.journal()]
    assert any(
        "environment.SECRET: the service has no credential" in message for message in said
    ), said
