"""How the hub takes what is sent: repositories that are made, files in LFS, and commits, in huggingface.co's words."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

from loopback_hub.answers import Answer, Request, json_answer, refusal
from loopback_hub.repositories import LFS_SUFFIXES, Repository

if TYPE_CHECKING:
    from loopback_hub.hub import Hub

_NAME = r"([^/]+/[^/]+?)"
_API = re.compile(rf"/api/(models|datasets)/{_NAME}/(preupload|commit)/(.+)")
_LFS = re.compile(rf"/(datasets/)?{_NAME}\.git/info/lfs/(objects/batch|verify)")
_UPLOAD = re.compile(r"/upload/([0-9a-f]{64})")


def of_hub(hub: Hub, request: Request) -> Answer | None:
    """The endpoint's answer to what is sent; None where that is none of these."""
    if request.method != "POST":
        return None
    if request.target == "/api/validate-yaml":
        return _validated(json.loads(request.body))
    api, lfs = _API.fullmatch(request.target), _LFS.fullmatch(request.target)
    if request.target != "/api/repos/create" and not api and not lfs:
        return None
    if request.token not in hub.writers:
        status = 403 if request.token else 401
        return refusal(status, "", "Forbidden: you don't have the rights to write" if request.token else "Unauthorized")
    if api:
        found = hub.repositories.get((api[1].removesuffix("s"), api[2]))
        if found is None:
            return refusal(404, "RepoNotFound", "Repository not found")
        answered = _modes if api[3] == "preupload" else _commit
        return answered(hub, request, found, unquote(api[4]))
    return _lfs(hub, request, lfs[3]) if lfs else _create(hub, json.loads(request.body))


def of_cdn(hub: Hub, request: Request) -> Answer | None:
    """A file in LFS comes to a signed address, without a token."""
    if request.method != "PUT" or not (match := _UPLOAD.fullmatch(request.target)):
        return None
    if parse_qs(request.query).get("Signature") != ["for-writing"] or "authorization" in request.headers:
        return Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
    if hashlib.sha256(request.body).hexdigest() != match[1]:
        return Answer(400, b"<Error><Code>BadDigest</Code></Error>")
    hub.uploaded[match[1]] = request.body
    return Answer(200, headers={"ETag": f'"{match[1]}"'})


def _validated(document: dict[str, str]) -> Answer:
    import yaml

    match = re.match(r"---\n(.*?)\n---\n", document["content"], re.DOTALL)
    if match is None or not isinstance(yaml.safe_load(match[1]), dict):
        return json_answer({"errors": [{"message": "metadata is no mapping"}], "warnings": []}, 400)
    return json_answer({"errors": [], "warnings": []})


def _create(hub: Hub, asked: dict[str, str]) -> Answer:
    kind, name = asked.get("type") or "model", f"{asked['organization']}/{asked['name']}"
    url = f"{hub.endpoint}/{'datasets/' if kind == 'dataset' else ''}{name}"
    if (kind, name) in hub.repositories:
        return json_answer({"error": f"You already created this {kind} repo", "url": url}, 409)
    private = asked.get("visibility") == "private"
    traits = {"private": private, "readers": set(hub.writers)}
    hub.repository(name, {".gitattributes": b"*.parquet filter=lfs\n"}, kind, **traits)  # type: ignore[arg-type]
    return json_answer({"url": url, "name": name, "id": name})


def _modes(hub: Hub, request: Request, found: Repository, revision: str) -> Answer:
    files = json.loads(request.body)["files"]
    tree = found.commits[found.resolve(revision) or ""]
    return json_answer(
        {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                    "shouldIgnore": False,
                    "oid": tree[file["path"]].oid if file["path"] in tree else None,
                }
                for file in files
            ]
        }
    )


def _lfs(hub: Hub, request: Request, what: str) -> Answer:
    asked = json.loads(request.body)
    if what == "verify":
        return json_answer({}) if asked["oid"] in hub.uploaded else refusal(404, "", "no such object")
    objects = [
        each | {"actions": {"upload": {"href": f"{hub.cdn}/upload/{each['oid']}?Signature=for-writing"}}}
        for each in asked["objects"]
    ]
    return json_answer({"transfer": "basic", "objects": objects})


def _commit(hub: Hub, request: Request, found: Repository, revision: str) -> Answer:
    lines = [json.loads(line) for line in request.body.splitlines()]
    parent = lines[0]["value"].get("parentCommit")
    if parent is not None and found.resolve(revision) != parent:
        return refusal(412, "", "A commit has happened since. Please refresh and try again.")
    files: dict[str, bytes | None] = {}
    for line in lines[1:]:
        value = line["value"]
        content = base64.b64decode(value["content"]) if line["key"] == "file" else hub.uploaded[value["oid"]]
        files[value["path"]] = content
    commit = found.push(files, revision)
    folder = "datasets/" if found.kind == "dataset" else ""
    return json_answer(
        {"success": True, "commitOid": commit, "commitUrl": f"{hub.endpoint}/{folder}{found.name}/commit/{commit}"}
    )
