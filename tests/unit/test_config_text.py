"""The template and the table of effective values have every option."""

import re
from pathlib import Path

import tomli

from pounce.config.file import Given, Invocation
from pounce.config.options import Table, members, options
from pounce.config.service import DEFAULT_LISTEN, ServerConfig
from pounce.config.text import rows, table, template


def uncommented() -> str:
    return re.sub(r"^#(?! )(?=.)", "", template(), flags=re.MULTILINE)


def test_the_template_sets_nothing() -> None:
    assert tomli.loads(template()) == {}


def test_the_template_uncommented_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(uncommented())
    assert Invocation(path, {}, tmp_path).load().config == ServerConfig(listen=(DEFAULT_LISTEN,))


def test_the_template_has_every_option_with_its_help() -> None:
    assert set(tomli.loads(uncommented())) == {option.key for option in options(ServerConfig)}
    prose = " ".join(line.removeprefix("# ") for line in template().splitlines())
    for option in options(ServerConfig):
        assert option.summary[1:] in prose
        assert isinstance(option.kind, Table) or option.kind.allowed in prose
        assert option.details in prose
        assert option.kind.unit in option.kind.allowed


def test_a_table_is_described_by_its_keys_alone() -> None:
    assert "# What happens before a new generation serves.\n#[deploy]\n" in template()


def test_the_template_fits_a_terminal() -> None:
    assert max(len(line) for line in template().splitlines()) <= 88


def test_every_option_has_a_row() -> None:
    settings = Invocation(None, {}, Path("/")).load()
    declared = options(ServerConfig)
    groups = [members(each) if isinstance(each.kind, Table) else (each,) for each in declared]
    names = [f"{each.table}.{each.key}".removeprefix(".") for group in groups for each in group]
    assert [row.name for row in rows(settings)] == names


def test_rows_tell_value_unit_and_source(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text('[environment]\n"A.B" = "1"\n[[listen]]\naddress = ":80"\n')
    given = {"body_timeout": Given("--body-timeout", ("2.5",))}
    wanted = {
        ('environment."A.B"', '"1"', "", f"{path}:2"),
        ("listen[0].address", '":80"', "", f"{path}:4"),
        ("listen[0].name", '""', "", "default"),
        ("body_timeout", '"2.5 s"', "", "command line --body-timeout"),
        ("max_header_size", "65536", "bytes", "default"),
        ("server_header", "true", "", "default"),
    }
    assert wanted <= set(rows(Invocation(path, given, tmp_path).load()))


def test_columns_are_aligned() -> None:
    lines = table(Invocation(None, {}, Path("/")).load()).splitlines()
    assert {line.index(" = ") for line in lines} == {len("max_requests_per_connection")}
    assert len({line.index("default") for line in lines}) == 1
