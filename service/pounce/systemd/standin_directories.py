"""The lasting directories of a service, seen by a unit that stands in for it and changes none.

systemd makes StateDirectory= and its like at a start, moves them to where DynamicUser= has them,
and gives them the owner and the mode that the unit says (systemd.exec(5)): a check does not.
"""

import pwd
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from glob import escape
from pathlib import Path

BASES = {
    "StateDirectory": Path("/var/lib"),
    "CacheDirectory": Path("/var/cache"),
    "LogsDirectory": Path("/var/log"),
    "ConfigurationDirectory": Path("/etc"),
}
_PRIVATE_TMP = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - those of PrivateTmp=
PROPERTIES = (
    *("DynamicUser", "User"),
    *(name + suffix for name in BASES for suffix in ("", "Mode", "Symlink")),
)
"""What `unready` has to know of the service."""

# DynamicUser= takes its numbers from these (systemd.exec(5)).
_DYNAMIC = frozenset(range(61184, 65520))
# The owner of all files that are mapped to the service's user when they are mounted.
_NOBODY = 65534


def unready(properties: Mapping[str, str]) -> list[str]:
    """The settings with a directory that a start of the service would make or change."""
    return [name for name in BASES if not all(_are_ready(name, properties))]


def remove(unit: str) -> None:
    """Remove the directories that *unit*, which has stopped, had to itself."""
    for base in _PRIVATE_TMP:  # systemd leaves them where it could not even start the unit
        for place in base.glob(f"systemd-private-*-{escape(unit)}-*"):
            shutil.rmtree(place, ignore_errors=True)  # perhaps systemd is about to, as well
    for base in BASES.values():
        with suppress(FileNotFoundError, NotADirectoryError):
            shutil.rmtree(base / "private" / unit)
        place = base / unit
        if place.is_symlink():
            place.unlink()
        elif place.is_dir():
            shutil.rmtree(place)


def absent_parents() -> list[Path]:
    """The directories that systemd makes for the first dynamic user of this machine."""
    bases = (Path("/run"), *BASES.values())
    return [path for base in bases if not (path := base / "private").is_dir()]


def remove_empty(places: list[Path]) -> None:
    """Remove *places*, except those that hold something by now."""
    for place in places:
        with suppress(OSError):
            place.rmdir()


def _are_ready(name: str, properties: Mapping[str, str]) -> Iterator[bool]:
    base = BASES[name]
    for entry in properties.get(name, "").split():
        yield _is_ready(name, entry, properties)
    for pair in properties.get(f"{name}Symlink", "").split():
        link = pair.partition(":")[2].partition(":")[0]  # perhaps none, as in "name:"
        yield not link or (base / link).is_symlink()


def _is_ready(name: str, entry: str, properties: Mapping[str, str]) -> bool:
    """Whether systemd would use the directory *entry* as it is."""
    place = BASES[name] / entry
    keeps_owner = name == "ConfigurationDirectory"  # and is nobody's own
    is_private = not keeps_owner and properties.get("DynamicUser") == "yes"
    if place.is_symlink() is not is_private:
        return False
    try:
        found = (BASES[name] / "private" / entry if is_private else place).lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    mode = int(properties.get(f"{name}Mode") or "755", 8)
    has_mode = stat.S_IMODE(found.st_mode) == mode
    return keeps_owner or (has_mode and found.st_uid in _owners(properties, is_private))


def _owners(properties: Mapping[str, str], is_private: bool) -> frozenset[int]:
    """The numbers that the service's user may have."""
    user = properties.get("User") or "root"
    with suppress(KeyError):
        uid = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
        # A dynamic user has an entry while the service runs, by nss-systemd(8).
        return frozenset({uid, _NOBODY} if is_private else {uid})
    return _DYNAMIC | {_NOBODY} if is_private else frozenset()
