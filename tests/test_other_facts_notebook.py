"""The notebook of other data on a slice of the real CounterFact, with a tiny model."""

import os
from pathlib import Path

import pandas as pd
import pytest

from workbench.figures.plan import plan
from workbench.figures.regenerate import regenerate

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_notebook_of_other_data_runs_on_counterfact(tiny, tmp_path):
    folder = Path(os.environ.get("WORKBENCH_TEST_DATA") or ROOT.parent / "shared" / "data").resolve()
    if not (folder / "counterfact").is_dir():
        pytest.skip("no slice of CounterFact: set WORKBENCH_TEST_DATA to the folder of the real slices.")
    own = {"model": tiny, "facts": {"source": str(folder / "counterfact" / "counterfact.json")}, "seeds": [0, 1]}
    own |= {"hyperparameters": {"layer": 1, "v_num_grad_steps": 2}, "perplexity": {"limit": 1}}
    places = {"notebooks": ROOT / "notebooks", "figures": tmp_path / "figures", "build": tmp_path / "build"}
    regenerate(plan(["other_data"], profile="smoke", overrides=own, **places))
    summary = pd.read_csv(tmp_path / "figures" / "other_data.csv")
    assert set(summary["facts"]) == {"counterfact.json", "bundled, words before the subject"}
    assert set(summary["regularizer"]) == {"Unregularized", "RECT 40 %"}
    assert summary["units"].unique().tolist() == [2]
    compared = pd.read_csv(tmp_path / "figures" / "other_data_compared.csv")
    other = compared[compared["comparison"] == "other facts"]
    assert set(other["facts"]) == {"counterfact.json"}
    assert {"reliability", "locality", "text"} <= set(other["score"])
    assert other["low"].notna().any()
