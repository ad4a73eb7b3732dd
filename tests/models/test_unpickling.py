"""Plain data beside weights is read as data; what could hold code or trick NumPy is refused."""

import argparse
import collections
import datetime
import io
import os
import pathlib
import pickle
import struct
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from clipeval.errors import ModelError
from clipeval.models import weights
from clipeval.models.unpickling import as_tensor


def read(path: Path, value: Any, zipped: bool = True) -> Any:
    torch.save({"value": value, "w": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    content = weights.read(path)
    assert content["w"].tolist() == [1, 1, 1]
    return content["value"]


def test_files_whose_name_is_not_utf8_are_read(tmp_path: Path) -> None:
    for suffix, save in ((".pt", torch.save), (".safetensors", save_file)):
        save({"w": torch.arange(3)}, tmp_path / f"a{suffix}")
        odd = tmp_path / (os.fsdecode(b"caf\xe9") + suffix)
        (tmp_path / f"a{suffix}").rename(odd)
        assert weights.read(odd)["w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.3),
        np.float16(-2),
        np.int64(-7),
        np.uint8(255),
        np.bool_(True),
        np.complex64(1 - 2j),
        np.str_("naïve"),
        np.str_(""),
        np.bytes_(b"ab"),
        np.array(2.5, ">f8")[()],
    ],
)
def test_scalars_are_the_same_values_of_python(tmp_path: Path, value: Any, zipped: bool) -> None:
    found = read(tmp_path / "w.pt", value, zipped)
    assert (found, type(found)) == (value.item(), type(value.item()))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(15).reshape(3, 5),
        np.asfortranarray(np.arange(15.0).reshape(3, 5)),
        np.arange(15, dtype=">i4")[::2],
        np.array(3.5),
        np.empty((0, 3), np.float32),
        np.array([True, False]),
    ],
)
def test_arrays_are_the_same_numbers(tmp_path: Path, array: np.ndarray) -> None:
    found = as_tensor(read(tmp_path / "w.pt", array))
    assert found.shape == array.shape
    assert found.tolist() == array.tolist()


def test_what_a_training_script_keeps(tmp_path: Path) -> None:
    kept = {
        "args": argparse.Namespace(lr=1e-3, nested=types.SimpleNamespace(a=1)),
        "log": collections.defaultdict(list, loss=[1.0, 0.5]),
        "paths": [pathlib.PurePosixPath("/a/b"), Path("x")],
        "when": (datetime.datetime(2022, 5, 1, tzinfo=datetime.UTC), datetime.timedelta(hours=3)),
        "numpy": (np.random.default_rng(0).bit_generator.state, np.dtype("f4"), np.float32),  # the type itself
        "names": np.array(["a", "bcd"]),
        "order": collections.OrderedDict(a=1),
    }
    found = read(tmp_path / "w.pt", kept)
    assert found["log"] == {"loss": [1.0, 0.5]}
    assert found["numpy"][0] == np.random.default_rng(0).bit_generator.state
    assert found["order"] == {"a": 1}


def test_the_names_of_numpy_1(tmp_path: Path) -> None:
    """As files of 2022 have them: ``numpy.core``, written by hand in protocol 2, as torch.save does."""
    data = struct.pack("<d", 0.125).decode("latin1").encode()
    written = (
        b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n(X\x02\x00\x00\x00f8K\x00K\x01tR"
        b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"c_codecs\nencode\n(X" + struct.pack("<I", len(data)) + data + b"X\x06\x00\x00\x00latin1tR\x86R."
    )
    assert pickle.loads(written.replace(b"numpy.core", b"numpy._core")) == 0.125
    buffer = io.BytesIO()
    torch.save({"state_dict": {}, "lr": "HERE"}, buffer, _use_new_zipfile_serialization=False)
    text = b"X\x04\x00\x00\x00HERE"
    assert buffer.getvalue().count(text) == 1
    path = tmp_path / "w.pt"
    path.write_bytes(buffer.getvalue().replace(text, written[2:-1]))
    assert weights.read(path)["lr"] == 0.125


class Reduced:
    """Pickled as a call."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def overwide() -> np.ndarray:
    """An array of 8 bytes that says it has a million numbers."""
    function, arguments, state = np.zeros(1).__reduce__()
    return Reduced(function, arguments, (state[0], (10**6,), *state[2:]))  # type: ignore[return-value]


def crafted_dtype() -> Any:
    """A type whose parts lie beyond its memory."""
    state = (3, "|", None, ("a",), {"a": (np.dtype("f8"), 4096)}, 8, 1, 0)
    return Reduced(np.dtype, ("V8", False, True), state)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array([1, None], dtype=object), "'O8', which may hold code; refused, nothing was executed"),
        (np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]), "may hold code"),
        (crafted_dtype(), "may hold code"),
        (Reduced(np._core.multiarray._reconstruct, (np.matrix, (0,), b"b")), "would execute code (numpy.matrix)"),
        (Reduced(np._core.multiarray.scalar, (np.dtype("f8"), b"123")), "not readable as a checkpoint"),
        (overwide(), "not readable as a checkpoint: a NumPy array of another length than its shape says"),
        (Reduced(np.frombuffer, (b"12345678",)), "would execute code (numpy.frombuffer)"),
        (Reduced(pathlib.Path.touch, (pathlib.Path("boom"),)), "would execute code"),
        (Reduced(collections.deque, ([1],)), "would execute code (collections.deque)"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, expected: str, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        read(tmp_path / "w.pt", value, zipped)
    assert expected in str(caught.value)
    assert not (tmp_path / "boom").exists()


def test_what_the_process_allows_elsewhere_is_as_before(tmp_path: Path) -> None:
    torch.save(collections.deque([1]), tmp_path / "w.pt")
    with torch.serialization.safe_globals([collections.deque]):
        before = set(torch.serialization.get_safe_globals())
        with pytest.raises(ModelError, match=r"collections\.deque"):
            weights.read(tmp_path / "w.pt")
        assert set(torch.serialization.get_safe_globals()) == before
    torch.save(np.float64(1), tmp_path / "w.pt")
    weights.read(tmp_path / "w.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "w.pt", weights_only=True)
