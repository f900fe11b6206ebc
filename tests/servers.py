"""Servers that tests start in processes of their own, and the kernels of such a server."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
CLI = (sys.executable, "-c", "from workbench.cli import main; main()")
PATIENCE = 90  # seconds
_SHOWN = "voila/static/none"  # answered as soon as the server runs; the page itself would start a kernel


class Server:
    """A running server.

    Attributes
    ----------
    address : str
        Its address, which ends with a slash.
    log : Path
        File of what it writes.
    process : subprocess.Popen
        Its process.
    """

    def __init__(self, address: str, log: Path, process: subprocess.Popen) -> None:
        self.address, self.log, self.process = address, log, process

    @property
    def page(self) -> str:
        """The address with the token, as the server shows it."""
        port = self.address.rsplit(":", 1)[1]
        found = re.search(rf"http://\S+:{port}\?token=(\w+)", self.log.read_text())
        return f"{self.address}?token={found[1]}"

    def kernels(self) -> list[int]:
        """Return the processes of its kernels."""
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True) if _is_kernel(child)]


@contextmanager
def serve(command: list[str], folder: Path, log: Path, *, probe: str = _SHOWN) -> Iterator[Server]:
    """Start a server whose command has PORT in place of the port, and give it when it answers; stop it in the end."""
    port = _free_port()
    # one thread each: a browser needs a core, and waiting threads would keep the others busy
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [part.replace("PORT", str(port)) for part in command]
    with open(log, "w") as output:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT)
        try:
            server = Server(f"http://localhost:{port}/", log, process)
            _wait_for_answer(server, server.address + probe)
            yield server
        finally:
            _stop(process)


def wait_until(true: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Return whether a condition holds within some time."""
    deadline = time.monotonic() + seconds
    while not (held := true()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return held


def _is_kernel(process: psutil.Process) -> bool:
    try:
        return "ipykernel_launcher" in process.cmdline()
    except psutil.NoSuchProcess:  # ended since it was listed
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _stop(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for_answer(server: Server, address: str) -> None:
    """Wait until a server answers, with whatever status."""

    def answers() -> bool:
        try:
            urllib.request.urlopen(address)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return server.process.poll() is not None
        return True

    if not wait_until(answers) or server.process.poll() is not None:
        raise AssertionError(f"no answer at {address}: {server.log.read_text()}")
