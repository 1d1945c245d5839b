"""The declarations of a service: its name is part of every key in the database and of the consumer group."""

from __future__ import annotations

import pytest

from headrace import Headrace
from headrace.errors import ConfigurationError
from headrace.registry import Registry


@pytest.mark.parametrize("name", ["shop", "2nd-shop", "my_shop", "a" * 63])
def test_service_name_is_accepted(name: str) -> None:
    assert Registry(name).service == name


@pytest.mark.parametrize(
    "name", ["", "my.shop", "Shop", "-shop", "_shop", "my shop", "shop/2", "a" * 64, "shöp", "shop\n"]
)
def test_other_service_name_is_refused_in_a_sentence(name: str) -> None:
    for declare in (Registry, Headrace):
        with pytest.raises(ConfigurationError) as refused:
            declare(name)
        assert str(refused.value).startswith(f"Headrace({name!r}): a service")
        assert "\n" not in str(refused.value)
