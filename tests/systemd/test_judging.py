"""`pounce init` and `pounce check` for root: who imports the application, and what hinders them."""

import pytest

from tests.systemd.instance import Instance
from tests.systemd.machine import Machine, Result

APPLICATION = """\
import os
assert os.geteuid() != 0
print("imported by", os.environ["USER"], os.environ.get("GREETING"))
print("in", os.environ.get("RUNTIME_DIRECTORY"), os.environ.get("STATE_DIRECTORY"))
print("tmp", sorted(os.listdir("/tmp")))
async def app(scope, receive, send): ...
"""

SLEEPING = "import os\nos.execlp('sleep', 'sleep', '98765')\n"

# pounce finds a running systemd by this (sd_booted(3)).
UNBOOTED = ("unshare", "--mount", "sh", "-euc", 'mount -t tmpfs none /run/systemd; exec "$@"', "sh")


@pytest.fixture
def shop(machine: Machine, instance: Instance) -> str:
    """The directory of an application of the instance's own."""
    directory = f"/srv/{instance.name}"
    machine.write(f"{directory}/shop/asgi.py", APPLICATION)
    machine.write("/tmp/of-root", "")
    instance.configure("shop.asgi:app", directory=directory)
    return directory


def check(instance: Instance, *before: str, status: int = 0) -> Result:
    outcome = instance.machine.run(*before, "pounce", "check", instance.name, check=False)
    assert outcome.returncode == status, outcome.stdout + outcome.stderr
    return outcome


def left_behind(instance: Instance) -> list[str]:
    """Units and directories of a check that is over, and bytecode in the application."""
    machine = instance.machine
    units = machine.run("systemctl", "list-units", "--all", "--no-legend", "*pounce*check*").stdout
    places = ("/run", "/srv", "/etc", "/var/lib", "/var/cache", "/var/log", "/tmp", "/var/tmp")
    command = ("find", *places, "-name", "*pounce-check*", "-o", "-path", "*/shop/*.pyc")
    return units.splitlines() + machine.run(*command, check=False).stdout.splitlines()


def sleepers(instance: Instance) -> list[str]:
    """The processes that SLEEPING has become."""
    return instance.machine.run("pgrep", "--full", "^sleep 98765$", check=False).stdout.split()


def test_a_service_is_judged_in_its_own_sandbox(instance: Instance, shop: str) -> None:
    instance.machine.write("/etc/pounce/environment", "GREETING=hello\n")
    drop_in = "[Service]\nEnvironmentFile=/etc/pounce/environment\nExecStartPre=/bin/false\n"
    instance.amend(instance.service, drop_in)
    told = check(instance).stdout
    assert told.startswith(f"user: pounce-{instance.name}, in the sandbox of {instance.service}\n")
    assert f"imported by pounce-{instance.name} hello\nin /run/pounce-check-" in told
    assert "\ntmp []\n" in told
    assert f"application: shop.asgi:app (ASGI) is imported from {shop} (" in told
    assert left_behind(instance) == []


def test_root_is_judged_as_root_where_the_service_is_root(instance: Instance, shop: str) -> None:
    machine = instance.machine
    application = APPLICATION.replace("assert os.geteuid() != 0", "print('uid', os.geteuid())")
    machine.write(f"{shop}/shop/asgi.py", application)
    instance.amend(instance.service, "[Service]\nDynamicUser=no\nUser=root\n")
    told = check(instance).stdout
    assert told.startswith(f"user: root, in the sandbox of {instance.service}\n")
    assert "uid 0\n" in told
    for value in ("1", "service", "nobody"):
        refused = check(instance, "env", f"POUNCE_JUDGES={value}", status=78)
        assert "uid 0" not in refused.stdout
        assert "POUNCE_JUDGES is set" in refused.stderr


def test_relative_paths_are_those_of_the_caller(instance: Instance, shop: str) -> None:
    machine = instance.machine
    instance.configure("shop.asgi:app", directory="/var")
    flags = ("--config", f"{instance.name}.toml", "--directory", f"../..{shop}")
    command = ("env", "--chdir=/etc/pounce", "pounce", "check", *flags)
    told = machine.run(*command).stdout
    assert told.startswith(f"user: pounce-{instance.name}, in the sandbox of {instance.service}\n")
    assert f"configuration: /etc/pounce/{instance.name}.toml is valid\n" in told
    assert "application: shop.asgi:app (ASGI) is imported from " in told
    told = machine.run(
        "env", "--chdir=/srv", "pounce", "check", "asgi:app", f"--directory={instance.name}/shop"
    ).stdout
    assert "imported by nobody" in told


def test_specifiers_are_those_of_the_service(instance: Instance, shop: str) -> None:
    machine = instance.machine
    machine.write(f"/etc/pounce/pounce@{instance.name}.env", "GREETING=hello\n")
    instance.amend(
        instance.service,
        "[Service]\nEnvironmentFile=/etc/pounce/%N.env\nEnvironmentFile=/etc/pounce/%p@%i.env\n"
        "Environment=USER=%n=%%n\nBindReadOnlyPaths=%y\n",
    )
    assert f"imported by {instance.service}=%n hello\n" in check(instance).stdout
    machine.path(f"/etc/pounce/pounce@{instance.name}.env").unlink()
    told = check(instance, status=78).stderr
    assert (
        f"{instance.service} cannot be run as its unit is now (systemd could not start it: " in told
    )
    assert "Failed to load environment files: No such file or directory\n" in told
    assert "PROCESS EXIT CODES" not in told
    assert left_behind(instance) == []


def lasting(instance: Instance) -> str:
    """The lasting directories of services, with owners and modes."""
    bases = ("/var/lib", "/var/cache", "/var/log", "/etc/pounce")
    places = [f"{base}{below}" for base in bases for below in ("", "/private", "/pounce")]
    command = ("find", *places, "-maxdepth", "2", "-printf", "%p %l %u %g %m\n")
    lines = instance.machine.run(*command, check=False).stdout.splitlines()
    return "\n".join(sorted(line for line in lines if "/journal" not in line))


def test_a_check_makes_and_changes_no_directories(instance: Instance, shop: str) -> None:
    instance.amend(
        instance.service,
        "[Service]\nLogsDirectory=%p-%i-log\nConfigurationDirectory=pounce/%i.d\n",
    )
    before = lasting(instance)
    told = check(instance)
    settings = "StateDirectory=, CacheDirectory=, LogsDirectory=, ConfigurationDirectory="
    assert f"makes or changes directories ({settings}); this check" in told.stdout
    assert (lasting(instance), left_behind(instance)) == (before, [])
    # What the service has used, the check has as well.
    instance.configure(directory="/srv/apps")
    instance.start()
    instance.stop()
    before = lasting(instance)
    instance.configure("shop.asgi:app", directory=shop)
    told = check(instance)
    assert "makes or changes" not in told.stdout
    assert f" /var/lib/pounce/{instance.name}\n" in told.stdout
    assert lasting(instance) == before
    # Another user is another owner, at the next start.
    instance.amend(instance.service, "[Service]\nDynamicUser=no\nUser=daemon\n")
    told = check(instance)
    assert "directories (StateDirectory=, CacheDirectory=); this check" in told.stdout
    assert (lasting(instance), left_behind(instance)) == (before, [])


def test_a_masked_service_is_told(instance: Instance, shop: str) -> None:
    for unit in (instance.service, "pounce@.service"):
        instance.machine.systemctl("mask", "--runtime", unit)
        told = check(instance, status=78)
        instance.machine.systemctl("unmask", "--runtime", unit)
        assert f"{instance.service} is masked: systemd does not start it\n" in told.stderr
        assert f"systemctl unmask {unit}, then" in told.stderr
        assert "imported" not in told.stdout


def test_what_ended_the_import_is_told(instance: Instance, shop: str) -> None:
    fatal = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    instance.machine.write(f"{shop}/shop/asgi.py", fatal)
    told = check(instance, status=78).stderr
    assert "(SIGKILL ended the process that checks)" in told


def test_a_service_that_runs_is_not_disturbed(instance: Instance, shop: str) -> None:
    instance.configure()
    instance.start()
    runs = f"/run/pounce/{instance.name}"
    before = instance.machine.run("ls", "-l", "--all", runs).stdout
    check(instance)
    assert instance.machine.run("ls", "-l", "--all", runs).stdout == before
    assert instance.curl("/items").stdout == "[]"
    assert instance.machine.run("pounce", "status", instance.name).returncode == 0


def test_credentials_are_there_and_missing_ones_are_told(instance: Instance, shop: str) -> None:
    instance.configure(
        "shop.asgi:app", directory=shop, environment={"GREETING": "credential:secret"}
    )
    told = check(instance, status=78).stderr
    assert "environment.GREETING: the service has no credential" in told
    assert "to the unit, then systemctl daemon-reload\n" in told
    instance.machine.write("/root/secret", "sesame")
    instance.amend(instance.service, "[Service]\nLoadCredential=secret:/root/secret\n")
    assert f"pounce-{instance.name} /run/credentials/" in check(instance).stdout
    instance.machine.path("/root/secret").unlink()
    told = check(instance, status=78).stderr
    assert f"{instance.service} cannot be run as its unit is now (status 243" in told


@pytest.mark.systemd_since(257, "NeedDaemonReload= for a drop-in's new directory")
def test_a_drop_in_that_systemd_has_yet_to_read_is_told(instance: Instance, shop: str) -> None:
    instance.configure()
    instance.start()
    instance.configure("shop.asgi:app", directory=shop, environment={"A": "credential:secret"})
    instance.machine.write("/root/secret", "sesame")
    place = f"/etc/systemd/system/{instance.service}.d/test.conf"
    instance.machine.write(place, "[Service]\nLoadCredential=secret:/root/secret\n")
    newer = f"warning: unit files of {instance.service} are newer than what systemd has loaded"
    told = check(instance, status=78).stderr
    assert told.startswith(newer)
    assert "run systemctl daemon-reload, then check again\n" in told
    instance.machine.systemctl("daemon-reload")
    assert newer not in check(instance).stderr


def test_commands_are_named_and_not_run(instance: Instance, shop: str) -> None:
    instance.configure("shop.asgi:app", directory=shop, deploy={"before": ["touch /tmp/ran"]})
    assert "before a deploy: touch /tmp/ran (/usr/bin/touch)\n" in check(instance).stdout
    instance.machine.write(f"{shop}/migrate", "#!/bin/sh\n")
    instance.configure("shop.asgi:app", directory=shop, deploy={"before": ["./migrate now"]})
    told = check(instance, status=70).stderr
    assert f"'./migrate now': it cannot be run: {shop}/migrate is not executable" in told


def test_a_directory_that_is_closed_to_the_service_is_named(instance: Instance, shop: str) -> None:
    machine = instance.machine
    for place, mode in ((shop, "0700"), (f"{shop}/shop", "0750")):
        machine.run("chmod", mode, place)
        told = check(instance, status=70 if place != shop else 78).stderr
        assert f"{place} has the mode " in told
        assert f"belongs to root: the user pounce-{instance.name} may not " in told
        assert f"(chmod o+rx {place})" in told
        machine.run("chmod", "0755", place)
    machine.run("chmod", "0600", f"{shop}/shop/asgi.py")
    told = check(instance, status=70).stderr
    assert f"{shop}/shop/asgi.py has the mode -rw-------" in told
    assert f"(chmod o+r {shop}/shop/asgi.py)" in told


def test_an_owner_that_the_sandbox_hides_is_not_named(instance: Instance) -> None:
    machine, home = instance.machine, "/home/joe"
    machine.write(f"{home}/shop/asgi.py", APPLICATION)
    machine.run("chmod", "0700", home)
    machine.run("chown", "--recursive", "daemon", home)
    instance.configure("asgi:app", directory=f"{home}/shop")
    instance.amend(instance.service, "[Service]\nProtectHome=no\n")
    told = check(instance, status=78).stderr
    assert f"{home} has the mode drwx------ and belongs to another user: the user " in told
    machine.run("rm", "-r", home)


@pytest.mark.parametrize("home", ["/root", "/home/somebody"])
@pytest.mark.parametrize("protection", ["yes", "tmpfs"])
def test_an_application_in_a_home_is_hidden_by_its_unit(
    instance: Instance, home: str, protection: str
) -> None:
    machine = instance.machine
    machine.write(f"{home}/shop/shop/asgi.py", APPLICATION)
    instance.configure("shop.asgi:app", directory=f"{home}/shop")
    instance.amend(instance.service, f"[Service]\nProtectHome={protection}\n")
    hidden = "/root" if home == "/root" else "/home"
    why = f"ProtectHome= hides {hidden} from the service"
    assert why in check(instance, status=78).stderr
    instance.configure("shop.asgi:app", directory="/srv", virtualenv=f"{home}/venv")
    assert why in check(instance, status=78).stderr
    machine.run("rm", "-r", f"{home}/shop")


def test_the_real_place_of_an_interpreter_is_named(instance: Instance, shop: str) -> None:
    machine = instance.machine
    environment = f"{shop}/venv"
    machine.run("python3", "-m", "venv", "--system-site-packages", environment)
    [real] = machine.run("sh", "-c", "echo /usr/bin/python3.*[0-9]").stdout.split()[:1]
    machine.run("sh", "-c", f"mkdir -p /root/.pyenv/bin && cp {real} /root/.pyenv/bin/python3")
    python = f"{environment}/bin/python3"
    machine.run("ln", "-sf", "/root/.pyenv/bin/python3", python)
    instance.configure("shop.asgi:app", directory=shop, virtualenv=environment)
    told = check(instance, status=78).stderr
    assert f"{environment}/bin/python cannot be run: Permission denied" in told
    assert f"{python} is a link to /root/.pyenv/bin/python3; ProtectHome= hides /root" in told
    machine.run("rm", "-r", "/root/.pyenv")


def test_a_user_that_is_not_there_is_told(instance: Instance, shop: str) -> None:
    instance.amend(instance.service, "[Service]\nDynamicUser=no\nUser=nobody-of-that-name\n")
    told = check(instance, status=78).stderr
    assert "cannot be run as its unit is now (status 217" in told
    assert left_behind(instance) == []


def test_an_interrupted_check_leaves_nothing_behind(instance: Instance, shop: str) -> None:
    machine = instance.machine
    machine.write(f"{shop}/shop/asgi.py", "import time\ntime.sleep(1000)\n")
    for number in ("TERM", "INT", "HUP"):
        checking = machine.start("pounce", "check", instance.name)
        machine.wait_until(lambda: left_behind(instance), 30, "the unit")
        machine.run("pkill", f"-{number}", "--oldest", "--full", f"pounce check {instance.name}")
        checking.communicate(timeout=30)
        assert checking.returncode not in (0, 70)
        assert left_behind(instance) == []


def test_the_next_check_removes_what_a_killed_one_has_left(instance: Instance, shop: str) -> None:
    machine = instance.machine
    machine.write(f"{shop}/shop/asgi.py", SLEEPING)
    killed = machine.start("pounce", "check", instance.name)
    machine.wait_until(lambda: len(sleepers(instance)) == 1, 30, "a check")
    machine.run("pkill", "-KILL", "--oldest", "--full", f"pounce check {instance.name}")
    killed.communicate(timeout=30)
    [left] = sleepers(instance)
    going_on = machine.start("pounce", "check", instance.name)
    machine.wait_until(lambda: left not in sleepers(instance) != [], 30, "another check")
    [other] = sleepers(instance)
    machine.write(f"{shop}/shop/asgi.py", APPLICATION)
    check(instance)
    assert sleepers(instance) == [other]
    machine.run("pkill", "-TERM", "--oldest", "--full", f"pounce check {instance.name}")
    going_on.communicate(timeout=30)
    assert left_behind(instance) == []


def test_init_checks_as_the_service(instance: Instance, shop: str) -> None:
    machine = instance.machine
    machine.path(f"/etc/pounce/{instance.name}.toml").unlink()
    flags = ("--app", "shop.asgi:app", "--directory", shop, "--deploy-before", "true 'a b'")
    outcome = machine.run("pounce", "init", instance.name, *flags)
    assert f"imported by pounce-{instance.name} None\n" in outcome.stdout
    assert "before a deploy: true 'a b' (/usr/bin/true)\n" in outcome.stdout
    assert left_behind(instance) == []
    machine.run("rmdir", f"/etc/pounce/{instance.name}")


def test_without_systemd_nobody_judges(instance: Instance, shop: str) -> None:
    told = check(instance, *UNBOOTED).stdout
    assert told.startswith("user: nobody, since root imports no application\n")
    assert "imported by nobody None\n" in told
    assert "'of-root'" in told
    instance.machine.run("chmod", "0700", shop)
    told = check(instance, *UNBOOTED, status=78).stderr
    assert f"{shop} has the mode drwx------ and belongs to root: the user nobody may not" in told
    assert left_behind(instance) == []


def test_what_is_no_service_is_judged_by_nobody(instance: Instance, shop: str) -> None:
    command = ("pounce", "check", "shop.asgi:app", "--directory", shop)
    told = instance.machine.run("env", "GREETING=of root", *command).stdout
    assert "imported by nobody None\n" in told
    assert left_behind(instance) == []


@pytest.mark.parametrize("number", ["HUP", "INT", "TERM"])
def test_nobody_ends_with_the_check(instance: Instance, shop: str, number: str) -> None:
    machine = instance.machine
    machine.write(f"{shop}/shop/asgi.py", "import time\ntime.sleep(1000)\n")
    judges = ("pgrep", "--euid", "nobody", "--full", "pounce check .*shop.asgi:app")

    def begun() -> bool:
        return machine.run(*judges, check=False).returncode == 0

    checking = machine.start("pounce", "check", "shop.asgi:app", "--directory", shop)
    machine.wait_until(begun, 30, "nobody's process")
    oldest = ("--oldest", "--full", "pounce check .*shop.asgi:app")
    machine.run("pkill", f"-{number}", "--euid", "root", *oldest)
    checking.communicate(timeout=30)
    assert checking.returncode not in (0, 70)
    assert not begun()
