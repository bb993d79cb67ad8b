"""Where aioquic is not to be had, HTTP/3 is refused with one clear error."""

import os
import sys
from pathlib import Path

import pytest

from tests import standing_in
from tests.certificates import Authority
from tests.service import APPS


@pytest.mark.parametrize("subcommand", ["serve", "check"])
def test_http3_needs_aioquic(subcommand: str, tmp_path: Path) -> None:
    (tmp_path / "aioquic.py").write_text("raise ImportError('there is no aioquic')")
    certificate, key = Authority().issue("a.example").write(tmp_path, "a")
    flags = ["--certificate", str(certificate), "--key", str(key), "--http3"]
    command = [sys.executable, "-m", "pounce", subcommand, "load:app", "--directory", str(APPS)]
    outcome = standing_in.run(  # root's check is another user's, who may not come as far
        [*command, *flags, "--bind", "127.0.0.1:18499"],
        {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert outcome.returncode == 78, outcome
    assert "http3: it needs aioquic, which cannot be imported: there is no" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "worker" not in outcome.stderr
