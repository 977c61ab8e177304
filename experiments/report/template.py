"""Pages from this folder's templates, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

_TEMPLATES = Path(__file__).parent


def templates() -> jinja2.Environment:
    """Everything that is not marked as markup is escaped; an unknown name is an error."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(path: Path, template: str, content: Mapping[str, Any]) -> None:
    """Write a page of one template."""
    write_whole(path, templates().get_template(template).render(content))


def write_whole(path: Path, page: str | bytes) -> None:
    """Put ``page`` in the place of whatever is there, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(page.encode() if isinstance(page, str) else page)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
