"""What must not be told is masked wherever it stands; what is not secret stays as it is."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from clipeval.plain import json_text, public

TOKEN = "hf_" + "aBcDeFgHiJ" * 3 + "kLmN"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("wds:http://user:S3CRET@host/x.tar: 404", "wds:http://***@host/x.tar: 404"),
        ("https://S3CRET@host:8080/x?y=1", "https://***@host:8080/x?y=1"),
        ("wds:https:/user:S3CRET@host/x: cannot read", "wds:https:/***@host/x: cannot read"),
        ("ftp://user:p@S3CRET@host", "ftp://***@host"),
        ("two: s3://a:S3CRET@x and s3://b:S3CRET@y", "two: s3://***@x and s3://***@y"),
        ("https://h/a?X-Amz-Signature=S3CRET&X-Amz-Date=1", "https://h/a?X-Amz-Signature=***&X-Amz-Date=1"),
        ("https://h/a?b=1&sig=S3CRET%3D#x", "https://h/a?b=1&sig=***#x"),
        ("('https://h/a?access_token=S3CRET')", "('https://h/a?access_token=***')"),
        ("Authorization: Bearer S3CRET-S3CRET", "Authorization: Bearer ***"),
        (f"token {TOKEN} is invalid", "token hf_*** is invalid"),
    ],
)
def test_secrets_are_masked(text, shown):
    assert public(text) == shown
    assert public(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "https://host/a@b/c.tar",
        "c:/me@home/x",
        "https://host/a?monkey=1&split=test",
        "mail me@example.org",
        "hf_datasets and hf_checkpoint_of_mine",
        "hf://org/repo/file.pt",
        "hf:org/name@main",
        "basic sums, bearer of news",
    ],
)
def test_what_is_no_secret_stays(text):
    assert public(text) == text


@pytest.mark.parametrize("piece", ["://", "@", "?token=", "hf_", "hf_a", "bearer ", "://a", "&" * 10, "a"])
def test_a_long_text_takes_no_time(piece):
    started = time.monotonic()
    public(piece * 100_000)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("indent", [None, 0, 1, 3])
def test_json_is_laid_out_as_by_the_standard_library(indent):
    """Keys of all kinds, empty containers, nesting, numbers of NumPy; what is no number is null."""
    value = {
        "a": [1, -2.5e-300, True, None, 'x"\\\n\té', [], {}, [[]], {"": ()}],
        3: {"b": (1.0, 1e22)},
        None: 0,
        True: "",
        2.5: "x",
    }
    assert json_text(value, indent) == json.dumps(value, indent=indent, ensure_ascii=False)
    assert json_text(value, indent, ascii_only=True) == json.dumps(value, indent=indent)
    odd = {"nan": [math.nan, math.inf, np.float32(0.5), np.int8(3), np.array([[1, 2]])]}
    assert json.loads(json_text(odd, indent)) == {"nan": [None, None, 0.5, 3, [[1, 2]]]}
    with pytest.raises(TypeError):
        json_text({"set": {1}}, indent)
