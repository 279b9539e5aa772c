"""How Sphinx sets the site. The sources that it reads are put together by build.py."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

import dinat_ref

sys.path.insert(0, str(Path(__file__).parent))
from docstrings import to_rst

project = "dinat_ref"
author = "The dinat_ref authors"
copyright = "The dinat_ref authors, MIT licence"
release = dinat_ref.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "myst_nb"]
templates_path = ["templates"]
html_theme = "pydata_sphinx_theme"
html_title = "dinat_ref"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}
html_sidebars = {name: [] for name in ("index", "stepping", "exploring", "source/**")}  # room for what is wide

nb_execution_mode = "off"  # tutorials are shown as they were executed
myst_heading_anchors = 3
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True


def docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Set the house's sections."""
    lines[:] = to_rst(lines)


def setup(app: Sphinx) -> None:
    """Tell Sphinx of our docstrings."""
    app.connect("autodoc-process-docstring", docstring)
