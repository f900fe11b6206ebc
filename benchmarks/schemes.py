"""Time to compare several schemes that share an update, as a multiple of the time for one of them.

    python -m benchmarks.schemes [--model smollm2-135m] [--facts 3] [--keeps 0.8,0.6,0.4,0.2,0.1,0.05]

A comparison regularizes the update, assesses its risk, scores it by both protocols and lets the model answer. The
schemes answer together; the baseline compares them one by one in the same run. The time of the update itself is left
out, and the answers of the unedited model are known before. Limit: six schemes in at most 2.5 times the time of one.
"""

import argparse
import statistics

import workbench as wb
from benchmarks.timing import describe_setup, timed
from workbench.microscope.schemes import MAX_SCHEMES, Scheme, compare_schemes

KEEPS = "0.8,0.6,0.4,0.2,0.1,0.05"


def compare(lm: wb.LanguageModel, request: wb.EditRequest, schemes: list[Scheme]) -> tuple[float, list[str]]:
    """Return the seconds of a comparison without those of the update, and the answers of the schemes."""
    seconds, results = timed(compare_schemes, wb.EditSequence(lm), request, schemes)
    return seconds - results[0].seconds, [result.answer for result in results]


def main() -> None:
    """Print the seconds and the ratios of each fact, and their medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--facts", type=int, default=3)
    parser.add_argument("--keeps", default=KEEPS)
    args = parser.parse_args()

    lm = wb.load(args.model)
    schemes = [Scheme("rome", regularizer=wb.RECT(float(keep))) for keep in args.keeps.split(",")][:MAX_SCHEMES]
    print(f"{lm.name}, {len(schemes)} shares of RECT, {describe_setup()}")
    ratios = []
    for request in wb.load_facts("bundled").with_words_before_subject().sample(args.facts, seed=0):
        compare(lm, request, schemes[:1])
        alone = [compare(lm, request, [scheme]) for scheme in schemes]
        seconds, together = compare(lm, request, schemes)
        apart = [seconds for seconds, _ in alone]
        one = statistics.median(apart)
        same = [answer for _, answers in alone for answer in answers] == together
        ratios.append((seconds / one, sum(apart) / seconds))
        times = f"one {one:.2f} s, all one by one {sum(apart):.2f} s, together {seconds:.2f} s"
        print(f"{times}: {seconds / one:.2f} times one; answers {'the same' if same else 'NOT THE SAME'}", flush=True)
    of_one, gained = (statistics.median(each) for each in zip(*ratios, strict=True))
    print(f"medians: {of_one:.2f} times the time of one; {gained:.2f} times as fast as one by one")


if __name__ == "__main__":
    main()
