"""The rooms of the package: no import in a circle or against their order, and the names that users import."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import optical_hf

PACKAGE = Path(optical_hf.__file__).parent
# From the ground up: a room imports from itself and from those before it in this list. A file at the top is one too.
ROOMS = [
    "bounds",
    "files",
    "yaml_files",
    "arguments",
    "launching",
    "transport_solvers",
    "transport",
    "metrics",
    "hub",
    "data",
    "models",
]
ROOMS += ["losses", "retrieval", "evaluation", "training", "export", "quickstart", "study", "benchmark", "commands"]
# Saved code looks these two up by name, where the package is installed; they import nothing that needs it back.
LOOKED_UP = {"optical_hf.hub", "optical_hf.checkpoints"}


def imports() -> dict[str, set[str]]:
    """Every module of the package, and the modules of the package that it imports, inside functions too."""
    modules = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        targets: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                above = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
                module = (above + (node.module or "")).rstrip(".")
                submodules = {f"{module}.{alias.name}" for alias in node.names} & modules.keys()
                targets |= submodules or {module}
        graph[name] = {target for target in targets if target in modules}
    return graph


def room(module: str) -> str:
    name = module.split(".")[1]
    return "models" if name == "checkpoints" else name  # a name of `models.checkpoints` that saved code looks up


def layout(graph: dict[str, set[str]]) -> str:
    """The rooms from the ground up, and what each imports from."""
    lines = []
    for name in ROOMS:
        below = {room(target) for module, targets in graph.items() for target in targets if room(module) == name}
        lines.append(f"{name:18}{' '.join(one for one in ROOMS if one in below - {name}) or '-'}")
    return "\n".join(lines)


GRAPH = {module: targets for module, targets in imports().items() if module != "optical_hf"}


def test_every_room_has_its_place():
    assert {room(module) for module in GRAPH} == set(ROOMS)


def test_no_import_goes_in_a_circle():
    assert len(list(TopologicalSorter(GRAPH).static_order())) == len(GRAPH)


def test_no_import_goes_against_the_order_of_the_rooms():
    upwards = [
        (module, target)
        for module, targets in GRAPH.items()
        for target in targets - LOOKED_UP
        if ROOMS.index(room(target)) > ROOMS.index(room(module))
    ]
    assert upwards == []


def test_what_travels_imports_only_what_travels():
    travelling = {module for module in GRAPH if module.endswith("_optical")}
    assert len(travelling) == 5
    assert not any(GRAPH[module] - travelling - LOOKED_UP for module in travelling)


def test_contributing_shows_the_layout():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"```text\n{layout(GRAPH)}\n```" in text


PUBLIC = """
Bitext GreedyLoss OTLoss OpticalConfig OpticalDistillationTrainer OpticalOutput
OpticalRetrievalArguments OpticalRetrievalTrainer OpticalStudent OpticalTeacher OpticalTrainingArguments PassageIndex
PushError RetrievalSet balance_languages build_index export_pylate export_single_vector hold_out interpolate
load_bitext load_miracl load_training_rows maxsim mse_loss push_metric_space push_student search
""".split()


def test_the_public_names():
    assert optical_hf.__all__ == PUBLIC
    assert all(getattr(optical_hf, name).__name__ == name for name in PUBLIC)
    assert set(PUBLIC) <= set(dir(optical_hf)) and not hasattr(optical_hf, "Bitexts")
    # What the code of saved students looks up.
    from optical_hf.checkpoints import load_checkpoint
    from optical_hf.hub import push_model

    assert callable(load_checkpoint) and callable(push_model)


def test_importing_the_package_imports_little():
    code = "import sys, optical_hf; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"ot", "datasets", "evaluate", "pytrec_eval", "langcodes", "bm25s"} & set(loaded)
    code = "import sys, optical_hf, optical_hf.transport; sys.exit('ot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
