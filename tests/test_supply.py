"""No code of a model or of a file is run, by the source and by trying it; what is installed is listed."""

import ast
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

import workbench as wb
from tests.helpers import error_of
from tests.tiny_models import build_tiny_lm, save_tiny_lm
from tools import audit
from tools.sbom import bill_of_materials
from workbench.errors import ModelError

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "workbench").rglob("*.py"))
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
RUNNING = {"eval", "exec", "compile", "__import__"}
UNSAFE = {
    ("torch", "load"),
    ("torch", "jit"),
    ("np", "load"),
    ("numpy", "load"),
    ("pd", "read_pickle"),
    ("yaml", "unsafe_load"),
    ("yaml", "full_load"),
    ("yaml", "UnsafeLoader"),
    ("yaml", "FullLoader"),
    ("yaml", "Loader"),
    ("os", "system"),
}


def dangers(source):
    """What of a source could run code from data: one text per place."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names) if found := UNPICKLERS & {each.name.partition(".")[0] for each in names}:
                yield f"import {found}"
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in UNPICKLERS:
                yield f"from {module}"
            case ast.Attribute(value=ast.Name(id=left), attr=right) if (left, right) in UNSAFE:
                yield f"{left}.{right}"
            case ast.Call(func=ast.Name(id=name)) if name in RUNNING:
                yield f"{name}("
            case ast.Call(func=ast.Attribute(value=ast.Name(id="yaml"), attr="load"), args=[_], keywords=[]):
                yield "yaml.load( without a loader"
            case ast.keyword(arg="trust_remote_code", value=value) if ast.unparse(value) != "False":
                yield f"trust_remote_code={ast.unparse(value)}"
            case ast.keyword(arg="shell", value=value) if ast.unparse(value) != "False":
                yield "shell="


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "exec(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=trusted)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_search_finds_what_could_run_code(source):
    assert len(list(dangers(source))) == 1


def test_no_source_of_the_package_can_run_code_from_data():
    assert len(SOURCES) > 200
    found = {path.relative_to(ROOT).as_posix(): list(dangers(path.read_text())) for path in SOURCES}
    assert {name: places for name, places in found.items() if places} == {}


def test_every_model_is_loaded_with_its_own_code_switched_off():
    source = (ROOT / "workbench" / "lm.py").read_text()
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    loading = [call for call in calls if getattr(call.func, "attr", None) == "from_pretrained"]
    assert len(loading) == 3
    for call in loading:
        assert "trust_remote_code" in [each.arg for each in call.keywords]


@pytest.fixture
def model(tmp_path):
    """Give the folder of a tiny model with a module that creates a file when it is imported."""
    folder = Path(save_tiny_lm(build_tiny_lm("llama"), tmp_path / "model"))
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    yield folder
    assert not (tmp_path / "ran").exists()


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_model_that_asks_for_its_own_code_is_refused_and_nothing_is_run(model):
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    change(model / "config.json", model_type="own", architectures=["OwnModel"], auto_map=names)
    assert error_of(ModelError, wb.load, str(model)) == (
        f"the model {model} brings code of its own (auto_map in its JSON files), which is never run; give a model "
        "of a family that transformers knows."
    )


def test_own_code_beside_a_known_family_is_not_run(model):
    change(model / "config.json", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
    change(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.T", "own.T"]})
    assert wb.load(str(model)).arch.name.startswith("Llama")


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "training_args.bin"])
def test_a_pickle_under_any_name_is_never_unpickled(model, tmp_path, name):
    if name != "training_args.bin":
        (model / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Canary(tmp_path / "ran")}, model / name)
    if name == "training_args.bin":  # what a trainer leaves beside the weights
        wb.load(str(model))
    else:
        assert str(model) in error_of(ModelError, wb.load, str(model))


def test_the_bill_of_materials_names_every_package_with_its_version():
    bill = bill_of_materials()
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "model-editing-workbench"
    components = {each["name"]: each for each in bill["components"]}
    assert len(components) == len(bill["components"]) > 50
    for name in ("numpy", "torch", "transformers", "safetensors"):
        assert components[name]["version"] == version(name)
        assert components[name]["purl"] == f"pkg:pypi/{name}@{version(name)}"
    assert components["safetensors"]["licenses"]


def test_the_bill_of_materials_is_the_same_beside_the_backport_of_importlib_metadata():
    before = bill_of_materials()
    pytest.importorskip("importlib_metadata")  # its finder takes over; its metadata raise where a field is missing
    assert bill_of_materials() == before


def test_the_bill_of_materials_is_written_where_make_asks_for_it(tmp_path):
    target = tmp_path / "build" / "sbom.json"
    command = [sys.executable, str(ROOT / "tools" / "sbom.py"), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    n = len(json.loads(target.read_text(encoding="utf-8"))["components"])
    assert done.stdout == f"{target}: {n} packages\n"


def test_an_audit_without_a_database_says_that_nothing_was_checked(monkeypatch, capsys):
    def unreachable(address, timeout):
        raise URLError("no route to host")

    monkeypatch.setattr(audit, "urlopen", unreachable)
    monkeypatch.setattr(audit.subprocess, "run", lambda *args, **kwargs: pytest.fail("it went on"))
    assert audit.audit("requirements.lock") == audit.NOT_CHECKED == 2
    assert capsys.readouterr().err == (
        f"no database of vulnerabilities can be reached ({audit.DATABASE}: no route to host); nothing was checked.\n"
    )
