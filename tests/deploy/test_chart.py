"""The chart in configs/helm/tenantry, as Helm's own engine renders it.

UPDATE_GOLDEN=1 writes configs/helm/tests/golden anew."""

import contextlib
import copy
import os
import re
import socket
import urllib.error

import helm_python
import pytest
import yaml

import deploy
import server
from material import certificates

# Files in the secrets that the values name.
SECRETS = {
    "tls": {"/secrets/upstream/token": "abc\n"},
    "everything": {
        "/secrets/web/web.yml": "basic_auth_users: {a: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze}\n"
    },
}


@pytest.fixture(scope="module", params=deploy.CASE_NAMES)
def rendered(request):
    return request.param, deploy.render(deploy.case(request.param))


@pytest.fixture(scope="module")
def things(rendered):
    return deploy.objects(rendered[1])


def changed(**values):
    """The least values, with changes: `service__port=1` is service.port."""
    merged = copy.deepcopy(deploy.case("minimal"))
    for path, value in values.items():
        section = merged
        *parents, last = path.split("__")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return merged


def pod_of(values):
    return deploy.workload(deploy.objects(deploy.render(values)))["spec"]["template"]


def config_of(values):
    return deploy.config(deploy.objects(deploy.render(values)))


def test_the_image_is_that_of_the_manifests():
    manifest = (deploy.KUSTOMIZE / "base/deployment.yaml").read_text()
    assert pod_of(changed())["spec"]["containers"][0]["image"] == re.search(r"image: (\S+)", manifest)[1]


def test_there_are_six_cases():
    assert len(deploy.CASE_NAMES) == 6


def test_it_is_as_it_was(rendered):
    name, text = rendered
    golden = deploy.CASES / "golden" / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text(), "if this is meant: UPDATE_GOLDEN=1 .ci/kubernetes"


def test_each_object_is_valid(things):
    for thing in things:
        deploy.validate(thing)


def test_the_objects_fit_together(things):
    deploy.fit_together(things)


def test_the_program_accepts_the_configuration(rendered, things, tmp_path):
    name, _ = rendered
    secrets = dict(SECRETS.get(name, {}))
    if name == "tls":
        secrets["/secrets/upstream/ca.crt"] = (certificates() / "ca.crt").read_text()
        for file in ("tls.crt", "tls.key", "ca.crt"):
            secrets[f"/etc/tenantry-tls/{file}"] = (certificates() / file).read_text()
    deploy.accepts(things, tmp_path, secrets)


def test_lint_finds_nothing(rendered):
    # Severity 2 is a warning. A chart without an icon is worth 1.
    for values in ({}, deploy.case(rendered[0])):
        report = helm_python.lint(deploy.CHART, values, strict=True, namespace="ns")
        assert not report["errors"] and all(message["severity"] < 2 for message in report["messages"]), report


def test_the_schema_knows_the_settings_of_the_program():
    done = deploy.run(deploy.TENANTRY, "--print-default-config")

    def of_schema(schema):
        if inner := schema.get("properties"):
            return {key: of_schema(value) for key, value in inner.items()}

    def of_file(section):
        if section and isinstance(section, dict):
            return {key: of_file(value) for key, value in section.items()}

    known = of_schema(deploy.chart().schema["properties"]["config"])
    for key in ("enabled", "username", "password", "existingSecret"):
        del known["auth"][key]
    assert known == of_file(yaml.safe_load(done.stdout))


@pytest.mark.parametrize(("values", "told"), [
    ({"replica": 3}, "replica"),
    ({"replicas": "three"}, "/replicas"),
    ({"config__traget": "http://a/"}, "traget"),
    ({"config__tenant": {"lable": "tenant"}}, "lable"),
    ({"config__timeout": "10x"}, "/config/timeout"),
    ({"config__listen": "8080"}, "/config/listen"),
    ({"config__listen": ""}, "/config/listen"),
    ({"config__log_level": "verbose"}, "/config/log_level"),
    ({"config__driver": "kqueue"}, "/config/driver"),
    ({"service__type": "Headless"}, "/service/type"),
    ({"service__port": 70000}, "/service/port"),
    ({"seccompProfile__type": "Unconfined"}, "/seccompProfile/type"),
    ({"resources__limits": {"memory": "1 GB"}}, "/resources/limits/memory"),
    ({"resources__limits": {"memory": "500m"}}, "/resources/limits/memory"),
    ({"podDisruptionBudget__minAvailable": "half"}, "/podDisruptionBudget/minAvailable"),
    ({"image__digest": "latest"}, "/image/digest"),
    ({"envs": [{"value": "x"}]}, "/envs/0"),
    ({"envs": [{"name": "x"}]}, "/envs/0"),
    ({"envs": [{"name": "x", "value": "y", "valueFrom": {}}]}, "/envs/0"),
    ({"envs": [{"name": "x", "value": 1.5}]}, "/envs/0"),
    ({"podAnnotations": {"a": 1}}, "/podAnnotations/a"),
    ({"tls__clientAuth": "always"}, "/tls/clientAuth"),
    ({"spool": {"enabled": True, "size": "10 GB"}}, "/spool/size"),
    ({"config__spool": {"when": "never"}}, "/config/spool/when"),
    ({"config__spool": {"directory": "/a"}}, "directory"),
])
def test_the_schema_refuses(values, told):
    with pytest.raises(helm_python.HelmError) as refused:
        deploy.chart().validate_schema(changed(**values))
    assert told in str(refused.value)


@pytest.mark.parametrize(("values", "told"), [
    ({"config__target": ""}, "config.target is required"),
    ({"resources": {"limits": {"memory": "126Mi"}, "requests": None}}, "memory is 126Mi, but must be at least 127Mi"),
    ({"resources__limits": {"memory": "256Mi"},
      "config__limits": {"body_bytes_max": "64Mi", "inflated_bytes_max": "1Gi"}},
     "one request of the largest size takes 1140867072 bytes"),
    ({"resources__limits": {"cpu": "500m"}}, "resources.requests.cpu is 1, but resources.limits.cpu is 500m"),
    ({"resources__limits": {"memory": "128Mi"}}, "requests.memory is 256Mi, but resources.limits.memory is 128Mi"),
    ({"resources": {"requests": {"cpu": 4}, "limits": {"cpu": 2}}}, "requests.cpu is 4, but resources.limits.cpu is 2"),
    ({"resources": {"requests": {"cpu": "1500m"}, "limits": {"cpu": 1.4}}}, "resources.limits.cpu is 1.4"),
    ({"resources": {"requests": {"memory": "1Ki"}, "limits": {"memory": 1}}}, "resources.limits.memory is 1"),
    ({"service__targetPort": 8081}, "service.targetPort is 8081, but config.listen is :8080"),
    ({"serviceMonitor__targetPort": 1}, "serviceMonitor.targetPort is 1, but config.listen_metrics_address is :9090"),
    ({"config__auth": {"enabled": True, "username": "a"}}, "config.auth.enabled needs"),
    ({"tls__clientAuth": "require"}, "tls.clientAuth is require, but needs tls.existingSecret"),
    ({"probes__port": "http-metrics", "config__auth": {"admin": {"web_config_file": "/a"}}},
     "probes.scheme is required"),
    ({"config__auth": {"admin": {"web_config_file": "/a"}, "ingress": {"web_config_file": "/a"}}},
     "probes.scheme is required"),
    ({"podLabels": {"app.kubernetes.io/instance": "a"}}, "podLabels: app.kubernetes.io/instance"),
    ({"config__auth": {"egress": {"password": "a"}}}, "config.auth.egress.password_file"),
    ({"config__auth": {"egress": {"bearer_token": "a"}}}, "config.auth.egress.bearer_token_file"),
    ({"config__upstream": {"headers": {"X-Api-Key": "a"}}}, "CT_UPSTREAM_HEADERS"),
    ({"autoscaling": {"enabled": True, "minReplica": 3, "maxReplica": 2}}, "minReplica is 3, but maxReplica is 2"),
    ({"autoscaling__enabled": True, "resources__requests": None}, "autoscaling by cpu needs resources.requests.cpu"),
    ({"autoscaling": {"enabled": True, "targetMemoryUtilizationPercentage": 80},
      "resources": {"requests": {"memory": None}, "limits": None}}, "needs resources.requests.memory"),
    ({"spool__enabled": True, "autoscaling__enabled": True}, "spool.enabled and autoscaling.enabled"),
    ({"spool__enabled": True, "config__tenant": {"accept_all": True}}, "spool.enabled and config.tenant.accept_all"),
    ({"spool__enabled": True, "config__spool": {"dir": "/spool"}}, "config.spool.dir is /spool, but must be a folder"),
    ({"spool": {"enabled": True, "size": "79Mi"}}, "spool.size is 79Mi, but must be at least 80Mi"),
    ({"spool": {"enabled": True, "size": None}}, "but must be at least 80Mi"),
    ({"spool": {"enabled": True, "size": "1Gi"}, "config__spool": {"bytes_max": "2Gi"}},
     "config.spool.bytes_max is 2Gi, but spool.size is 1Gi"),
    ({"config__spool": {"dir": "/var/lib/tenantry/spool"}}, "config.spool.dir needs spool.enabled"),
    ({"service__port": 9090}, "service.port and service.metricsPort are both 9090"),
    ({"files": {"tenantry.yml": ""}}, "is made of `config`"),
    ({"replica": 3}, "replica"),
])
def test_rendering_refuses(values, told):
    with pytest.raises(helm_python.HelmError) as refused:
        deploy.render(changed(**values))
    assert told in str(refused.value)


@pytest.mark.parametrize(("variable", "key"), [
    ("CT_LISTEN", "listen"),
    ("CT_LISTEN_METRICS_ADDRESS", "listen_metrics_address"),
    ("CT_LISTEN_PPROF", "listen_pprof"),
    ("CT_TIMEOUT", "timeout"),
    ("CT_TIMEOUT_SHUTDOWN", "timeout_shutdown"),
    ("CT_TLS_CERT_FILE", "auth.ingress.tls_config.cert_file"),
    ("CT_TLS_KEY_FILE", "auth.ingress.tls_config.key_file"),
    ("CT_AUTH_INGRESS_TLS_CONFIG_CLIENT_AUTH", "auth.ingress.tls_config.client_auth"),
    ("CT_AUTH_INGRESS_WEB_CONFIG_FILE", "auth.ingress.web_config_file"),
    ("CT_AUTH_ADMIN_WEB_CONFIG_FILE", "auth.admin.web_config_file"),
    ("CT_LIMITS_HEAD_BYTES_MAX", "limits.head_bytes_max"),
    ("CT_LIMITS_BODY_BYTES_MAX", "limits.body_bytes_max"),
    ("CT_LIMITS_INFLATED_BYTES_MAX", "limits.inflated_bytes_max"),
    ("CT_LIMITS_IN_FLIGHT_BYTES_MAX", "limits.in_flight_bytes_max"),
    ("CT_SPOOL_DIR", "spool.dir"),
    ("CT_SPOOL_BYTES_MAX", "spool.bytes_max"),
    ("CT_SPOOL_TENANT_BYTES_MAX", "spool.tenant_bytes_max"),
])
def test_what_the_chart_reads_is_no_variable(variable, key):
    documented = deploy.run(deploy.TENANTRY, "--print-default-config").stdout
    assert f"[{variable}]" in documented, "the program has no such variable"
    with pytest.raises(helm_python.HelmError) as refused:
        deploy.render(changed(envs=[{"name": variable, "value": "x"}]))
    assert f"envs: set config.{key}:" in str(refused.value)


@pytest.mark.parametrize("auth", [
    {"enabled": True, "username": "a", "password": "b"},
    {"enabled": True, "existingSecret": "mine"},
], ids=["own", "existing"])
def test_a_secret_without_the_keys_stops_the_pod(auth, tmp_path):
    """A reference to a key stops it. envFrom would start it without authentication."""
    things = deploy.objects(deploy.render(changed(config__auth=auth)))
    deploy.accepts(things, tmp_path)
    container = deploy.pods(things)[0]["containers"][0]
    assert "envFrom" not in container
    for name in ("CT_AUTH_EGRESS_USERNAME", "CT_AUTH_EGRESS_PASSWORD"):
        reference = {"name": auth.get("existingSecret", "rel-tenantry-auth"), "key": name}
        assert {"name": name, "valueFrom": {"secretKeyRef": reference}} in container["env"]
    with pytest.raises(helm_python.HelmError, match="config.auth.password"):
        deploy.render(changed(config__auth=auth, envs=[{"name": "CT_AUTH_EGRESS_PASSWORD", "value": "x"}]))


def test_a_bearer_token_may_be_a_variable(tmp_path):
    token = {"name": "CT_AUTH_EGRESS_BEARER_TOKEN", "valueFrom": {"secretKeyRef": {"name": "upstream", "key": "token"}}}
    deploy.accepts(deploy.objects(deploy.render(changed(envs=[token]))), tmp_path)


def test_names_like_numbers_stay_strings():
    things = deploy.objects(deploy.render(changed(nameOverride="123", fullnameOverride="a"), release="456"))
    for thing in things:
        deploy.validate(thing)
        assert thing["metadata"]["labels"]["app.kubernetes.io/instance"] == "456"
    deploy.fit_together(things)


def test_null_is_no_image_version():
    expected = pod_of(changed())["spec"]["containers"][0]["image"]
    assert pod_of(changed(image={"tag": None, "digest": None}))["spec"]["containers"][0]["image"] == expected
    deploy.chart().validate_schema(changed(image={"tag": None, "digest": None}))


def test_the_pod_of_helm_test_runs_where_the_others_do():
    tolerations = [{"key": "dedicated", "operator": "Exists"}]
    values = changed(
        image__pullSecrets=["registry"], nodeSelector={"pool": "a"}, tolerations=tolerations,
        podSecurityContext={"runAsUser": None, "runAsGroup": None},
    )
    things = deploy.objects(deploy.render(values))
    deploy.fit_together(things)
    for thing in things:
        deploy.validate(thing)
    for pod in deploy.pods(things):
        assert pod["imagePullSecrets"] == [{"name": "registry"}] and pod["nodeSelector"] == {"pool": "a"}
        assert pod["tolerations"] == tolerations
        assert "runAsUser" not in pod["securityContext"] and "runAsGroup" not in pod["securityContext"]


@pytest.mark.parametrize(("shutdown", "timeout", "seconds"), [
    ("10s", "10s", 90),
    ("0s", "10s", 80),
    ("1m30s", "15s", 205),
    ("1.5s", "500ms", 15),
    ("10s", "", 90),
    ("1h0m", "1m", 4030),
])
def test_the_grace_period_covers_stopping(shutdown, timeout, seconds):
    pod = pod_of(changed(config__timeout_shutdown=shutdown, config__timeout=timeout))
    assert pod["spec"]["terminationGracePeriodSeconds"] == seconds


@pytest.mark.parametrize(("memory", "in_flight"), [
    ("1Gi", 512 << 20),
    ("1.5Gi", 768 << 20),
    ("3G", 1_500_000_000),
    (1 << 31, 1 << 30),
    ("1e9", 500_000_000),
    ("1P", 500_000_000_000_000),
    ("1Ei", 1 << 59),
    ("256Mi", 128 << 20),
    ("128Mi", (72 << 20) + (16 << 10)),
    ("127Mi", (72 << 20) + (16 << 10)),
])
def test_half_of_the_memory_may_be_in_flight(memory, in_flight, tmp_path):
    values = changed(resources__limits={"memory": memory}, resources__requests={"memory": "127Mi"})
    assert config_of(values)["limits"] == {"in_flight_bytes_max": in_flight}
    deploy.accepts(deploy.objects(deploy.render(values)), tmp_path)


def test_one_request_of_the_largest_size_may_be_in_flight(tmp_path):
    sizes = {"head_bytes_max": "1Mi", "body_bytes_max": 9 << 20, "inflated_bytes_max": "500Mi"}
    values = changed(resources__limits={"memory": "900Mi"}, config__limits=sizes)
    assert config_of(values)["limits"] == {**sizes, "in_flight_bytes_max": 510 << 20}
    deploy.accepts(deploy.objects(deploy.render(values)), tmp_path)


@pytest.mark.parametrize(("requests", "memory"), [
    ({"cpu": 4}, "1Gi"),
    ({"cpu": "100m", "memory": "128Mi"}, "1Gi"),
    ({"memory": "1Gi"}, "1Gi"),
    ({"memory": "2Gi"}, "2Gi"),
    ({"memory": 1 << 31}, 1 << 31),
])
def test_requests_alone_are_enough(requests, memory, tmp_path):
    values = changed(resources__requests=requests)
    things = deploy.objects(deploy.render(values))
    deploy.fit_together(things)
    deploy.accepts(things, tmp_path)
    # PyYAML reads 2.147483648e+09 as a number, as the API server does.
    limits = deploy.pods(things)[0]["containers"][0]["resources"]["limits"]
    assert list(limits) == ["memory"] and limits["memory"] == memory
    assert config_of(values)["limits"]["in_flight_bytes_max"] == deploy.quantity(memory) / 2


def test_without_a_memory_limit_the_program_decides():
    assert "limits" not in config_of(changed(resources__limits=None))


@pytest.mark.parametrize(("values", "resource"), [
    ({}, "requests.cpu"),
    ({"resources__limits": {"cpu": 2}}, "limits.cpu"),
    ({"resources": {"limits": None, "requests": None}}, None),
    ({"config__cores": 4}, None),
    ({"envs": [{"name": "CT_CORES", "value": 3}]}, None),
])
def test_threads_follow_the_cpus(values, resource):
    variables = pod_of(changed(**values))["spec"]["containers"][0].get("env", [])
    found = [v["valueFrom"]["resourceFieldRef"]["resource"] for v in variables if "valueFrom" in v]
    assert found == ([resource] if resource else [])


def test_a_change_of_the_configuration_replaces_the_pods():
    def checksum(**values):
        return pod_of(changed(**values))["metadata"]["annotations"]

    assert checksum() == checksum(replicas=5)
    assert checksum() != checksum(config__log_level="info")
    assert checksum() != checksum(files={"tenants.yml": "[]"})
    auth = {"enabled": True, "username": "a", "password": "b"}
    assert checksum(config__auth=auth) != checksum(config__auth={**auth, "password": "c"})


def test_no_password_is_in_the_config_map():
    text = deploy.render(changed(config__auth={"enabled": True, "username": "a", "password": "hunter2"}))
    assert [thing["kind"] for thing in deploy.objects(text) if "hunter2" in str(thing)] == ["Secret"]


@pytest.mark.parametrize(("values", "port", "scheme"), [
    ({}, "http", "HTTP"),
    ({"tls__existingSecret": "a"}, "http", "HTTPS"),
    ({"tls__existingSecret": "a", "tls__clientAuth": "verify_if_given"}, "http", "HTTPS"),
    ({"tls__existingSecret": "a", "tls__clientAuth": "require"}, "http-metrics", "HTTP"),
    ({"config__auth": {"ingress": {"tls_config": {"cert_file": "/a", "key_file": "/b"}}}}, "http", "HTTPS"),
    ({"config__auth": {"ingress": {"web_config_file": "/a"}}}, "http-metrics", "HTTP"),
    ({"probes__port": "http-metrics", "probes__scheme": "HTTPS"}, "http-metrics", "HTTPS"),
])
def test_probes_ask_where_they_are_answered(values, port, scheme):
    values = changed(**values)
    probe = pod_of(values)["spec"]["containers"][0]["readinessProbe"]["httpGet"]
    assert (probe["port"], probe["scheme"]) == (port, scheme)
    test = deploy.find(deploy.objects(deploy.render(values)), "Pod")["spec"]["containers"][0]["command"][-1]
    number = 9090 if port == "http-metrics" else 8080
    assert test == f"{scheme.lower()}://rel-tenantry:{number}/alive"


@pytest.mark.parametrize(("size", "settings", "expected"), [
    ("10Gi", {}, (8 << 30, (8 << 30) // 5)),
    ("80Mi", {}, (64 << 20, (64 << 20) // 5)),
    (1 << 30, {"age_max": "6h"}, ((1 << 30) * 4 // 5, (1 << 30) * 4 // 25)),
    ("1Ti", {"bytes_max": "20Gi"}, ("20Gi", 4 << 30)),
    ("1Ti", {"tenant_bytes_max": "20Gi"}, ((1 << 40) * 4 // 5, "20Gi")),
])
def test_the_spool_fits_its_volume(size, settings, expected, tmp_path):
    values = changed(spool={"enabled": True, "size": size}, config__spool=settings)
    things = deploy.objects(deploy.render(values))
    for thing in things:
        deploy.validate(thing)
    found = deploy.config(things)["spool"]
    assert (found.pop("bytes_max"), found.pop("tenant_bytes_max")) == expected
    assert found.pop("dir") == "/var/lib/tenantry/spool"
    assert found == {key: value for key, value in settings.items() if not key.endswith("bytes_max")}
    (claim,) = deploy.workload(things)["spec"]["volumeClaimTemplates"]
    assert deploy.quantity(claim["spec"]["resources"]["requests"]["storage"]) == deploy.quantity(size)
    assert "storageClassName" not in claim["spec"], "the cluster's default"
    deploy.accepts(things, tmp_path)


def test_the_spool_is_off_by_default():
    things = deploy.objects(deploy.render(changed()))
    assert deploy.workload(things)["kind"] == "Deployment"
    assert "spool" not in deploy.config(things)


def test_with_a_spool_the_pods_may_write_their_volumes_and_start_slowly():
    pod = pod_of(changed(spool__enabled=True))["spec"]
    context, container = pod["securityContext"], pod["containers"][0]
    assert context["fsGroup"] == context["runAsGroup"] == 65534
    probes = container["startupProbe"], container["livenessProbe"]
    assert probes[0]["httpGet"] == probes[1]["httpGet"]
    assert probes[0]["periodSeconds"] * probes[0]["failureThreshold"] == 15 * 60
    # A cluster that chooses the groups chooses this one, too.
    groups = {"runAsUser": None, "runAsGroup": None}
    assert "fsGroup" not in pod_of(changed(spool__enabled=True, podSecurityContext=groups))["spec"]["securityContext"]


def test_a_spool_is_on_the_volume_of_its_pod(tmp_path):
    """The real server, with the configuration of the chart and a folder in place of the volume."""
    settings = deploy.config(deploy.objects(deploy.render(changed(spool__enabled=True))))["spool"]
    settings["dir"] = f"{tmp_path}{settings['dir']}"
    with server.running(tmp_path, more=yaml.safe_dump({"spool": settings})) as running:
        running.send()
        assert f"tenantry_spool_max_bytes {8 << 30}" in running.page("/metrics")
        running.stop()
    assert (tmp_path / "var/lib/tenantry/spool/lock").exists()


def test_what_no_update_may_change_stays():
    """The API server refuses changes of a StatefulSet's selector and claims."""
    def fixed(**values):
        spec = deploy.workload(deploy.objects(deploy.render(changed(spool__enabled=True, **values))))["spec"]
        return [spec[key] for key in ("serviceName", "podManagementPolicy", "selector", "volumeClaimTemplates")]

    others = {"image": {"tag": "new"}, "podLabels": {"a": "b"}, "service__type": "NodePort"}
    assert fixed() == fixed(config__log_level="info", **others)


WEB_FILE = {"admin": {"web_config_file": "/a"}}
CONNECTS = {"tcpSocket": {"port": "http-metrics"}}


def asks(scheme):
    return {"httpGet": {"path": "/alive", "port": "http-metrics", "scheme": scheme}}


@pytest.mark.parametrize(("values", "expected"), [
    ({}, asks("HTTP")),
    ({"tls__existingSecret": "a"}, asks("HTTP")),
    ({"tls__existingSecret": "a", "probes__scheme": "HTTPS"}, asks("HTTP")),
    ({"probes__port": "http-metrics", "probes__scheme": "HTTPS"}, asks("HTTPS")),
    ({"config__auth": WEB_FILE, "probes__port": "http-metrics", "probes__scheme": "HTTPS"}, asks("HTTPS")),
    ({"config__auth": WEB_FILE}, CONNECTS),
    ({"config__auth": WEB_FILE, "probes__scheme": "HTTP"}, CONNECTS),
])
def test_liveness_asks_at_the_port_of_metrics(values, expected):
    """The port of pushes stops accepting at limits.connections_max."""
    probe = pod_of(changed(**values))["spec"]["containers"][0]["livenessProbe"]
    assert {key: value for key, value in probe.items() if isinstance(value, dict)} == expected


def test_a_real_server_without_room_for_connections_is_alive_at_the_port_of_metrics(tmp_path):
    def connect():
        return socket.create_connection(("127.0.0.1", running.push), timeout=2)

    # The hash is of `secret`. /alive needs no password.
    users = tmp_path / "web.yml"
    users.write_text("basic_auth_users: {user: $2b$04$N6lmo4UxX8aCfiAhYb/nJeIE5o6tweWBeoU74UBidxWpW59Lzlaly}\n")
    more = f"limits: {{connections_max: 4}}\nauth: {{admin: {{web_config_file: {users}}}}}\n"
    with server.running(tmp_path, more=more) as running, contextlib.ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(connect())
        late = stack.enter_context(connect())
        late.sendall(b"GET /alive HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises(TimeoutError):
            late.recv(1)
        assert running.page("/alive") == ""
        with pytest.raises(urllib.error.HTTPError, match="401"):
            running.page("/metrics")


@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort", "LoadBalancer"])
def test_metrics_stay_in_the_cluster(kind):
    monitor = {"enabled": True, "prometheusRule": {"enabled": True}}
    values = changed(service__type=kind, probes__port="http-metrics", serviceMonitor=monitor)
    things = deploy.objects(deploy.render(values))
    deploy.fit_together(things)
    name = "rel-tenantry" if kind == "ClusterIP" else "rel-tenantry-metrics"
    assert deploy.find(things, "Pod")["spec"]["containers"][0]["command"][-1] == f"http://{name}:9090/alive"
    files = deploy.chart().render(values, name="rel", namespace="ns")
    assert f"svc/{name} 9090:9090" in files["tenantry/templates/NOTES.txt"]
    values["fullnameOverride"] = "x" * 63
    for thing in deploy.objects(deploy.render(values)):
        if thing["kind"] == "Service":
            assert len(thing["metadata"]["name"]) <= 63


def test_the_service_monitor_has_credentials():
    credentials = {
        "basicAuth": {name: {"name": "admin", "key": name} for name in ("username", "password")},
        "authorization": {"type": "Bearer", "credentials": {"name": "admin", "key": "token"}},
        "tlsConfig": {"serverName": "tenantry"},
    }
    values = changed(serviceMonitor={"enabled": True, "scheme": "https", **credentials})
    monitor = deploy.find(deploy.objects(deploy.render(values)), "ServiceMonitor")
    deploy.validate(monitor)
    endpoint = monitor["spec"]["endpoints"][0]
    assert endpoint == {"port": "http-metrics", "scheme": "https", **credentials}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_test_pod_asks_a_real_server(tls, tmp_path):
    things = deploy.objects(deploy.render(changed(tls__existingSecret="a" if tls else "")))
    command = deploy.find(things, "Pod")["spec"]["containers"][0]["command"]
    with server.running(tmp_path, tls=tls) as running:
        url = command[-1].replace("rel-tenantry:8080", f"localhost:{running.push}")
        assert deploy.run(*command[:-1], url).returncode == 0
        assert deploy.run(*command[:-1], url.replace("/alive", "/nothing")).returncode == 22
        running.stop()
    assert deploy.run(*command[:-1], url).returncode == 7


def test_the_notes_name_the_url_for_senders():
    files = deploy.chart().render(changed(tls__existingSecret="a"), name="rel", namespace="ns")
    assert "url: https://rel-tenantry.ns.svc:8080/push" in files["tenantry/templates/NOTES.txt"]


def test_the_readme_lists_all_values():
    def paths(section, prefix=""):
        for key, value in section.items():
            is_section = value and isinstance(value, dict) and key not in whole
            yield from paths(value, f"{prefix}{key}.") if is_section else [prefix + key]

    whole = ("resources", "podSecurityContext", "securityContext")

    listed = re.findall(r"^\| `([\w.]+)` \|", (deploy.CHART / "README.md").read_text(), re.MULTILINE)
    values = yaml.safe_load((deploy.CHART / "values.yaml").read_text())
    wanted = [path for path in paths(values) if not path.startswith("config.") or path.startswith("config.auth.")]
    assert sorted(listed) == sorted(wanted)


def test_dashboards_are_those_of_grafana():
    files = {path.name: path.read_text() for path in (deploy.ROOT / "configs/grafana").glob("*.json")}
    copies = {path.name: path.read_text() for path in (deploy.CHART / "files/dashboards").iterdir()}
    assert files and copies == files, "run configs/grafana/source/generate.py"
    things = deploy.objects(deploy.render(changed(dashboards={"enabled": True, "namespace": "grafana"})))
    found = next(thing for thing in things if thing["metadata"]["name"].endswith("-dashboards"))
    deploy.validate(found)
    assert found["metadata"]["namespace"] == "grafana"
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["data"] == files
    assert sum(map(len, files.values())) < 1 << 19, "a ConfigMap holds 1 MiB"


def test_there_are_no_dashboards_by_default():
    assert "dashboard" not in deploy.render(changed())
