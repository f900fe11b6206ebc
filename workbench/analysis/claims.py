"""Claims: the statements of Gu et al. 2024, tested on stored experiments: effect, interval, verdict.

A claim holds if the 95 % interval of its effect lies on the claimed side of the bound, and does not hold if it lies on
the other side. The interval is over edit sequences and over examples (`workbench.analysis.effects`). With fewer than
five sequences, or ten single edits, nothing is decided, whatever the interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbench.analysis import contrasts
from workbench.analysis.contrasts import FEWEST_SEQUENCES, PLAIN, RECT40, Measure
from workbench.analysis.effects import Effect
from workbench.analysis.kn_settings import KN_SETTINGS
from workbench.analysis.pairs import Runs
from workbench.experiment.store import hyperparameters_label
from workbench.regularize import PCAK, RandomK

FEWEST_EDITS = 10  # single edits, each of which is a sequence of one
HOLDS, FAILS, UNDECIDED, ONE_ONLY = "holds", "does not hold", "not enough data", "one trajectory only"
COLUMNS = ["model", "claim", "measured", "effect", "low", "high", "bound", "n", "trajectories", "abilities", "facts"]
COLUMNS += ["verdict", "why"]
RANDOM40, PCA40 = (each.label for each in (RandomK(0.4), PCAK(0.4)))

_Z = 1.96
_DIGITS = 6  # after the point; smaller differences are rounding
_MOST = 1000  # numbers of sequences beyond this are not named


@dataclass(frozen=True)
class Claim:
    """A statement of the paper and how it is tested.

    Attributes
    ----------
    statement, measured : str
        The statement, and the quantity that tests it.
    bound : float
        The number that the effect is compared with.
    above : bool
        Whether the claim is that the effect lies above the bound; otherwise below.
    effect : callable
        Function of `Runs` that returns the effect, or None without data.
    unit : str
        The independent unit of the effect, in the plural.
    fewest : int
        Number of units below which nothing is decided.
    """

    statement: str
    measured: str
    bound: float
    above: bool
    effect: Measure
    unit: str = "trajectories"
    fewest: int = FEWEST_SEQUENCES


def judge_claims(runs: Mapping[str, Runs]) -> pd.DataFrame:
    """Judge every claim for each of several models.

    Parameters
    ----------
    runs : mapping of str to Runs
        Stored experiments, by name of the model.

    Returns
    -------
    DataFrame
        One row per model and claim. Columns model, claim, measured, effect, low, high, bound, n (pairs), trajectories
        (independent units: edit sequences or single edits), abilities (compared, each above guessing in other
        examples), facts, verdict, and why (one sentence, unless the claim holds).
    """
    rows = []
    for model, of_model in runs.items():
        for claim in CLAIMS:
            effect = claim.effect(of_model) or Effect()
            bound = f"{'>' if claim.above else '<'} {claim.bound:g}"
            numbers = effect.value, effect.low, effect.high, bound, effect.n, effect.trajectories
            names = effect.abilities, effect.facts
            said = judge(claim, effect), explain(claim, effect)
            rows.append((model, claim.statement, claim.measured, *numbers, *names, *said))
    return pd.DataFrame(rows, columns=COLUMNS)


def judge(claim: Claim, effect: Effect) -> str:
    """Judge a claim by its effect.

    Parameters
    ----------
    claim : Claim
        The claim, with its bound.
    effect : Effect
        The measured effect, with its interval; NaN where there is none.

    Returns
    -------
    str
        `HOLDS`, `FAILS`, `UNDECIDED`, or `ONE_ONLY` for one edit sequence.
    """
    if effect.trajectories < claim.fewest:
        return ONE_ONLY if effect.trajectories == 1 and claim.fewest == FEWEST_SEQUENCES else UNDECIDED
    over, under = effect.low > claim.bound, effect.high < claim.bound
    if over or under:
        return HOLDS if over == claim.above else FAILS
    return UNDECIDED


def explain(claim: Claim, effect: Effect) -> str:
    """Return why a claim does not hold, or what would decide it, in one sentence; empty if it holds.

    The number of units that would decide it is that at which an interval of ± 1.96 standard errors, with the variances
    that were observed, excludes the bound.

    Parameters
    ----------
    claim, effect
        As for `judge`.

    Returns
    -------
    str
    """
    verdict, J = judge(claim, effect), effect.trajectories
    if verdict == HOLDS:
        return ""
    if J == 0:
        return f"no stored {claim.unit} measure this"
    if claim.fewest > J:
        unit = {"trajectories": "trajectory", "batches": "batch"}.get(claim.unit, claim.unit.rstrip("s"))
        return f"{J} {unit if J == 1 else claim.unit}; {claim.fewest} are needed"
    if verdict == FAILS:
        return f"all of the interval over {J} {claim.unit} lies {'below' if claim.above else 'above'} {claim.bound:g}"
    if not np.isfinite(effect.low):
        return f"the {J} {claim.unit} agree exactly, so there is no interval"
    return f"the interval includes {claim.bound:g}; {_what_would_decide(claim, effect)}"


def _what_would_decide(claim: Claim, effect: Effect) -> str:
    distance = (effect.value - claim.bound) ** 2
    if distance == 0:
        return "no number of them would move the measured effect off it"
    if distance <= 1.5 * _Z**2 * effect.within:
        return f"{_about(2 * _Z**2 * effect.within / distance, digits=1)} times as many examples would decide it"
    needed = effect.trajectories * _Z**2 * effect.between / (distance - _Z**2 * effect.within)
    if not needed > effect.trajectories:  # Student's quantile, or the exact bound, makes the rest of the width
        return f"somewhat more than {effect.trajectories} {claim.unit} would decide it"
    return f"{_about(needed)} {claim.unit} would decide it"


def _about(number: float, *, digits: int = 0) -> str:
    return f"about {np.ceil(number * 10**digits) / 10**digits:g}" if number <= _MOST else f"more than {_MOST}"


def format_claims(table: pd.DataFrame) -> str:
    """Return judged claims as a Markdown table.

    Parameters
    ----------
    table : DataFrame
        Rows of `judge_claims`, for one or several models.

    Returns
    -------
    str
        Columns statement and measured (each in its first row only), model, effect (95 % interval), bound, n
        (independent units), verdict, why.
    """
    lines = ["| statement | measured | model | effect | bound | n | verdict | why |"]
    lines.append("| --- | --- | --- | --- | --- | ---: | --- | --- |")
    said: set[str] = set()
    records = table.fillna({"why": ""}).to_dict("records")
    claims, measured = (list(dict.fromkeys(row[name] for row in records)) for name in ("claim", "measured"))
    for row in sorted(records, key=lambda row: (claims.index(row["claim"]), measured.index(row["measured"]))):
        names = ["" if row[name] in said else row[name] for name in ("claim", "measured")]
        said |= {row["claim"], row["measured"]}
        numbers = [_format_effect(row["effect"], row["low"], row["high"]), row["bound"], str(row["trajectories"])]
        lines.append(f"| {' | '.join([*names, row['model'], *numbers, row['verdict'], row['why']])} |")
    return "\n".join(lines)


def _format_effect(effect: float, low: float, high: float) -> str:
    if np.isnan(effect):
        return ""
    value, low, high = (round(each, _DIGITS) + 0.0 for each in (effect, low, high))  # −0 becomes 0
    return f"{value:.3g}" if np.isnan(low) else f"{value:.3g} ({low:.3g} to {high:.3g})"


_ABILITIES = "mean over the abilities above guessing"
_SMOOTH = "log-likelihood of the reference answers, nats per token"
_FALL = "Abilities fall as sequential edits accumulate"
_FALL_MUCH = "Sequential edits cost a tenth of the abilities or more"
_MUCH = 0.1  # of the abilities, and nats per token: reference answers less probable by a tenth per token
_COLLAPSES = "KN collapses at once"
_BATCH = "Larger batches harm more"
_KEEPS = "RECT 40 % keeps at least 94 % of editing performance"
_PRESERVES = "RECT 40 % preserves abilities better"
_BEATS = "RECT 40 % edits better than {}"
_SEQUENCES = (("ROME", "sequential-instance"), ("MEMIT", "sequential-batch"), ("MEND", "sequential-batch"))
_OF_EDITS = "single edits", FEWEST_EDITS
_SINGLE = (("ROME", "single-instance"), ("MEMIT", "single-batch"))
_PROTOCOLS = ("teacher_forced", "natural")
_SCORES: tuple[tuple[contrasts.Score, str], ...] = (("abilities", _ABILITIES), ("smooth", _SMOOTH))


def _editing_claim(
    statement: str, metric: str, *, of: tuple[str, str, str], rival: str = PLAIN, bound: float = 0, share: bool = False
) -> Claim:
    """Return a claim about single edits under RECT; `of` is the method, the setting and the protocol."""
    method, setting, protocol = of
    how = (
        "share of the unregularized edit" if share else f"difference to {rival}" + f", margin {-bound:g}" * (bound < 0)
    )
    measured = f"{method}, {metric} ({protocol.replace('_', ' ')}), {how}"
    effect = contrasts.editing(
        metric, protocol, method=method, setting=setting, regularizer=RECT40, rival=rival, share=share
    )
    unit, fewest = ("batches", FEWEST_SEQUENCES) if setting.endswith("batch") else ("single edits", FEWEST_EDITS)
    return Claim(statement, measured, bound, True, effect, unit, fewest)


def _preserved_claims(method: str, setting: str) -> list[Claim]:
    over = f"{method}, mean over all edits (area under the curve), RECT − unregularized"
    return [
        *(
            Claim(_PRESERVES, f"{over}; {text}", 0, True, contrasts.preserved(method, setting, score))
            for score, text in _SCORES
        ),
        *(
            Claim(_PRESERVES, f"{over}; log {task}", 0, False, contrasts.preserved_text(method, setting, task))
            for task in ("perplexity", "drift")
        ),
    ]


def _large_falls(method: str, setting: str) -> list[Claim]:
    (_, abilities), (smooth, likelihood) = _SCORES
    left, fall = contrasts.share_left(method, setting), contrasts.fall(method, setting, smooth)
    return [
        Claim(_FALL_MUCH, f"{method}, share left at the last checkpoint; {abilities}", 1 - _MUCH, False, left),
        Claim(_FALL_MUCH, f"{method}, last checkpoint − unedited; {likelihood}", -_MUCH, False, fall),
    ]


def _collapse_claims(name: str) -> list[Claim]:
    given = hyperparameters_label(KN_SETTINGS[name])
    left, nats = (contrasts.after_one_edit("KN", score, hyperparameters=given) for score, _ in _SCORES)
    lost = "after one edit − unedited, with a margin of one nat: answers e times less probable"
    return [
        Claim(_COLLAPSES, f"KN ({name}), share left after one edit; {_ABILITIES}", 0.5, False, left, *_OF_EDITS),
        Claim(_COLLAPSES, f"KN ({name}), {lost}; {_SMOOTH}", -1, False, nats, *_OF_EDITS),
    ]


_OF = [(*single, protocol) for single in _SINGLE for protocol in _PROTOCOLS]

CLAIMS: tuple[Claim, ...] = (
    *(
        Claim(_FALL, f"{method}, last checkpoint − unedited; {text}", 0, False, contrasts.fall(method, setting, score))
        for method, setting in _SEQUENCES
        for score, text in _SCORES
    ),
    *(claim for sequence in _SEQUENCES for claim in _large_falls(*sequence)),
    *(claim for name in KN_SETTINGS for claim in _collapse_claims(name)),
    *(
        Claim(_BATCH, f"{method}, largest − smallest batch; {text}", 0, False, contrasts.larger_batch(method, score))
        for method in ("MEMIT", "MEND")
        for score, text in _SCORES
    ),
    Claim(
        "The weights move further with every edit",
        "ROME, exponent b of Manhattan distance ∝ edits^b",
        0,
        True,
        contrasts.growth("manhattan_distance"),
    ),
    Claim(
        "More entries change much, relative to their size",
        "ROME, exponent b of the 90 % quantile of δ ∝ edits^b",
        0,
        True,
        contrasts.growth("relative_change", 0.9),
    ),
    *(
        _editing_claim(_KEEPS, metric, of=of, bound=0.94, share=True)
        for of in _OF
        for metric in ("reliability", "generalization", "portability")
    ),
    *(_editing_claim("RECT 40 % does not lower locality", "locality", of=of, bound=-0.01) for of in _OF),
    *(claim for sequence in _SEQUENCES[:2] for claim in _preserved_claims(*sequence)),
    *(
        _editing_claim(_BEATS.format(rival), metric, of=(*single, "teacher_forced"), rival=rival)
        for single in _SINGLE
        for rival in (RANDOM40, PCA40)
        for metric in ("reliability", "generalization")
    ),
)
