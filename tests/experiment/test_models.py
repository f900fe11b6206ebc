"""The model of the experiments in this process: one copy, for the runner and for those who read its results."""

from workbench.experiment import models
from workbench.experiment.models import load_model
from workbench.experiment.runner import run
from workbench.experiment.spec import ExperimentSpec


def test_the_runner_and_its_readers_share_one_model(tiny, tmp_path, monkeypatch):
    models._load.cache_clear()
    names, load = [], models.load
    monkeypatch.setattr(models, "load", lambda name, **given: names.append(name) or load(name, **given))
    small = {"tasks": None, "perplexity": None, "n_operations": 1, "hyperparameters": {"contexts": ["{}"]}}
    run(ExperimentSpec(model=tiny, **small), store=tmp_path)
    assert load_model(tiny) is load_model(tiny, "float32", device=None)
    assert names == [tiny]
