"""What perf/pages shows: two real servers and their load, with five and with ten thousand tenants.

Load and faults are the same each time. What a picture shows still varies a little, as it is measured.
"""

import time
from contextlib import ExitStack, contextmanager

from programs import BINARIES, free_port, listens, until
from server import process

# The lines of the overview are two minutes long, and loadgen makes its bodies first.
SECONDS = 138

LIMITED = "per-user series limit of 150000 exceeded (err-mimir-max-series-per-user)"
RATE = "the request has been rejected because the tenant exceeded the ingestion rate limit, set to 10000 items/s"
OLD = "received a sample whose timestamp is too far in the past (err-mimir-sample-timestamp-too-old)"


def status(tenant, share, code, text):
    return f"""
  - tenant: {tenant}
    share: {share}
    status: {{code: {code}, headers: {{Content-Type: text/plain}}, body: "{text}"}}"""


FAULTS_FEW = f"""
seed: 1
rules:
  - latency: 3ms..12ms{status("identity", 0.02, 429, LIMITED)}
"""

# Identity has errors of all kinds, and requests that are too large. Checkout is slow at last.
FAULTS_MANY = f"""
seed: 1
rules:
  - latency: 2ms..9ms
  - {{tenant: checkout, from: 100s, share: 0.5, latency: 6s}}
  - {{tenant: identity, body_bytes_max: 6000}}
  - {{tenant: identity, share: 0.01, reset: before_reply}}{
    status("identity", 0.02, 429, RATE)}{status("identity", 0.02, 400, OLD)}{status("mail", 0.1, 429, LIMITED)}{
    status("'team-02*'", 0.02, 429, LIMITED)}{status("'team-12*'", 0.02, 400, OLD)}
"""

CONFIG = """
listen: 127.0.0.1:{push}
listen_metrics_address: 127.0.0.1:{admin}
target: http://localhost:{mimir}/api/v1/push
target_loki: http://localhost:{loki}/loki/api/v1/push
auth: {{egress: {{username: tenantry, password: secret-of-the-upstream}}}}
tenant: {{label: __tenant__}}
cores: 4
"""

CONFIG_MANY = """
limits: {tenants_max: 20000, tenants_per_request_max: 16000}
metrics_include_tenant: true
"""

# Nothing listens where the tenants of the second go.
UPSTREAMS = """
- {{name: eu, tenants: [eu-*], target: "http://localhost:{eu}/api/v1/push"}}
- {{name: lab, tenants: [lab-*], target: "http://localhost:{lab}/api/v1/push"}}
"""

# When it begins, and what is sent. Bodies hardly ever repeat: a sender that sends one again after an error is taken to
# retry, and what was stored of it is not sent again.
LOAD_FEW = [
    (0, "--tenants payments:8,search:5,checkout:3,identity:2,ledger:1 --rate 16 --series 2000 --bodies 250"),
    (0, "--tenants payments:3,ledger:1 --format loki --rate 6 --series 300 --bodies 100"),
    (35, "--tenants payments:2,checkout:3 --rate 8 --series 1500 --bodies 40 --duration 38s"),
    (85, "--tenants search --rate 10 --series 1000 --bodies 40 --duration 25s"),
]

LOAD_MANY = [
    (0, "--tenants 10000 --distribution zipf:0.7 --run-length 1 --series 10000 --rate 1 --senders 4 --bodies 35"),
    (0, "--tenants payments:9,search:6,identity:3,ledger:3,catalog:2,mail --rate 12 --series 1500 --bodies 200"),
    (0, "--tenants checkout --rate 8 --series 300 --senders 48 --bodies 25"),
    (0, "--tenants payments:3,shipping:1 --format loki --rate 6 --series 150 --bodies 100"),
    (0, "--tenants eu-payments:4,eu-search:2,eu-mail --rate 5 --series 900 --bodies 90"),
    (20, "--tenants lab-17 --rate 0.5 --series 40"),
    (45, "--tenants payments:2,catalog:3 --rate 8 --series 1200 --bodies 50 --duration 40s"),
]


def arguments(line):
    """Those of a line above. It sends to the end unless it says otherwise."""
    words = line.split()
    return words if "--duration" in words else [*words, "--duration", f"{3 * SECONDS}s"]


class Scene:
    def __init__(self, stack, directory, faults, more=""):
        self.stack, self.directory = stack, directory
        self.push, self.admin, self.started = free_port(), free_port(), 0
        mimir, loki, eu, lab = (free_port() for _ in range(4))
        directory.mkdir()
        (directory / "faults.yml").write_text(faults)
        (directory / "upstreams.yml").write_text(UPSTREAMS.format(eu=eu, lab=lab))
        config = CONFIG.format(push=self.push, admin=self.admin, mimir=mimir, loki=loki) + more
        if more:
            config += f"upstreams: {directory / 'upstreams.yml'}\n"
        (directory / "tenantry.yml").write_text(config)
        for port in (mimir, loki, eu):
            sink = ["--listen", f"127.0.0.1:{port}", "--every", "0s", "--connections-max", "4096"]
            self.start("loadgen", "sink", *sink, *(["--faults", directory / "faults.yml"] if port == mimir else []))
        until(lambda: all(map(listens, (mimir, loki, eu))))
        self.start("tenantry", "--config", directory / "tenantry.yml")
        until(lambda: listens(self.push) and listens(self.admin))

    def start(self, program, *arguments):
        self.started += 1
        log = self.directory / f"{program}-{self.started}.log"
        self.stack.enter_context(process(BINARIES / program, *arguments, log=log, cores=4))

    def send(self, line):
        path = "/loki/api/v1/push" if "loki" in line else "/push"
        self.start("loadgen", "send", "--url", f"http://127.0.0.1:{self.push}{path}", *arguments(line))


@contextmanager
def scenes(directory):
    """Gives the URLs of the admin addresses by numbers of tenants, once there is something to see."""
    with ExitStack() as stack:
        few = Scene(stack, directory / "few", FAULTS_FEW)
        many = Scene(stack, directory / "many", FAULTS_MANY, CONFIG_MANY)
        begun = time.monotonic()
        load = [(at, few, line) for at, line in LOAD_FEW] + [(at, many, line) for at, line in LOAD_MANY]
        for at, scene, line in sorted(load, key=lambda each: each[0]):
            time.sleep(max(0, begun + at - time.monotonic()))
            scene.send(line)
        time.sleep(max(0, begun + SECONDS - time.monotonic()))
        yield {5: f"http://127.0.0.1:{few.admin}", 10_000: f"http://127.0.0.1:{many.admin}"}
