"""Packages of the wheel; everything else is declared in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    # The configs are at the top of the checkout and are installed inside the package.
    packages=[*find_packages(include=["slowfast", "slowfast.*"]), "slowfast.configs"],
    package_dir={"slowfast.configs": "configs"},
)
