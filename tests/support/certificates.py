"""A certificate authority of one test run, and the certificate of a server on 127.0.0.1 that it has signed."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificates:
    """PEM files."""

    authority: Path
    """What a client has to trust."""
    server: Path
    """The server's key and certificate."""


def make_certificates(folder: Path) -> Certificates:
    """Make them in the folder with OpenSSL; without it the test is skipped."""
    if shutil.which("openssl") is None:
        pytest.skip("certificates are made by OpenSSL, which is missing: apt-get install -y openssl")
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(folder / "authority.pem", folder / "server.pem")
    authority_key, key, certificate = folder / "authority.key", folder / "server.key", folder / "server.crt"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    own = ["-subj", "/CN=test authority", "-keyout", str(authority_key), "-out", str(made.authority)]
    signed = ["-CA", str(made.authority), "-CAkey", str(authority_key), "-subj", "/CN=test server"]
    named = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:false"]
    subprocess.run([*new, *own], check=True, capture_output=True)
    subprocess.run(
        [*new, *signed, *named, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    made.server.write_text(key.read_text() + certificate.read_text())
    return made
