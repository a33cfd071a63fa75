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
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "examples"]

html_title = project
html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 6,
}
html_sidebars = {"index": [], "get-started": []}
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_copy_source = False

toc_object_entries_show_parents = "hide"

# The docstrings give the types.
autodoc_typehints = "none"
# The template of a class lists its own methods, without those from scikit-learn.
numpydoc_show_class_members = False

# The build needs no network, so there are no links to other projects.
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
