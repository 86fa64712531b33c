"""The real program between real senders and two upstreams that misbehave, and a real Prometheus that scrapes it. A
second one has a spool, through which all of its data goes: with it, senders of the first would hear of no failure."""

import json
import re
import signal
import ssl
import subprocess
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack, contextmanager

import mixin
from material import certificates
from programs import LOADGEN, TENANTRY, free_port, listens, stop, until

# So long is there load before the first question, and at most. Rates are over 10 s.
SECONDS_OF_LOAD = 16
SECONDS_OF_LOAD_MAX = 150

FAULTS = """
seed: 1
rules:
  - latency: 1ms..8ms
  - {tenant: search, share: 0.4, status: {code: 400, body: "err-mimir-max-label-names-per-series: too many labels"}}
  - {tenant: checkout, share: 0.4, status: 429}
  - {tenant: checkout, share: 0.4, status: 503}
"""

CONFIG = """
listen: 127.0.0.1:{push}
listen_metrics_address: 127.0.0.1:{admin}
target: https://127.0.0.1:{sink}/api/v1/push
target_loki: https://127.0.0.1:{sink}/loki/api/v1/push
upstreams: {directory}/upstreams.yml
metrics_include_tenant: true
log_level: info
timeout: 2s
cores: 2
auth:
  egress:
    tls_config: {{ca_bundle_file: {tls}/ca.crt, cert_file: {tls}/tls.crt, key_file: {tls}/tls.key}}
  ingress:
    tls_config: {{cert_file: {tls}/tls.crt, key_file: {tls}/tls.key}}
  admin: {{web_config_file: {directory}/web.yml}}
"""

# Nothing listens at `gone`. It has two addresses where that is possible: a single one is never in backoff.
UPSTREAMS = """
- {{name: eu, tenants: [identity], target: "https://127.0.0.1:{sink}/api/v1/push"}}
- {{name: gone, tenants: [lost], target: "http://{twins}:{gone}/api/v1/push"}}
"""

HOSTS = "127.0.0.1 localhost\n127.0.0.1 twins\n127.0.0.2 twins\n"

# Runs a command in a mount namespace of its own, in which the first file is /etc/hosts.
WITH_HOSTS = ["unshare", "-r", "-m", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"']

SPOOL = """
listen: 127.0.0.1:{spool_push}
listen_metrics_address: 127.0.0.1:{spool_admin}
target: https://127.0.0.1:{sink}/api/v1/push
upstreams: {directory}/upstreams.yml
metrics_include_tenant: true
log_level: info
timeout: 2s
cores: 1
spool: {{dir: "{directory}/spool", when: always}}
auth:
  egress: {{tls_config: {{ca_bundle_file: {tls}/ca.crt}}}}
  admin: {{web_config_file: {directory}/web.yml}}
"""

WEB = "tls_server_config: {{cert_file: {tls}/tls.crt, key_file: {tls}/tls.key}}\n"

PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 2s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: tenantry
    scheme: https
    tls_config: {{ca_file: {tls}/ca.crt, server_name: localhost}}
    static_configs: [{{targets: ["127.0.0.1:{admin}", "127.0.0.1:{spool_admin}"]}}]
"""

# Senders: what each asks of `loadgen send`.
SENDERS = [
    "--tenants payments:5,search:2,checkout:2,identity:1 --series 500 --rate 60 --senders 4",
    "--tenants payments:3,search:1 --format remote-write-2 --series 100 --rate 20 --senders 2",
    "--tenants payments:3,search:1 --format loki --series 100 --rate 20 --senders 2",
    "--tenants lost --series 10 --rate 5 --senders 1",
    "--tenants nameless --tenant-label other --series 10 --rate 5 --senders 1",
    "--tenants payments --series 10 --rate 5 --senders 1 --new-connections resumed",
]

# What is sent to the server with the spool. Its upstream refuses data of `search` for good, and `lost` stays.
SPOOLED = "--tenants payments:1,search:1,lost:1 --series 20 --rate 5 --senders 1"


class Live:
    """What runs, and where."""

    def __init__(self, directory):
        self.directory, self.tls = directory, certificates()
        self.push, self.admin, self.sink, self.gone, self.prometheus = (free_port() for _ in range(5))
        self.spool_push, self.spool_admin = free_port(), free_port()
        self.processes = []
        hosts = self.write("hosts", HOSTS)
        self.with_hosts = [*WITH_HOSTS, hosts]
        self.has_twins = subprocess.run([*self.with_hosts, "true"], capture_output=True, timeout=10).returncode == 0
        self.twins = "twins" if self.has_twins else "127.0.0.1"

    def write(self, name, text):
        path = self.directory / name
        names = {**vars(self), "rules": ", ".join(map(str, mixin.RULES))}
        path.write_text(text.format(**names))
        return path

    def start(self, log, *command):
        with (self.directory / log).open("w") as out:
            self.processes.append(subprocess.Popen([str(word) for word in command], stdout=out, stderr=out))
        return self.processes[-1]

    def stop(self):
        for process in reversed(self.processes):
            stop(process)

    def start_server(self):
        faults = self.directory / "faults.yml"
        faults.write_text(FAULTS)
        self.start(
            "sink.log", LOADGEN, "sink", "--listen", f"127.0.0.1:{self.sink}", "--faults", faults,
            "--every", "0s", "--tls-cert", self.tls / "tls.crt", "--tls-key", self.tls / "tls.key",
        )
        self.write("upstreams.yml", UPSTREAMS)
        self.write("web.yml", WEB)
        until(lambda: listens(self.sink))
        launcher = self.with_hosts if self.has_twins else []
        config, spool = self.write("tenantry.yml", CONFIG), self.write("spool.yml", SPOOL)
        self.server = self.start("tenantry.log", *launcher, TENANTRY, "--config", config)
        self.with_spool = self.start("spool.log", *launcher, TENANTRY, "--config", spool)
        ports = (self.push, self.admin, self.spool_push, self.spool_admin)
        until(lambda: self.is_up() and all(map(listens, ports)))

    def is_up(self):
        for server, log in ((self.server, "tenantry.log"), (self.with_spool, "spool.log")):
            assert server.poll() is None, (self.directory / log).read_text()
        return True

    def wait(self):
        """Waits until there has been load for long enough, with a reload in the middle."""
        self.server.send_signal(signal.SIGHUP)
        rest = SECONDS_OF_LOAD - (time.monotonic() - self.began)
        time.sleep(max(rest, SECONDS_OF_LOAD / 2))
        self.is_up()

    def start_prometheus(self):
        prometheus = self.start(
            "prometheus.log", "prometheus", f"--config.file={self.write('prometheus.yml', PROMETHEUS)}",
            f"--storage.tsdb.path={self.directory / 'data'}", f"--web.listen-address=127.0.0.1:{self.prometheus}",
            "--log.level=warn",
        )

        def ready():
            assert prometheus.poll() is None, (self.directory / "prometheus.log").read_text()
            return listens(self.prometheus)

        until(ready)

    def start_senders(self):
        self.began = time.monotonic()
        for number, arguments in enumerate(SENDERS):
            path = "/loki/push" if "loki" in arguments else "/push"
            self.start(
                f"send-{number}.log", LOADGEN, "send", "--url", f"https://localhost:{self.push}{path}",
                "--ca", self.tls / "ca.crt", "--duration", f"{SECONDS_OF_LOAD_MAX}s", *arguments.split(),
            )
        self.start(
            "send-spool.log", LOADGEN, "send", "--url", f"http://localhost:{self.spool_push}/push",
            "--duration", f"{SECONDS_OF_LOAD_MAX}s", *SPOOLED.split(),
        )

    def page(self, path="/metrics", port=None):
        trusted = ssl.create_default_context(cafile=self.tls / "ca.crt")
        url = f"https://localhost:{port or self.admin}{path}"
        with urllib.request.urlopen(url, timeout=10, context=trusted) as page:
            return page.read().decode()

    def api(self, path, **parameters):
        """What Prometheus' API answers. A value may be a list."""
        data = urllib.parse.urlencode(parameters, doseq=True)
        url = f"http://127.0.0.1:{self.prometheus}/api/v1/{path}?{data}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def values(self, expression, instant=False):
        """All numbers that an expression gives, now or within the last seconds."""
        if instant:
            found = self.api("query", query=expression)["result"]
            numbers = [series["value"][1] for series in found]
        else:
            now = time.time()
            found = self.api("query_range", query=expression, start=now - 8, end=now, step=2)["result"]
            numbers = [value for series in found for _, value in series["values"]]
        return [float(number) for number in numbers if number != "NaN"]

    def variable(self, query, regex=""):
        """The values that a variable's query gives in Grafana."""
        if expression := re.fullmatch(r"query_result\((.*)\)", query):
            found = self.api("query", query=mixin.chosen(expression[1]))["result"]
            texts = ["{" + ",".join(f'{k}="{v}"' for k, v in series["metric"].items()) + "}" for series in found]
        else:
            selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", query).groups()
            texts = self.api(f"label/{label}/values", **{"match[]": mixin.chosen(selector)})
        if not regex:
            return texts
        # Python's names of groups have a P.
        pattern = re.compile(regex.strip("/").replace("(?<", "(?P<"))
        return [found["value"] for text in texts if (found := pattern.search(text))]


@contextmanager
def running(directory):
    live = Live(directory)
    with ExitStack() as ending:
        ending.callback(live.stop)
        live.start_server()
        live.start_prometheus()
        live.start_senders()
        yield live
