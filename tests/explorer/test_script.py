"""The code of a session makes the same update, bit for bit."""

import ast
import sys
from dataclasses import dataclass, replace
from types import ModuleType

import pytest
import torch

import workbench as wb
from tests.explorer.conftest import EDITOR, FACT, SECOND, THIRD
from tests.explorer.test_session import assert_same_update
from workbench.explorer.script import script_of
from workbench.explorer.session import Session

AWKWARD = wb.EditRequest(
    subject='The "Louvre"\\', prompt="It's {}\n# not a comment: '''", target_new="Rome'); 1/0 #", target_true='"""'
)


@pytest.fixture
def session(tiny):
    """Give a session with a model that the code can load."""
    return Session(wb.load(tiny))


def run(code, folder):
    names = {}
    exec(compile(code, "session.py", "exec"), names)
    return names, wb.WeightUpdate.load(folder / "update.safetensors")


def test_the_code_makes_the_same_update_again(session, folder):
    session.edit(FACT, EDITOR, wb.RECT(0.4))
    session.edit(SECOND, replace(EDITOR, layer=2, variant="r-rome"), wb.PCAK(0.3, form="reconstruction"))
    session.edit(THIRD, session.editor("ft-l", {"num_steps": 3}), wb.RandomK(0.5, seed=3))
    names, saved = run(script_of(session.lm, session.edits), folder)
    assert_same_update(saved, session.update)
    assert names["request"] == THIRD
    assert names["editor"] == session.edits[-1].editor


def test_the_code_regularizes_the_sum(session, folder):
    session.edit(FACT, EDITOR)
    session.edit(SECOND, EDITOR)
    session.regularize_sum(wb.PRUNE("linear"))
    names, saved = run(script_of(session.lm, session.edits, session.accumulated), folder)
    assert_same_update(saved, session.update)
    assert names["sequence"].accumulated == wb.PRUNE("linear")


def test_sampled_contexts_are_written_out_once(session, folder):
    editor = session.editor("rome", {"v_num_grad_steps": 2})
    session.edit(FACT, editor)
    session.edit(SECOND, editor)
    code = script_of(session.lm, session.edits)
    assert code.count("contexts = (") == 1
    assert code.count("contexts=contexts") == 2
    names, saved = run(code, folder)
    assert names["contexts"] == session.edits[0].editor.contexts
    assert_same_update(saved, session.update)


def test_the_users_texts_are_not_run_as_code(session, folder):
    session.edit(AWKWARD, EDITOR)
    names, saved = run(script_of(session.lm, session.edits), folder)
    assert names["request"] == AWKWARD
    assert_same_update(saved, session.update)


ODD = ("\n1/0", "\r1/0", "\r\n1/0\n", "\f1/0", "\u20281/0", "\0", "'''\n1/0", "\\\n1/0", '"""\n1/0#')


@pytest.mark.parametrize("odd", ODD)
def test_no_character_of_a_name_or_a_text_ends_a_comment_or_a_string(session, odd):
    session.edit(FACT, EDITOR)
    request = replace(FACT, prompt=f"{odd} {{}} {odd}", target_new=f"Rome{odd}")
    plain = script_of(session.lm, session.edits)
    lm = replace(session.lm, name=f"model{odd}")
    code = script_of(lm, [replace(session.edits[0], request=request)], file=f"u{odd}.safetensors")
    assert {c for c in code if not c.isprintable()} == {"\n"}
    texts = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
    assert {lm.name, request.prompt, request.target_new, f"u{odd}.safetensors"} <= texts
    assert number_of_statements(code) == number_of_statements(plain)


def number_of_statements(code):
    return sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(code)))


def test_a_method_of_another_module_is_imported_from_there(session, monkeypatch):
    module = ModuleType("elsewhere")
    monkeypatch.setitem(sys.modules, "elsewhere", module)

    @dataclass(frozen=True)
    class Ones:
        size: float = 0.5
        label = "Ones"
        supports_batch = False

        def prepared(self, lm):
            return self

        def compute_update(self, lm, requests):
            name = lm.arch.mlp_out_weight(0)
            return wb.WeightUpdate({name: self.size * torch.ones_like(lm.weight(name))})

    module.Ones, Ones.__module__ = Ones, "elsewhere"
    session.edit(FACT, Ones(size=0.25))
    code = script_of(session.lm, session.edits)
    assert "from elsewhere import Ones" in code
    assert "editor = Ones(size=0.25)" in code


def test_a_session_without_edits_has_code_that_runs(session, folder):
    code = script_of(session.lm, ())
    ast.parse(code)
    assert code.startswith("# 0 edits of ")
    _, saved = run(code, folder)
    assert len(saved) == 0
