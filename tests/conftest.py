"""Fixtures that many tests share: tiny models of every family, the embedded model, a cache of one's own."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported; no test may reach the hub

from pathlib import Path

import pytest
import torch

import workbench as wb
from tests.tiny_models import MODEL_TYPES, build_tiny_lm

torch.set_num_threads(1)  # on tiny tensors and busy cores, threads wait for one another far longer than they compute


@pytest.fixture(params=["gpt2", "llama"])
def tiny_lm(request) -> wb.LanguageModel:
    """Give a fresh tiny model: one whose weights lie (d_in, d_out), one whose weights lie (d_out, d_in)."""
    return build_tiny_lm(request.param)


@pytest.fixture(scope="session", params=MODEL_TYPES)
def every_tiny_lm(request) -> wb.LanguageModel:
    """Give a tiny model of each supported family; shared, so a test undoes what it applies."""
    return build_tiny_lm(request.param)


@pytest.fixture(scope="session")
def smollm2() -> wb.LanguageModel:
    """Give the embedded model; shared, so a test undoes what it applies."""
    return wb.load("smollm2-135m")


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    """Give an empty cache folder, in force for this test."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
