"""A method and a regularizer, each added by one row, work in experiments, commands, the explorer and figures."""

import sys
from dataclasses import asdict, dataclass
from typing import Annotated

import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import workbench as wb
from workbench import registry
from workbench.analysis.curves import average_over_seeds, label_series
from workbench.changes import low_rank
from workbench.edit_record import EditRecord
from workbench.explorer.method_form import MethodForm
from workbench.explorer.regularizer_bar import RegularizerBar
from workbench.explorer.session import Session
from workbench.parameters import POSITIVE, check_parameters
from workbench.plots.curves import edit_curves
from workbench.regularize import make_regularizer, settings_of
from workbench.rows import MethodRow, RegularizerRow, SeriesStyle
from workbench.update import WeightUpdate

NUDGE_STYLE, HALVE_STYLE = SeriesStyle("#123456", "h", "-."), SeriesStyle("#654321", "*", ":")
REQUEST = wb.EditRequest("Eiffel Tower", "The {} is in the city of", "Rome", target_true="Paris")


@dataclass(frozen=True)
class Nudge:
    """Moves one matrix by a constant rank-one update."""

    block: Annotated[int, "block to edit"]
    size: Annotated[float, POSITIVE, "entries of the update"] = 1e-3
    supports_batch = True
    label = "Nudge"

    def __post_init__(self):
        check_parameters(self)

    @classmethod
    def for_model(cls, lm):
        return cls(block=0)

    def prepared(self, lm):
        return self

    def compute_update(self, lm, requests):
        name = lm.arch.mlp_out_weight(self.block)
        d_in, d_out = lm.linear_shape(name)
        change = low_rank(lm, name, self.size * torch.ones(d_out, 1), torch.ones(d_in, 1))
        return WeightUpdate.of_edit(lm, {name: change}, EditRecord(self.label, tuple(requests), asdict(self)))


@dataclass(frozen=True)
class Halve:
    """Halves every entry."""

    @property
    def label(self):
        return "Halve"

    def __call__(self, update, lm):
        return update.regularized({name: update.delta(name) / 2 for name in update}, settings_of(self))


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    """Register one row of each kind for the time of a test."""
    for name in ("_METHODS", "_REGULARIZERS"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    registry.register_method(MethodRow("nudge", "Nudge", Nudge, NUDGE_STYLE, options={"layer": "block"}))
    registry.register_regularizer(RegularizerRow("halve", "Halve", Halve, "Halve every entry", {"Halve": HALVE_STYLE}))


def test_they_run_in_an_experiment_and_are_drawn_in_their_styles(tiny, tmp_path):
    specs = wb.grid(
        {
            "model": tiny,
            "method": "nudge",
            "n_operations": 2,
            "batch_size": 2,
            "tasks": None,
            "perplexity": {"limit": 1},
        },
        {"regularizer": [{"kind": "Unregularized"}, {"kind": "Halve"}]},
    )
    results = wb.run(specs, store=tmp_path / "store")
    assert set(results["method"]) == {"Nudge"}
    operations = wb.Store(tmp_path / "store").operations()
    assert operations["failed"].isna().all()
    assert operations["steps"].isna().all()  # nothing is optimized
    halved = operations[operations["regularizer"] == "Halve"]
    assert (halved["applied_norm"] / halved["norm"]).tolist() == pytest.approx([0.5, 0.5])
    curves = label_series(average_over_seeds(results[results["task"] == "perplexity"]))
    ax = edit_curves(curves, Figure().subplots())
    assert to_rgba(HALVE_STYLE.color) in {to_rgba(line.get_color()) for line in ax.lines}
    assert registry.series_styles()["Nudge"] == NUDGE_STYLE.as_dict()


def test_they_are_choices_of_the_edit_command(cli, folder, tiny, monkeypatch):
    monkeypatch.delitem(sys.modules, "workbench.commands.edit", raising=False)  # its help lists the rows at import
    fact = ("--subject", "Eiffel Tower", "--prompt", "The {} is in", "--target", "Rome")
    chosen = ("--method", "nudge", "--layer", "1", "--regularizer", "halve", "--save", "u.safetensors")
    result = cli("edit", *fact, *chosen, "--set", "size=0.5", "--model", tiny)
    assert (result.code, result.err) == (0, "")
    assert "Nudge, Halve" in result.out
    update = WeightUpdate.load("u.safetensors")
    (name,) = update
    assert update.delta(name).unique().tolist() == [0.25]
    assert cli("edit", *fact, "--method", "nudge", "--set", "size=-1", "--model", tiny).err == (
        "workbench: size must be a positive number; got -1.0.\n"
    )
    assert "nudge" in cli("edit", "--help").out


def test_they_edit_in_the_explorers_session_and_stand_in_its_lists(tiny_lm):
    session = Session(tiny_lm)
    edit = session.edit(REQUEST, session.editor("nudge", {"size": 0.5}), make_regularizer("halve"))
    (name,) = edit.update
    assert edit.update.delta(name).unique().tolist() == [0.25]
    form = MethodForm()
    form.attach(session)
    assert ("Nudge", "nudge") in form._method.options
    assert ("Halve", "halve") in RegularizerBar("Each edit", lambda: None)._kind.options
