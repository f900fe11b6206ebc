"""What a run of edits does to everything else: tasks, perplexity and the edits themselves, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from workbench.evaluation.abilities import DataSource, TaskRun, ask_tasks, headlines, summarize_runs
from workbench.evaluation.edits import evaluate_edits
from workbench.evaluation.perplexity import perplexity
from workbench.evaluation.tasks.task import Protocol
from workbench.lm import LanguageModel
from workbench.request import EditRequest
from workbench.update import WeightUpdate


@dataclass(frozen=True)
class SideEffects:
    """A model before and after edits.

    Attributes
    ----------
    scores : DataFrame
        The columns of `evaluate_tasks` after n_edits: every task and metric, and the perplexity.
    edits : DataFrame
        Reliability, generalization and locality of the facts edited so far, by n_edits; at 0 of all of them,
        unedited.
    runs : dict of int to list of TaskRun
        The answers themselves, by number of edits.
    """

    scores: pd.DataFrame
    edits: pd.DataFrame
    runs: dict[int, list[TaskRun]]

    def headlines(self) -> pd.DataFrame:
        """The score that stands for each task, with title and floor, by n_edits."""
        return headlines(self.scores[self.scores["task"] != "perplexity"])

    def perplexities(self) -> pd.DataFrame:
        """The perplexity by n_edits."""
        return self.scores[self.scores["task"] == "perplexity"]

    def provenance(self) -> pd.Series:
        """Protocol, source, split and n of each task, as text."""
        lines = {}
        for run in self.runs[0]:
            where = f"{run.data.source}, split {run.data.split}, {len(run.data)} examples, protocol {run.protocol}"
            left_out = f"; {len(run.data.rejected)} records left out" if run.data.rejected else ""
            lines[f"task {run.task.name}"] = where + left_out
        return pd.Series(lines, name="provenance")

    def changed_answers(self, n_edits: int, *, each: int = 1) -> pd.DataFrame:
        """Answers side by side, of each task the first few whose score fell the most.

        Parameters
        ----------
        n_edits : int
            After which number of edits.
        each : int
            Rows a task.

        Returns
        -------
        DataFrame
            Columns task, prompt, expected, unedited, edited; no row for a task whose answers all score as before.
        """
        parts = []
        for before, after in zip(self.runs[0], self.runs[n_edits], strict=True):
            metric = before.task.headline[before.protocol]
            both = before.outputs().merge(after.outputs(), on=["task", "example", "prompt", "expected"])
            fall = both[f"{metric}_x"] - both[f"{metric}_y"]
            worst = both.assign(fall=fall)[fall > 0].nlargest(each, "fall")
            parts.append(worst.rename(columns={"answered_x": "unedited", "answered_y": "edited"}))
        return pd.concat(parts, ignore_index=True)[["task", "prompt", "expected", "unedited", "edited"]]


def side_effects(
    lm: LanguageModel,
    updates: Mapping[int, WeightUpdate],
    requests: Sequence[EditRequest],
    *,
    tasks: str | Sequence[str] = "all",
    limit: int | None = None,
    protocol: Protocol = "standard",
    data: DataSource = None,
    seed: int = 0,
) -> SideEffects:
    """Tasks, perplexity and edit metrics of the unedited model and after each number of edits.

    Parameters
    ----------
    lm : LanguageModel
        The unedited model; left as it was.
    updates : mapping of int to WeightUpdate
        The accumulated update after so many edits, as `kept_updates` gives it.
    requests : sequence of EditRequest
        The facts in the order of their edits.
    tasks, limit, protocol, data
        As for `ask_tasks`.
    seed : int
        Of the bootstrap.

    Returns
    -------
    SideEffects

    Raises
    ------
    SpecError, DataError
        As `ask_tasks`.
    """
    runs, scores, edits = {}, [], []
    for n_edits, update in {0: WeightUpdate({}), **updates}.items():
        with update.applied(lm) if n_edits else lm.restored_after():
            runs[n_edits] = ask_tasks(lm, tasks=tasks, limit=limit, protocol=protocol, data=data)
            for table in (summarize_runs(runs[n_edits], seed=seed), perplexity(lm, seed=seed)):
                scores.append(table.assign(n_edits=n_edits))
            done = evaluate_edits(lm, requests[: n_edits or max(updates)], seed=seed)
            edits.append(done.assign(n_edits=n_edits))
    return SideEffects(pd.concat(scores, ignore_index=True), pd.concat(edits, ignore_index=True), runs)
