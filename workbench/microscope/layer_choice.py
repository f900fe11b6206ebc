"""Which layer a causal trace would edit, beside what edits at each layer did."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import pandas as pd
import torch

from workbench.arguments import checked
from workbench.errors import SpecError
from workbench.microscope.trace import Trace
from workbench.printable import percent

CAVEAT = (
    "A trace shows where a fact is carried, which need not be where an edit succeeds: across facts, the two were "
    "nearly unrelated (Hase et al. 2023, arXiv 2301.04213)."
)
_SWEEPS = "layer_sweeps.csv"


@dataclass(frozen=True)
class LayerSuggestion:
    """The layer whose MLPs carry facts most, by causal traces.

    Attributes
    ----------
    layer : int
        The layer with the largest mean indirect effect at the subject's last token.
    effects : tuple of float
        That mean for every layer.
    n_facts : int
        Number of traces.
    """

    layer: int
    effects: tuple[float, ...]
    n_facts: int

    def tabulate(self) -> pd.DataFrame:
        """Return one row per layer: layer, effect, n."""
        return pd.DataFrame({"layer": range(len(self.effects)), "effect": self.effects, "n": self.n_facts})


@checked
def suggest_layer(traces: Sequence[Trace]) -> LayerSuggestion:
    """Return the layer with the largest average indirect effect of MLPs at the subject's last token.

    Meng et al. 2022 (arXiv 2202.05262) choose the layer that ROME edits in this way, over 1,000 facts. Of equal
    effects, the lowest layer is taken.

    Parameters
    ----------
    traces : sequence of Trace
        Traces of the kind ``"mlp"`` on one model, one per fact.

    Returns
    -------
    LayerSuggestion

    Raises
    ------
    SpecError
        If there is no trace, one is of another kind, or they are of models with different numbers of layers.
    """
    if not traces:
        raise SpecError("there is no trace to choose a layer from; give at least one.")
    if others := [trace.settings.kind for trace in traces if trace.settings.kind != "mlp"]:
        raise SpecError(f"a layer is chosen from traces of the kind mlp; got one of the kind {others[0]}.")
    at_subject = [trace.effects[trace.subject[-1]] for trace in traces]  # (L,) each
    if len({len(effects) for effects in at_subject}) > 1:
        raise SpecError("the traces are of models with different numbers of layers; give those of one model.")
    means = torch.stack(at_subject).mean(dim=0)
    return LayerSuggestion(int(means.argmax()), tuple(means.tolist()), len(traces))


def read_layer_sweep(model: str) -> pd.DataFrame:
    """Return what edits at each layer did, for a model whose preset of ROME was chosen by a sweep.

    The table is that of notebook 04 (``figures/default/rome_sweep_layers.csv``): teacher-forced scores of the same
    facts, edited one at a time at each layer.

    Parameters
    ----------
    model : str
        Name of the model.

    Returns
    -------
    DataFrame
        Columns layer, metric, value, n, low, high; empty for a model that was not swept.
    """
    with resources.files("workbench.data").joinpath("bundled", _SWEEPS).open(encoding="utf-8") as file:
        table = pd.read_csv(file)
    return table.loc[table["model"] == model].drop(columns="model").reset_index(drop=True)


def compare_with_sweep(suggestion: LayerSuggestion, sweep: pd.DataFrame) -> pd.DataFrame:
    """Set the effect of each layer beside what edits there did.

    Parameters
    ----------
    suggestion : LayerSuggestion
        Result of `suggest_layer`.
    sweep : DataFrame
        Table of `read_layer_sweep`.

    Returns
    -------
    DataFrame
        One row per layer of the sweep: layer, effect, effect_rank (1: largest effect of all layers), and a column for
        each metric of the sweep.
    """
    effects = suggestion.tabulate()
    effects["effect_rank"] = effects["effect"].rank(ascending=False).astype(int)
    scores = sweep.pivot(index="layer", columns="metric", values="value").rename_axis(columns=None).reset_index()
    return scores.merge(effects.drop(columns="n"), on="layer", validate="one_to_one")[
        ["layer", "effect", "effect_rank", *scores.columns.drop("layer")]
    ]


def describe_suggestion(suggestion: LayerSuggestion, sweep: pd.DataFrame) -> str:
    """Return the suggested layer in a sentence, the caveat, and this model's own sweep as evidence if there is one."""
    facts = f"{suggestion.n_facts} fact{'s' * (suggestion.n_facts > 1)}"
    said = (
        f"Layer {suggestion.layer} has the largest mean indirect effect of MLPs at the subject's last token "
        f"({percent(suggestion.effects[suggestion.layer], '+.1f')} over {facts}). {CAVEAT}"
    )
    table = compare_with_sweep(suggestion, sweep) if len(sweep) else sweep
    if table.empty:
        return said
    written = "; ".join(
        f"layer {row['layer']} (effect {percent(row['effect'], '+.1f')}): "
        + ", ".join(f"{metric} {row[metric]:.2f}" for metric in table.columns[3:])
        for row in table.to_dict("records")
    )
    n_facts = int(sweep["n"].max())
    return f"{said} On this model, single ROME edits of {n_facts} facts scored, at {written} (notebook 04)."


def tabulate_effects(traces: Sequence[Trace]) -> pd.DataFrame:
    """Return one row per trace and layer: fact (number of the trace), prompt, layer, effect (at the subject's end)."""
    rows = [
        (fact, trace.prompt, layer, effect)
        for fact, trace in enumerate(traces)
        for layer, effect in enumerate(trace.effects[trace.subject[-1]].tolist())
    ]
    return pd.DataFrame(rows, columns=["fact", "prompt", "layer", "effect"])
