"""How far one walks through the code: the calls of a function and of all that it calls, in the order of the text.

python -m tests.call_walk sparse_gpt.circuits.pipeline:find_circuit

The walk goes down before it goes on, and into each function once. A *stay* is a run of functions of one module, a
*return* a stay in a module where one has been before. Only modules under sparse_gpt.circuits count. A method is found
if its class is named in the call, or no other class of sparse_gpt.circuits has a method of that name; making an object
is no stay.
"""

import ast
import itertools
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COUNTED = "sparse_gpt.circuits"
Key = tuple[str, ...]  # module and name, or module, class and method


class Walk:
    """The walk below a package; `stays` is what it has been through."""

    def __init__(self, package: Path):
        self.defined: dict[Key, ast.AST] = {}
        self.names: dict[str, dict[str, Key]] = {}
        self.methods: dict[str, list[Key]] = defaultdict(list)
        self.seen: list[Key] = []
        trees = {}
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            trees[name] = ast.parse(path.read_text())
        for module, tree in trees.items():
            self.names[module] = {}
            for node in tree.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    self.defined[module, node.name] = node
                    self.names[module][node.name] = (module, node.name)
                for method in node.body if isinstance(node, ast.ClassDef) else ():
                    if isinstance(method, ast.FunctionDef):
                        self.defined[module, node.name, method.name] = method
                        if module.startswith(COUNTED) and not _is_property(method):
                            self.methods[method.name].append((module, node.name, method.name))
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.module:
                    for each in node.names:
                        full = f"{node.module}.{each.name}"
                        target = (full,) if full in trees else (node.module, each.name)
                        self.names[module][each.asname or each.name] = target

    def _resolved(self, module: str, name: str) -> Key:
        """Where a name of a module is defined, through what other modules pass on; () where it is not ours."""
        found = self.names.get(module, {}).get(name, ())
        while len(found) == 2 and found not in self.defined and found[0] in self.names:
            found = self.names[found[0]].get(found[1], ())
        return found

    def _called(self, module: str, function: ast.expr) -> Key:
        if isinstance(function, ast.Name):
            return self._resolved(module, function.id)
        if not isinstance(function, ast.Attribute):
            return ()
        owner = self._resolved(module, function.value.id) if isinstance(function.value, ast.Name) else ()
        if len(owner) == 1:
            return self._resolved(owner[0], function.attr)
        if (*owner, function.attr) in self.defined:
            return (*owner, function.attr)
        methods = self.methods[function.attr]
        return methods[0] if len(methods) == 1 else ()

    def go(self, key: Key) -> None:
        """Into a function, and into all that it calls."""
        node = self.defined.get(key)
        if key in self.seen or not isinstance(node, ast.FunctionDef):
            return
        self.seen.append(key)
        for call in _calls(node):
            self.go(self._called(key[0], call.func))

    def stays(self) -> list[str]:
        """The modules that count, in the order of the walk."""
        return [module for module, _ in itertools.groupby(key[0] for key in self.seen if key[0].startswith(COUNTED))]


def _is_property(method: ast.FunctionDef) -> bool:
    """What is not called: `names.index(...)` is not the property `index` of some class."""
    return any("property" in ast.unparse(decorator) for decorator in method.decorator_list)


def _calls(node: ast.AST) -> list[ast.Call]:
    """Calls within a node, arguments before the call that takes them."""
    inner = [call for child in ast.iter_child_nodes(node) for call in _calls(child)]
    return [*inner, node] if isinstance(node, ast.Call) else inner


def main() -> None:
    """Prints the numbers, and the walk."""
    walk = Walk(ROOT / "sparse_gpt")
    walk.go(tuple(sys.argv[1].split(":")))
    stays = walk.stays()
    print("\n".join(stays))
    print(f"{len(stays)} stays in {len(set(stays))} modules, {len(stays) - len(set(stays))} returns")


if __name__ == "__main__":
    main()
