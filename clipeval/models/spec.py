"""One checkpoint as a user names it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["tag", "file", "hf", "hub", "local-dir", "trained", "transformers", "python"]


@dataclass(frozen=True)
class ModelSpec:
    """One checkpoint, not yet looked at.

    ``name`` identifies it in the results. ``kind`` says where the weights are: an open_clip ``tag``; a ``file`` on this
    machine or one on the hub (``hf``), both of architecture ``arch``; a ``hub`` repository or a ``local-dir`` with an
    open_clip configuration; a checkpoint ``trained`` by clipeval-train; a folder or repository of ``transformers``; a
    function of ``python``. ``path`` is the local file or folder, if any.
    ``overrides`` are facts from the configuration that win over what clipeval finds out. ``forced`` is what it says of
    the model's input (keys of ``PreprocessEntry``, ``image_size``, ``context_length``), which decides values.
    ``compiled`` says that torch.compile makes code of its towers.
    ``commit`` is that of the hub's repository once it has been looked up. ``guess`` says by what a folder was told to
    be of this kind.
    """

    name: str
    kind: Kind
    arch: str = ""
    pretrained: str = ""
    path: str = ""
    overrides: tuple[tuple[str, Any], ...] = ()
    forced: tuple[tuple[str, Any], ...] = ()
    compiled: bool = False
    commit: str = ""
    guess: str = field(default="", compare=False)
