"""Every public name says in NumPy style what it takes, returns and raises, and says it of its real signature."""

import builtins
import dataclasses
import functools
import inspect
import re
import typing
from dataclasses import dataclass

import pytest

import workbench
from workbench import errors

SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Notes", "Examples", "References", "See Also")


def sections_of(text):
    """Heading → lines of each section of a docstring; the text before the first one under ''."""
    found, heading = {"": []}, ""
    lines = inspect.cleandoc(text).splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line in SECTIONS and after == "-" * len(line):
            heading = line
            found[heading] = []
        elif line != "-" * len(heading):
            found[heading].append(line)
    return found


def names_in(lines):
    """The names that a Parameters or Attributes section describes: ``a, b : type`` describes two."""
    heads = [line.split(":")[0] for line in lines if line and not line.startswith(" ")]
    return [name.strip().lstrip("*") for head in heads for name in head.split(",")]


def descriptions_in(lines):
    """Names → description of each entry of a Parameters, Attributes or Returns section."""
    found, head = {}, None
    for line in filter(str.strip, lines):
        if not line.startswith(" "):
            head = line.split(":")[0].strip()
            found[head] = ""
        elif head is not None:
            found[head] = f"{found[head]} {line.strip()}".strip()
    return found


@dataclass(frozen=True)
class Public:
    """A public callable or property, by its dotted name."""

    name: str
    target: object
    kind: str  # "function", "method" or "property"

    def __str__(self):
        return self.name

    @property
    def signature(self):
        return inspect.signature(self.target)

    @property
    def parameters(self):
        return [name for name in self.signature.parameters if name not in ("self", "cls")]

    @property
    def returns_something(self):
        return self.signature.return_annotation not in (None, "None", inspect.Signature.empty)

    @property
    def sections(self):
        return sections_of(self.target.__doc__ or "")


def members_of(cls):
    """Public methods and properties that the class itself writes down, and its call."""
    for name, member in vars(cls).items():
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(member, (property, functools.cached_property)):
            function = member.fget if isinstance(member, property) else member.func
            yield Public(f"{cls.__name__}.{name}", function, "property")
        elif isinstance(member, (classmethod, staticmethod)):
            yield Public(f"{cls.__name__}.{name}", member.__func__, "method")
        elif inspect.isfunction(member):
            yield Public(f"{cls.__name__}.{name}", member, "method")


NAMES = {name: getattr(workbench, name) for name in workbench.__all__}
CLASSES = {name: target for name, target in NAMES.items() if inspect.isclass(target)}
FUNCTIONS = [Public(name, target, "function") for name, target in NAMES.items() if not inspect.isclass(target)]
MEMBERS = [member for cls in CLASSES.values() for member in members_of(cls)]

EVERY_CALLABLE = pytest.mark.parametrize("public", [f for f in FUNCTIONS + MEMBERS if f.kind != "property"], ids=str)
EVERY_FUNCTION = pytest.mark.parametrize("public", FUNCTIONS, ids=str)


def test_the_walk_sees_the_public_names():
    assert all(callable(target) for target in NAMES.values())
    assert len(CLASSES) >= 11
    assert len(FUNCTIONS) >= 7
    assert len(MEMBERS) >= 35
    assert {"ROME.compute_update", "RECT.__call__", "WeightUpdate.load", "LanguageModel.fingerprint"} <= {
        member.name for member in MEMBERS
    }


@pytest.mark.parametrize("public", FUNCTIONS + MEMBERS, ids=str)
def test_everything_public_has_a_sentence(public):
    text = (public.target.__doc__ or "").strip()
    assert re.match(r"[^\n]{10,}", text), f"{public} has no docstring."
    assert text.splitlines()[0].rstrip().endswith((".", ":")), f"{public}: the first line is no sentence."


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_has_a_docstring_of_its_own(name):
    text = vars(CLASSES[name]).get("__doc__") or ""
    # dataclass makes one out of the signature where there is none
    assert len(text) > 10
    assert not text.startswith(f"{name}(")


@EVERY_FUNCTION
def test_functions_describe_their_parameters(public):
    assert not public.parameters or "Parameters" in public.sections, f"{public} has no section Parameters."


@EVERY_CALLABLE
def test_described_parameters_are_those_of_the_signature(public):
    if "Parameters" in public.sections:
        assert names_in(public.sections["Parameters"]) == public.parameters


# What a sentence that describes a thing does not begin with.
NO_NOUN = r"(Which|How|Where|Whose|Who|What to|When|Why|Of|So many|As many)\b"


def poor_descriptions(sections, *headings):
    """Entries whose description is too short to say what the thing is, or is only a question or a fragment."""
    for heading in headings:
        for names, text in descriptions_in(sections.get(heading, [])).items():
            if len(text.split()) < 3 or re.match(NO_NOUN, text):
                yield f"{names}: {text}"


@EVERY_CALLABLE
def test_every_parameter_description_says_what_the_thing_is(public):
    assert list(poor_descriptions(public.sections, "Parameters")) == []


@pytest.mark.parametrize("name", CLASSES)
def test_every_attribute_description_says_what_the_thing_is(name):
    assert list(poor_descriptions(sections_of(CLASSES[name].__doc__), "Attributes")) == []


@pytest.mark.parametrize("text", ["Which.", "Seed.", "Of the draw of facts.", "How many tokens to generate.", ""])
def test_a_fragment_is_no_description(text):
    sections = sections_of(f"Sentence.\n\nParameters\n----------\nseed : int\n    {text}\n")
    assert len(list(poor_descriptions(sections, "Parameters"))) == 1


def test_a_description_may_be_one_noun_phrase():
    sections = sections_of("Sentence.\n\nParameters\n----------\na, b : int\n    The two seeds of\n    the draws.\n")
    assert list(poor_descriptions(sections, "Parameters")) == []


@EVERY_CALLABLE
def test_a_method_without_a_parameter_section_names_each_parameter_in_its_text(public):
    if "Parameters" not in public.sections:
        text = " ".join(public.sections[""])
        missing = [name for name in public.parameters if not re.search(rf"\b{name}\b", text)]
        assert not missing, f"{public} does not say what {missing} is."


@EVERY_CALLABLE
def test_what_returns_something_says_what(public):
    full = public.kind == "function" or "Parameters" in public.sections
    if public.returns_something and full:
        described = {"Returns", "Yields"} & set(public.sections)
        assert described, f"{public} has no section Returns."
        assert any(line.strip() for heading in described for line in public.sections[heading])


@EVERY_CALLABLE
def test_what_returns_nothing_describes_no_return(public):
    if not public.returns_something:
        assert "Returns" not in public.sections


@EVERY_CALLABLE
def test_every_signature_is_annotated(public):
    bare = [
        name
        for name, parameter in public.signature.parameters.items()
        if parameter.annotation is inspect.Parameter.empty and name not in ("self", "cls")
    ]
    assert not bare
    assert public.signature.return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("name", CLASSES)
def test_described_attributes_are_the_fields(name):
    cls = CLASSES[name]
    described = names_in(sections_of(cls.__doc__).get("Attributes", []))
    if described and dataclasses.is_dataclass(cls):
        assert described == [field.name for field in dataclasses.fields(cls) if not field.name.startswith("_")]


@pytest.mark.parametrize("name", CLASSES)
def test_a_field_is_described_in_the_docstring_or_beside_it(name):
    cls = CLASSES[name]
    if not dataclasses.is_dataclass(cls):
        return
    source, described = inspect.getsource(cls), cls.__doc__
    for field in dataclasses.fields(cls):
        beside = re.search(rf"^    {field.name}: .*  # \S", source, re.MULTILINE)
        told = re.search(rf"\b{field.name}\b", described)
        if not (field.name.startswith("_") or beside or told):
            annotation = typing.get_type_hints(cls, include_extras=True)[field.name]
            texts = [each for each in getattr(annotation, "__metadata__", ()) if isinstance(each, str)]
            assert texts, f"{name}.{field.name} is described nowhere."


@pytest.mark.parametrize("public", FUNCTIONS + MEMBERS, ids=str)
def test_raises_names_errors_of_the_workbench_or_of_python(public):
    raised = names_in(public.sections.get("Raises", []))
    assert all(hasattr(errors, name) or hasattr(builtins, name) for name in raised)
