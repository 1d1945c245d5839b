"""The version of this release, from the installed package."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("headrace")
except PackageNotFoundError:
    VERSION = "0.0.0"
