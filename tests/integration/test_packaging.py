"""What the packages say and install agrees with the program."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import pytest
import tomli
from click.shell_completion import ShellComplete

from pounce import __version__
from pounce.cli.commands import COMMANDS
from pounce.cli.commands import pounce as command
from pounce.config import file as config_file
from pounce.config.file import configured
from pounce.config.options import options
from pounce.config.service import Listen, ServerConfig

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the manual's sources and the completions, made as a build makes them."""
    directory = tmp_path_factory.mktemp("documents")
    subprocess.run([sys.executable, "packaging/documents.py", directory], cwd=PROJECT, check=True)
    return directory


@pytest.fixture(scope="module")
def manual(documents: Path) -> dict[str, str]:
    """The pages by their name, without the markup of words."""
    return {
        page.stem: re.sub(r"\\(.)|\*", r"\1", page.read_text())
        for page in (documents / "man").iterdir()
    }


def test_pounce_toml_5_has_every_key(manual: dict[str, str]) -> None:
    page = manual["pounce.toml.5"]
    for option in (*options(ServerConfig), *options(Listen)):
        assert re.search(rf"^\t*\[*{option.key}\]*$", page, re.MULTILINE), option.key
        assert option.summary[1:] in page
        assert option.details in page


def test_pounce_1_has_every_command_and_flag(manual: dict[str, str]) -> None:
    page = manual["pounce.1"]
    context = click.Context(command)
    for name in COMMANDS:
        subcommand = command.get_command(context, name)
        assert subcommand is not None
        assert f"## pounce {name} " in page
        for parameter in subcommand.params:
            if isinstance(parameter, click.Option):
                for flag in (*parameter.opts, *parameter.secondary_opts):
                    assert re.search(rf"^(--\S+, )*{flag}\b", page, re.MULTILINE), flag


def test_no_place_of_a_page_is_left_open(manual: dict[str, str]) -> None:
    assert set(manual) == {"pounce.1", "pounce.toml.5", "pounce.service.8", "pounce-generator.8"}
    for page in manual.values():
        assert not re.search(r"@[A-Z]+@", page)
        assert __version__ in page


@pytest.mark.parametrize("script", ["bash/pounce", "zsh/_pounce", "fish/pounce.fish"])
def test_every_shell_asks_pounce(documents: Path, script: str) -> None:
    shell = script.partition("/")[0]
    assert f"_POUNCE_COMPLETE={shell}_complete" in (documents / script).read_text()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("pounce rel", "reload"),
        ("pounce serve --worker-m", "--worker-mode"),
        ("pounce serve --worker-mode t", "thread"),
        ("pounce serve --workers ", ""),
    ],
)
def test_bash_completes(documents: Path, words: str, offered: str) -> None:
    script = f"""
        source {documents}/bash/pounce
        COMP_WORDS=({words} "") COMP_CWORD={len(words.split(" ")) - 1}
        _pounce_completion pounce
        echo "${{COMPREPLY[@]}}"
    """
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    outcome = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert (outcome.stdout, outcome.stderr) == (f"{offered}\n", "")


def test_services_are_offered_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("shop", "shop-admin", "blog", ".shop"):
        (tmp_path / f"{name}.toml").touch()
    monkeypatch.setattr(config_file, "configured", partial(configured, tmp_path))
    for subcommand in ("serve", "reload"):
        complete = ShellComplete(command, {}, "pounce", "_POUNCE_COMPLETE")
        items = complete.get_completions([subcommand], "sh")
        assert [item.value for item in items] == ["shop", "shop-admin"]


def test_the_readme_s_table_for_newcomers_names_options_and_defaults() -> None:
    _, _, rest = (PROJECT / "README.md").read_text().partition("| gunicorn | uvicorn | pounce ")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    defaults = {
        each.key: each.kind.write(each.default).strip('"')
        for each in (*options(ServerConfig), *options(Listen))
    }
    named = [row.split("|")[-2] for row in rows]
    keys = [key for cell in named for key in re.findall(r"`([a-z]+(?:_[a-z]+)*)`", cell)]
    assert len(keys) > len(rows) / 2
    assert set(keys) <= set(defaults)
    for key, default in re.findall(r"`(\w+)` \(([\w ]+)", "\n".join(named)):
        assert defaults[key] == default, key


def test_all_versions_are_one() -> None:
    changelog = (PROJECT / "debian/changelog").read_text()
    specification = (PROJECT / "packaging/rpm/pounce.spec").read_text()
    for pattern, text in (
        (r"^pounce \((.*)-\w+\) ", changelog),
        (r"^Version: *(.*)$", specification),
        (r"^## (\S+)", (PROJECT / "CHANGELOG.md").read_text()),
    ):
        found = re.search(pattern, text, re.MULTILINE)
        assert found is not None
        assert found[1] == __version__


def test_everything_that_is_to_be_installed_is_there(documents: Path) -> None:
    for line in (PROJECT / "debian/pounce.install").read_text().splitlines():
        source = line.split()[0]
        if source.startswith("build/documents/man/"):
            source = f"{documents}/man/{Path(source).name}.scd"
        elif source.startswith("build/documents/"):
            source = source.replace("build/documents", str(documents))
        assert source == "usr/bin/pounce" or (PROJECT / source).exists(), source


def test_every_dependency_is_there_when_packages_are_built() -> None:
    project = tomli.loads((PROJECT / "pyproject.toml").read_text())["project"]
    control = (PROJECT / "debian/control").read_text()
    for dependency in project["dependencies"]:
        package = "python3-" + re.split(r"[>=<; ]", dependency)[0]
        assert f" {package},\n" in control
    specification = (PROJECT / "packaging/rpm/pounce.spec").read_text()
    extras = ",".join(sorted(set(project["optional-dependencies"]) - {"lint", "test"}))
    # It adds the dependencies of the project itself.
    assert f"%generate_buildrequires\n%pyproject_buildrequires -x {extras}\n" in specification


def test_the_packages_bring_what_is_optional_elsewhere() -> None:
    project = tomli.loads((PROJECT / "pyproject.toml").read_text())["project"]
    _, control = (PROJECT / "debian/control").read_text().split("Package: python3-pounce\n")
    specification = (PROJECT / "packaging/rpm/pounce.spec").read_text()
    extras = project["optional-dependencies"]
    for dependency in (*extras["http3"], *extras["systemd"]):
        name = re.split(r"[>=<; ]", dependency)[0]
        assert f" python3-{name.removesuffix('-python')},\n" in control
        assert f"Requires:       python3dist({name})\n" in specification


def test_every_module_is_there_when_the_installed_package_is_tested() -> None:
    control = (PROJECT / "debian/tests/control").read_text()
    [suite] = re.findall(r"Tests: suite\nDepends: (.*)", control)
    packages = (PROJECT / "debian/control").read_text() + suite
    rooms = [PROJECT / "tests" / room for room in ("unit", "integration")]
    files = [file for room in rooms for file in room.glob("*.py")]
    foreign = {name for file in files for name in _imported(file)} - sys.stdlib_module_names
    assert "pytest" in foreign
    for name in foreign - {"pounce", "tests"}:
        assert f"python3-{name}" in packages, name


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_every_unit_is_installed() -> None:
    listed = (PROJECT / "debian/pounce.install").read_text()
    for unit in (PROJECT / "units").iterdir():
        assert f"units/{unit.name} usr/lib/systemd/system\n" in listed
