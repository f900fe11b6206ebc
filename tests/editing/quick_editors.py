"""Editors of every method that take a fraction of a second on a tiny model."""

from pathlib import Path

import workbench as wb
from tests.editing.second_moment.moments import write_text
from tests.editing.test_every_method import FIELDS
from workbench.editing.editor import Editor
from workbench.editing.mend.factors import weights_to_edit
from workbench.editing.mend.network import MendNetwork, save_network
from workbench.lm import LanguageModel
from workbench.registry import make_editor, method_row

N_STEPS = 3


def make_quick_editor(method: str, lm: LanguageModel, folder: Path, *, n_steps: int = N_STEPS) -> Editor:
    """Return an editor of few steps, with C from a text that is written to `folder`; MEND's networks are untrained."""
    given = dict(FIELDS[method])
    if "second_moment" in given:
        given["second_moment"] = wb.SecondMoment(source=write_text(folder / "text.txt", 60), n_tokens=512)
    if method == "mend":
        network = MendNetwork.untrained(lm, weights_to_edit(lm), rank=4, edit_lr=0.01)
        given["network"] = str(save_network(network, folder / "mend.safetensors", lm))
    if steps := method_row(method).options.get("steps"):
        given[steps] = n_steps
    return make_editor(method, lm, given)
