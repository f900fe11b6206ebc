"""Settings of KN side by side: the presets of this package, and what was published."""

from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis.tables import select_edit_metrics
from workbench.editing.kn_easyedit import SETTINGS
from workbench.experiment.store import hyperparameters_label

# hyperparameters that replace those of the preset, by the name of the setting; "twice" is what the loop in the paper's
# repository does with the first fact
KN_SETTINGS: dict[str, dict[str, Any]] = {
    "preset": {},
    "Dai et al.": SETTINGS["dai"],
    "EasyEdit, once": SETTINGS["easyedit-llama"],
    "EasyEdit, twice": {**SETTINGS["easyedit-llama"], "times": 2},
}


def compare_kn_settings(results: pd.DataFrame, operations: pd.DataFrame) -> pd.DataFrame:
    """Compare what single edits under each setting of `KN_SETTINGS` write, and what they do to held-out text.

    Parameters
    ----------
    results : DataFrame
        Table of `workbench.run`, of single edits.
    operations : DataFrame
        Table of `Store.operations`, of the same trajectories, with the perplexity after every operation.

    Returns
    -------
    DataFrame
        One row per setting, metric and protocol: columns setting, metric, protocol, value, n, low, high, and of the
        setting: failed (edits), perplexity_unedited, perplexity (geometric mean over edits), perplexity_highest.
    """
    names = {hyperparameters_label(fields): name for name, fields in KN_SETTINGS.items()}
    scores = select_edit_metrics(results)
    scores = scores.assign(setting=scores["hyperparameters"].map(names))
    edits = operations.assign(setting=operations["hyperparameters"].map(names)).groupby("setting")
    damage = pd.DataFrame(
        {
            "failed": edits["failed"].count(),
            "perplexity_unedited": edits["perplexity_unedited"].first(),
            "perplexity": np.exp(edits["perplexity"].agg(lambda values: np.log(values).mean())),
            "perplexity_highest": edits["perplexity"].max(),
        }
    )
    columns = ["setting", "metric", "protocol", "value", "n", "low", "high"]
    return scores[columns].merge(damage.reset_index(), on="setting", validate="many_to_one")
