"""What every route of the platform shares, whether it takes events in (`ingest/`) or reads and steers (`queries/`).

```
socket ─▶ connection.py (size and time of headers and bodies, number of connections; `headrace run` only)
       ─▶ guard.py (access.py: from where · api_keys.py: with which key · authenticator.py: as the team's own code says)
       ─▶ a route, for a caller.py with the scope
a route ─▶ runtime_of.py (the running platform) · body.py (limit) · database.py (rows, or a 503)
        ─▶ problems.py (every refusal, RFC 9457)
openapi.py · asyncapi.py · schemas.py: what the routes and the event types are, for programs and people
```
With `HEADRACE_API_KEYS_FILE` every route of the platform but /health/* asks for a key that has the route's scope:
publish, read or operate; `publish:TYPE` is for single types. `Headrace(authenticate=...)` asks a dependency of the
team's own instead. Without either only this machine is served, unless HEADRACE_INGEST_ALLOW_UNAUTHENTICATED says
otherwise: each request is checked (`Guard`), and `headrace run` refuses to listen on other addresses
(`refuse_exposure`).

The file of keys is read again when it changes. If it has become unreadable, the last good keys stay in force: a bad
edit must not let everybody in, nor lock everybody out.
"""
