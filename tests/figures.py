"""Measure the size and shape of the package's code: `python -m tests.figures [FOLDER]`.

One line for each figure: how long functions and modules are, how many branches a function has, how
many methods and attributes an object has with all that its class inherits, and how much of the
code is explained.
"""

import ast
import io
import statistics
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# What adds a way through a function (McCabe, "A Complexity Measure", 1976), with the conditions of
# "and", "or" and comprehensions.
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)


@dataclass(frozen=True)
class Module:
    """A file of the package, as text and as syntax tree."""

    name: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    def comment_lines(self) -> int:
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return sum(token.type == tokenize.COMMENT for token in tokens)


@dataclass
class Shape:
    """The methods and attributes of a class, and the names of its bases."""

    methods: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    bases: list[str] = field(default_factory=list)

    def whole(self, others: Mapping[str, "Shape"]) -> "Shape":
        """This class with what it inherits from *others*, which have a name each."""
        whole = Shape(set(self.methods), set(self.attributes))
        for base in self.bases:
            if base in others and others[base] is not self:
                inherited = others[base].whole(others)
                whole.methods |= inherited.methods
                whole.attributes |= inherited.attributes
        return whole


def modules(folder: Path) -> list[Module]:
    paths = sorted(folder.rglob("*.py"))
    texts = {str(path.relative_to(folder)): path.read_text() for path in paths}
    return [Module(name, text, ast.parse(text)) for name, text in texts.items()]


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(module.tree) if isinstance(node, FUNCTIONS))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Its lines, from the one that begins with "def"."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def complexity(function: ast.AST) -> int:
    """The number of independent ways through *function*; nested functions count in themselves."""
    ways = 1
    inner = list(ast.iter_child_nodes(function))
    while inner:
        node = inner.pop()
        if isinstance(node, FUNCTIONS):
            continue
        ways += isinstance(node, BRANCHES)
        ways += len(node.values) - 1 if isinstance(node, ast.BoolOp) else 0
        ways += 1 + len(node.ifs) if isinstance(node, ast.comprehension) else 0
        inner += ast.iter_child_nodes(node)
    return ways


def shape(cls: ast.ClassDef) -> Shape:
    found = Shape(bases=[base.id for base in cls.bases if isinstance(base, ast.Name)])
    for node in cls.body:
        if isinstance(node, FUNCTIONS):
            found.methods.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.attributes.add(node.target.id)
    for target in ast.walk(cls):
        if isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store):
            owner = target.value
            found.attributes |= {target.attr} if getattr(owner, "id", "") == "self" else set()
    return found


def documented(module: Module) -> Iterator[bool]:
    """For the module and each of its public classes and functions: whether it has a docstring."""
    yield bool(ast.get_docstring(module.tree))
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)) and not node.name.startswith("_"):
            yield bool(ast.get_docstring(node))


def percentile(values: Sequence[int], percent: int) -> int:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def figures(folder: Path) -> Iterator[tuple[str, str]]:
    """Each figure's name and value for the code in *folder*."""
    everything = modules(folder)
    sizes = [module.lines for module in everything]
    total = sum(sizes)
    yield "modules", f"{len(sizes)}, {sum(size > 300 for size in sizes)} of more than 300 lines"
    yield "lines", f"{total:,}; the largest module has {max(sizes)}"
    every = [function for module in everything for function in functions(module)]
    lengths = [length(function) for function in every]
    quantiles = " / ".join(str(percentile(lengths, percent)) for percent in (50, 90, 99, 100))
    yield "function length: median / 90 % / 99 % / longest", f"{quantiles} of {len(lengths)}"
    ways = [complexity(function) for function in every]
    many = sum(each > 10 for each in ways)
    yield "complexity: 90 % / highest / above 10", f"{percentile(ways, 90)} / {max(ways)} / {many}"
    yield from classes(everything)
    told = [each for module in everything for each in documented(module)]
    yield "public names with a docstring", f"{statistics.mean(told):.0%}"
    comments = sum(module.comment_lines() for module in everything)
    yield "lines with a comment", f"{comments / total:.1%}"


def classes(everything: list[Module]) -> Iterator[tuple[str, str]]:
    found = [
        (node.name, shape(node))
        for module in everything
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    ]
    known = dict(found)
    whole = [(name, each.whole(known)) for name, each in found]
    for kind in ("methods", "attributes"):
        counts = [(len(getattr(each, kind)), name) for name, each in whole]
        limit = {"methods": 15, "attributes": 12}[kind]
        many = sum(count > limit for count, _ in counts)
        largest = ", ".join(f"{name} {count}" for count, name in sorted(counts)[:-4:-1])
        title = f"classes with more than {limit} {kind}, inherited ones too"
        yield title, f"{many} of {len(counts)}; {largest}"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT / "service" / "pounce"
    for name, value in figures(folder):
        sys.stdout.write(f"{name}: {value}\n")


if __name__ == "__main__":
    main()
