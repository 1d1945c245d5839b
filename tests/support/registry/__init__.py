"""A real schema registry for tests: Apicurio from its Maven artifact, on a free port, gone with the test run.

registry = RegistryServer()
await registry.start()
registry.url                             # "http://127.0.0.1:41234/apis/ccompat/v7"
await registry.stop()                    # the schemas go, too: it keeps them in memory
"""

from tests.support.registry.server import RegistryServer

__all__ = ["RegistryServer"]
