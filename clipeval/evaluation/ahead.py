"""Files that are needed next come while something else is done."""

from __future__ import annotations

import threading
from collections.abc import Callable

from clipeval.errors import ClipevalError
from clipeval.evaluation.failures import attempt


class Ahead:
    """Calls ``fetch`` in a thread that no end of the process waits for."""

    def __init__(self, fetch: Callable[[], object]) -> None:
        self._fetch = fetch
        self._error: ClipevalError | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Until it has ended. Raises the ClipevalError that it ended in."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        found = attempt(self._fetch)
        self._error = found if isinstance(found, ClipevalError) else None
