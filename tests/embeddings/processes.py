"""Several processes that do the same at the same moment."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def at_once(count: int, work: Callable[[int], None]) -> None:
    """Call ``work(number)`` in ``count`` forked processes that start together; each must end well."""
    waiting, start = os.pipe()
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(start)
                os.read(waiting, 1)  # ends when the parent closes its end
                work(number)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    os.close(waiting)
    os.close(start)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * count
