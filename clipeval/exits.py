"""Every error becomes its exit code and a message."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from clipeval.console import say
from clipeval.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_USAGE, ClipevalError


def guarded(command: Callable[..., Any], name: str) -> None:
    """Run a Typer app; exits with the code of the error that ends it."""
    try:
        command(prog_name=name)
    except ClipevalError as error:
        say(f"{name}: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_USAGE)
    except Exception:
        traceback.print_exc()
        say(f"{name}: this is a bug in {name}. Please report it with the lines above.")
        sys.exit(EXIT_BUG)
