"""ResolvedRun: a spec with the content of everything that it names, loaded once and handed down the pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from workbench.data.facts import FactSet, load_facts
from workbench.data.tasks.load import TaskData, load_task
from workbench.editing.editor import Editor
from workbench.experiment.cache_keys import content_key, trajectory_key
from workbench.experiment.spec import ExperimentSpec
from workbench.lm import LanguageModel
from workbench.request import EditRequest


@dataclass(frozen=True)
class ResolvedRun:
    """One trajectory, ready to run.

    Attributes
    ----------
    spec : ExperimentSpec
        The spec of the trajectory.
    key : str
        Key of the trajectory in the store.
    content : str
        Hash of the weights, facts and examples that the spec names.
    batches : tuple of tuple of EditRequest
        The facts of each operation.
    tasks : tuple of TaskData
        The examples of each task of the spec, in its order.
    """

    spec: ExperimentSpec
    key: str
    content: str
    batches: tuple[tuple[EditRequest, ...], ...]
    tasks: tuple[TaskData, ...]

    @property
    def requests(self) -> tuple[EditRequest, ...]:
        """The facts of all operations, in order."""
        return tuple(request for batch in self.batches for request in batch)

    def prepare_editor(self, lm: LanguageModel) -> Editor:
        """Return the method of the spec with whatever it takes from the unedited model, such as context templates."""
        return self.spec.make_editor(lm).prepared(lm)


def resolve(spec: ExperimentSpec) -> ResolvedRun:
    """Load everything that a spec names, except the model.

    Parameters
    ----------
    spec : ExperimentSpec
        The trajectory to run.

    Returns
    -------
    ResolvedRun

    Raises
    ------
    ModelError
        If the model cannot be found.
    RequestError, DataError
        If facts or the examples of a task cannot be loaded, or there are fewer facts than the spec edits.
    """
    return resolve_all([spec])[0]


def resolve_all(specs: Sequence[ExperimentSpec]) -> list[ResolvedRun]:
    """Resolve several specs as `resolve` does, and load each set of facts or examples once for all of them."""
    facts_from, examples_of = cache(load_facts), cache(load_task)
    runs = []
    for spec in specs:
        batches = _draw_batches(spec, facts_from(spec.facts.source))
        tasks = tuple(examples_of(name, spec.tasks.data) for name in spec.tasks.tasks) if spec.tasks else ()
        content = content_key(spec, batches, tasks)
        runs.append(ResolvedRun(spec, trajectory_key(spec, content), content, batches, tasks))
    return runs


def _draw_batches(spec: ExperimentSpec, facts: FactSet) -> tuple[tuple[EditRequest, ...], ...]:
    if spec.facts.words_before_subject:
        facts = facts.with_words_before_subject()
    drawn = facts.sample(spec.n_facts, seed=spec.seed if spec.facts.seed is None else spec.facts.seed)
    return tuple(drawn[i : i + spec.batch_size] for i in range(0, len(drawn), spec.batch_size))
