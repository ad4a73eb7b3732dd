"""Every error becomes its exit code and a message."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import typer

from clipeval.choices import refusal
from clipeval.console import say
from clipeval.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_NOT_MEASURED, EXIT_OK, EXIT_USAGE, ClipevalError
from clipeval.streams import guarded_streams

_Misuse: Any = typer.BadParameter.__base__
"""The error of all wrong command lines; typer keeps its name to itself."""

atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the first to register is the last to be called
_NOT_ONE_OF = re.compile(r"(?:Value error, )?'(?P<word>.*)' is not one of (?P<choices>'.*')", re.DOTALL)
"""How typer says it."""
_IMPORTER = "<frozen importlib._bootstrap>"
_AGAIN = 0.05
"""Seconds after which an interrupt that met an import is tried again."""


def guarded(command: typer.Typer | Callable[..., int | None], name: str) -> None:
    """Run a command; exits with its own code or that of the error that ends it.

    typer's own way to end is not taken: it makes exit 1, which says that a check failed, of a closed pipe and of an
    end of input, and shows the words of a command line as they are.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda _, frame: _interrupt_command(frame))
    with guarded_streams():
        code = _code_of(command, name)
    if code == EXIT_INTERRUPTED:
        _leave(code)
    sys.exit(code)


def interrupt(frame: FrameType | None) -> None:
    """KeyboardInterrupt for a signal that met this frame of the main thread.

    Within an import it waits for the import's end: a library that is stopped while its C++ part starts may abort the
    process, one that is half imported fails in its own ways later.
    """
    codes = _codes(frame)
    if all(code.co_filename != _IMPORTER for code in codes):
        raise KeyboardInterrupt
    then = _interrupt_command if _call.__code__ in codes else interrupt
    signal.signal(signal.SIGALRM, lambda _, later: then(later))
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)


def _interrupt_command(frame: FrameType | None) -> None:
    """Interrupt the command. Where that has ended, by an interrupt before, nothing is left to save."""
    if _call.__code__ not in _codes(frame):
        os._exit(EXIT_INTERRUPTED)
    interrupt(frame)


def _codes(frame: FrameType | None) -> list[CodeType]:
    return [above.f_code for above, _ in traceback.walk_stack(frame)] if frame else []


def _leave(code: int) -> None:
    """The end of the process without the interpreter's: threads of libraries that the interrupt left at work may abort
    the process there, and it replaces the code where an ``exec`` of text was interrupted."""
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _code_of(command: typer.Typer | Callable[..., int | None], name: str) -> int:
    try:
        code = _call(command, name)
        sys.stdout.flush()
        return code or EXIT_OK
    except ClipevalError as error:
        say(f"{name}: {error}")
        return error.exit_code
    except _Misuse as error:
        path = error.ctx.command_path if error.ctx else name
        if message := _told(error):  # empty where the help was shown instead
            say(f"{path}: {message.rstrip('.')}. See: {path} --help")
        return EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except MemoryError as error:
        asked = f": {error}" if str(error) else ""
        say(f"{name}: out of memory{asked}. Close other programs, or ask for less at a time.")
        return EXIT_NOT_MEASURED
    except OSError as error:
        if error.errno is None:
            return _bug(name)
        where = f"{error.filename}: " if error.filename is not None else ""
        say(f"{name}: {where}{error.strerror}.")
        return EXIT_NOT_MEASURED
    except Exception:
        return _bug(name)


def _told(error: Any) -> str:
    """What is wrong with a command line, in a line; of a word that is none of a few, the closest too."""
    found = _NOT_ONE_OF.match(error.message)
    parameter = getattr(error, "param", None)
    if not found or not parameter:
        return " ".join(error.format_message().split())
    name = parameter.opts[-1] if parameter.param_type_name == "option" else parameter.metavar or parameter.name
    return refusal(name, found["word"], re.findall(r"'([^']*)'", found["choices"]))


def _call(command: typer.Typer | Callable[..., int | None], name: str) -> int | None:
    if not isinstance(command, typer.Typer):
        return command(prog_name=name)
    if f"_{name}_complete".replace("-", "_").upper() in os.environ:  # a shell asks what may follow
        command(prog_name=name)
    parsed = typer.main.get_command(command)
    try:
        with parsed.make_context(name, sys.argv[1:]) as context:
            parsed.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return EXIT_OK


def _bug(name: str) -> int:
    for line in traceback.format_exc().rstrip("\n").split("\n"):
        say(line)
    say(f"{name}: this is a bug in {name}. Please report it with the lines above.")
    return EXIT_BUG
