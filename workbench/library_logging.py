"""Logging of the libraries underneath, which would otherwise mix with that of the workbench."""

import logging

from huggingface_hub.utils import enable_progress_bars
from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging as transformers_logging


def quiet_libraries() -> None:
    """Silence transformers and the hub, but for the progress bars of downloads, which take longest."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub_logging.set_verbosity_error()  # each retry would be two lines
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it reports each GPU kernel that it does not find
    enable_progress_bars()
