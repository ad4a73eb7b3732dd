"""Repositories as the hub keeps them: commits, branches, tags, and files in git or in LFS."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

LFS_SUFFIXES = (".arrow", ".bin", ".gz", ".model", ".npy", ".parquet", ".pt", ".pth", ".safetensors", ".tar", ".zip")
"""What the hub's default .gitattributes puts into LFS; all else is in git."""


def git_digest(kind: str, data: bytes) -> str:
    """git's name of an object, 40 hex digits."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


@dataclass(frozen=True)
class File:
    """The content of a file, and whether LFS keeps it."""

    data: bytes
    lfs: bool

    @cached_property
    def sha256(self) -> str:
        """64 hex digits."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git keeps of a file in LFS."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @cached_property
    def oid(self) -> str:
        """git's name of the file, or of its pointer."""
        return git_digest("blob", self.pointer if self.lfs else self.data)

    @property
    def etag(self) -> str:
        """What the hub announces and its clients name the local copy by: 64 digits of LFS, 40 of git."""
        return self.sha256 if self.lfs else self.oid

    def listed(self, path: str) -> dict[str, Any]:
        """The file in a listing of the hub's API."""
        record = {"type": "file", "oid": self.oid, "size": len(self.data), "path": path}
        lfs = {"oid": self.sha256, "size": len(self.data), "pointerSize": len(self.pointer)}
        return record | ({"lfs": lfs} if self.lfs else {})


Tree = Mapping[str, File]


@dataclass
class Repository:
    """One repository. ``readers`` are the tokens that may read it where it is ``private`` or ``gated``."""

    name: str
    kind: Literal["model", "dataset"] = "model"
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    commits: dict[str, Tree] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    """Branches, tags and others (``refs/pr/1``) -> commit."""

    def push(self, files: Mapping[str, bytes | None], branch: str = "main") -> str:
        """A commit on top of ``branch``; None deletes a file. Returns its 40 hex digits."""
        tree = dict(self.commits.get(self.refs.get(branch, self.refs.get("main", "")), {}))
        for path, data in files.items():
            if data is None:
                del tree[path]
            else:
                tree[path] = File(data, path.endswith(LFS_SUFFIXES))
        text = "\n".join([self.kind, self.name, str(len(self.commits)), *(f"{p} {f.oid}" for p, f in tree.items())])
        commit = git_digest("commit", text.encode())
        self.commits[commit] = tree
        self.refs[branch] = commit
        return commit

    @property
    def tree(self) -> Tree:
        """The files of ``main``."""
        return self.commits[self.refs["main"]]

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, a tag, or the first 7 or more of a commit's digits stand for."""
        if commit := self.refs.get(revision):
            return commit
        begun = [commit for commit in self.commits if len(revision) >= 7 and commit.startswith(revision)]
        return begun[0] if len(begun) == 1 else None

    def listing(self, commit: str, folder: str, recursive: bool) -> list[dict[str, Any]] | None:
        """What ``/tree`` answers: files and folders below ``folder``; None where there is no such folder."""
        prefix = f"{folder}/" if folder else ""
        inside = {path: file for path, file in self.commits[commit].items() if path.startswith(prefix)}
        if folder and not inside:
            return None
        folders: dict[str, None] = {}
        for path in inside:
            parts = path.removeprefix(prefix).split("/")[:-1]
            for depth in range(1, len(parts) + 1 if recursive else min(len(parts), 1) + 1):
                folders[prefix + "/".join(parts[:depth])] = None
        files = [
            file.listed(path) for path, file in inside.items() if recursive or "/" not in path.removeprefix(prefix)
        ]
        return [_folder(path) for path in folders] + files

    def paths(self, commit: str, wanted: list[str]) -> list[dict[str, Any]]:
        """What ``/paths-info`` answers: those of ``wanted`` that exist."""
        tree = self.commits[commit]
        found = []
        for path in wanted:
            if path in tree:
                found.append(tree[path].listed(path))
            elif any(other.startswith(f"{path}/") for other in tree):
                found.append(_folder(path))
        return found

    def info(self, commit: str) -> dict[str, Any]:
        """What ``/api/models/NAME`` and ``/api/datasets/NAME`` answer."""
        return {
            "_id": git_digest("blob", self.name.encode())[:24],
            "id": self.name,
            "author": self.name.rpartition("/")[0],
            "sha": commit,
            "lastModified": "2023-05-04T11:12:13.000Z",
            "createdAt": "2022-03-02T23:29:04.000Z",
            "private": self.private,
            "gated": "auto" if self.gated else False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": path} for path in self.commits[commit]],
        } | ({"modelId": self.name} if self.kind == "model" else {})


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": git_digest("tree", path.encode()), "size": 0, "path": path}
