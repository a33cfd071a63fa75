"""Configuration of Sphinx."""

import skscatharm

project = "skscatharm"
author = "The skscatharm developers"
project_copyright = f"2026, {author}"
version = release = skscatharm.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "examples"]
html_theme = "alabaster"
html_theme_options = {
    "description": skscatharm.__doc__,
    "fixed_sidebar": True,
    "page_width": "1000px",
}
html_show_sourcelink = False

# The docstrings give the types.
autodoc_typehints = "none"
# The template of a class lists its own methods, without those from scikit-learn.
numpydoc_show_class_members = False

# The build takes nothing from the network, so other projects are not linked to.
nitpick_ignore_regex = [(r"py:.*", r"(ase|joblib|numpy|pandas|sklearn)\..*")]

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "abort_on_example_error": True,
    "copyfile_regex": r"",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
}
