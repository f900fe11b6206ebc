"""A self-contained page about a session, with its figures embedded."""

import platform
from collections.abc import Sequence
from datetime import date

from markupsafe import Markup

from workbench.explorer.edits import Answers, Continuation
from workbench.explorer.figures import Picture
from workbench.explorer.markup import render_answers, render_code, render_continuations, render_edit, render_growth
from workbench.explorer.script import script_of
from workbench.explorer.session import Session
from workbench.explorer.style import read_style
from workbench.html import content_policy, render
from workbench.interactive import View, page_script, style
from workbench.plots.style import edits_label
from workbench.printable import printable
from workbench.versions import library_versions

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>{{ style }}</style></head><body><main class="wb-page"><h1>{{ title }}</h1>
<h2>Edits</h2>
{{ edits|join }}
{% for table in answers %}
<h2>Answers to edit {{ loop.index }}</h2>
{{ table }}
{% endfor %}
{% if continuations %}
<h2>Continuations</h2>
{{ continuations }}
{% endif %}
<h2>Weights</h2>
{{ weights|join }}
{{ growth }}
{% for figure in abilities %}
<h2>Abilities</h2>
{{ figure }}
{% endfor %}
{% for name, view in views %}
<h2>{{ name }}</h2>
{{ view }}
{% endfor %}
<h2>Code</h2>
{{ code }}
<h2>Provenance</h2>
<dl>{% for name, value in provenance.items() %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
</main>{% if views %}<script>{{ script }}</script>{% endif %}</body></html>
"""


def render_page(
    session: Session,
    answers: Sequence[Answers],
    pictures: Sequence[Picture],
    continued: Sequence[Continuation],
    views: Sequence[tuple[str, View]] = (),
) -> Markup:
    """Return a whole HTML page.

    Parameters
    ----------
    session : Session
        A session with at least one edit.
    answers : sequence of Answers
        `Session.predict` of each edit's fact.
    pictures : sequence of Picture
        Figures of the last edit, and of the abilities if they were checked.
    continued : sequence of Continuation
        Continuations from `Session.continue_prompts`; may be empty.
    views : sequence of (str, View)
        Views with their headings; they respond in the page, too.

    Returns
    -------
    Markup
    """
    n_edits = len(session.edits)
    sheet, script = Markup(read_style() + style()), Markup(page_script())
    edited = zip(session.edits, answers[-1].history, strict=True)
    return render(
        _PAGE,
        title=printable(f"{edits_label(n_edits)} of {session.lm.name}"),
        policy=content_policy(sheet, script),
        style=sheet,
        script=script,
        views=[(name, view.to_html()) for name, view in views],
        edits=[render_edit(number, *each) for number, each in enumerate(edited, start=1)],
        answers=[render_answers(prompts, n_edits) for prompts, _ in answers],
        continuations=render_continuations(continued, edited=True) if continued else "",
        weights=[picture.to_html() for picture in pictures if picture.name != "abilities"],
        growth=render_growth(session.growth(), session.thresholds, session.accumulated),
        abilities=[picture.to_html() for picture in pictures if picture.name == "abilities"],
        code=render_code(script_of(session.lm, session.edits, session.accumulated)),
        provenance=_provenance(session),
    )


def _provenance(session: Session) -> dict[str, str]:
    versions = library_versions("workbench", "torch", "transformers", "numpy")
    return {
        "model": printable(f"{session.lm.name}, fingerprint {session.lm.fingerprint}"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }
