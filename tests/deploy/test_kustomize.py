"""The manifests in configs/kubernetes, as kubectl builds them."""

import pytest
import yaml

import deploy

BUILT = ["base", "overlays/mimir", "overlays/thanos"]


@pytest.fixture(scope="module", params=[*BUILT, "with components"])
def built(request, tmp_path_factory):
    if request.param in BUILT:
        return deploy.objects(deploy.kustomize(deploy.KUSTOMIZE / request.param))
    # As a user would build it: an overlay, all components, and a namespace.
    directory = tmp_path_factory.mktemp("overlay")
    here = "../" * len(directory.parts[1:]) + str(deploy.KUSTOMIZE).lstrip("/")
    (directory / "kustomization.yaml").write_text(yaml.safe_dump({
        "namespace": "monitoring",
        "resources": [f"{here}/overlays/mimir"],
        "components": [f"{here}/components/network-policy", f"{here}/components/io-uring"],
    }))
    return deploy.objects(deploy.kustomize(directory))


def test_each_object_is_valid(built):
    assert {thing["kind"] for thing in built} >= {
        "ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "ServiceAccount"}
    for thing in built:
        deploy.validate(thing)


def test_the_objects_fit_together(built):
    deploy.fit_together(built)


def test_the_program_accepts_the_configuration(built, tmp_path):
    deploy.accepts(built, tmp_path)


def test_numbers_follow_from_the_configuration(built):
    pod = deploy.find(built, "Deployment")["spec"]["template"]["spec"]
    config = deploy.config(built)
    stopping = deploy.seconds(config["timeout_shutdown"]) + 7 * deploy.seconds(config.get("timeout", "10s")) + 5
    assert pod["terminationGracePeriodSeconds"] >= stopping
    memory = pod["containers"][0]["resources"]["limits"]["memory"]
    assert (memory, config["limits"]["in_flight_bytes_max"]) == ("1Gi", "512Mi")


def test_the_component_chooses_the_profile(built):
    pod = deploy.find(built, "Deployment")["spec"]["template"]["spec"]
    profile = pod["securityContext"]["seccompProfile"]
    if deploy.find(built, "NetworkPolicy"):
        assert profile == {"type": "Localhost", "localhostProfile": "tenantry.json"}
        assert (deploy.KUSTOMIZE / "seccomp/tenantry.json").is_file()
    else:
        assert profile == {"type": "RuntimeDefault"}


def test_manifests_of_cortex_tenant_work_with_another_image(tmp_path):
    """A user's manifests, with our image in place of theirs, and nothing else changed."""
    text = (deploy.ROOT / "tests/fixtures/seed-kubernetes.yml").read_text()
    text = text.replace("ghcr.io/blind-oracle/cortex-tenant:latest", "ghcr.io/tenantry/tenantry:0.2.0")
    things = deploy.objects(text)
    for thing in things:
        deploy.validate(thing)
    container = deploy.find(things, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert "args" not in container and container["volumeMounts"][0]["mountPath"] == "/data/"
    file = tmp_path / "cortex-tenant.yml"
    file.write_text(deploy.find(things, "ConfigMap")["data"]["cortex-tenant.yml"])
    done = deploy.run(deploy.TENANTRY, "--check-config", "-config", file)
    assert done.returncode == 0, done.stderr
