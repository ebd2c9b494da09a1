"""Settings of the documentation site. `make docs` builds it into build/site: offline, with warnings as errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import popstats

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

project = "popstats"
author = "The popstats authors"
version = release = popstats.__version__

# The source is the repository, so that links between the pages are the same here as on GitHub.
include_patterns = [
    "docs/**.md",
    "README.md",
    "ARCHITECTURE.md",
    "DECISIONS.md",
    "CONTRIBUTING.md",
    "BENCHMARKS.md",
    "CHANGELOG.md",
    "data/README.md",
    "reports/README.md",
    "reports/refined-digits/README.md",
]
root_doc = "docs/index"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# Headings become targets of links, as on GitHub.
myst_heading_anchors = 3
napoleon_google_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # The docstrings name types, shapes and units.

html_theme = "furo"
html_title = "popstats"
html_copy_source = False
html_show_copyright = False
html_theme_options = {"light_css_variables": {"code-font-size": "0.78rem"}}  # 90 characters of code fit
html_math_renderer = "mathml"


def open_formula(translator: HTML5Translator, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers draw without a script from elsewhere."""
    block = isinstance(node, nodes.math_block)
    translator.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register the renderer of formulas."""
    app.add_html_math_renderer("mathml", (open_formula, None), (open_formula, None))
