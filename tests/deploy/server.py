"""A real server with a real upstream, for the tests."""

import base64
import re
import signal
import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager

from material import certificates
from programs import LOADGEN, TENANTRY, free_port, listens, stop, until


class Server:
    """Tenantry, started by `launcher`, in a directory of its own."""

    def __init__(self, directory, driver, tls, upstream, launcher=(), more=""):
        self.push, self.metrics, self.tls = free_port(), free_port(), tls
        material = certificates()
        self.config, self.log = directory / "tenantry.yml", directory / "log"
        scheme = "https" if tls else "http"
        text = f"""
listen: 127.0.0.1:{self.push}
listen_metrics_address: 127.0.0.1:{self.metrics}
target: {scheme}://localhost:{upstream}/api/v1/push
driver: {driver}
log_level: info
timeout_shutdown: 200ms
tenant: {{label: tenant}}
"""
        if tls:
            text += f"""
auth:
  egress: {{tls_config: {{ca_bundle_file: {material}/ca.crt}}}}
  ingress: {{tls_config: {{cert_file: {material}/tls.crt, key_file: {material}/tls.key}}}}
"""
        self.config.write_text(text + more)
        command = [*launcher, TENANTRY, "--config", self.config]
        with self.log.open("w") as log:
            self.process = subprocess.Popen([str(word) for word in command], stderr=log, env={"CT_CORES": "2"})

    def until_logged(self, text):
        def logged():
            assert self.process.poll() is None, f"exit {self.process.returncode}: {self.log.read_text()}"
            return text in self.log.read_text()

        until(logged)

    def page(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}{path}", timeout=10) as page:
            return page.read().decode()

    def post(self, path, body, content_type, password):
        """Posts to the port of pushes as `user`, and gives the status."""
        credentials = base64.b64encode(f"user:{password}".encode()).decode()
        headers = {"Content-Type": content_type, "Authorization": f"Basic {credentials}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.push}{path}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def driver(self):
        return re.search(r'^tenantry_build_info\{.*driver="(\w+)"', self.page("/metrics"), re.MULTILINE)[1]

    def send(self):
        """Sends a few requests over several connections. Each must be acknowledged."""
        scheme = "https" if self.tls else "http"
        command = [
            LOADGEN, "send", "--url", f"{scheme}://localhost:{self.push}/push", "--tenant-label", "tenant",
            "--requests", "20", "--series", "100", "--senders", "4", "--fail-on-error",
        ]
        if self.tls:
            command += ["--ca", certificates() / "ca.crt"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr + self.log.read_text()

    def reload(self):
        self.process.send_signal(signal.SIGHUP)
        self.until_logged("the configuration was read again")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=60) == 0, self.log.read_text()


@contextmanager
def upstream(tls):
    """loadgen's sink, and its port."""
    port = free_port()
    command = [LOADGEN, "sink", "--listen", f"127.0.0.1:{port}", "--every", "0s"]
    if tls:
        command += ["--tls-cert", certificates() / "tls.crt", "--tls-key", certificates() / "tls.key"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(port))
        yield port
    finally:
        stop(process)


@contextmanager
def running(directory, driver="auto", tls=False, launcher=(), more=""):
    with upstream(tls) as port:
        server = Server(directory, driver, tls, port, launcher, more)
        try:
            server.until_logged("listening address")
            yield server
        finally:
            stop(server.process)
