"""Certificates for the tests, made with openssl."""

import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

EXTENSIONS = """
subjectAltName = DNS:localhost, IP:127.0.0.1
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth, clientAuth
"""


def openssl(directory, *arguments):
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=30)


@cache
def certificates():
    """A folder with ca.crt, and with tls.crt and tls.key for localhost."""
    directory = Path(mkdtemp(prefix="tenantry-deploy-"))
    (directory / "extensions").write_text(EXTENSIONS)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(directory, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca", "-days", "30")
    openssl(directory, "req", "-new", *key, "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=localhost")
    openssl(
        directory, "x509", "-req", "-in", "tls.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
        "-out", "tls.crt", "-days", "30", "-extfile", "extensions",
    )
    return directory
