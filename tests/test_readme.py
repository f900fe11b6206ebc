"""The README's Python example runs as written and prints what the README says."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import code_blocks

README = Path(__file__).parent.parent / "README.md"
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")


def test_the_example_has_at_most_ten_statements():
    assert len(re.findall(r"^\S", code_blocks(README, "python")[0], re.MULTILINE)) <= 12


@pytest.mark.slow
def test_the_example_prints_what_the_readme_says(smollm2):
    done = subprocess.run(
        [sys.executable, "-c", code_blocks(README, "python")[0]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said, printed = code_blocks(README, "text")[1], done.stdout
    assert NUMBER.sub("#", said).split() == NUMBER.sub("#", printed).split()
    numbers = list(zip(NUMBER.findall(said), NUMBER.findall(printed), strict=True))
    assert len(numbers) >= 6
    # the last digits depend on the machine
    assert all(math.isclose(float(a), float(b), rel_tol=0.02, abs_tol=2e-3) for a, b in numbers)
