"""Who may do what over HTTP.

With `HEADRACE_API_KEYS_FILE` every route of the platform but /health/* asks for a key that has the route's scope:
publish, read or operate. Without it only loopback is served, unless HEADRACE_INGEST_ALLOW_UNAUTHENTICATED says
otherwise: each request is checked (`Guard`), and `headrace run` refuses other addresses at once (`check_exposure`).

The file is read again when it changes. A file that has become unreadable leaves the last good keys in force:
a bad edit must not let everybody in, nor lock everybody out.
"""

from headrace.security.api_keys import check_exposure
from headrace.security.guard import Guard, install_guard, require

__all__ = ["Guard", "check_exposure", "install_guard", "require"]
