"""The four settings, read back from their artists."""

import pytest
from matplotlib.figure import Figure

from workbench.analysis.tables import tabulate_settings
from workbench.plots import settings


@pytest.fixture
def table():
    """Give a table with three operations per setting and four facts per batch."""
    return tabulate_settings(n_operations=3, batch_size=4)


def drawn(ax):
    texts = [text.get_text() for text in ax.texts]
    return [text for text in texts if "theta" in text], [text for text in texts if "e_" in text]


def test_every_setting_has_its_panel_in_the_papers_order(table):
    figure = settings.editing_settings(table, Figure())
    names = ["single-instance", "single-batch", "sequential-instance", "sequential-batch"]
    assert [ax.get_title() for ax in figure.axes] == names


def test_each_operation_has_its_facts_and_its_own_resulting_state(table):
    figure = settings.editing_settings(table, Figure())
    states, facts = drawn(figure.axes[3])
    assert states == [f"$\\theta_{{{t}}}$" for t in range(4)]
    assert facts == ["$e_{1}$ … $e_{4}$", "$e_{5}$ … $e_{8}$", "$e_{9}$ … $e_{12}$"]
    assert drawn(figure.axes[0])[1] == ["$e_{1}$", "$e_{2}$", "$e_{3}$"]


def test_single_operations_all_start_from_the_unedited_model(table):
    single = table[table["setting"].str.startswith("single")]
    assert set(single["edits"]) == {0}
    assert list(table.loc[table["setting"] == "sequential-batch", "edits"]) == [0, 1, 2]
