"""cluster/: the files that start a cluster are valid, and name the Ray version that kdtune was tested with."""

from __future__ import annotations

import re
from typing import Any

import pytest
import ray
import yaml
from helpers import ROOT

CLUSTER = ROOT / "cluster"


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    """Return kuberay.yaml's objects by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text())}


def pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    spec = manifest["RayCluster"]["spec"]
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def test_ray_takes_the_launchers_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((CLUSTER / "ray_up.yaml").read_text()))
    validate_config(config)
    (node,) = config["available_node_types"].values()
    assert node["min_workers"] == len(config["provider"]["worker_ips"]), "all of them are started"
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert all("RAY_AUTH_MODE=token ray start" in command for command in commands if "ray start" in command)
        assert sum("ray start" in command for command in commands) == 1
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_the_pinned_ray_is_the_images_and_the_installed_one(manifest: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert pinned[1] == ray.__version__ == manifest["RayCluster"]["spec"]["rayVersion"]
    images = {container["image"] for pod in pods(manifest) for container in pod["containers"]}
    assert images == {f"REGISTRY/kdtune:ray-{pinned[1]}"}, "one image, so one version of everything"
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{pinned[1]}-py311\n" in dockerfile
    assert images.pop() in dockerfile


def test_the_manifest_has_what_kuberay_requires(manifest: dict[str, Any]) -> None:
    cluster = manifest["RayCluster"]
    assert cluster["apiVersion"] == "ray.io/v1"
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", cluster["metadata"]["name"])
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    groups = (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"])
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "Kubernetes takes only text"
    for group in groups[1:]:
        assert group["groupName"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for pod in pods(manifest):
        for container in pod["containers"]:
            assert {"name", "image"} <= container.keys()
            requests = container["resources"]["requests"]
            assert requests == container["resources"]["limits"], "Ray takes the limits for what there is"
            assert all(isinstance(value, str) for value in requests.values())


def test_every_pod_mounts_the_one_shared_volume(manifest: dict[str, Any]) -> None:
    claim = manifest["PersistentVolumeClaim"]
    assert (claim["apiVersion"], claim["spec"]["accessModes"]) == ("v1", ["ReadWriteMany"])
    for pod in pods(manifest):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert set(mounts.values()) <= volumes.keys()
            claimed = volumes[mounts["/shared"]]["persistentVolumeClaim"]["claimName"]
            assert claimed == claim["metadata"]["name"]
            environment = {each["name"]: each["value"] for each in container["env"]}
            assert environment["KDTUNE_STORE"].startswith("/shared/")
            assert "/shared/" in environment["MLFLOW_TRACKING_URI"]
