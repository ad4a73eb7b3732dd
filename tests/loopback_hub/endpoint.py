"""How the three origins answer, in huggingface.co's words, classes of error and headers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote

from loopback_hub import writing
from loopback_hub.answers import Answer, Request, json_answer, ranged, refusal
from loopback_hub.repositories import File, Repository

if TYPE_CHECKING:
    from loopback_hub.hub import Hub

SIGNATURE = "kept-secret"
"""In the query of every address of the CDN, as a signed one has it: it must be shown to nobody."""
_COMPRESSED = (".json", ".md", ".txt", ".yaml")
_PLAIN = {"Content-Type": "text/plain; charset=utf-8"}
_BYTES = {"Content-Type": "application/octet-stream"}
_NAME = r"([^/]+(?:/[^/]+)?)"
_API = re.compile(rf"/api/(models|datasets)/{_NAME}(?:/(revision|tree|paths-info|refs)(?:/(.*))?)?")
_CACHED = re.compile(rf"/api/resolve-cache/(models|datasets)/{_NAME}/([0-9a-f]{{40}})/(.+)")
_FILE = re.compile(rf"/(datasets/)?{_NAME}/(?:resolve|raw)/([^/]+)/(.+)")


def of_proxy(hub: Hub, request: Request) -> Answer:
    """Nothing leaves the loopback."""
    return Answer(403, b"refused: not on the loopback", _PLAIN)


def of_cdn(hub: Hub, request: Request) -> Answer:
    """Files in LFS under signed addresses, for whoever has one and sends no token; and ``hub.plain``."""
    if (taken := writing.of_cdn(hub, request)) is not None:
        return taken
    if (data := hub.plain.get(request.path)) is not None:
        return ranged(_whole(File(data, False)), request)
    trees = (tree for repository in hub.repositories.values() for tree in repository.commits.values())
    file = next((file for tree in trees for file in tree.values() if request.path == f"/lfs/{file.sha256}"), None)
    if file is None:
        return Answer(404, b"Not Found", _PLAIN)
    if parse_qs(request.query).get("Signature") != [SIGNATURE] or "authorization" in request.headers:
        return Answer(403, b"<Error><Code>AccessDenied</Code></Error>", {"Content-Type": "application/xml"})
    return ranged(_whole(file), request)


def of_hub(hub: Hub, request: Request) -> Answer:
    """The endpoint: files and the API."""
    if request.token and request.token not in hub.tokens:
        return refusal(401, "", "Invalid credentials in Authorization header")
    if (taken := writing.of_hub(hub, request)) is not None:
        return taken
    if match := _CACHED.fullmatch(request.target):
        kind, name, commit, path = match[1].removesuffix("s"), match[2], match[3], unquote(match[4])
        return _file(hub, request, kind, name, commit, path, cached=True)
    if match := _API.fullmatch(request.target):
        return _api(hub, request, match[1].removesuffix("s"), match[2], match[3] or "", match[4] or "")
    if match := _FILE.fullmatch(request.target):
        kind = "dataset" if match[1] else "model"
        return _file(hub, request, kind, match[2], unquote(match[3]), unquote(match[4]))
    return refusal(404, "", "Sorry, we can't find the page you are looking for.")


def _file(hub: Hub, request: Request, kind: str, name: str, revision: str, path: str, cached: bool = False) -> Answer:
    if new := hub.renamed.get((kind, name)):
        return _moved(request.target.replace(name, new, 1))
    found = _readable(hub, request, kind, name)
    if isinstance(found, Answer):
        return found
    commit = found.resolve(revision)
    if commit is None:
        return refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    seen_at = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
    file = found.commits[commit].get(path)
    if file is None:
        missing = refusal(404, "EntryNotFound", "Entry not found")
        return Answer(404, missing.body, missing.headers | seen_at)
    if file.lfs:
        name_of = path.rpartition("/")[2]
        signed = f"Expires=2147483647&Signature={SIGNATURE}&response-content-disposition={quote(name_of)}"
        linked = {"X-Linked-Size": str(len(file.data)), "X-Linked-Etag": f'"{file.etag}"'}
        location = {"Location": f"{hub.cdn}/lfs/{file.sha256}?{signed}"}
        return Answer(302, b"Found. Redirecting to the CDN", _PLAIN | seen_at | linked | location)
    if hub.caches and not cached:  # huggingface.co sends small files round like this since 2025
        moved = _moved(f"/api/resolve-cache/{kind}s/{name}/{commit}/{quote(path)}")
        return Answer(307, moved.body, moved.headers | seen_at)
    answer = ranged(_whole(file, path.endswith(_COMPRESSED)), request)
    return Answer(answer.status, answer.body, answer.headers | seen_at, compressible=answer.compressible)


def _api(hub: Hub, request: Request, kind: str, name: str, what: str, rest: str) -> Answer:
    if new := hub.renamed.get((kind, name)):
        return _moved(request.target.replace(name, new, 1))
    found = _readable(hub, request, kind, name, gate=False)
    if isinstance(found, Answer):
        return found
    if what == "refs":
        branches = [{"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": at} for ref, at in found.refs.items()]
        return json_answer({"branches": branches, "converts": [], "tags": []})
    revision, _, folder = rest.partition("/")
    commit = found.resolve(unquote(revision) or "main")
    if commit is None:
        return refusal(404, "RevisionNotFound", f"Invalid rev id: {unquote(revision)}")
    if what == "paths-info":
        wanted = parse_qs(request.body.decode()).get("paths", [])
        return json_answer(found.paths(commit, wanted))
    if what == "tree":
        recursive = parse_qs(request.query).get("recursive", [""])[0].lower() in ("1", "true")
        listing = found.listing(commit, unquote(folder).strip("/"), recursive)
        if listing is None:
            return refusal(404, "EntryNotFound", f"{unquote(folder)} does not exist on '{unquote(revision)}'")
        return json_answer(listing)
    return json_answer(found.info(commit))


def _readable(hub: Hub, request: Request, kind: str, name: str, gate: bool = True) -> Repository | Answer:
    """The repository, or why whoever asks may not read it. A private one is told as a missing one.

    What a gated one holds is listed for everybody (``gate`` off); its files are not given to everybody.
    """
    found = hub.repositories.get((kind, name))
    may = found is not None and request.token in found.readers
    if found is None or (found.private and not may):
        if request.token:
            return refusal(404, "RepoNotFound", "Repository not found")
        return refusal(401, "RepoNotFound", "Invalid username or password.")
    if found.gated and gate and not may:
        restricted = f"Access to {kind} {name} is restricted"
        if request.token:
            return refusal(403, "GatedRepo", f"{restricted} and you are not in the authorized list. Ask for access.")
        return refusal(401, "GatedRepo", f"{restricted}. You must have access to it and be authenticated.")
    return found


def _whole(file: File, compressible: bool = False) -> Answer:
    """The ETag is git's digest; the CDN's is not the SHA-256 either, though the hub announces that one."""
    return Answer(
        200, file.data, _BYTES | {"ETag": f'"{file.oid}"', "Accept-Ranges": "bytes"}, compressible=compressible
    )


def _moved(target: str) -> Answer:
    return Answer(307, b"Temporary Redirect", _PLAIN | {"Location": target})
