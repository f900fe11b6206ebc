"""What identifies a model folder: every file that its weights, configuration and tokenizer come from."""

import json

import pytest

from tests.helpers import error_of
from tests.tiny_models import build_tiny_lm, save_tiny_lm
from workbench.errors import ModelError
from workbench.experiment.cache_keys import model_identity


@pytest.fixture
def sharded(tmp_path):
    """Give the folder of a tiny model whose weights are in several files, one of them in a folder of its own."""
    lm = build_tiny_lm("gpt2")
    lm.model.save_pretrained(tmp_path, max_shard_size="60KB")
    lm.tokenizer.save_pretrained(tmp_path)
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    (tmp_path / "more").mkdir()
    moved = shards[0].rename(tmp_path / "more" / shards[0].name)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = {
        name: f"more/{file}" if file == moved.name else file for name, file in content["weight_map"].items()
    }
    index.write_text(json.dumps(content))
    return tmp_path


def identity(folder):
    model_identity.cache_clear()
    return model_identity(str(folder))


def test_every_weight_file_is_part_of_the_identity(sharded):
    before = identity(sharded)
    assert identity(sharded) == before
    files = list(sharded.rglob("*.safetensors"))
    for path in files:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert identity(sharded) != before, path
        path.write_bytes(content)
    assert len(files) > 1
    assert identity(sharded) == before


def test_vocabulary_files_are_part_of_the_identity(tmp_path):
    folder = save_tiny_lm(build_tiny_lm("gpt2"), tmp_path / "tiny")
    before = identity(folder)
    (tmp_path / "tiny" / "merges.txt").write_text("a b")
    assert identity(folder) != before


def test_a_damaged_index_is_named(sharded):
    (sharded / "model.safetensors.index.json").write_text("[]")
    sentence = error_of(ModelError, identity, sharded)
    assert sentence.startswith(f"the model folder {sharded} has a damaged *.safetensors.index.json (")
