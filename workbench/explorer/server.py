"""The server of `workbench app`: Voilà on this machine alone, behind a token, and closed to pages of other origins."""

import threading
import webbrowser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError
from traitlets import default
from traitlets.config import Config
from voila.app import Voila
from voila.tornado.handler import TornadoVoilaHandler
from voila.voila_identity_provider import VoilaIdentityProvider

from workbench.html import render
from workbench.kernels import KERNEL_SETTINGS

_OPEN = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={{ address }}">'
_ELSEWHERE = ("cross-site", "same-site")  # values of Sec-Fetch-Site for requests of pages of other origins
_STRICT = {"samesite": "Strict"}
_CULL_INTERVAL = 60  # seconds


class ExplorerServer(Voila):
    """Voilà with the settings that keep other machines, other users and other pages out.

    The token is random, or that of the environment variable JUPYTER_TOKEN. Configuration files of Voilà are not read,
    so that none of these settings depends on the folder in which the server starts.

    Parameters
    ----------
    cull_after : int
        Seconds after which a kernel to which no page is connected is ended; 0 keeps it.
    **settings
        Traits of `voila.app.Voila`.
    """

    def __init__(self, *, cull_after: int, **settings: Any) -> None:
        culling = {"cull_idle_timeout": cull_after, "cull_interval": max(1, min(_CULL_INTERVAL, cull_after))}
        own = {
            "IdentityProvider": {"cookie_options": _STRICT},
            "MappingKernelManager": culling,
            "VoilaConfiguration": {"multi_kernel_manager_class": KernelsOfPages},
            **KERNEL_SETTINGS,
        }
        super().__init__(config=Config(own), **settings)

    @default("ip")
    def _default_ip(self) -> str:
        return "127.0.0.1"

    @default("auto_token")
    def _default_auto_token(self) -> bool:
        return True

    @default("identity_provider_class")
    def _default_identity_provider_class(self) -> type[VoilaIdentityProvider]:
        return VoilaIdentityProvider  # the token alone; Voilà's default lets a visitor set a password

    @default("config_file_paths")
    def _default_config_file_paths(self) -> list[str]:
        return []

    def init_settings(self) -> dict[str, Any]:
        """Return Voilà's settings, with the check of the Host header that Voilà switches off."""
        return {**super().init_settings(), "allow_remote_access": False, "xsrf_cookie_kwargs": _STRICT}

    def init_handlers(self) -> list[tuple[Any, ...]]:
        """Return Voilà's handlers, all of which check the Host header, with that of the page replaced."""
        return [(pattern, _guarded(handler), *rest) for pattern, handler, *rest in super().init_handlers()]

    def launch_browser(self) -> None:
        """Open a page that leads to the address with the token; a command line would show it to other users."""
        page = Path(self.connection_dir, "open.html")  # a folder that no other user can read
        address = f"{self.connection_url}?token={self.identity_provider.token}"
        page.write_text(render(_OPEN, address=address), encoding="utf-8")
        threading.Thread(target=self._open, args=(page.as_uri(),), daemon=True).start()

    def _open(self, address: str) -> None:
        if not webbrowser.open(address, new=self.webbrowser_open_new):
            self.log.warning("No web browser was found; open the address above.")


class KernelsOfPages(AsyncMappingKernelManager):
    """Kernels whose time until they are culled begins when their page is gone, not with the last message before."""

    def notify_disconnect(self, kernel_id: str) -> None:
        """Notice that a page has left its kernel."""
        super().notify_disconnect(kernel_id)  # type: ignore[no-untyped-call]
        if kernel_id in self:
            kernel: Any = self.get_kernel(kernel_id)
            kernel.last_activity = datetime.now(UTC)


class Page(TornadoVoilaHandler):
    """The page, whose kernel is started by GET: only for a request with the token, or one that no other page sent."""

    async def prepare(self) -> None:
        """Check who asks, and set the cookie without which Voilà's client cannot end the kernel when the page goes.

        Raises
        ------
        HTTPError
            403 if a page of another origin asks without the token.
        """
        await super().prepare()
        if self._finished:  # redirected to the login page
            return
        if not self.token_authenticated and not self._is_own_request():
            raise HTTPError(403, "a page of another origin cannot open the explorer; open its address with the token")
        _ = self.xsrf_token  # reading it sets the cookie

    def _is_own_request(self) -> bool:
        return self.request.headers.get("Sec-Fetch-Site") not in _ELSEWHERE and self.check_origin()


class _Files(JupyterHandler):
    """Files of the page's program, which hold nothing of the user: without the token, but for this host only."""

    @allow_unauthenticated
    async def get(self, path: str, include_body: bool = True) -> None:
        """Send a file, or its headers alone."""
        await super().get(path, include_body)  # type: ignore[misc]


def _guarded(handler: type) -> type:
    if handler is TornadoVoilaHandler:
        return Page
    if issubclass(handler, JupyterHandler):
        return handler
    return type(handler.__name__, (_Files, handler), {})
