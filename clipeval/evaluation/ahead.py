"""The weights of the next checkpoint come while another one is measured."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from clipeval.errors import ClipevalError
from clipeval.evaluation.failures import attempt

if TYPE_CHECKING:
    from clipeval.models.opened import Opened


class Ahead:
    """Fetches the weights of one checkpoint in a thread that no end of the process waits for."""

    def __init__(self, checkpoint: Opened) -> None:
        self._checkpoint = checkpoint
        self._error: ClipevalError | None = None
        self._thread = threading.Thread(target=self._fetch, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until they are here. Raises ModelError where they are not to be had."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _fetch(self) -> None:
        found = attempt(lambda: self._checkpoint.paths)
        self._error = found if isinstance(found, ClipevalError) else None
