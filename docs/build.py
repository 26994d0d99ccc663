"""Build the documentation into build/site: `python docs/build.py`, after `pip install -e '.[docs]'`.

The pages lie in build/pages as they do in the repository, so that a link works in both. Zensical reads them:
Material for MkDocs, whose successor it is, gets no more features, and MkDocs has had no release since 2024.

Links to files that are no pages lead to the repository. A notebook's page has its outputs. Formulas become
MathML, and nothing is loaded from elsewhere: the site works without a network, and from a folder.
"""

import argparse
import base64
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import generated
import jupytext
from latex2mathml.converter import convert
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build"
PAGES, SITE = BUILD / "pages", BUILD / "site"
SOURCES = (
    "README.md",
    "CHANGELOG.md",
    "docs/**/*",
    "experiments/**/*.md",
    "experiments/**/*.png",
    "benchmarks/*.md",
    "benchmarks/*.png",
)
KINDS = (".md", ".png", ".css", ".svg")
REPOSITORY = "https://github.com/hdc-jax/hdc-jax/blob/main"
LINK = re.compile(r"(\]\()(?!https?:|#)([^)\s#]+)")
GENERATED = re.compile(r"<!-- generated: (\w+) -->\n.*")  # and the line below it
CODE = re.compile(r"(^(?:```|~~~).*?^(?:```|~~~)$|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\w$\\])\$(?! )([^$\n]+?)(?<! )\$(?!\w)", re.DOTALL)


def main() -> None:
    """Write all pages and build the site; exit with 1 for a warning, or a link that leads nowhere."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--executed", type=Path, default=BUILD / "notebooks", metavar="DIR",
        help="notebooks with outputs, as tests/test_notebooks.py leaves them; others are run",
    )  # fmt: skip
    args = parser.parse_args()
    shutil.rmtree(PAGES, ignore_errors=True)
    for pattern in SOURCES:
        for source in ROOT.glob(pattern):
            if source.suffix in KINDS:
                target = PAGES / source.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
    notebooks(args.executed)
    explorer = PAGES / "docs" / "explorer.html"
    subprocess.run(
        [sys.executable, "-m", "hdc.lab.commands.main", "explore", "--out", str(explorer)], check=True
    )
    made = {
        "commands": generated.commands,
        "keys": generated.keys,
        "explorer": lambda: "[Open the page](explorer.html){ target=_blank }",
    }
    lost: list[str] = []
    for page in PAGES.rglob("*.md"):
        text = page.read_text()
        if page.is_relative_to(PAGES / "docs"):
            text = GENERATED.sub(lambda found: made[found[1]](), text)
        parts = CODE.split(text)  # every second part is code
        parts[::2] = [FORMULA.sub(_mathml, _linked(page, part, lost)) for part in parts[::2]]
        page.write_text("".join(parts))
    if lost:
        raise SystemExit("\n".join(lost))
    done = subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=ROOT)
    _search_without_network()
    raise SystemExit(done.returncode)


def _search_without_network() -> None:
    """Put the script that searches in pages opened as files into them; it would be loaded from elsewhere."""
    script = base64.b64encode((ROOT / "docs" / "assets" / "iframe-worker.js").read_bytes()).decode()
    for page in SITE.rglob("*.html"):
        text = re.sub(
            r"https://[\w.]+/iframe-worker/shim", f"data:text/javascript;base64,{script}", page.read_text()
        )
        page.write_text(text)


def _linked(page: Path, text: str, lost: list[str]) -> str:
    """The text with links to pages as they are, to notebooks' pages, and to other files in the repository."""

    def replaced(found: re.Match[str]) -> str:
        target = (page.parent / found[2]).resolve()
        if target.suffix == ".ipynb":
            target = target.with_suffix(".md")
            return f"{found[1]}{found[2].removesuffix('.ipynb')}.md" if target.exists() else found[0]
        if target.exists() and target.is_file():
            return found[0]
        source = ROOT / target.relative_to(PAGES)
        if not source.exists():
            lost.append(f"{page.relative_to(PAGES)}: {found[2]} is not there")
        return f"{found[1]}{REPOSITORY}/{source.relative_to(ROOT)}"

    return LINK.sub(replaced, text)


def _mathml(found: re.Match[str]) -> str:
    block, inline = found.groups()
    formula = convert(block or inline, display="block" if block else "inline")
    return f"\n\n{formula}\n\n" if block else f"<span>{formula}</span>"


def notebooks(executed: Path) -> None:
    """Write a page for each notebook, with the outputs of `executed` where that has the same cells."""
    sources = sorted((ROOT / "notebooks").glob("*.py"))
    with ThreadPoolExecutor(2) as pool:  # each notebook has a kernel, a process of its own
        list(pool.map(lambda source: _notebook(source, executed / f"{source.stem}.ipynb"), sources))


def _notebook(source: Path, executed: Path) -> None:
    notebook = jupytext.read(source)
    if executed.exists():
        kept = jupytext.read(executed)
        if [cell.source for cell in kept.cells] == [cell.source for cell in notebook.cells]:
            notebook = kept
    if not any(cell.get("outputs") for cell in notebook.cells):
        from nbclient import NotebookClient

        NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(source.parent))
        executed.parent.mkdir(parents=True, exist_ok=True)
        jupytext.write(notebook, executed)
    text, resources = MarkdownExporter().from_notebook_node(notebook)
    folder = PAGES / "notebooks"
    folder.mkdir(exist_ok=True)
    for name, content in resources["outputs"].items():
        renamed = f"{source.stem}-{name}"
        (folder / renamed).write_bytes(content)
        text = text.replace(f"]({name})", f"]({renamed})")
    (folder / f"{source.stem}.md").write_text(text)


if __name__ == "__main__":
    main()
