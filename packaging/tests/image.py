"""The image: what it holds, and how it runs where a cluster would run it.

The program runs in the unpacked root, which is mounted read-only, as the image's user, without capabilities and without
a way to gain any.
"""

import ctypes
import json
import os
import re
import shutil
import shlex
import socket
import struct
import threading
from pathlib import Path

import yaml
from world import REPOSITORY, Process, check, get, pushes_arrive, run, sink, until

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, CAPABILITIES = 24, 38, 64
SEED = REPOSITORY / "tests/fixtures/seed-kubernetes.yml"
MOZILLA = Path("/usr/share/ca-certificates/mozilla")
UPSTREAM = 19291
DOCUMENTS = ("usr/share/doc/tenantry/sbom.cdx.json", "usr/share/doc/tenantry/THIRD-PARTY-LICENSES.gz")


def certificates(file):
    return re.findall(r"-----BEGIN CERTIFICATE-----\n(.+?)\n-----END", file.read_text(), re.DOTALL)


class Names:
    """A name server on 127.0.0.1 that knows one name."""

    def __init__(self, name):
        self.labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))
        self.asked = 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            query, sender = self.socket.recvfrom(512)
            end = query.index(b"\0", 12) + 5
            question = query[12:end]
            known = question[:-4].lower() == self.labels
            address = known and question[-4:-2] == b"\0\x01"
            self.asked += known
            head = query[:2] + struct.pack(">HHHHH", 0x8180 if known else 0x8183, 1, int(address), 0, 0)
            record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01" if address else b""
            self.socket.sendto(head + question + record, sender)


class Container:
    """What a cluster would run: an image, its configuration, and what a manifest changes of it."""

    def __init__(self, image, name, files):
        self.image, self.path = image, image.work / name
        shutil.copytree(image.path, self.path, symlinks=True)
        # What a runtime and a ConfigMap put there.
        for path, text in files.items():
            (self.path / path).write_text(text)
        run("mount", "--bind", self.path, self.path)
        for directory in ("proc", "dev"):
            (self.path / directory).mkdir(exist_ok=True)
        run("mount", "-t", "proc", "proc", self.path / "proc")
        run("mount", "--rbind", "/dev", self.path / "dev")
        run("mount", "-o", "remount,bind,ro", self.path)

    def start(self, command=None, args=None, environment=()):
        """Runs it as Kubernetes would: `command` replaces the entry point and the arguments, `args` the arguments."""
        config = self.image.config
        line = (command or config["Entrypoint"]) + (args or ([] if command else config["Cmd"]))
        user, group = map(int, config["User"].split(":"))
        libc = ctypes.CDLL(None, use_errno=True)

        def enter():
            os.chroot(self.path)
            os.chdir(config["WorkingDir"])
            for capability in range(CAPABILITIES):
                # The kernel does not know them all.
                libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
            if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "no_new_privs")

        variables = dict(entry.split("=", 1) for entry in config.get("Env", [])) | dict(environment)
        self.process = Process(line, self.path.with_suffix(".log"), env=variables, preexec_fn=enter)

    def ready(self, port=8080):
        def answers():
            ended = self.process.child.poll()
            check(ended is None, f"it runs, but ended with {ended}: {self.process.output()}")
            return get(f"http://127.0.0.1:{port}/alive") == (200, "")

        until(answers, "the container answers")

    def end(self):
        self.process.end()


class Image:
    """The tests of one archive."""

    def __init__(self, out, work):
        (self.archive,) = out.glob("*.oci.tar")
        self.work = work / "image"
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)

    def contents(self):
        run("mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", self.work)
        layout = self.work / "layout"
        layout.mkdir()
        run("tar", "--extract", "--file", self.archive, "--directory", layout)
        index = json.loads((layout / "index.json").read_text())
        (manifest,) = index["manifests"]
        name = manifest["annotations"]["org.opencontainers.image.ref.name"]
        check(name.startswith("tenantry:"), f"the archive names the image, for podman load: {name}")
        # umoci takes no name with a colon.
        manifest["annotations"]["org.opencontainers.image.ref.name"] = "test"
        (layout / "index.json").write_text(json.dumps(index))
        run("umoci", "unpack", "--image", f"{layout}:test", self.work / "bundle")
        self.path = self.work / "bundle/rootfs"

        def blob(digest):
            return json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())

        details = blob(blob(manifest["digest"])["config"]["digest"])
        self.config = details["config"]
        check(self.config["Entrypoint"] == ["/usr/bin/tenantry"], f"entry point: {self.config}")
        check(self.config["User"] == "65534:65534", f"it is not root, and the user is a number: {self.config}")
        check(self.config["WorkingDir"] == "/data", f"directory: {self.config}")
        check(set(self.config["ExposedPorts"]) == {"8080/tcp", "9090/tcp"}, f"ports: {self.config}")
        for label in ("version", "revision", "licenses", "title"):
            check(self.config["Labels"].get(f"org.opencontainers.image.{label}"), f"label {label}: {self.config}")
        check(len(details["rootfs"]["diff_ids"]) == 1, "the files are in one layer")
        for file in ("etc/ssl/certs/ca-certificates.crt", *DOCUMENTS):
            check((self.path / file).stat().st_size > 1000, f"{file} is there")
        self.authorities()
        print(
            f"      {self.archive.stat().st_size / 1e6:.1f} MB, unpacked "
            f"{sum(f.stat().st_size for f in self.path.rglob('*') if f.is_file() and not f.is_symlink()) / 1e6:.1f} MB"
        )

    def authorities(self):
        """Private authorities of the machine that builds must not get into the image."""
        bundled = certificates(self.path / "etc/ssl/certs/ca-certificates.crt")
        mozilla = [one for file in sorted(MOZILLA.glob("*.crt")) for one in certificates(file)]
        check(len(bundled) == len(mozilla) > 100, f"{len(bundled)} authorities, of {len(mozilla)} of Mozilla's")
        check(set(bundled) == set(mozilla), "there is no authority of another source")

    def as_it_is(self):
        """Without a ConfigMap, with a variable for the target, whose name only DNS knows."""
        names = Names("thanos.example")
        upstream = sink(UPSTREAM, self.work / "sink.log")
        container = Container(self, "plain", {"etc/resolv.conf": "nameserver 127.0.0.1\n"})
        container.start(environment={"CT_TARGET": f"http://thanos.example:{UPSTREAM}/push"})
        container.ready()
        said = pushes_arrive(8080, UPSTREAM, "--requests", "50", label="__tenant__")
        check("every acknowledged sample is stored" in said, said)
        check(names.asked > 0, "the name server was asked")
        check(get("http://127.0.0.1:9090/metrics")[0] == 200, "metrics are on 9090")
        container.end()
        # Manifests that name cortex-tenant's program.
        container.start(command=["/cortex-tenant"], args=["-config", "/data/cortex-tenant.yml"])
        container.ready()
        container.end()
        container.start(args=["--check-config"], environment={"CT_TARGET": "nonsense://x"})
        check(container.process.wait() == 64, "bad settings end it with 64")
        upstream.end()

    def documented_command(self):
        """The commands of both READMEs, with series that have the label of their Prometheus examples."""
        for readme in (REPOSITORY / "README.md", REPOSITORY / "packaging/README.md"):
            (command,) = re.findall(r"podman run [^`\n]+", readme.read_text())
            words = shlex.split(command)
            variables = dict(
                value.split("=", 1) for option, value in zip(words, words[1:]) if option in ("-e", "--env")
            )
            check("//mimir:8080/" in variables["CT_TARGET"], f"the target of the command: {command}")
            variables["CT_TARGET"] = variables["CT_TARGET"].replace("mimir:8080", f"127.0.0.1:{UPSTREAM}")
            upstream = sink(UPSTREAM, self.work / "documented-sink.log")
            container = Container(self, f"documented-{readme.parent.name}", {})
            container.start(environment=variables)
            container.ready()
            said = pushes_arrive(8080, UPSTREAM, "--requests", "20", "--tenants", "payments,search")
            check("every acknowledged sample is stored" in said, said)
            stored = get(f"http://127.0.0.1:{UPSTREAM}/stats")[1]
            check("payments" in stored and "search" in stored, f"two tenants arrive: {stored}")
            container.end()
            upstream.end()

    def seed(self):
        """A user's manifests for cortex-tenant and Thanos Receive, with nothing changed but the image's name."""
        text = SEED.read_text().replace("ghcr.io/blind-oracle/cortex-tenant:latest", "tenantry:latest")
        check("tenantry:latest" in text, "the manifest names the image")
        documents = {document["kind"]: document for document in yaml.safe_load_all(text)}
        pod = documents["Deployment"]["spec"]["template"]["spec"]
        (spec,) = pod["containers"]
        (mount,) = spec["volumeMounts"]
        (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])
        check(volume["configMap"]["name"] == documents["ConfigMap"]["metadata"]["name"], "the volume is the ConfigMap")
        files = {mount["mountPath"].lstrip("/") + name: text for name, text in documents["ConfigMap"]["data"].items()}
        # The cluster's name of the upstream.
        files["etc/hosts"] = "127.0.0.1 localhost thanos-routing-receiver.monitoring.svc\n"
        # It counts samples by THANOS-TENANT alone.
        upstream = sink(UPSTREAM, self.work / "seed-sink.log", "--tenant-header", "THANOS-TENANT")
        container = Container(self, "seed", files)
        container.start(spec.get("command"), spec.get("args"), {e["name"]: e["value"] for e in spec.get("env", [])})
        (port,) = (port["containerPort"] for port in spec["ports"])
        container.ready(port)
        said = pushes_arrive(port, UPSTREAM, "--requests", "50", "--tenants", "kube-state-metrics,grafana")
        check("every acknowledged sample is stored" in said, said)
        stored = json.loads(get(f"http://127.0.0.1:{UPSTREAM}/stats")[1])
        check(all(name in json.dumps(stored) for name in ("kube-state-metrics", "grafana")), f"by tenant: {stored}")
        check(get("http://127.0.0.1:9090/metrics")[0] == 200, "metrics are on 9090")
        check(get("http://127.0.0.1:7008/debug/pprof/") is not None, "the profiling port answers")
        container.end()
        upstream.end()


def tests(out, _newer, work):
    image = Image(out, work)
    yield "contents", image.contents
    yield "as it is", image.as_it_is
    yield "as the READMEs say", image.documented_command
    yield "a user's manifests", image.seed
