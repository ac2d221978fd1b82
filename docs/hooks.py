"""What MkDocs is told of pages that lie elsewhere in the repository, and of links to them."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

# Pages of the site that are other files of the repository, by their names there.
ELSEWHERE = {"examples.md": "examples/README.md", "contributing.md": "CONTRIBUTING.md"}


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are elsewhere."""
    root = Path(config.config_file_path).parent
    for name, path in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Makes links to these pages links to where they are on the site."""
    for name, path in ELSEWHERE.items():
        markdown = markdown.replace(f"](../{path}", f"]({name}")
    return markdown
