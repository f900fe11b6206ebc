"""Hand-made tables of edit sequences."""

import pandas as pd

from workbench.analysis.units import ARM

PLACE = dict.fromkeys(ARM, "x") | {"model": "m", "method": "ROME", "facts": "bundled", "batch_size": 1, "n_edits": 5}
PLACE |= {"hyperparameters": "preset", "setting": "sequential-instance", "operation": 5, "seed": 0}


def units_of(values, **place):
    """One row per sequence and regularizer: `values` has a list of scores per regularizer, one dict per sequence."""
    rows = [
        {**PLACE, "regularizer": label, "unit": f"draw {i}", "draw": f"draw {i}", **scores, **place}
        for label, sequences in values.items()
        for i, scores in enumerate(sequences)
    ]
    table = pd.DataFrame(rows)
    columns = ["share", "editing", "reliability", "generalization", "locality", "likelihood", "text"]
    return table.reindex(columns=[*table, *(name for name in columns if name not in table)])
