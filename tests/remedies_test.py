"""Messages name only flags of the command that prints them."""

import ast
import re

import pytest
from command_flags import ROOT, flags_of

# The commands that print the messages of a module, or of its flags; by default its own command.
MAIN, PREPROCESS, RECOMMEND, DEMO, EXPORT, INSPECT = (
    *(f"uhman_jax.{name}" for name in ("main", "preprocess", "recommend", "demo")),
    *("tools.export", "tools.inspect_run"),
)
TRAINED = {RECOMMEND, DEMO, EXPORT, INSPECT}
READ_AT = {
    "uhman_jax/config_checks.py mesh": {MAIN},
    "uhman_jax/config_checks.py config.train.decay": {MAIN},
    "uhman_jax/runtime/processes.py": {MAIN},
    "uhman_jax/runtime/mesh.py": {MAIN},
    "uhman_jax/prepare.py": {MAIN},
    "uhman_jax/dataset/duplicates.py": {MAIN},
    "uhman_jax/dataset/split.py": {MAIN},
    "uhman_jax/train/loop.py": {MAIN},
    "uhman_jax/train/device_dataset.py": {MAIN},
    "uhman_jax/run.py": {MAIN},
    "uhman_jax/run_directory.py": TRAINED,
    "uhman_jax/preprocess/beam.py": {PREPROCESS},
    "uhman_jax/preprocess/pipeline.py": {PREPROCESS},  # only --part
    "uhman_jax/preprocess/find_videos.py root": {PREPROCESS},
    "uhman_jax/preprocess/find_videos.py video": {RECOMMEND},
    "uhman_jax/recommend/start.py": {RECOMMEND, DEMO},
    "uhman_jax/recommend/start.py explain": {RECOMMEND},
    "uhman_jax/demo/server.py": {DEMO},
    "tools/export/folder.py": {EXPORT},
    "tools/inspect_run/study.py": {INSPECT},
}
FOREIGN = {"uhman_jax/run.py": {"always", "dirty", "abbrev", "error-unmatch"}}  # git's
FLAG = re.compile(r"(?:(uhman_jax\.\w+) |^|[\s('])--(?:no)?([a-z][a-z0-9_.-]*)")


def texts(path):
    """Yields all strings of a file except docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds) and node.body]
    documentation = {id(node.body[0].value) for node in nodes if isinstance(node.body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in documentation:
                yield node.value


def named():
    """Yields (module, command that is written before the flag or "", flag) of all messages."""
    for folder in ("uhman_jax", "tools"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name.startswith(("uhman_jax/report/", "tools/launch/", "tools/bench/", "tools/imp")):
                continue  # style sheets; commands of their own
            for text in texts(path):
                for command, flag in FLAG.findall(text):
                    flag = flag.rstrip(".-")
                    if path.name != "page.py" and flag not in FOREIGN.get(name, ()):
                        yield name, command, flag


@pytest.mark.parametrize(("module", "command", "flag"), sorted(set(named())))
def test_a_message_names_flags_that_its_command_has(module, command, flag):
    if command:
        commands = {command}
    elif module.endswith(("__main__.py", "/main.py")):
        path = module.removesuffix("/__main__.py").removesuffix(".py")
        commands = {path.replace("/", ".")}
    elif flag in ("help", "flag", "config"):
        return  # of all commands; a placeholder; before a field's path
    else:
        commands = READ_AT.get(f"{module} {flag}") or READ_AT.get(module)
    assert commands, f"add to READ_AT the commands that print --{flag} of {module}"
    for each in commands:
        assert flag in flags_of(each), (each, flag)


def test_the_check_sees_a_flag_that_is_missing():
    assert "output" not in flags_of(MAIN) and "output" in flags_of(PREPROCESS)
    assert ("uhman_jax/run.py", "", "workdir") in set(named())
