"""Waiting threads soon sleep, in every process that the workbench starts, unless the user has set a policy."""

import os
import subprocess
import sys

import pytest

from workbench.experiment.store_location import experiments_of_children
from workbench.threads import SHORT_WAIT, set_wait_policy, usable_cores, wait_policy

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

# prints the policy at the moment at which torch is imported
WATCH = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("policy", os.environ.get("GOMP_SPINCOUNT"))
sys.meta_path.insert(0, Watch())
from workbench.cli import main
sys.argv = ["workbench", "apply", "--help"]
main()
"""


@pytest.fixture
def no_policy(monkeypatch):
    """Clear the policy, and restore it at the end."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_policy")
@pytest.mark.parametrize("name", VARIABLES)
def test_a_policy_of_the_user_stays(monkeypatch, name):
    monkeypatch.setenv(name, "1000")
    set_wait_policy()
    assert {each: os.environ.get(each) for each in VARIABLES} == {
        each: "1000" if each == name else None for each in VARIABLES
    }


@pytest.mark.usefixtures("no_policy")
def test_the_processes_of_a_run_have_the_policy_and_this_one_keeps_its_environment():
    before = dict(os.environ)
    with experiments_of_children("store"):
        assert os.environ["GOMP_SPINCOUNT"] == "10000"
    assert dict(os.environ) == before
    assert wait_policy() == SHORT_WAIT


@pytest.mark.slow
@pytest.mark.usefixtures("no_policy")
def test_the_command_line_sets_the_policy_before_torch_is_imported():
    done = subprocess.run([sys.executable, "-c", WATCH], capture_output=True, text=True, check=True)
    assert "policy 10000\n" in done.stdout
    assert "policy None" not in done.stdout


def test_cores_that_this_process_may_not_use_do_not_count():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system does not bind processes to cores")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores() == len(before)
