"""The example notebook runs offline in a kernel, and says what ``clipeval.fit`` finds."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import clipeval

FILE = Path(__file__).parents[1] / "examples/scaling_laws.ipynb"
PUBLISHED = {"CLIP-WIT": -0.16, "LAION": -0.11}
"""Exponents of the error on ImageNet in the paper's figure, two digits."""


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")  # of Jupyter's libraries
def test_the_notebook_runs_and_shows_what_is_found(tmp_path, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    stored = nbformat.read(FILE, as_version=4)
    ran = nbformat.read(FILE, as_version=4)
    client = NotebookClient(ran, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert [_said(cell) for cell in ran.cells] == [_said(cell) for cell in stored.cells], (
        "stored outputs are those of now"
    )
    pictures = [
        len(output["data"]["image/png"])
        for cell in ran.cells
        for output in _outputs(cell)
        if "image/png" in output["data"]
    ]
    assert len(pictures) == 2
    assert min(pictures) > 30_000
    [page] = [_html(cell) for cell in ran.cells if cell.source == "imagenet"]
    fitted = clipeval.fit(preset="cherti2023", task="classification", dataset="imagenet1k", forecast="ViT-bigG-14:39B")
    for law in fitted.fits.to_dict("records"):
        assert round(law["alpha"], 2) == PUBLISHED[law["source"]]
        assert f"{law['alpha']:#.2g}"[:5] in page
    assert re.search(r"ViT-bigG-14:39B", page)


def _outputs(cell):
    return [output for output in cell.get("outputs", []) if "data" in output]


def _said(cell):
    """Text of the outputs: pictures differ by the version of matplotlib."""
    return [output["data"]["text/plain"] for output in _outputs(cell)]


def _html(cell):
    return "".join(output["data"].get("text/html", "") for output in _outputs(cell))
