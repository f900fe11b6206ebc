"""ResolvedRun: a spec with the content of everything that it names, loaded once and handed down the pipeline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from workbench.data.facts import FactSet, load_facts
from workbench.data.tasks.load import TaskData, load_task
from workbench.editing.editor import Editor
from workbench.experiment.cache_keys import content_key, json_of, key_of_written, trajectory_key
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
    draw : str
        Hash of the facts in the order in which they are drawn, to the last of the source. Trajectories that differ in
        their length, or in the number of facts per operation, share it; those that edit other facts do not.
    batches : tuple of tuple of EditRequest
        The facts of each operation.
    tasks : tuple of TaskData
        The examples of each task of the spec, in its order.
    """

    spec: ExperimentSpec
    key: str
    content: str
    draw: str
    batches: tuple[tuple[EditRequest, ...], ...]
    tasks: tuple[TaskData, ...]

    @property
    def requests(self) -> tuple[EditRequest, ...]:
        """The facts of all operations, in order."""
        return tuple(request for batch in self.batches for request in batch)

    def assessed_facts(self, first: int, last: int) -> dict[int, EditRequest]:
        """Return those of the facts `first` to `last` − 1 whose edit metrics are measured, by their numbers from 0."""
        requests = self.requests
        return {i: requests[i] for i in self.spec.assessed_facts if first <= i < last}

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
    return list(map(make_resolver(), specs))


def make_resolver() -> Callable[[ExperimentSpec], ResolvedRun]:
    """Return a function that does what `resolve` does, and loads each set of facts or examples once for all calls."""
    facts_from, examples_of = cache(load_facts), cache(load_task)
    # by the object: a request stays in the cache of facts, and is written once for all draws
    texts_from = cache(lambda source: {id(request): json_of(request) for request in facts_from(source).requests})

    def resolve_one(spec: ExperimentSpec) -> ResolvedRun:
        order = _draw_facts(spec, facts_from(spec.facts.source))
        batches = tuple(order[i : i + spec.batch_size] for i in range(0, spec.n_facts, spec.batch_size))
        tasks = tuple(examples_of(name, spec.tasks.data) for name in spec.tasks.tasks) if spec.tasks else ()
        content, texts = content_key(spec, batches, tasks), texts_from(spec.facts.source)
        draw = key_of_written([texts[id(request)] for request in order])
        return ResolvedRun(spec, trajectory_key(spec, content), content, draw, batches, tasks)

    return resolve_one


def _draw_facts(spec: ExperimentSpec, facts: FactSet) -> tuple[EditRequest, ...]:
    """Return all facts of the source in the order of the draw; the first of them are edited."""
    if spec.facts.words_before_subject:
        facts = facts.with_words_before_subject()
    seed = spec.seed if spec.facts.seed is None else spec.facts.seed
    return facts.sample(max(len(facts), spec.n_facts), seed=seed)  # with too few facts, it says how many there are
