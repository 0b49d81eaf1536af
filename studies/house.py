"""Prints figures of the code itself: lines, functions over 60 lines, parameters of type Any, documented public names.

    python -m studies.house [CHECKOUT ...]

prints one row a checkout, so that two states of the project can be compared.
"""

from __future__ import annotations

import argparse
import ast
import pathlib
from collections.abc import Iterator

LONG = 60  # lines of code from which on a function is called long


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """Returns every function and method of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(node: ast.FunctionDef) -> int:
    """Returns the lines of a function without its docstring."""
    length = node.end_lineno - node.lineno + 1
    first = node.body[0]
    value = first.value if isinstance(first, ast.Expr) else None
    documented = isinstance(value, ast.Constant) and isinstance(value.value, str)
    return length - (first.end_lineno - first.lineno + 1 if documented else 0)


def is_any(annotation: ast.expr | None) -> bool:
    return isinstance(annotation, ast.Name) and annotation.id == "Any"


def parameters(node: ast.FunctionDef) -> list[ast.arg]:
    named = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    return [a for a in (*named, node.args.vararg, node.args.kwarg) if a is not None and a.arg not in ("self", "cls")]


def figures(root: pathlib.Path) -> dict[str, object]:
    """Returns the figures of the package `jaxgen` in a checkout."""
    files = sorted((root / "jaxgen").rglob("*.py"))
    trees = {path: ast.parse(path.read_text()) for path in files}
    found = [(path, node) for path, tree in trees.items() for node in functions(tree)]
    public = [
        node
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    long = [(path, node, code_lines(node)) for path, node in found if code_lines(node) > LONG]
    arguments = [a for _, node in found for a in parameters(node)]
    return {
        "files": len(files),
        "lines": sum(len(path.read_text().splitlines()) for path in files),
        "functions": len(found),
        f"functions over {LONG} lines": [f"{p.relative_to(root)}:{n.name} {length}" for p, n, length in long],
        "parameters": len(arguments),
        "parameters of type Any": sum(is_any(a.annotation) for a in arguments),
        "documented share of public names": f"{sum(bool(ast.get_docstring(n)) for n in public) / len(public):.0%}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", default=["."], help="folders that hold jaxgen/")
    for folder in parser.parse_args().checkouts:
        print(folder)
        for name, value in figures(pathlib.Path(folder)).items():
            print(f"  {name}: {len(value) if isinstance(value, list) else value}")
            for line in value if isinstance(value, list) else ():
                print(f"    {line}")


if __name__ == "__main__":
    main()
