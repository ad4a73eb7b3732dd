"""Values as JSON knows them, and texts without secrets."""

from __future__ import annotations

import math
import re
from typing import Any

_SECRETS = (
    (re.compile(r"(?<=://)[^/?#\s]*@"), "***@"),  # the user, the password, or a token in the place of one
    (
        re.compile(
            r"([?&;](?:[\w.%-]*(?:signature|credential|token|secret|passw(?:or)?d|api[-_]?key|access[-_]?key(?:id)?)"
            r"|sig|key|auth|policy|key-pair-id)=)[^&#\s'\"]+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    (re.compile(r"\b(bearer|basic) +[\w.~+/=-]{8,}", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"\bhf_(?=[A-Za-z_]*[A-Z0-9])(?:[a-z]+_)?[A-Za-z0-9]{10,}"), "hf_***"),
)


def plain(value: Any) -> Any:
    """``value`` for JSON: numbers of NumPy become Python's, NaN, infinities and pandas' missing value become None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist") and not isinstance(value, str):  # arrays and scalars of NumPy
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return None if type(value).__name__ == "NAType" else value


def public(text: str) -> str:
    """``text`` with ``***`` for what opens a door: user and password of URLs, signed query values, tokens of the hub."""
    for pattern, mask in _SECRETS:
        text = pattern.sub(mask, text)
    return text
