"""Tables of the explorer as HTML."""

from collections.abc import Iterable, Sequence

import pandas as pd
from markupsafe import Markup

from workbench.editing.editor import describe_layers
from workbench.evaluation.predictions import BeforeAfter, PromptPrediction
from workbench.explorer.edits import Continuation, Edit
from workbench.html import render
from workbench.printable import printable
from workbench.regularize import Regularizer

_ROLES = {"reliability": "prompt", "generalization": "rephrased", "locality": "elsewhere", "portability": "follows"}
_KEPT = {
    "reliability": "the new answer",
    "generalization": "the new answer",
    "locality": "unchanged",
    "portability": "the answer that follows",
}
_LOST = {metric: "changed" if metric == "locality" else "another answer" for metric in _ROLES}

_TABLE = """
<div class="wb-scroll"><table class="wb-table {{ kind }}"><caption>{{ caption }}</caption>
<thead><tr>{% for head in heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead>
<tbody>
{% for head, cells in rows %}
<tr><th scope="row">{{ head }}</th>{% for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
"""
_VERDICT = """
{% if not n_edits %}The unedited model predicts <b>{{ before }}</b>.
<div class="wb-small">Press <b>Edit</b> to make it predict <b>{{ new }}</b>; the tabs show what else changes.</div>
{% elif now == before %}The model still predicts <b>{{ now }}</b>.
{% else %}The model predicts <b>{{ now }}</b>, unedited <b>{{ before }}</b>.
{% endif %}
{% for good, total, what in counts %} {{ good }} of {{ total }} {{ what }}.{% endfor %}
"""
_PROMPT = """
<span class="wb-role wb-role-{{ metric }}">{{ role }}</span> <span class="wb-text">{{ prompt }}</span>
<div class="wb-odds">
{% for kind, answer, before, now in answers %}
<div class="wb-chance"><span class="wb-{{ kind }}">{{ answer }}</span> {{ before }}{% if n_edits %} → <b>{{ now }}</b>\
{% endif %}</div>
{% endfor %}
{% if n_edits %}
<div class="wb-held wb-{{ "yes" if kept else "no" }}">{{ "✓" if kept else "✗" }} {{ outcome }}</div>
{% endif %}
</div>
"""
_TOKENS = """
{% for kind, text, percent, probability in tokens %}
<div class="wb-token wb-{{ kind }}">\
<svg class="wb-bar" aria-hidden="true"><rect width="{{ percent }}%" height="100%"/></svg><span>{{ text }}</span>
<span>{{ probability }}</span></div>
{% endfor %}
"""
_EDIT = """
<div class="wb-edit"><span class="wb-number">{{ number }}</span><div>{{ prompt }} …
{{ old }} → <b>{{ new }}</b>
<div class="wb-small">{{ details }} · P({{ new }}) {{ before }} → <b>{{ now }}</b> now</div></div></div>
"""
_CODE = """
<details><summary>Python that makes these edits again</summary><pre><code>{{ code }}</code></pre></details>
"""


def format_probability(p: float) -> str:
    """Return a probability with three digits; small ones as a power of ten."""
    if p >= 0.0995:
        return f"{p:.2f}"
    if p >= 0.001:
        return f"{p:.3f}"
    return "0" if p == 0 else f"{p:.0e}".replace("e-0", "e-")


def format_percent(share: float) -> str:
    """Return a share as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def render_verdict(answers: Sequence[BeforeAfter], n_edits: int) -> Markup:
    """Return one or two sentences on the effect of the edits on a fact."""
    counts = []
    for metric, what in (
        ("generalization", "rephrasings give the new answer"),
        ("locality", "other prompts unchanged"),
        ("portability", "one-hop questions have the answer that follows"),
    ):
        scores = [each.score for each in answers if each.probe.metric == metric]
        if scores and n_edits:
            counts.append((sum(score == 1 for score in scores), len(scores), what))
    before, now = (_token_text(reading.next_tokens[0].text) for reading in (answers[0].before, answers[0].after))
    new = printable(answers[0].probe.target.strip())
    return render(_VERDICT, n_edits=n_edits, before=before, now=now, new=new, counts=counts)


def render_answers(answers: Sequence[BeforeAfter], n_edits: int) -> Markup:
    """Return a table of prompts with their most probable next tokens and the probabilities of the answers."""
    rows = [
        (_prompt(each, n_edits), [_tokens(each.before, each), *([_tokens(each.after, each)] if n_edits else [])])
        for each in answers
    ]
    caption = "Most probable next tokens" + (", and how the probability of each answer has changed" if n_edits else "")
    return _table("wb-answers", caption, _heads(bool(n_edits)), rows)


def render_continuations(continuations: Iterable[Continuation], edited: bool) -> Markup:
    """Return a table of prompts with their greedy continuations by the unedited and the edited model."""
    rows = [
        (
            render('<span class="wb-text">{{ text }}</span>', text=printable(each.prompt)),
            [_one_line(text) for text in ([each.before, each.after] if edited else [each.before])],
        )
        for each in continuations
    ]
    return _table("wb-continuations", "Greedy continuations", _heads(edited), rows)


def render_edit(number: int, edit: Edit, answered: BeforeAfter) -> Markup:
    """Return an edit of the history in two lines: the fact, and how it was edited."""
    settings = ", ".join([edit.editor.label, *describe_layers(edit.editor), edit.regularizer.label])
    request, target = edit.request, answered.probe.target
    return render(
        _EDIT,
        number=number,
        prompt=printable(request.filled_prompt),
        old=printable(request.target_true or ""),
        new=printable(request.target_new.strip()),
        details=printable(" · ".join([settings, f"{edit.seconds:.1f} s", *_diagnostics(edit)])),
        before=format_probability(answered.before.probabilities[target]),
        now=format_probability(answered.after.probabilities[target]),
    )


def render_growth(growth: pd.DataFrame, thresholds: Sequence[float], accumulated: Regularizer | None = None) -> Markup:
    """Return a table of the distance from the unedited weights after each edit, under the regularizer of the sum."""
    heads = ["Edits", "Matrices", "Manhattan distance", "‖ΔW‖/‖W‖", "Changed"]
    heads += [f"δ > {value:.3g}" for value in thresholds]
    rows = [
        (
            f"{row['n_edits']:.0f}",
            [
                f"{row['matrices']:.0f}",
                f"{row['manhattan_distance']:,.1f}",
                f"{row['relative_norm']:.4f}",
                format_percent(row["share_changed"]),
                *(format_percent(row[f"share_above_{i}"]) for i in range(1, len(thresholds) + 1)),
            ],
        )
        for row in growth.to_dict("records")
    ]
    caption = "Distance from the unedited weights, over all matrices edited so far"
    if accumulated is not None:
        caption += f"; {accumulated.label} of the sum"
    if thresholds:
        caption += "; the thresholds of δ are the 80 % and 90 % quantiles of the first edit, before regularization"
    return _table("wb-numbers", caption, heads, rows)


def render_code(code: str) -> Markup:
    """Return the code that makes the edits again, folded."""
    return render(_CODE, code="\n".join(printable(line) for line in code.splitlines()))


def _prompt(answered: BeforeAfter, n_edits: int) -> Markup:
    probe, before, after = answered.probe, answered.before.probabilities, answered.after.probabilities
    kept = answered.score == 1
    return render(
        _PROMPT,
        metric=probe.metric,
        role=_ROLES[probe.metric],
        prompt=printable(probe.prompt),
        answers=[
            (kind, printable(answer.strip()), format_probability(before[answer]), format_probability(after[answer]))
            for answer, kind in _answer_kinds(answered).items()
        ],
        n_edits=n_edits,
        kept=kept,
        outcome=(_KEPT if kept else _LOST)[probe.metric],
    )


def _answer_kinds(answered: BeforeAfter) -> dict[str, str]:
    """Return "new" or "old" for each answer of a prompt."""
    probe = answered.probe
    own, rival = ("old", "new") if probe.metric == "locality" else ("new", "old")
    return {probe.target: own} | ({} if probe.rival in (None, probe.target) else {probe.rival: rival})


def _tokens(reading: PromptPrediction, answered: BeforeAfter) -> Markup:
    kinds = {reading.first_ids[answer]: kind for answer, kind in _answer_kinds(answered).items()}
    tokens = [
        (kinds.get(t.id, "other"), _token_text(t.text), f"{100 * t.probability:.0f}", format_probability(t.probability))
        for t in reading.next_tokens
    ]
    return render(_TOKENS, tokens=tokens)


def _token_text(text: str) -> str:
    return printable(text.strip()) or repr(text)


def _one_line(text: str) -> str:
    return printable(text.replace("\n", " ↵ "))


def _diagnostics(edit: Edit) -> list[str]:
    if not edit.computed.records:
        return []
    record = edit.computed.records[0]
    losses = record.losses[0] if record.losses else ()
    phrases = [str(edit.risk)] if edit.risk.is_high else []
    phrases += [f"loss {losses[0]:.2f} → {losses[-1]:.2f} in {len(losses)} steps"] if len(losses) > 1 else []
    denominator = record.diagnostics.get("denominator")
    return phrases if denominator is None else [*phrases, f"denominator {denominator:.3g}"]


def _heads(edited: bool) -> list[str]:
    return ["Prompt", "Unedited", *(["Edited"] if edited else [])]


def _table(kind: str, caption: str, heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> Markup:
    return render(_TABLE, kind=kind, caption=caption, heads=heads, rows=rows)
