"""Time of each gesture in the explorer's tabs after an edit, against the time of the edit itself in the same run.

    python -m benchmarks.gestures [--method rome] [--repeats 3]

Each gesture ends with what the tab shows: the computation, and its view as JSON. The unedited model's side was read
before, as in the panel, where it does not change. Without a browser, which adds about a tenth of a second. Limit: 1 s
per gesture.
"""

import argparse
import statistics
import sys
from collections.abc import Callable

import workbench as wb
from benchmarks.timing import describe_setup, timed
from workbench.explorer.session import Session
from workbench.microscope.lens import read_lenses, watch_answers
from workbench.microscope.lens_view import lens_view
from workbench.microscope.spectrum import compare_spectra
from workbench.microscope.text import compare_text, held_out_passages
from workbench.microscope.text_view import text_view
from workbench.microscope.timeline import timeline_of
from workbench.microscope.written import read_written

MAX_SECONDS = 1.0  # per gesture


def gestures_of(session: Session, request: wb.EditRequest) -> dict[str, Callable[[], object]]:
    """Return a function for each gesture."""
    passage = held_out_passages()[0]

    def lens() -> None:
        with session.edited() as lm:
            lens_view(*read_lenses(lm, request.filled_prompt, watch=watch_answers(request))).to_html()

    def text() -> None:
        with session.edited() as lm:
            text_view(compare_text(lm, passage)).to_html()

    def slider() -> None:
        session.regularize(wb.RECT(0.4))
        session.predict(request)

    def spectrum() -> None:
        compare_spectra({"RECT": wb.RECT(0.4)(session.update, session.lm)}, session.lm)

    return {
        "lens, edited side": lens,
        "text of a passage, edited side": text,
        "regularizer, answers": slider,
        "spectrum under RECT": spectrum,
        "what the update writes": lambda: read_written(session.edits[-1].update, session.lm),
        "a new state of the timeline": lambda: timeline_of(session.sequence).measure(1),
    }


def main() -> int:
    """Print medians and ratios; return 1 if a gesture exceeds the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="rome")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    lm = wb.load("smollm2-135m")
    session, request = Session(lm), wb.load_facts().requests[0]
    editor = session.editor(args.method).prepared(lm)
    session.predict(request)
    edit_seconds, _ = timed(lambda: session.edit(request, editor))
    print(f"{lm.name}, {describe_setup()}, {args.method}: edit {edit_seconds:.2f} s")
    kept = True
    for name, gesture in gestures_of(session, request).items():
        gesture()  # reads the unedited side
        seconds = statistics.median(timed(gesture)[0] for _ in range(args.repeats))
        print(f"{name:32s} {seconds:5.2f} s, 1/{edit_seconds / seconds:.0f} of the edit")
        kept &= seconds < MAX_SECONDS
    print(f"limit ({MAX_SECONDS:g} s per gesture): {'kept' if kept else 'EXCEEDED'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
