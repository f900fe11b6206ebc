"""Digests of files and of JSON values."""

import hashlib
from pathlib import Path

import pytest

from workbench.storage.digests import sha256_of_file, sha256_of_json

# FIPS 180-2, appendix B.1
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of_file(tmp_path / "abc") == sha256_of_file(str(tmp_path / "abc")) == ABC


def test_the_digest_of_a_value_ignores_the_order_of_keys_and_nothing_else():
    expected = hashlib.sha256(b'{"a": [1, null], "b": "x"}').hexdigest()
    assert sha256_of_json({"b": "x", "a": [1, None]}) == sha256_of_json({"a": (1, None), "b": "x"}) == expected
    assert sha256_of_json({"a": [None, 1], "b": "x"}) != expected


def test_a_value_that_json_does_not_know_needs_a_function():
    with pytest.raises(TypeError):
        sha256_of_json([Path("a")])
    assert sha256_of_json([Path("a")], default=str) == sha256_of_json(["a"])
