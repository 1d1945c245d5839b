"""The shop's event platform; the modules with handlers declare themselves on it."""

from headrace import Headrace

events = Headrace("shop")
