"""YAML of users: what it may hold, and what is refused before it can hang or confuse."""

import time

import pytest
import yaml

from tests.helpers import error_of
from workbench.editing.rome import ROME
from workbench.errors import EditError, SpecError
from workbench.experiment.grids import read_specs
from workbench.figures.manifest import read_manifest
from workbench.storage.plain_yaml import load_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(9 * ['*' + chr(97 + i)])}]\n" for i in range(9)
)
REFUSED = {
    "bomb": BOMB,
    "recursive": "a: &a [*a]",
    "deep flow": "[" * 10_000,
    "deep": "a: " + "[" * 100 + "]" * 100,
    "number as key": "1: a",
    "null as key": "~: a",
    "list as key": "? [a]\n: b",
    "date that is none": "a: 2026-99-99",
    "object": "a: !!python/object/apply:os.system ['true']",
    "NUL": "a: \0",
    "two documents": "a: 1\n---\nb: 2",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_what_could_hang_or_confuse_is_refused_at_once(text, tmp_path):
    begun = time.process_time()
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)
    path = tmp_path / "figures.yaml"
    path.write_text(text)
    for error, read, given in ((SpecError, read_specs, path), (SpecError, read_manifest, tmp_path)):
        sentence = error_of(error, read, given)
        assert sentence.startswith(str(path))
        assert "\n" not in sentence
    assert error_of(EditError, ROME.from_yaml, path).startswith(f"{path} cannot be read as YAML (")
    assert time.process_time() - begun < 5


def test_everything_else_is_read_as_yaml_reads_it():
    text = "a: &a [1, 2.5, true, null, text, {b: 2026-11-30}]\n'1': *a\n"
    assert load_yaml(text) == yaml.safe_load(text)
    assert load_yaml("") is None


def test_the_sentence_says_where(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("n_operations: 1\n2: b\n")
    assert error_of(SpecError, read_specs, path) == (
        f'{path} is not YAML: a key must be a text; put it in quotes in "<unicode string>", line 2, column 1: 2: b ^.'
    )
