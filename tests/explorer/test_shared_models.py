"""Panels of one process share the model of the same name, and an edit of one is not seen in the other."""

import gc
import shutil
import threading
import weakref

import pytest
import torch

import workbench as wb
from tests.explorer.conftest import EDITOR, FACT, SECOND
from tests.helpers import assert_same_bits, weights_of
from tests.tiny_models import build_tiny_lm, save_tiny_lm
from workbench.explorer import shared_models
from workbench.explorer.session import Session
from workbench.explorer.shared_models import load_shared

OTHER = wb.ROME(layer=2, v_num_grad_steps=4, contexts=("{}", "The river. {}"))


@pytest.fixture
def folder(tiny, tmp_path):
    """Give the folder of a tiny model that a test may change."""
    return shutil.copytree(tiny, tmp_path / "model")


def answers_of(session, request):
    return [answer.after.probabilities for answer in session.predict(request).prompts]


def test_sessions_of_one_model_hold_it_once_and_free_it_together(folder):
    first, second = (Session(load_shared(str(folder))) for _ in range(2))
    assert first.lm is second.lm
    model = weakref.ref(first.lm.model)
    del first
    gc.collect()
    assert model() is second.lm.model
    del second
    gc.collect()
    assert model() is None


def test_of_two_threads_that_open_a_model_at_the_same_time_one_loads_it(folder, monkeypatch):
    loads, load, found = [], shared_models.load, []

    def counted(name):
        loads.append(name)
        return load(name)

    monkeypatch.setattr(shared_models, "load", counted)
    threads = [threading.Thread(target=lambda: found.append(load_shared(str(folder)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(found) == 4
    assert len({id(lm) for lm in found}) == 1


def test_edits_of_one_session_are_not_seen_in_the_other(folder):
    shared = [Session(load_shared(str(folder))) for _ in range(2)]
    alone = [Session(wb.load(str(folder))) for _ in range(2)]
    before = weights_of(shared[0].lm)
    for first, second in (shared, alone):
        first.edit(FACT, EDITOR)
        second.edit(SECOND, OTHER)
        first.edit(SECOND, EDITOR)
    assert shared[0].lm is shared[1].lm
    assert alone[0].lm is not alone[1].lm
    for together, apart in zip(shared, alone, strict=True):
        for request in (FACT, SECOND):
            assert answers_of(together, request) == answers_of(apart, request)
    shared[0].undo()
    assert answers_of(shared[1], SECOND) == answers_of(alone[1], SECOND)
    assert_same_bits(shared[0].lm, before)


def test_sessions_that_work_at_the_same_time_do_not_disturb_each_other(folder):
    shared = [Session(load_shared(str(folder))) for _ in range(2)]
    before = weights_of(shared[0].lm)
    seen, errors = {0: [], 1: []}, []

    def work(number, request, editor):
        try:
            for _ in range(3):
                shared[number].edit(request, editor)
                seen[number].append(answers_of(shared[number], request))
                shared[number].undo()
        except Exception as err:
            errors.append(err)

    jobs = [
        threading.Thread(target=work, args=(0, FACT, EDITOR)),
        threading.Thread(target=work, args=(1, SECOND, OTHER)),
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert errors == []
    for number, (request, editor) in enumerate([(FACT, EDITOR), (SECOND, OTHER)]):
        alone = Session(wb.load(str(folder)))
        alone.edit(request, editor)
        assert seen[number] == [answers_of(alone, request)] * 3
    assert_same_bits(shared[0].lm, before)


def test_a_model_whose_files_or_weights_have_changed_is_loaded_again(folder):
    first = load_shared(str(folder))
    assert load_shared(str(folder)) is first
    name = first.arch.mlp_out_weight(1)
    with torch.no_grad():
        first.model.get_parameter(name)[0, 0] += 1
    second = load_shared(str(folder))
    assert second is not first
    save_tiny_lm(build_tiny_lm("llama", seed=1), folder)
    third = load_shared(str(folder))
    assert third is not second
    assert third.fingerprint != second.fingerprint


def test_a_model_with_an_update_that_somebody_applied_is_not_shared(folder):
    first = load_shared(str(folder))
    name = first.arch.mlp_out_weight(1)
    with wb.WeightUpdate({name: first.weight(name) * 0.1}).applied(first):
        assert load_shared(str(folder)) is not first
