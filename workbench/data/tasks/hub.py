"""The data sets of the eight tasks on the hub, as rows that `workbench.data.tasks.formats` reads.

`datasets` no longer runs loading scripts, so each data set is taken from where the hub has it as Parquet or CSV. Six
tasks are pinned to a commit. Two are not, since their commits could not be looked up when this was written: MuTual is
taken at `main` (Parquet there since August 2025), and CoNLL-2003, whose repository holds only a script, at
`refs/convert/parquet`, the branch that the hub's converter writes. Natural Questions come without passages, so the
task asks for knowledge.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.data.fields import Record
from workbench.data.tasks.conll import HUB_TAGS
from workbench.errors import DataError, first_line
from workbench.extras import require_extra

_CURE = "check the connection and HF_HUB_OFFLINE, or give a file or folder of data"


@dataclass(frozen=True)
class HubDataset:
    """One split of a data set of the hub, at one revision."""

    repo: str
    config: str | None
    split: str
    revision: str  # a commit, or a branch where none could be looked up
    label_column: str | None = None  # of numbers that stand for names
    label_names: tuple[str, ...] = ()  # the names that the reader takes the numbers for

    @property
    def name(self) -> str:
        """``owner/name:config@revision``."""
        return f"{self.repo}{f':{self.config}' if self.config else ''}@{self.revision}"


_GLUE = ("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")
HUB_DATASETS: dict[str, HubDataset] = {
    "reasoning": HubDataset("openai/gsm8k", "main", "test", "740312add88f781978c0658806c59bc2815b9866"),
    "nli": HubDataset(_GLUE[0], "rte", "validation", _GLUE[1], "label", ("entailment", "not_entailment")),
    "open_qa": HubDataset(
        "google-research-datasets/nq_open", None, "validation", "5dd9790a83002ad084ddeb7c420dc716852c6f28"
    ),
    "closed_qa": HubDataset("google/boolq", None, "validation", "35b264d03638db9f4ce671b711558bf7ff0f80d5"),
    "dialogue": HubDataset("lighteval/mutual_harness", "mutual", "validation", "main"),
    "summarization": HubDataset("knkarthick/samsum", None, "test", "6b929ff10edec703164e3ddb2e94aae058c9ab5f"),
    "ner": HubDataset("eriktks/conll2003", None, "test", "refs/convert/parquet", "ner_tags", HUB_TAGS),
    "sentiment": HubDataset(_GLUE[0], "sst2", "validation", _GLUE[1], "label", ("negative", "positive")),
}


def fetch_rows(dataset: HubDataset) -> list[Record]:
    """Fetch a data set from the hub, or from its cache on this machine.

    Parameters
    ----------
    dataset : HubDataset
        A value of `HUB_DATASETS`.

    Returns
    -------
    list of dict
        Column name to value, in the order of the data set.

    Raises
    ------
    DataError
        If it cannot be reached or read, or the numbers of its labels do not mean what the reader takes them for.
    MissingExtraError
        If ``datasets`` is not installed.
    """
    require_extra("datasets", "hub")
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        rows = load_dataset(path=dataset.repo, name=dataset.config, split=dataset.split, revision=dataset.revision)
    except (OSError, ValueError, RuntimeError, DatasetsError) as err:
        raise DataError(f"{dataset.name} cannot be read ({first_line(err).rstrip('.')}); {_CURE}.") from err
    _check_label_names(dataset, rows.features)
    return rows.to_list()


def _check_label_names(dataset: HubDataset, features: Mapping[str | None, object]) -> None:
    """Refuse a data set that numbers its labels in another order than the reader expects."""
    feature = features.get(dataset.label_column)
    names = getattr(getattr(feature, "feature", feature), "names", None)
    if names is not None and tuple(names) != dataset.label_names:
        raise DataError(
            f"{dataset.name} numbers {dataset.label_column} as {', '.join(names)}; the reader takes the numbers for "
            f"{', '.join(dataset.label_names)}."
        )
