# SPDX-License-Identifier: LGPL-2.1-or-later
"""Configuration of Sphinx."""

import tomllib
from pathlib import Path

with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as file:
    metadata = tomllib.load(file)["project"]

project = metadata["name"]
author = metadata["authors"][0]["name"]
copyright = author
version = release = metadata["version"]

extensions = ["sphinx.ext.autodoc"]
autodoc_typehints = "none"  # the stubs have the types; prose says what they mean
autodoc_member_order = "bysource"

nitpicky = True
# documented elsewhere, and no page is fetched to build these
nitpick_ignore_regex = [
    ("py:.*", r"libvirt\..*|subprocess\..*"),
    ("py:.*", r"(Assertion|Value|Lookup|Runtime|Timeout)Error|KeyboardInterrupt|tuple|object"),
]
html_theme = "alabaster"
html_theme_options = {"description": metadata["description"]}
