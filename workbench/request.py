"""EditRequest: the fact to change, what must change with it, and what must not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.errors import RequestError
from workbench.inputs import require_items, require_text

PLACEHOLDER = "{}"  # in a prompt, the place of the subject; in a context template, the place of the prompt
PROBE_ARROW = "=>"  # separates prompt and answer of a probe that is typed in one line


def split_probe(text: str, where: str) -> tuple[str, str]:
    """Return prompt and answer of a probe that is typed in one line.

    Parameters
    ----------
    text : str
        The line, such as ``"The Louvre is in => Paris"``.
    where : str
        Where it was typed, for the error.

    Raises
    ------
    RequestError
        If it has no arrow.
    """
    prompt, arrow, answer = text.rpartition(PROBE_ARROW)
    if not arrow:
        raise RequestError(f"{where} {text!r} has no {PROBE_ARROW}; write it as 'prompt {PROBE_ARROW} answer'.")
    return prompt.strip(), answer.strip()


@dataclass(frozen=True)
class LocalityProbe:
    """A prompt whose answer the edit must not change, with its true continuation.

    Raises
    ------
    RequestError
        If prompt or target is empty or no text.
    """

    prompt: str
    target: str

    def __post_init__(self) -> None:
        _check_filled("locality", self)


@dataclass(frozen=True)
class PortabilityProbe:
    """A question whose answer follows from the new fact in one step, with that answer.

    Yao et al. 2023 (arXiv 2305.13172), one-hop portability: after "The Eiffel Tower is in Rome", the question "In which
    country is the Eiffel Tower?" has the answer "Italy". A model that has only learned to repeat `target_new` fails it.

    Raises
    ------
    RequestError
        If prompt, target or an alias is empty or no text, or `aliases` is no list.
    """

    prompt: str
    target: str  # its first name, which the protocols that need one answer compare
    aliases: tuple[str, ...] = ()  # other names and other right answers, which the natural protocols accept too

    def __post_init__(self) -> None:
        object.__setattr__(self, "aliases", require_items(self.aliases, str, "aliases", RequestError))
        _check_filled("portability", self)
        if not all(alias.strip() for alias in self.aliases):
            raise RequestError(f"portability alias is empty in {self!r}; leave it out.")


def _check_filled(metric: str, probe: LocalityProbe | PortabilityProbe) -> None:
    for field in ("prompt", "target"):
        require_text(getattr(probe, field), f"{metric} {field}", RequestError)
        if not getattr(probe, field).strip():
            raise RequestError(f"{metric} {field} is empty in {probe!r}; give the text to probe and its answer.")


@dataclass(frozen=True)
class EditRequest:
    """A fact to change, e = (s, r, o → o*), with its rephrasings, its locality probes and its one-hop questions.

    Raises
    ------
    RequestError
        If the subject or a target is empty, the prompt does not contain ``{}`` exactly once (without a subject: not at
        all), a rephrasing is empty or contains ``{}`` more than once, the new target is the true one, or a field is not
        of its type.
    """

    subject: str | None  # None: not marked, for methods that need none (FT, KN, LoRA, MEND, UltraEdit)
    prompt: str  # contains {} once, in the place of the subject
    target_new: str  # the answer that the edit should produce
    target_true: str | None = None  # None if it is not known
    rephrase: tuple[str, ...] = ()  # may contain {} in the place of the subject
    locality: tuple[LocalityProbe, ...] = ()
    relation: str | None = None  # name in the data set
    portability: tuple[PortabilityProbe, ...] = ()  # what follows from the new fact

    def __post_init__(self) -> None:
        self._check_types()
        if self.subject is not None and not self.subject.strip():
            raise RequestError(f"subject is empty for the prompt {self.prompt!r}; name what the fact is about.")
        self._check_prompt()
        if not self.target_new.strip():
            raise RequestError(
                f"target_new is empty for {self.filled_prompt!r}; give the answer the edit should write."
            )
        if self.target_true is not None:
            self._check_target_true(self.target_true)
        for text in self.rephrase:
            self._check_rephrase(text)

    def _check_types(self) -> None:
        for name in ("subject", "prompt", "target_new", "target_true", "relation"):
            value = getattr(self, name)
            if value is not None or name in ("prompt", "target_new"):
                require_text(value, name, RequestError)
        for name, kind in (("rephrase", str), ("locality", LocalityProbe), ("portability", PortabilityProbe)):
            object.__setattr__(self, name, require_items(getattr(self, name), kind, name, RequestError))

    def _check_prompt(self) -> None:
        count = self.prompt.count(PLACEHOLDER)
        if self.subject is None:
            if count or not self.prompt.strip():
                raise RequestError(
                    f"prompt {self.prompt!r} must be a text without {PLACEHOLDER} where no subject is named; name the "
                    "subject or write the prompt out."
                )
            return
        if count == 1:
            return
        if count > 1:
            raise RequestError(
                f"prompt {self.prompt!r} holds {PLACEHOLDER} {count} times; it must mark the subject once."
            )
        where = "is not in" if self.subject not in self.prompt else "is not marked in"
        raise RequestError(
            f"subject {self.subject!r} {where} the prompt {self.prompt!r}; mark its place with {PLACEHOLDER}."
        )

    def _check_rephrase(self, text: str) -> None:
        rule = f"with {PLACEHOLDER} at most once, where the subject goes"
        if self.subject is None:
            rule = f"without {PLACEHOLDER}, as there is no subject"
        if not text.strip() or text.count(PLACEHOLDER) > (self.subject is not None):
            raise RequestError(f"rephrase {text!r} of {self.filled_prompt!r} must be a text {rule}.")

    def _check_target_true(self, target_true: str) -> None:
        if not target_true.strip():
            raise RequestError(f"target_true is empty for {self.filled_prompt!r}; leave it out if it is not known.")
        if target_true.strip() == self.target_new.strip():
            raise RequestError(f"target_new is the true answer {target_true!r} already, for {self.filled_prompt!r}.")

    @property
    def name(self) -> str:
        """The subject, or the prompt where none is marked."""
        return self.prompt if self.subject is None else self.subject

    @property
    def filled_prompt(self) -> str:
        """The prompt with the subject in its place."""
        return self._fill(self.prompt)

    @property
    def filled_rephrase(self) -> tuple[str, ...]:
        """The rephrasings with the subject in its place."""
        return tuple(map(self._fill, self.rephrase))

    def _fill(self, text: str) -> str:
        return text if self.subject is None else text.replace(PLACEHOLDER, self.subject)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EditRequest":
        """Return the request of `values` from `dataclasses.asdict`; raise `TypeError` or `KeyError` if some lack."""
        locality = tuple(LocalityProbe(**probe) for probe in values["locality"])
        portability = tuple(PortabilityProbe(**probe) for probe in values.get("portability", ()))
        return cls(**{**values, "locality": locality, "portability": portability})
