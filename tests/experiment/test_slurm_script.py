"""The Slurm script of the documentation, run by stand-ins that do on this machine what Slurm does on several."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.pages import code_blocks
from workbench.experiment.grids import read_specs
from workbench.experiment.runner import run
from workbench.experiment.store import Store

PAGE = Path(__file__).parent.parent.parent / "docs" / "tutorials" / "scale.md"
PATIENCE = 300  # seconds
# the script in a session of its own, which ends with it; the number of tasks is the script's own
SBATCH = r"""#!/bin/bash
export SLURM_SUBMIT_DIR="$PWD" SLURM_JOB_ID=17
export SLURM_NTASKS=$(sed -n 's/^#SBATCH --ntasks=//p' "$1")
setsid bash "$1" > slurm-17.out 2>&1 &
job=$!
wait $job
code=$?
while pkill -KILL --session $job; do sleep 0.1; done
exit $code
"""
SRUN = r"""#!/bin/bash
for ((task = 0; task < SLURM_NTASKS; task++)); do SLURM_PROCID=$task "$@" & done
wait
"""
GRID = {
    "method": "ft",
    "hyperparameters": {"layers": [1], "num_steps": 2},
    "n_operations": 2,
    "tasks": {"tasks": ["nli"], "limit": 2},
    "perplexity": {"limit": 2},
    "grid": {"seed": [0, 1, 2, 3, 4, 5]},
}


@pytest.fixture
def environment(tmp_path):
    """Give an environment in which `sbatch` and `srun` are stand-ins, and the commands are those of this Python."""
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    for name, script in (("sbatch", SBATCH), ("srun", SRUN)):
        (stand_ins / name).write_text(script)
        (stand_ins / name).chmod(0o755)
    path = os.pathsep.join([str(stand_ins), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_the_script_of_the_docs_runs_a_grid_on_its_workers_and_leaves_nothing_running(tiny, tmp_path, environment):
    [script] = [code for code in code_blocks(PAGE, "bash") if code.startswith("#!/bin/bash")]
    job = tmp_path / "job"
    job.mkdir()
    (job / "study.sh").write_text(script.replace("/shared/", f"{tmp_path}/"))
    (job / "sequential.yaml").write_text(yaml.safe_dump({"model": tiny, **GRID}))
    ended = subprocess.run(["sbatch", "study.sh"], cwd=job, env=environment, timeout=PATIENCE)
    output = (job / "slurm-17.out").read_text()
    assert ended.returncode == 0, output
    assert output.count("Registered to:") == 4, output
    assert subprocess.run(["pgrep", "-f", f"{job}/scheduler-17.json"], capture_output=True).stdout == b""
    specs = read_specs(job / "sequential.yaml")
    serial = run(specs, store=tmp_path / "serial")
    pd.testing.assert_frame_equal(Store(job / "results").results(list(dict.fromkeys(serial.trajectory))), serial)
