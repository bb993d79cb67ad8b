"""What keeps a user from a file, told by the modes along the path and the links on it."""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pounce.systemd.obstacles import obstacle
from tests.ordinary_user import as_ordinary_user


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        place = Path(directory)
        place.chmod(0o755)
        (place / "open/inner").mkdir(parents=True)
        (place / "open/inner/file").touch()
        (place / "closed/inner").mkdir(parents=True)
        (place / "closed/inner/file").touch()
        (place / "secret").touch(0o000)
        for name, target in (
            ("absolute", f"{place}/closed/inner/file"),
            ("relative", "open/../closed/inner"),
            ("loop", "loop"),
            ("astray", "gone/file"),
        ):
            (place / name).symlink_to(target)
        (place / "closed").chmod(0o000)
        yield place
        (place / "closed").chmod(0o755)


CLOSED = "{0}/closed has the mode d---------"
CLOSED_FILE = "{0}/secret has the mode ----------"
OBSTACLES = [
    ("open/inner/file", ""),
    ("open/inner", ""),
    ("open/./inner/../inner", ""),
    ("gone/file", ""),
    ("astray", ""),
    ("open/inner/file/below", ""),
    ("loop", ""),
    ("closed", f"{CLOSED} and belongs to "),
    ("closed/inner/file", "may not enter it (chmod o+x {0}/closed)"),
    ("closed", "may not list and enter it (chmod o+rx {0}/closed)"),
    ("open/../closed/inner", CLOSED),
    ("relative/file", CLOSED),
    ("absolute", f"{{0}}/absolute is a link to {{0}}/closed/inner/file; {CLOSED}"),
    ("secret", CLOSED_FILE),
    ("secret", "may not read it (chmod o+r {0}/secret)"),
]


@pytest.mark.parametrize(("path", "words"), OBSTACLES)
def test_an_obstacle_is_named(place: Path, path: str, words: str) -> None:
    def look() -> None:
        os.chdir("/")
        told = obstacle(f"{place}/{path}")
        assert words.format(place) in told if words else told == "", told

    as_ordinary_user(look, resource.RLIMIT_NOFILE, 1024)


IN_A_USER_NAMESPACE = ("unshare", "--user", sys.executable, "-P", "-c")
LOOK = "import sys; from pounce.systemd.obstacles import obstacle; print(obstacle(sys.argv[1]))"


def test_an_owner_that_a_user_namespace_hides_is_not_named(place: Path) -> None:
    said = subprocess.run(
        [*IN_A_USER_NAMESPACE, LOOK, place / "secret"], capture_output=True, text=True, check=False
    )
    if "unshare failed" in said.stderr:
        pytest.skip("this kernel gives no user namespace")
    assert f"{CLOSED_FILE.format(place)} and belongs to another user: the user " in said.stdout
