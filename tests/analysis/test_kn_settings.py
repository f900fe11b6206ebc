"""Settings of KN side by side, on hand-made results."""

import pandas as pd
import pytest

from workbench.analysis.kn_settings import KN_SETTINGS, compare_kn_settings
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import hyperparameters_label


def test_every_setting_is_a_valid_spec_and_has_its_own_label():
    labels = set()
    for fields in KN_SETTINGS.values():
        spec = ExperimentSpec(method="kn", hyperparameters=fields, n_operations=1)
        labels.add(hyperparameters_label(spec.hyperparameters))
    assert len(labels) == len(KN_SETTINGS) == 4
    assert "preset" in labels


def test_perplexity_is_the_geometric_mean_over_edits_and_the_highest_is_named():
    label = hyperparameters_label(KN_SETTINGS["Dai et al."])
    place = {"hyperparameters": label, "trajectory": "t", "perplexity_unedited": 10.0}
    operations = pd.DataFrame(
        [{**place, "perplexity": value, "failed": why} for value, why in ((10.0, None), (1000.0, "x"))]
    )
    row = {**place, "operation": 2, "moment": "after_edit", "metric": "reliability", "protocol": "natural"}
    results = pd.DataFrame([{**row, "value": 0.5, "n": 2, "low": 0.0, "high": 1.0}])
    [found] = compare_kn_settings(results, operations).to_dict("records")
    assert found["setting"] == "Dai et al."
    assert found["perplexity"] == pytest.approx(100)
    assert (found["perplexity_highest"], found["perplexity_unedited"], found["failed"]) == (1000, 10, 1)
