"""Importing the application, and telling a person why it cannot be imported."""

import difflib
import importlib
import importlib.metadata
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, cast

from pounce.config.service import ServerConfig
from pounce.errors import ApplicationError, ConfigError
from pounce.events.loggers import get_logger

logger = get_logger("pounce.worker")

# The directories that applications were imported from in this process, the last one current.
_entered: list[str] = []
# The modules that were there before: of a program that embeds the server.
_found: set[str] = set()


def load_application(config: ServerConfig) -> object:
    """Import ``config.app`` as `find_application` does; the application."""
    return find_application(config)()


def find_application(config: ServerConfig, *, afresh: bool = False) -> Callable[[], object]:
    """Import ``config.app`` in this process, in its directory and with its environment.

    *afresh* imports again what was imported before, from this directory or an earlier one, as
    the next generation of a process that lives on needs it.

    The application is "module:attribute", or "module:factory()" where the factory takes no
    arguments. The result returns it: the same one at each call, or the factory's next one. It
    raises ApplicationError, with the traceback, if the factory fails.

    Raises ConfigError if the directory or the reference is unusable, and ApplicationError, with
    the traceback, if the import fails.
    """
    module_name, attribute, is_factory = _parse(config.app)
    if not _entered:
        _found.update(sys.modules)
    enter_directory(config.directory)
    os.environ.update(config.environment)
    if afresh:
        _forget_modules()
    # What was found in a directory may be another's by now, if the path is a symbolic link. This
    # needs importlib.metadata, which is imported above so that no forked worker spends time on it.
    importlib.invalidate_caches()
    module = _import(module_name)
    found = _resolve(module, attribute, config.app)
    return partial(_call, found, config.app) if is_factory else lambda: found


def remember() -> Callable[[], None]:
    """Note what importing an application changes in a process that lives on.

    The result undoes it where the generation does not start: the application that serves has its
    modules, import path, working directory, environment and time zone again.
    """
    entered, path, modules = list(_entered), list(sys.path), dict(sys.modules)
    variables, place = dict(os.environ), _working_directory()

    def put_back() -> None:
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if name not in modules and file and _is_applications(name, Path(file)):
                del sys.modules[name]
        sys.modules.update(modules)
        _entered[:], sys.path[:] = entered, path
        for name in set(os.environ) - set(variables):
            del os.environ[name]
        os.environ.update(variables)
        time.tzset()
        if place:
            with suppress(OSError):  # it has been removed
                os.chdir(place)

    return put_back


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it has been removed
        return ""


def enter_directory(directory: str) -> None:
    """Make *directory* ("" is the current one) the working one and the first to import from."""
    path = Path(directory or ".").resolve()
    try:
        os.chdir(path)
    except OSError as error:
        raise ConfigError(
            f"directory {str(path)!r} cannot be entered: {error.strerror}",
            hint="set `directory` to where the application's modules are",
        ) from error
    # An earlier release's directory must not be searched any more, nor before this one.
    for entry in (*_entered, str(path)):
        if entry in sys.path:
            sys.path.remove(entry)
    sys.path.insert(0, str(path))
    _entered.append(str(path))


def _forget_modules() -> None:
    """Drop the modules that live under the directories entered so far, and only those.

    Objects that already refer to them, those of an older generation, keep them alive.
    """
    forgotten = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and _is_applications(name, Path(file)):
            del sys.modules[name]
            forgotten.append(name)
    del _entered[:-1]
    if forgotten:
        logger.info(
            "importing the application's own modules again (installed packages stay as they "
            "are until a restart): %s",
            ", ".join(sorted(forgotten)),
        )


def _is_applications(name: str, file: Path) -> bool:
    if name in _found or name.partition(".")[0] == "pounce":
        return False  # the program's, or the server's own, run from its source tree
    # A virtual environment often lies within the application's directory.
    installed = "site-packages" in file.parts or "dist-packages" in file.parts
    return not installed and any(file.is_relative_to(directory) for directory in _entered)


def _parse(reference: str) -> tuple[str, str, bool]:
    module, _, attribute = reference.partition(":")
    is_factory = attribute.endswith("()")
    attribute = attribute.removesuffix("()")
    names = [*module.split("."), *attribute.split(".")]
    if not all(name.isidentifier() for name in names):
        raise ConfigError(
            f"{reference!r} does not name an application" if reference else "no application given",
            hint='use "module:attribute" or "module:factory()", for example "shop.asgi:app"',
        )
    return module, attribute, is_factory


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The module itself, or a package it is in, as opposed to something that it imports.
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise ApplicationError(
                f"there is no module {error.name!r} in {Path.cwd()} or among what is installed",
                hint="set `directory` to the folder that holds it, or `virtualenv`",
            ) from error
        raise _failed(f"importing {name!r} failed", error) from error
    except (Exception, SystemExit) as error:
        raise _failed(f"importing {name!r} failed", error) from error


def _resolve(module: ModuleType, attribute: str, reference: str) -> object:
    found: Any = module
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            near = difflib.get_close_matches(name, dir(found), n=1)
            raise ApplicationError(
                f"{reference!r}: there is no {name!r} in {module.__name__!r} ({module.__file__})",
                hint=f"did you mean {near[0]!r}?" if near else "name the application's variable",
            ) from None
    return found


def _call(factory: object, reference: str) -> object:
    if not callable(factory):
        raise ApplicationError(
            f"{reference!r} is to be called, but {type(factory).__name__} is not callable",
            hint="leave out the () if it is the application itself",
        )
    try:
        return cast("Callable[[], object]", factory)()
    except (Exception, SystemExit) as error:
        raise _failed(f"calling the factory {reference!r} failed", error) from error


def _failed(what: str, error: BaseException) -> ApplicationError:
    summary = f"{type(error).__name__}: {error}".removesuffix(": ")
    return ApplicationError(f"{what}: {summary}", hint=_application_traceback(error))


def _application_traceback(error: BaseException) -> str:
    """The traceback without the import machinery's frames and ours, which tell nothing."""
    return "".join(
        traceback.format_exception(type(error), error, _outside_machinery(error.__traceback__))
    ).rstrip()


def _outside_machinery(frames: TracebackType | None) -> TracebackType | None:
    while frames and _is_machinery(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames


def _is_machinery(filename: str) -> bool:
    return filename in (__file__, importlib.__file__) or filename.startswith("<frozen importlib")
