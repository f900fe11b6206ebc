"""Known vulnerabilities of the locked packages, by pip-audit; says so where no database can be reached.

`make audit` calls it. Exit code 0: none known; 1: some, which are listed; 2: nothing was checked.
"""

import subprocess
import sys
from urllib.request import urlopen

DATABASE = "https://pypi.org/pypi/pip/json"  # one record of the database that pip-audit asks
NOT_CHECKED = 2


def why_unreachable() -> str | None:
    """Return why the database cannot be reached; None if it can."""
    try:
        with urlopen(DATABASE, timeout=20) as answer:
            answer.read(1)
    except OSError as err:
        return str(getattr(err, "reason", err))
    return None


def audit(lock: str) -> int:
    """Look up every package of a lock file; return the exit code."""
    if reason := why_unreachable():
        print(
            f"no database of vulnerabilities can be reached ({DATABASE}: {reason}); nothing was checked.",
            file=sys.stderr,
        )
        return NOT_CHECKED
    options = ["--requirement", lock, "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    return subprocess.run([sys.executable, "-m", "pip_audit", *options], check=False).returncode


if __name__ == "__main__":
    sys.exit(audit(sys.argv[1]))
