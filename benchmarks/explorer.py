"""Time from a move of the explorer's slider to its figures and answers, against editing again in the same run.

    python -m benchmarks.explorer [--methods rome,mend] [--moves 10]

Both end with everything that the panel shows: the regularized update, both figures as PNG, every answer, the kept
share and the growth of the weights. The baseline computes the edit again with the next share to keep; a move only
regularizes the computed update. Without a browser, which adds about a tenth of a second. Limit: 1 s for ROME, the
panel's first method.
"""

import argparse
import statistics
import sys

import workbench as wb
from benchmarks.timing import describe_setup, timed
from workbench.explorer.figures import heatmap_picture, histogram_picture
from workbench.explorer.session import Session

METHODS = ("rome", "memit", "kn", "mend", "ft")
MAX_SECONDS = 1.0  # per move


def show(session: Session, request: wb.EditRequest) -> None:
    """Compute everything that the panel shows of an edit."""
    view = session.weight_view()
    heatmap_picture(view).to_html()
    histogram_picture(view, session.edits[-1].regularizer.label).to_html()
    session.measure_kept()
    session.predict(request)
    session.growth()


def time_both(session: Session, request: wb.EditRequest, method: str, moves: int) -> tuple[float, list[float]]:
    """Return the seconds of an edit, and of each of some moves of the slider after it."""
    editor = session.editor(method).prepared(session.lm)  # with contexts and second moments computed
    session.predict(request)

    def edit() -> None:
        session.edit(request, editor, wb.RECT(0.4))
        show(session, request)

    def move(keep: float) -> None:
        session.regularize(wb.RECT(keep))
        show(session, request)

    edited, _ = timed(edit)
    moved = [timed(move, round(0.39 - 0.01 * i, 2))[0] for i in range(moves)]
    session.undo()
    return edited, moved


def main() -> int:
    """Print medians and ratios; return 1 if the limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--moves", type=int, default=10)
    args = parser.parse_args()

    lm = wb.load("smollm2-135m")
    session, request = Session(lm), wb.load_facts().requests[0]
    print(f"{lm.name}, {describe_setup()}, {request.filled_prompt!r}")
    kept = True
    for method in args.methods.split(","):
        edited, moved = time_both(session, request, method, args.moves)
        move = statistics.median(moved)
        print(
            f"{method:6s} edit {edited:6.2f} s, move {move:.2f} s, median of {len(moved)} "
            f"({min(moved):.2f} to {max(moved):.2f}); ratio {edited / move:.1f}"
        )
        kept &= method != "rome" or move < MAX_SECONDS
    print(f"limit ({MAX_SECONDS:g} s per move for ROME): {'kept' if kept else 'EXCEEDED'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
