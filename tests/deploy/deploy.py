"""What the tests of manifests and chart share: rendering, validating, and trying the configuration."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import helm_python
import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor
from programs import ROOT, TENANTRY

KUSTOMIZE = ROOT / "configs/kubernetes"
CHART = ROOT / "configs/helm/tenantry"
CASES = ROOT / "configs/helm/tests"
# The oldest version that the chart names, and the newest that the validator knows.
KUBERNETES = ["1.25", kubernetes_validate.latest_version()]
OPERATOR = {"ServiceMonitor": ServiceMonitor, "PrometheusRule": PrometheusRule}


def run(*command, **options):
    command = [str(word) for word in command]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def objects(text):
    return [document for document in yaml.safe_load_all(text) if document]


def find(things, kind):
    return next((thing for thing in things if thing["kind"] == kind), None)


def workload(things):
    """What makes the pods: a Deployment, or with a spool a StatefulSet."""
    (found,) = [thing for thing in things if thing["kind"] in ("Deployment", "StatefulSet")]
    return found


def kustomize(directory):
    done = run(Path(sys.executable).parent / "kubectl", "kustomize", directory)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def chart():
    return helm_python.Chart.load(CHART)


def render(values, release="rel", namespace="ns"):
    """The chart's objects as text, in the order of their files, without the notes."""
    files = chart().render(values, name=release, namespace=namespace)
    texts = [
        f"# {name}\n{text.strip()}\n"
        for name, text in sorted(files.items())
        if text.strip() and not name.endswith("NOTES.txt")
    ]
    return "---\n" + "---\n".join(texts)


def case(name):
    return yaml.safe_load((CASES / "values" / f"{name}.yaml").read_text())


CASE_NAMES = sorted(path.stem for path in (CASES / "values").glob("*.yaml"))


def validate(thing):
    """Checks an object against the schema of its kind. Unknown fields are errors."""
    if model := OPERATOR.get(thing["kind"]):
        read = model.model_validate(thing).model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert read == thing, "the Prometheus Operator does not know some field"
        return
    for version in KUBERNETES:
        kubernetes_validate.validate(thing, version, strict=True)


ALLOWED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}


QUANTITY_UNITS = {"": 1, "m": 1e-3}
for power, unit in enumerate("kMGTPE", 1):
    QUANTITY_UNITS |= {unit: 1000**power, f"{unit.upper()}i": 1024**power}


def quantity(text):
    """The number that a quantity such as 1Gi, 500m or 1e9 means."""
    number, unit = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]*)", str(text)).groups()
    return float(number) * QUANTITY_UNITS[unit]


def requests_fit_limits(pod):
    """Checks what the API server demands beyond the schema."""
    for container in pod["containers"] + pod.get("initContainers", []):
        resources = container["resources"]
        limits = resources.get("limits") or {}
        for name, request in (resources.get("requests") or {}).items():
            if name in limits:
                assert quantity(request) <= quantity(limits[name]), f"{name}: {request} > {limits[name]}"


def is_restricted(pod):
    """Checks the rules of the Pod Security Standard "restricted"."""
    of_pod = pod["securityContext"]
    for container in pod["containers"] + pod.get("initContainers", []):
        context = {**of_pod, **container["securityContext"]}
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["runAsNonRoot"] is True and context.get("runAsUser") != 0
        assert context["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
        assert not context.get("privileged") and "procMount" not in context
        assert all("hostPort" not in port for port in container.get("ports", []))
    assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")) and "sysctls" not in of_pod
    for volume in pod.get("volumes", []):
        assert set(volume) - {"name"} <= ALLOWED_VOLUMES, volume


def pods(things):
    """The specification of each pod that the objects make."""
    specs = [thing["spec"] for thing in things if thing["kind"] in ("Deployment", "StatefulSet", "Pod")]
    return [spec["template"]["spec"] if "template" in spec else spec for spec in specs]


def seconds(duration):
    units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)(ms|h|m|s)", duration))


def fit_together(things):
    """Checks what one object says about another."""
    made, services = workload(things), [thing for thing in things if thing["kind"] == "Service"]
    template = made["spec"]["template"]
    labels, pod = template["metadata"]["labels"].items(), template["spec"]
    for each in pods(things):
        is_restricted(each)
        requests_fit_limits(each)
    container = pod["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert made["spec"]["selector"]["matchLabels"].items() <= labels
    volumes_fit(made)
    published = [port["targetPort"] for service in services for port in service["spec"]["ports"]]
    assert sorted(published) == sorted(ports)
    for service in services:
        assert service["spec"]["selector"].items() <= labels
        if service["spec"].get("type", "ClusterIP") != "ClusterIP":
            assert [port["name"] for port in service["spec"]["ports"]] == ["http"], "metrics are for the cluster"
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        if thing := find(things, kind):
            spec = thing["spec"]
            assert (spec.get("selector") or spec["podSelector"])["matchLabels"].items() <= labels
    for constraint in pod.get("topologySpreadConstraints", []):
        assert constraint["labelSelector"]["matchLabels"].items() <= labels
    if probe := container.get("readinessProbe"):
        assert probe["httpGet"]["path"] == "/alive" and probe["httpGet"]["port"] in ports
    if probe := container.get("livenessProbe"):
        assert probe.get("httpGet", {"path": "/alive"})["path"] == "/alive"
        assert (probe.get("httpGet") or probe["tcpSocket"])["port"] == "http-metrics"
    if monitor := find(things, "ServiceMonitor"):
        selector, port = monitor["spec"]["selector"]["matchLabels"], monitor["spec"]["endpoints"][0]["port"]
        scraped = [
            service["metadata"]["name"] for service in services
            if selector.items() <= service["metadata"]["labels"].items()
            and port in {port["name"] for port in service["spec"]["ports"]}
        ]
        assert len(scraped) == 1
        # The operator makes the Service's name the label `job`.
        if rule := find(things, "PrometheusRule"):
            jobs = set(re.findall(r'\bjob="([^"]*)"', str(rule)))
            assert jobs <= set(scraped), f"alerts are about {jobs}"
    if scaler := find(things, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == (made["kind"], made["metadata"]["name"])
        assert "replicas" not in made["spec"]
    if made["kind"] == "StatefulSet":
        assert made["spec"]["serviceName"] in {service["metadata"]["name"] for service in services}
    if account := find(things, "ServiceAccount"):
        assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
    settings = {"http": "listen", "http-metrics": "listen_metrics_address"}
    assert ports == {name: int(config(things)[key].rpartition(":")[2]) for name, key in settings.items()}


def volumes_fit(made):
    """Checks that each mount has a volume, and each volume a mount. The spool is on a volume of the pod's own."""
    pod, claims = made["spec"]["template"]["spec"], made["spec"].get("volumeClaimTemplates", [])
    volumes = [volume["name"] for volume in pod["volumes"]] + [claim["metadata"]["name"] for claim in claims]
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert sorted(mounts) == sorted(volumes)
    for claim in claims:
        assert not mounts[claim["metadata"]["name"]].get("readOnly")


def config_map(things, pod):
    name = next(volume["configMap"]["name"] for volume in pod["volumes"] if volume["name"] == "config")
    return next(thing["data"] for thing in things if thing["kind"] == "ConfigMap" and thing["metadata"]["name"] == name)


def config(things):
    pod = workload(things)["spec"]["template"]["spec"]
    return yaml.safe_load(config_map(things, pod)["tenantry.yml"])


def variables(things, container):
    """The variables that the container would get. For those from elsewhere there are stand-ins."""
    stand_ins = {
        "limits.cpu": "2", "requests.cpu": "1", "value": "X-Api-Key: abc", "token": "abc",
        "CT_AUTH_EGRESS_USERNAME": "writer", "CT_AUTH_EGRESS_PASSWORD": "secret",
    }
    if secret := find(things, "Secret"):
        stand_ins |= secret["stringData"]
    found = {}
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {})
        field = source.get("resourceFieldRef", {}).get("resource") or source.get("secretKeyRef", {}).get("key")
        found[variable["name"]] = variable["value"] if field is None else stand_ins[field]
    return found


def accepts(things, directory, secrets=None):
    """Lets the real program check the files that the container would have."""
    pod = workload(things)["spec"]["template"]["spec"]
    container = pod["containers"][0]
    files = {f"/etc/tenantry/{name}": text for name, text in config_map(things, pod).items()} | (secrets or {})
    paths = "|".join(re.escape(mount["mountPath"]) for mount in container["volumeMounts"])
    for path, text in files.items():
        assert re.match(f"({paths})/", path), f"{path} is mounted nowhere"
        file = Path(f"{directory}{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(re.sub(rf"(?<![\w/])(?=({paths})/)", str(directory), text))
    arguments = [str(directory) + word if word.startswith("/etc/") else word for word in container["args"]]
    done = run(TENANTRY, "--check-config", *arguments, env=variables(things, container))
    assert done.returncode == 0, done.stdout + done.stderr
