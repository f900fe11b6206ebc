"""Every reader with damaged files: the content of the original, or one sentence; never anything else.

What has a checksum is read exactly or not at all. A text that somebody writes by hand may of course hold another text
after a change; then the reader returns a value of the right kind.
"""

import contextlib
import csv
import io
import json
from pathlib import Path

import nbformat
import pyarrow as pa
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from tests.experiment.test_store import RECORD, rows
from tests.figures.notebooks import ENTRY, WRITE, write_notebook
from tests.properties.mutations import changed_value, damaged
from tests.properties.outcomes import check_sentence, outcome_of
from tests.properties.profiles import examples
from workbench.data.facts import FactSet, read_facts
from workbench.data.tasks.formats import TASK_FORMATS
from workbench.data.tasks.load import TaskData, load_task
from workbench.errors import SpecError
from workbench.experiment.archive import read_archive
from workbench.experiment.cluster_names import check_cluster
from workbench.experiment.grids import read_specs
from workbench.experiment.store import Store
from workbench.experiment.stored_files import RESULTS
from workbench.figures.manifest import Manifest, read_manifest
from workbench.figures.notebooks import parameter_names, read_notebook
from workbench.figures.records import Record, last_run
from workbench.storage.checked import read_checked, write_checked
from workbench.storage.checksums import dump_object, dump_table

FACTS = [
    {
        **{"subject": "Rome", "prompt": "{} is in", "target_new": "Spain", "target_true": "Italy", "relation": "r"},
        **{"rephrase": ["Where is {}?"], "locality": [{"prompt": "Paris is in", "target": "France"}]},
        "portability": [{"prompt": "Rome speaks", "target": "Spanish", "aliases": ["Castilian"]}],
    },
    {"subject": "Paris", "prompt": "{} is in", "target_new": "Italy"},
]
SPEC = {
    **{"method": "rome", "n_operations": 2, "seed": 1, "checkpoints": [0, 2], "hyperparameters": {"layer": 1}},
    **{"regularizer": {"kind": "RECT", "keep": 0.4}, "tasks": {"tasks": ["nli"], "limit": 2}, "drift": {"limit": 2}},
    **{"perplexity": {"limit": 2, "each": 1}, "guard": {"limit": 2.0}, "facts": {"seed": 1}, "grid": {"seed": [1, 2]}},
}
HPARAMS = {
    **{"alg_name": "ROME", "model_name": "x", "layers": [1], "fact_token": "subject_last", "v_num_grad_steps": 2},
    **{"v_lr": 0.5, "clamp_norm_factor": 4, "kl_factor": 0.0625, "mom2_adjustment": False, "v_weight_decay": 0.5},
}


def or_refused(read, *args):
    """Return what a reader returns; None if it refuses, in one sentence."""
    found, sentence = outcome_of(read, *args)
    if sentence is not None:
        check_sentence(sentence)
    return found


def json_text(value):
    return json.dumps(value).encode()


def yaml_text(value):
    return yaml.safe_dump(value).encode()


@pytest.fixture
def notebook(tmp_path):
    """Give the content of a notebook as JSON."""
    write_notebook(tmp_path / "whole.ipynb", WRITE)
    content = json.loads((tmp_path / "whole.ipynb").read_text())
    output = {"output_type": "display_data", "data": {"text/plain": "x", "image/png": "aGk="}, "metadata": {}}
    content["cells"][1]["outputs"] = [output]
    content["metadata"]["papermill"] = {"parameters": {"n": 1}, "duration": 1.5, "start_time": "a", "end_time": "b"}
    return content


# written by hand

BY_HAND = {
    "facts": (FACTS, json_text, "facts.json", read_facts, FactSet),
    "specs": (SPEC, yaml_text, "spec.yaml", read_specs, list),
    "hparams": (HPARAMS, yaml_text, "hparams.yaml", wb.ROME.from_yaml, wb.ROME),
    "manifest": (
        {
            "figures": [
                {**ENTRY, "also": ["f9"], "minutes": {"smoke": 1.5}, "parameters": {"n": 2}, "on_request": ["smoke"]}
            ]
        },
        yaml_text,
        "figures.yaml",
        lambda path: read_manifest(path.parent),
        Manifest,
    ),
    "record": (
        {"cause": "c", "files": {"a.csv": "0"}, "seconds": 1.5, "versions": {"torch": "2"}},
        json_text,
        "record.json",
        last_run,
        Record,
    ),
    "scheduler": (
        {"type": "Scheduler", "address": "tcp://host:8786"},
        json_text,
        "s.json",
        lambda p: check_cluster(str(p)),
        object,
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
@examples(few=40)
@given(data=st.data())
def test_what_is_written_by_hand_is_read_as_its_kind_or_refused(name, data, tmp_path):
    content, dump, file, read, kind = BY_HAND[name]
    path = tmp_path / file
    path.write_bytes(dump(content))
    if name != "scheduler":  # whose check returns nothing
        assert isinstance(or_refused(read, path), kind)
    path.write_bytes(
        data.draw(st.one_of(damaged(dump(content)), st.builds(dump, changed_value(content))), label="the file")
    )
    found = or_refused(read, path)
    assert found is None or isinstance(found, kind)


@examples(few=30)
@given(data=st.data())
def test_a_damaged_table_of_facts_is_read_as_facts_or_refused(data, tmp_path):
    whole = io.StringIO()
    csv.writer(whole).writerows(
        [["subject", "prompt", "target_new"], ["Rome", "{} is in", "Spain"], ["Paris", "{}, in", "Italy"]]
    )
    path = tmp_path / "facts.csv"
    path.write_bytes(data.draw(damaged(whole.getvalue().encode())))
    found = or_refused(read_facts, path)
    assert found is None or isinstance(found, FactSet)


@pytest.mark.parametrize("task", TASK_FORMATS)
@examples(few=15)
@given(data=st.data())
def test_damaged_examples_of_a_task_are_read_as_examples_or_refused(task, data, tmp_path):
    bundled = Path(wb.__file__).parent / "data" / "bundled" / "tasks" / f"{task}.jsonl"
    lines = bundled.read_bytes().splitlines()[:3]
    record = json.loads(lines[0])
    path = tmp_path / f"{task}.jsonl"
    first = st.one_of(damaged(lines[0]), st.builds(json_text, changed_value(record)))
    path.write_bytes(b"\n".join([data.draw(first), *lines[1:]]))
    found = or_refused(load_task, task, path)
    assert found is None or isinstance(found, TaskData)


@examples(few=60)
@given(data=st.data())
def test_a_damaged_notebook_is_refused_or_valid(data, notebook, tmp_path):
    path = tmp_path / "changed.ipynb"
    path.write_bytes(data.draw(st.one_of(damaged(json_text(notebook)), st.builds(json_text, changed_value(notebook)))))
    found = or_refused(read_notebook, path, SpecError, "give a notebook")
    if found is not None:
        nbformat.validate(found)
        assert all(isinstance(cell.source, str) for cell in found.cells)
        with contextlib.suppress(ValueError, SyntaxError):  # the plan makes a sentence of these
            assert all(isinstance(name, str) for name in parameter_names(found))


# with a checksum


@pytest.fixture(scope="module")
def update():
    """Give an update with a record."""
    record = wb.EditRecord("ROME", (wb.EditRequest("Rome", "{} is in", "Spain"),), {"layer": 1})
    return wb.WeightUpdate({"w": torch.arange(12.0).reshape(3, 4)}, (record,))


@examples(few=60)
@given(data=st.data())
def test_a_damaged_update_is_refused_or_the_same(data, update, tmp_path):
    path = tmp_path / "update.safetensors"
    update.save(path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    found = or_refused(wb.WeightUpdate.load, path)
    if found is not None:
        assert torch.equal(found.delta("w"), update.delta("w"))
        assert [each.as_dict() for each in found.records] == [each.as_dict() for each in update.records]


@examples(few=40)
@given(data=st.data())
def test_a_damaged_file_of_the_cache_is_missing_or_the_same(data, tmp_path):
    tensor, path = torch.arange(20.0), tmp_path / "c.safetensors"
    write_checked(path, tensor, {"a": 1})
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    found = read_checked(path)
    assert found is None or (torch.equal(found[0], tensor) and found[1] == {"a": 1})


STORED = {
    "trajectories/a.json": lambda: dump_object(RECORD),
    "edits/a.json": lambda: dump_object({"seconds": 1.5, "failed": None}),
    "results/a/000001.parquet": lambda: dump_table(
        pa.Table.from_pandas(rows("a", 0.5).reindex(columns=RESULTS.names), schema=RESULTS, preserve_index=False)
    ),
    "measures/a.parquet": lambda: dump_table(pa.Table.from_pandas(rows("a", 0.5), preserve_index=False)),
}


def read_stored(store, name):
    """Return what a store reads, as a value that can be compared."""
    if name.endswith(".json"):
        return store.read_json(name)
    table = store.read_table(name)
    return None if table is None else table.to_json()


@pytest.mark.parametrize("name", STORED)
@examples(few=40)
@given(data=st.data())
def test_a_damaged_file_of_a_store_is_set_aside_or_the_same(name, data, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    whole = STORED[name]()
    store.write(name, whole)
    expected = read_stored(store, name)
    assert expected is not None
    changed = data.draw(damaged(whole))
    store.write(name, changed)
    found = read_stored(store, name)
    assert found == expected or (found is None and store.read(f"damaged/{name}") == changed and not store.has(name))


@pytest.mark.parametrize("name", [name for name in STORED if name.endswith(".json")])
@examples(few=40)
@given(data=st.data())
def test_a_record_of_a_store_whose_parts_have_other_types_is_set_aside(name, data, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    content = json.loads(STORED[name]())
    content.pop("sha256")
    field = data.draw(st.sampled_from(sorted(content)))
    content.pop(field)
    store.write_json(name, content)
    assert store.read_json(name) is None
    assert store.trajectories() == {}


@examples(few=40)
@given(data=st.data())
def test_a_damaged_archive_is_refused_or_copies_nothing_else(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    from workbench.experiment.archive import _SCHEMA

    row = {"table": "records", "content": json.dumps(RECORD), "trajectory": "a"}
    row["content"] = data.draw(
        st.one_of(st.just(row["content"]), st.builds(json.dumps, changed_value(RECORD)), st.text())
    )
    whole = dump_table(pa.Table.from_pylist([{**dict.fromkeys(_SCHEMA.names), **row}], schema=_SCHEMA))
    (folder / "a.parquet").write_bytes(data.draw(st.one_of(st.just(whole), damaged(whole))))
    store = Store(folder / "store")
    assert or_refused(read_archive, folder / "a.parquet", store) in (None, 0)  # the record names no spec that runs
    assert not (folder / "store").exists()
