"""What would let data run as code is in none of the product's files; the rule is tried on samples first."""

import ast
from pathlib import Path

import pytest

from tests.config_trees import ROOT

PRODUCT = sorted(path for package in ("pipeline", "actors") for path in (ROOT / package).rglob("*.py"))

MODULES = frozenset(
    {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "jsonpickle"}
)
CALLS = frozenset(
    {
        "torch.load",
        "eval",
        "exec",
        "os.system",
        "os.popen",
        "yaml.unsafe_load",
        "yaml.full_load",
        "yaml.load_all",
        "yaml.unsafe_load_all",
        "pd.read_pickle",
        "pandas.read_pickle",
    }
)
KEYWORDS = {"allow_pickle": True, "trust_remote_code": True, "shell": True, "weights_only": False}
"""What may not be given to any call."""


def dangers(source: str) -> list[str]:
    """Returns what in a source could run what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS:
                found.append(name)
            if name == "yaml.load" and not any(keyword.arg == "Loader" for keyword in node.keywords):
                found.append(name)
            found += [
                f"{name}({keyword.arg}=)"
                for keyword in node.keywords
                if keyword.arg in KEYWORDS
                and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is not KEYWORDS[keyword.arg])
            ]
    return found


@pytest.mark.parametrize(
    ("source", "danger"),
    [
        ("import pickle", "pickle"),
        ("from cloudpickle import loads", "cloudpickle"),
        ("def f():\n    import marshal", "marshal"),
        ("torch.load(path)", "torch.load"),
        ("np.load(path, allow_pickle=True)", "np.load(allow_pickle=)"),
        ("np.load(path, allow_pickle=flag)", "np.load(allow_pickle=)"),
        ("AutoModel.from_pretrained(name, trust_remote_code=True)", "AutoModel.from_pretrained(trust_remote_code=)"),
        ("yaml.load(text)", "yaml.load"),
        ("eval(text)", "eval"),
        ("subprocess.run(command, shell=True)", "subprocess.run(shell=)"),
    ],
)
def test_the_rule_sees_what_it_forbids(source: str, danger: str) -> None:
    assert dangers(source) == [danger]


def test_the_rule_lets_pass_what_is_harmless() -> None:
    assert dangers("module.eval()\nnp.load(p, allow_pickle=False)\nyaml.load(t, Loader=StrictLoader)") == []


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_can_run(path: Path) -> None:
    assert dangers(path.read_text(encoding="utf-8")) == []
