"""How pages are rendered: one template, with the style and the script that all pages share."""

import base64
import hashlib
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from sknet.report.figures import Drawing


def render(template: str, **values: Any) -> str:
    """Return a page that loads nothing from elsewhere. Names and texts are escaped.

    Args:
        template: Name of the template, in this package.
        **values: What the template shows.
    """
    package = resources.files("sknet.report")
    css, script = (
        package.joinpath(name).read_text("utf-8").strip() for name in ("report.css", "report.js")
    )
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: package.joinpath(name).read_text("utf-8")),
    )
    page = environment.get_template(template).render(
        css=Markup(css),  # noqa: S704 (our own file)
        script=Markup(script),  # noqa: S704 (our own file)
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **values,
    )
    return page.strip() + "\n"


def data_uri(content: bytes) -> str | None:
    """Return a `data:` URI with a PNG or a JPEG; None if the content is neither."""
    for kind, signature in (("png", b"\x89PNG\r\n\x1a\n"), ("jpeg", b"\xff\xd8\xff")):
        if content.startswith(signature):
            return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return None


def embedded(drawing: Drawing) -> dict[str, Any]:
    """Return a figure as templates show it."""
    return {
        "svg": Markup(drawing.svg),  # noqa: S704 (made by matplotlib, which escapes names)
        "words": drawing.words,
    }
