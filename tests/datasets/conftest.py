"""A server that fails is tried again at once."""

import pytest

from clipeval.remote import origin, transfer


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tries as ever, without the 15 seconds between them."""
    for module in (origin, transfer):
        monkeypatch.setattr(module, "WAITS", (0,) * len(origin.WAITS))
