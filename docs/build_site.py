"""Makes the site of the docs out of what is in the repository: hooks of mkdocs, which `mkdocs.yml` names.

    pip install -e ".[docs]" && mkdocs build --strict

The pages are written to be read where they lie; this module adds what the site has besides:

- README.md is the home page, and a file outside of docs/ that a page links to gets a page of its own;
- a page of reference for each package of jaxgen, made from its docstrings, and links to it wherever a page names a
  file (`diffusion/process.py: diffuse`);
- equations (`$...$`) become MathML, which browsers draw themselves: the site needs no network.
"""

from __future__ import annotations

import ast
import functools
import html
import json
import os
import pathlib
import posixpath
import re
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?P<text>\[(?:`[^`]*`|[^\]`])*\])\((?P<target>[^)\s]+)\)")
NAMED = re.compile(r"(?<!\[)`(?P<file>[\w/]+\.py)(?:: (?P<name>[\w.]+))?`(?!\])")
LANGUAGES = {".py": "python", ".yml": "yaml", ".toml": "toml", ".json": "json", ".cff": "yaml", "": "bash"}


def on_config(config: Any) -> Any:
    """Adds the reference to the navigation, and makes headings' anchors the ones that the links in the pages mean."""
    from pymdownx.slugs import slugify

    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    config.nav.append({"API": ["reference/index.md", {"Packages": [{name: page(name)} for name in packages()]}]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are made: home, reference, and the files outside of docs/ that pages link to."""
    from mkdocs.structure.files import File, InclusionLevel

    def add(uri: str, text: str) -> None:
        level = InclusionLevel.NOT_IN_NAV if uri.startswith("files/") else InclusionLevel.UNDEFINED
        files.append(File.generated(config, uri, content=text, inclusion=level))

    waiting, added = ["README.md", *(f"docs/{file.src_uri}" for file in files.documentation_pages())], set()
    add("index.md", (ROOT / "README.md").read_text())
    add("reference/index.md", _index())
    for name in packages():
        add(page(name), _reference(name))
    while waiting:
        for path in _outside(waiting.pop()) - added:
            added.add(path)
            add(site_uri(path), _text(path))
            waiting += [path] if path.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Returns the page with links as the site has them; code in fences stays as it is."""
    uri = page.file.src_uri
    if uri.startswith("reference/") or (uri.startswith("files/") and not source_of(uri).endswith(".md")):
        return markdown
    parts = re.split(r"(^[ ]*```.*?^[ ]*```)", markdown, flags=re.M | re.S)
    return "".join(part if i % 2 else _relinked(part, uri) for i, part in enumerate(parts))


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """Returns the page's HTML with equations as MathML."""
    from latex2mathml.converter import convert

    def drawn(match: re.Match[str]) -> str:
        block = match["tag"] == "div"
        return convert(html.unescape(match["tex"]).strip(), display="block" if block else "inline")

    pattern = r'<(?P<tag>div|span) class="arithmatex">\\[\[(](?P<tex>.*?)\\[\])]</(?P=tag)>'
    return re.sub(pattern, drawn, content, flags=re.S)


def packages() -> list[str]:
    """Returns the dotted names of jaxgen and of all packages in it."""
    found = sorted(file.parent.relative_to(ROOT).as_posix() for file in (ROOT / "jaxgen").rglob("__init__.py"))
    return [name.replace("/", ".") for name in found]


def page(package: str) -> str:
    """Returns where the page of a package's reference is in the site."""
    return f"reference/{package}.md"


def source_of(uri: str) -> str:
    """Returns the path in the repository of a page in the site."""
    if uri == "index.md":
        return "README.md"
    if uri.startswith("files/"):
        return uri.removeprefix("files/") if (ROOT / uri.removeprefix("files/")).exists() else uri[6:-3]
    return f"docs/{uri}"


def site_uri(path: str) -> str:
    """Returns where a file of the repository is in the site; `path` is relative to the repository."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("jaxgen/") and path.endswith(".py"):
        return page(posixpath.dirname(path).replace("/", "."))
    return f"files/{path}" if path.endswith(".md") else f"files/{path}.md"


def _target(link: str, source: str) -> tuple[str, str] | None:
    """Returns the path in the repository that a link on the page `source` leads to, and its anchor; None for others."""
    name, _, anchor = link.partition("#")
    if not name or re.match(r"\w+:", name):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), name))
    return (path + "/README.md" if (ROOT / path).is_dir() else path), anchor


def _outside(source: str) -> set[str]:
    """Returns the files outside of docs/ that a page links to and that have no page yet."""
    targets = (_target(match["target"], source) for match in LINK.finditer((ROOT / source).read_text()))
    paths = {target[0] for target in targets if target}
    return {path for path in paths if site_uri(path).startswith("files/") and (ROOT / path).is_file()}


def _text(path: str) -> str:
    """Returns a page that shows a file."""
    text = (ROOT / path).read_text()
    if path.endswith(".md"):
        return text
    if path.endswith(".ipynb"):
        return _cells(json.loads(text))
    return f"# {path}\n\n````{LANGUAGES.get(pathlib.Path(path).suffix, 'text')}\n{text}\n````\n"


def _cells(notebook: dict[str, Any]) -> str:
    """Returns a notebook as a page: its text as it is, and its code in fences."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"````python\n{source}\n````")
    return "\n\n".join(parts) + "\n"


def _relinked(text: str, uri: str) -> str:
    source, folder = source_of(uri), posixpath.dirname(uri)

    def relative(target: str) -> str:
        return os.path.relpath(target, folder or ".")

    def link(match: re.Match[str]) -> str:
        found = _target(match["target"], source)
        if not found:
            return match[0]
        path, anchor = found
        if path.startswith("jaxgen/") and path.endswith(".py"):
            named = NAMED.search(match["text"].strip("[]"))
            anchor = _anchor(path, named["name"] if named else None)
        return f"{match['text']}({relative(site_uri(path))}{'#' + anchor if anchor else ''})"

    def name(match: re.Match[str]) -> str:
        path = next((p for p in (f"jaxgen/{match['file']}", match["file"]) if (ROOT / p).is_file()), "")
        if not path.startswith("jaxgen/"):
            return match[0]
        return f"[{match[0]}]({relative(site_uri(path))}#{_anchor(path, match['name'])})"

    return NAMED.sub(name, LINK.sub(link, text))


def _anchor(path: str, name: str | None) -> str:
    """Returns the anchor in the reference of a class or function of a module, or of the module if it has none."""
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    top = (name or "").partition(".")[0]
    return f"{module}.{top}" if top in documented(path) else module


@functools.cache
def documented(path: str) -> frozenset[str]:
    """Returns the public names at the top level of a module that have a docstring."""
    body = ast.parse((ROOT / path).read_text()).body
    found = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node)]
    return frozenset(node.name for node in found if not node.name.startswith("_"))


def _reference(package: str) -> str:
    """Returns the page of a package: its own docstring, then its modules."""
    folder = ROOT / package.replace(".", "/")
    modules = [f"{package}.{file.stem}" for file in sorted(folder.glob("*.py")) if not file.stem.startswith("_")]
    own = sorted(documented(f"{package.replace('.', '/')}/__init__.py"))
    options = f"    options:\n      members: {own or 'false'}\n      show_root_heading: false\n"
    return "\n".join([f"# {package}\n\n::: {package}\n{options}", *(f"::: {module}\n" for module in modules)])


def _index() -> str:
    """Returns the first page of the reference: the names of `import jaxgen as jg`, and the packages."""
    tree = ast.parse((ROOT / "jaxgen" / "__init__.py").read_text())
    public = next(node.value for node in tree.body if isinstance(node, ast.Assign) and _is_public(node))
    lines = ["# Reference", "", "`import jaxgen as jg` has these names; all else is imported from its package.", ""]
    lines += ["| name | defined in |", "|---|---|"]
    for module, names in ast.literal_eval(public).items():
        path = module.replace(".", "/") + ".py"
        path = path if (ROOT / path).is_file() else module.replace(".", "/") + "/__init__.py"
        link = posixpath.basename(site_uri(path))
        links = [f"[`jg.{name}`]({link}#{_anchor(path, name)})" for name in names]
        lines.append(f"| {', '.join(links)} | `{module}` |")
    lines += ["", "| package | what is in it |", "|---|---|"]
    for name in packages():
        doc = ast.get_docstring(ast.parse((ROOT / name.replace(".", "/") / "__init__.py").read_text())) or ""
        lines.append(f"| [`{name}`]({name}.md) | {doc.partition(chr(10))[0]} |")
    return "\n".join(lines) + "\n"


def _is_public(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "_PUBLIC" for target in node.targets)
