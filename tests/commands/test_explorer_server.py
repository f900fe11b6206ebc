"""`workbench app` as a server, over HTTP: who may open the page, and when the kernels of its pages end."""

import http.cookiejar
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from websocket import WebSocketBadStatusException, create_connection

from tests.servers import CLI, serve, wait_until

pytestmark = pytest.mark.slow

CULL_AFTER = 5  # seconds
FORGED = "attacker.example"


class Client:
    """A client that keeps cookies, as a browser does, and otherwise sends what the test asks for."""

    def __init__(self):
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))

    def get(self, address, data=None, **headers):
        """Return status and text; underscores in the names of headers stand for hyphens."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with self.opener.open(urllib.request.Request(address, data, headers)) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as err:
            return err.code, err.read().decode()

    def open(self, server):
        """Open the page by its address with the token; return the kernel that it starts."""
        status, text = self.get(server.page)
        assert status == 200
        return re.search(r'"kernelId": "([\w-]+)"', text)[1]

    def leave(self, server, kernel):
        """Send what Voilà's client sends when its page goes; return the status."""
        token = next((cookie.value for cookie in self.jar if cookie.name == "_xsrf"), "")
        form = urllib.parse.urlencode({"_xsrf": token}).encode()
        return self.get(f"{server.address}voila/api/shutdown/{kernel}", form, Origin=server.address[:-1])[0]

    def cookies(self):
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.jar)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Give a folder whose notebook starts at once; who may open it does not depend on what it shows."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "notebooks").mkdir()
    parameters = new_code_cell("model = facts = exports_dir = ''", metadata={"tags": ["parameters"]})
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [parameters, new_code_cell("import ipywidgets; ipywidgets.Label('ready')")]
    nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / "notebooks" / "00_explorer.ipynb")
    return folder


@pytest.fixture(scope="module")
def server(place):
    with serve([*CLI, "app", "--no-browser", "--port", "PORT"], place, place / "log") as server:
        yield server


@pytest.fixture
def client():
    return Client()


def connect(server, kernel, *, cookie="", origin=None, host=None):
    """Open the websocket to a kernel, with the page's origin unless another is given."""
    address = f"{server.address.replace('http', 'ws', 1)}api/kernels/{kernel}/channels?session_id={uuid.uuid4()}"
    return create_connection(address, cookie=cookie, origin=origin or server.address[:-1], host=host)


def refusal(server, kernel, **given):
    """Return the status with which the websocket to a kernel is refused; 101 if it is opened."""
    try:
        connect(server, kernel, **given).close()
    except WebSocketBadStatusException as err:
        return err.status_code
    return 101


def no_kernels(server):
    return wait_until(lambda: not server.kernels())


def test_without_the_token_there_is_the_login_page_alone(server, client):
    kernel = client.open(server)
    stranger = Client()
    for address in (server.address, f"{server.address}?token={'0' * 48}"):
        status, text = stranger.get(address)
        assert (status, "kernelId" in text, 'name="password"' in text) == (200, False, True)
    assert len(server.kernels()) == 1
    assert stranger.get(f"{server.address}api/kernels/{kernel}")[0] == 403
    assert stranger.leave(server, kernel) == 403
    assert refusal(server, kernel) == 403
    assert client.leave(server, kernel) == 204


def test_the_first_request_leaves_a_cookie_that_other_sites_cannot_use(server, client):
    kernel = client.open(server)
    user = next(cookie for cookie in client.jar if cookie.name.startswith("username-"))
    assert user.has_nonstandard_attr("HttpOnly")
    assert {cookie.get_nonstandard_attr("SameSite") for cookie in client.jar} == {"Strict"}
    assert client.get(f"{server.address}api/kernels/{kernel}")[0] == 200
    assert refusal(server, kernel, cookie=client.cookies()) == 101
    assert client.leave(server, kernel) == 204


def test_a_forged_host_is_refused_everywhere(server, client):
    kernel = client.open(server)
    script = f"{server.address}voila/templates/base/static/voila.js"
    assert client.get(script)[0] == 200
    for address in (server.page, server.address, script, f"{server.address}api/kernels/{kernel}"):
        for host in (FORGED, f"{FORGED}:{server.address.rsplit(':')[-1][:-1]}"):
            assert client.get(address, Host=host)[0] == 403, (address, host)
    assert refusal(server, kernel, cookie=client.cookies(), origin=f"http://{FORGED}", host=FORGED) == 403
    assert len(server.kernels()) == 1
    assert client.leave(server, kernel) == 204


@pytest.mark.parametrize(
    "sent",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # another port of this machine
        {"Origin": f"https://{FORGED}"},
        {"Origin": "http://localhost:1"},
    ],
)
def test_a_page_of_another_origin_starts_no_kernel_although_its_user_has_the_cookie(server, client, sent):
    assert client.leave(server, client.open(server)) == 204
    assert no_kernels(server)
    assert client.get(server.address, **sent)[0] == 403
    assert server.kernels() == []
    status, text = client.get(server.address, Sec_Fetch_Site="none")  # typed in, or from a bookmark
    assert status == 200
    assert client.leave(server, re.search(r'"kernelId": "([\w-]+)"', text)[1]) == 204


def test_a_page_of_another_origin_neither_reaches_nor_ends_a_kernel(server, client):
    kernel = client.open(server)
    for origin in (f"https://{FORGED}", "http://localhost:1", "null"):
        assert refusal(server, kernel, cookie=client.cookies(), origin=origin) == 403
        form = urllib.parse.urlencode({"_xsrf": ""}).encode()
        address = f"{server.address}voila/api/shutdown/{kernel}"
        assert client.get(address, form, Origin=origin)[0] in (403, 404)
    assert len(server.kernels()) == 1
    assert client.leave(server, kernel) == 204


def test_five_reloads_leave_one_kernel(server, client):
    assert no_kernels(server)
    kernel = client.open(server)
    for _ in range(5):
        left, kernel = kernel, client.open(server)
        assert client.leave(server, left) == 204
        assert wait_until(lambda: len(server.kernels()) == 1)
        assert client.get(f"{server.address}api/kernels/{kernel}")[0] == 200
        assert client.get(f"{server.address}api/kernels/{left}")[0] == 404
    assert client.leave(server, kernel) == 204
    assert no_kernels(server)


def test_the_kernel_of_a_page_that_is_gone_without_a_word_is_culled_and_a_connected_one_stays(place, client):
    command = [*CLI, "app", "--no-browser", "--port", "PORT", "--cull-after", str(CULL_AFTER)]
    with serve(command, place, place / "culling.log") as server:
        kernel = client.open(server)
        connection = connect(server, kernel, cookie=client.cookies())
        client.open(server)
        assert len(server.kernels()) == 2
        assert wait_until(lambda: len(server.kernels()) == 1)
        time.sleep(2 * CULL_AFTER)
        assert client.get(f"{server.address}api/kernels/{kernel}")[0] == 200
        connection.close()
        begun = time.monotonic()
        assert no_kernels(server)
        assert time.monotonic() - begun >= CULL_AFTER  # counted from the end of the connection


def test_kernels_do_not_talk_in_plain_text(server, client):
    kernel = client.open(server)
    assert client.leave(server, kernel) == 204
    assert "without encryption" not in server.log.read_text()
    assert f"Kernel started: {kernel}" in server.log.read_text()


def test_a_browser_ends_the_kernel_of_every_page_that_it_reloads_or_leaves(server, browser):
    assert no_kernels(server)
    page = browser.new_page()
    page.goto(server.page)
    for _ in range(5):
        page.get_by_text("ready", exact=True).wait_for()
        page.reload()
        assert wait_until(lambda: len(server.kernels()) == 1)
    page.get_by_text("ready", exact=True).wait_for()
    page.goto("about:blank")
    assert no_kernels(server)
