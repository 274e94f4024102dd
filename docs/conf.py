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

nitpicky = True
html_theme = "alabaster"
html_theme_options = {"description": metadata["description"]}
