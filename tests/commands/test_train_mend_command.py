"""`workbench train-mend` on a tiny model: what it writes, how it goes on after Ctrl-C, what it refuses."""

import json
import shlex
from pathlib import Path

import pytest

import workbench as wb
from workbench.data.facts import read_facts
from workbench.editing.mend.editor import MEND
from workbench.editing.mend.network import facts_trained_on, read_metadata
from workbench.editing.mend.training import Trainer
from workbench.storage.digests import sha256_of_file

PLACES = ("Rome", "Paris", "Warsaw", "France", "Italy, near the sea", "the old country")
SETTINGS = {"--steps": 6, "--rank": 4, "--val-interval": 2, "--checkpoint-interval": 2, "--edit-lr": 0.01}
SIZES = {"--hold-out": 10, "--validation": 3}


def write_facts(path: Path, numbers) -> str:
    records = [
        {
            "subject": f"Tower {i}",
            "prompt": "{} is located in the city of",
            "target_new": PLACES[i % len(PLACES)],
            "target_true": PLACES[(i + 1) % len(PLACES)],
            "rephrase": ["Where is {}? It is in the city of"],
            "locality": [{"prompt": f"The capital of country {i} is", "target": PLACES[(i + 2) % len(PLACES)]}],
        }
        for i in numbers
    ]
    path.write_text(json.dumps(records), encoding="utf-8")
    return str(path)


@pytest.fixture
def facts(tmp_path) -> str:
    """Give a file of 24 facts."""
    return write_facts(tmp_path / "facts.json", range(24))


def options(tiny, facts, out, **more):
    given = {"--model": tiny, "--facts": facts, "--out": out, **SIZES, **SETTINGS, **more}
    return [str(part) for pair in given.items() for part in pair]


@pytest.mark.slow
def test_it_writes_networks_that_edit_and_says_how_well(cli, tiny, facts, tmp_path):
    out, elsewhere = tmp_path / "mend.safetensors", write_facts(tmp_path / "elsewhere.json", range(20, 26))
    args = ["train-mend", *options(tiny, facts, out, **{"--exclude": elsewhere})]
    result = cli(*args)
    assert result.code == 0, result.err
    training = read_metadata(out)["training"]
    assert training["command"] == shlex.join(["workbench", *args])
    assert training["settings"]["rank"] == 4
    test = read_facts(facts).sample(10, seed=0)
    barred = {f"Tower {i}" for i in range(20, 24)} - {r.subject for r in test}
    assert barred  # some facts are in the excluded file and not in the test set
    assert training["n_dropped"] == len(barred)
    assert (training["n_train"], training["n_validation"], training["n_test"]) == (11 - len(barred), 3, 10)
    found = {(row["facts"], row["batch_size"]) for row in training["success"]}
    assert found == {("train", 1), ("validation", 1), ("test", 1), ("test", 10), ("elsewhere.json", 1)}
    assert not out.with_name("mend.safetensors.checkpoint").exists()
    lm = wb.load(tiny)
    [row] = [
        row
        for row in training["success"]
        if (row["facts"], row["batch_size"], row["metric"], row["protocol"])
        == ("test", 10, "reliability", "teacher_forced")
    ]
    with MEND(network=str(out)).compute_update(lm, list(test)).applied(lm):
        table = wb.evaluate_edits(lm, test, protocols=["teacher_forced"])
    assert row["value"] == pytest.approx(float(table[table["metric"] == "reliability"]["value"].iloc[0]))
    assert f"Saved to {out} (" in result.out
    assert len([line for line in result.out.splitlines() if line.startswith(("train", "validation", "test"))]) == 4


@pytest.mark.slow
def test_training_in_half_precision_is_reported_in_float32(cli, tiny, facts, tmp_path):
    out = tmp_path / "mend.safetensors"
    assert cli("train-mend", *options(tiny, facts, out, **{"--dtype": "bfloat16"})).code == 0
    training = read_metadata(out)["training"]
    assert training["dtype"] == "bfloat16"
    lm, test = wb.load(tiny), read_facts(facts).sample(10, seed=0)
    rows = {(r["facts"], r["batch_size"], r["metric"], r["protocol"]): r["value"] for r in training["success"]}
    with MEND(network=str(out)).compute_update(lm, list(test)).applied(lm):
        table = wb.evaluate_edits(lm, test).set_index(["metric", "protocol"])["value"]
    for metric, protocol in table.index:
        assert rows["test", 10, metric, protocol] == pytest.approx(table[metric, protocol])


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_networks(cli, tiny, facts, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"
    assert cli("train-mend", *options(tiny, facts, whole)).code == 0
    step, calls = Trainer._step, iter(range(100))

    def stop_in_the_fourth(trainer):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return step(trainer)

    monkeypatch.setattr(Trainer, "_step", stop_in_the_fourth)
    assert cli("train-mend", *options(tiny, facts, stopped)).code == 130
    monkeypatch.setattr(Trainer, "_step", step)
    checkpoint = tmp_path / "stopped.safetensors.checkpoint"
    assert checkpoint.exists()
    assert not stopped.exists()
    again = cli("train-mend", *options(tiny, facts, stopped))
    assert (again.code, again.err) == (
        2,
        f"workbench: {checkpoint} is from an unfinished run; give --resume to continue it, or delete it.\n",
    )
    assert cli("train-mend", *options(tiny, facts, stopped), "--resume").code == 0
    tensors = [_tensor_bytes(path) for path in (whole, stopped)]
    assert tensors[0] == tensors[1]
    records = [read_metadata(path)["training"] for path in (whole, stopped)]
    assert records[0]["history"] == records[1]["history"]
    assert records[0]["success"] == records[1]["success"]


@pytest.mark.slow
def test_training_goes_on_from_networks_with_larger_batches(cli, tiny, facts, tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert cli("train-mend", *options(tiny, facts, first, **{"--batch-sizes": "1,2"})).code == 0
    more = {"--start-from": first, "--batch-sizes": "1,10"}
    assert cli("train-mend", *options(tiny, facts, second, **more)).code == 0
    records = [read_metadata(path)["training"] for path in (first, second)]
    assert records[0]["start"] is None
    assert records[1]["start"]["sha256"] == sha256_of_file(first)
    assert records[1]["start"]["command"] == records[0]["command"]
    assert [record["settings"]["batch_sizes"] for record in records] == [[1, 2], [1, 10]]
    assert [record["largest_batch"] for record in records] == [2, 10]


def test_the_file_lists_the_facts_of_each_set(cli, tiny, facts, tmp_path):
    out = tmp_path / "mend.safetensors"
    assert cli("train-mend", *options(tiny, facts, out)).code == 0
    metadata = read_metadata(out)
    listed = metadata["training"]["facts"]
    assert listed["test"] == [request.filled_prompt for request in read_facts(facts).sample(10, seed=0)]
    assert {name: len(prompts) for name, prompts in listed.items()} == {"train": 11, "validation": 3, "test": 10}
    assert {prompt for prompts in listed.values() for prompt in prompts} == {
        request.filled_prompt for request in read_facts(facts).requests
    }
    assert facts_trained_on(metadata) == {*listed["train"], *listed["validation"]}


def test_networks_that_were_trained_on_test_facts_are_no_start(cli, tiny, facts, tmp_path):
    first, out = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert cli("train-mend", *options(tiny, facts, first, **{"--seed": 1})).code == 0
    seen = facts_trained_on(read_metadata(first))
    known = [r.filled_prompt for r in read_facts(facts).sample(10, seed=0) if r.filled_prompt in seen]
    assert known
    result = cli("train-mend", *options(tiny, facts, out, **{"--start-from": first}))
    assert result.code == 2
    assert result.err.splitlines()[-1] == (
        f"workbench: {first} was trained on {len(known)} of the 10 test facts, such as {known[0]!r}; repeat the "
        "--facts, --hold-out and --seed of its training."
    )
    assert not out.exists()


def _tensor_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"--layers": "1,x"}, "--layers must be numbers with commas between them, such as 27,28,29; got '1,x'."),
        ({"--layers": "4"}, "layer 4 is out of range: {model} has layers 0 to 3."),
        (
            {"--batch-sizes": "1;2"},
            "--batch-sizes must be numbers with commas between them, such as 1,1,10; got '1;2'.",
        ),
        ({"--batch-sizes": "3"}, "batch_sizes must divide facts_per_step, 10, or be larger; got 3."),
        ({"--steps": 0}, "steps must be a whole number from 1 to 1000000; got 0."),
        (
            {"--hold-out": 25},
            "facts.json has 24 usable facts and none is drawn twice: n must lie in 1 to 24; got 25.",
        ),
        (
            {"--validation": 14},
            "14 facts are left to train on and validate with: validation must lie in 2 to 12; got 14.",
        ),
    ],
)
def test_what_cannot_be_trained_is_named_and_nothing_is_written(cli, tiny, facts, tmp_path, more, sentence):
    out = tmp_path / "mend.safetensors"
    result = cli("train-mend", *options(tiny, facts, out, **more))
    assert result.code == 2
    assert result.err.splitlines()[-1] == f"workbench: {sentence.format(model=tiny)}"
    assert not list(tmp_path.glob("*.safetensors*"))


def test_an_existing_file_is_kept(cli, tiny, facts, tmp_path):
    out = tmp_path / "mend.safetensors"
    out.write_bytes(b"mine")
    result = cli("train-mend", *options(tiny, facts, out))
    assert (result.code, result.err) == (
        2,
        f"workbench: --out {out} exists; give another name, or --force to replace it.\n",
    )
    assert out.read_bytes() == b"mine"


def test_a_folder_that_does_not_exist_is_named(cli, tiny, facts, tmp_path):
    out = tmp_path / "nowhere" / "mend.safetensors"
    result = cli("train-mend", *options(tiny, facts, out))
    assert result.err == f"workbench: --out {out}: the folder {out.parent} does not exist; make it first.\n"
