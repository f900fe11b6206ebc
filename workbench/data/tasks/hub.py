"""The eight tasks' data sets on the hub, as rows that `workbench.data.tasks.formats` reads.

`datasets` runs no loading scripts any more, so each is taken where the hub has it as Parquet or CSV. Six tasks are
pinned to a commit. Two are not, since their commits could not be looked up when this was written: MuTual is taken at
`main` (Parquet there since August 2025), and CoNLL-2003, whose repository has a script alone, at
`refs/convert/parquet`, the branch that the hub's converter writes. Natural Questions come without passages: the task
then asks for knowledge.
"""

from dataclasses import dataclass

from workbench.data.tasks.conll import HUB_TAGS
from workbench.errors import DataError, first_line

_CURE = "check the connection and HF_HUB_OFFLINE, or give a file or folder of data"


@dataclass(frozen=True)
class HubSet:
    """One split of a data set of the hub, at one revision."""

    repo: str
    config: str | None
    split: str
    revision: str  # a commit, or a branch where none could be looked up
    label_column: str | None = None  # of numbers that stand for names
    label_names: tuple[str, ...] = ()  # what the reader takes the numbers for

    @property
    def name(self) -> str:
        """``owner/name:config@revision``."""
        return f"{self.repo}{f':{self.config}' if self.config else ''}@{self.revision}"


_GLUE = ("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")
HUB_TASKS: dict[str, HubSet] = {
    "reasoning": HubSet("openai/gsm8k", "main", "test", "740312add88f781978c0658806c59bc2815b9866"),
    "nli": HubSet(_GLUE[0], "rte", "validation", _GLUE[1], "label", ("entailment", "not_entailment")),
    "open_qa": HubSet(
        "google-research-datasets/nq_open", None, "validation", "5dd9790a83002ad084ddeb7c420dc716852c6f28"
    ),
    "closed_qa": HubSet("google/boolq", None, "validation", "35b264d03638db9f4ce671b711558bf7ff0f80d5"),
    "dialogue": HubSet("lighteval/mutual_harness", "mutual", "validation", "main"),
    "summarization": HubSet("knkarthick/samsum", None, "test", "6b929ff10edec703164e3ddb2e94aae058c9ab5f"),
    "ner": HubSet("eriktks/conll2003", None, "test", "refs/convert/parquet", "ner_tags", HUB_TAGS),
    "sentiment": HubSet(_GLUE[0], "sst2", "validation", _GLUE[1], "label", ("negative", "positive")),
}


def hub_rows(task: str) -> tuple[str, str, list[dict]]:
    """Fetch a task's data set from the hub, or from its cache on this machine.

    Parameters
    ----------
    task : str
        A key of `HUB_TASKS`.

    Returns
    -------
    name, split : str, str
        ``owner/name:config@revision`` and the split there.
    rows : list of dict
        Column name to value, in the data set's order.

    Raises
    ------
    DataError
        If it cannot be reached or read, or its labels' numbers no longer mean what the reader takes them for.
    """
    # imported here: it takes seconds, and files need none of it
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    wanted = HUB_TASKS[task]
    try:
        rows = load_dataset(path=wanted.repo, name=wanted.config, split=wanted.split, revision=wanted.revision)
    except (OSError, ValueError, RuntimeError, DatasetsError) as err:
        raise DataError(f"{wanted.name} cannot be read ({first_line(err).rstrip('.')}); {_CURE}.") from err
    _check_label_names(wanted, rows.features)
    return wanted.name, wanted.split, rows.to_list()


def _check_label_names(wanted: HubSet, features: dict) -> None:
    """Refuse labels whose names the data set gives, and gives in another order."""
    feature = features.get(wanted.label_column)
    names = getattr(getattr(feature, "feature", feature), "names", None)
    if names is not None and tuple(names) != wanted.label_names:
        raise DataError(
            f"{wanted.name} numbers {wanted.label_column} as {', '.join(names)}; the reader takes the numbers for "
            f"{', '.join(wanted.label_names)}."
        )
