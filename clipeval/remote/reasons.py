"""Why the hub did not give what was asked for, in words for people, by the class of its client's error."""

from __future__ import annotations

from typing import Any

from clipeval.errors import AbsentError, RemoteError, first_line
from clipeval.remote import client
from clipeval.remote.origin import endpoint, may_have_token, public, same_origin


def of(error: Exception, page: str, repository: str, path: str) -> RemoteError:
    """The error for people. ``page`` is the repository's address."""
    what = f"'{path}' of {repository}" if path else repository
    kind, reason = _reason(error, page, path)
    return kind(f"{what}: {reason}")


def is_away(error: Exception) -> bool:
    """Whether the endpoint did not answer at all, so that asking it again for another file leads nowhere."""
    return _status(error) is None and client.is_of_transport(error) and _asked(error) == endpoint()


def away(error: Exception) -> str:
    """Words for a host that did not answer."""
    host = _asked(error)
    hint = "HF_ENDPOINT" if host == endpoint() else f"{endpoint()}, which sends there"
    return f"{host} cannot be reached: {type(error).__name__}: {said(error)}. Check the network or {hint}."


def _asked(error: Exception) -> str:
    """The endpoint, or the other host that it has sent to."""
    try:
        url = str(error.request.url)  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # of a library that does not say
        return endpoint()
    return endpoint() if same_origin(url, endpoint()) else public("/".join(url.split("/")[:3]))


def _reason(error: Exception, page: str, path: str) -> tuple[type[RemoteError], str]:
    from huggingface_hub import errors, get_token

    token = get_token() if may_have_token(endpoint()) else None
    status = _status(error)
    if isinstance(error, errors.GatedRepoError):
        if token is None:
            return RemoteError, f"it is gated: accept its terms at {page} and set HF_TOKEN."
        return RemoteError, f"it is gated, and this HF_TOKEN has no access: ask for it at {page} ({said(error)})"
    if isinstance(error, errors.RepositoryNotFoundError):
        if token is None:
            return RemoteError, f"there is no such repository at {page}, or it is private: then set HF_TOKEN."
        return RemoteError, f"there is no such repository at {page}, or it is private and this HF_TOKEN has no access."
    if isinstance(error, errors.RevisionNotFoundError):
        return AbsentError, f"there is no such branch, tag or commit; see {page}."
    if isinstance(error, errors.EntryNotFoundError):
        return AbsentError, f"{page} has no such file."
    if status == 401:
        return RemoteError, f"{endpoint()} refuses the token ({said(error)}): renew HF_TOKEN, or unset it."
    if status is not None:
        return RemoteError, f"{_asked(error)} answers {status}: {said(error)}. Try again later."
    if client.is_of_transport(error):
        return RemoteError, away(error)
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        return RemoteError, f"cannot be kept: {where}{error.strerror}."
    return RemoteError, f"cannot be had from {endpoint()}: {type(error).__name__}: {said(error)}"


def _status(error: Exception) -> int | None:
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None


def said(error: Exception) -> str:
    """The server's own words where there are some."""
    text = str(getattr(error, "server_message", None) or first_line(error))
    return public(first_line(ValueError(text)))[:300].rstrip(".")
