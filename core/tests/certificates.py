"""An authority that nobody knows, and servers' certificates that it signed."""

from __future__ import annotations

import ssl
import subprocess

import pytest


class Authority:
    """Its own certificate is `root`; without openssl, who needs it is skipped."""

    def __init__(self, folder):
        self._folder = folder
        self._key, self.root = folder / "key.pem", folder / "root.pem"
        made = ["-key", self._key, "-out", self.root, "-subj", "/CN=Root"]
        try:
            openssl("genrsa", "-out", self._key, "2048")
            # This and the signer's key Python asks for since 3.13.
            use = ["-addext", "keyUsage=critical,keyCertSign"]
            openssl("req", "-x509", "-new", *made, *use)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs openssl")

    def signed(self, name, *dates):
        """What a server of this name needs; `dates` are openssl's."""
        asked, made = self._folder / f"{name}.csr", self._folder / f"{name}.pem"
        names = self._folder / f"{name}.txt"
        signer = "authorityKeyIdentifier=keyid"
        names.write_text(f"subjectAltName=DNS:{name}\n{signer}")
        subject = ["-key", self._key, "-out", asked, "-subj", f"/CN={name}"]
        openssl("req", "-new", *subject)
        command = ["x509", "-req", "-in", asked, "-CA", self.root, "-CAkey", self._key]
        openssl(*command, "-out", made, "-extfile", names, *dates, "-set_serial", "1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made, self._key)
        return context


def openssl(*arguments):
    command = ["openssl", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)
