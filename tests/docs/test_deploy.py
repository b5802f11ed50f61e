"""What is in deploy/ is valid by the schemas of those who read it, and says of us only what is so."""

from __future__ import annotations

import copy
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate
import pytest
import typer
import yaml
from dockerfile_parse import DockerfileParser
from fastapi import APIRouter
from pages import ROOT, blocks, page

from lowerbound.app.cli.main import app
from lowerbound.service.serving.control import application
from lowerbound.service.serving.keys import Keys
from lowerbound.service.serving.on_ray import options_of
from lowerbound.service.serving.options import Options

DEPLOY = ROOT / "deploy"
SCHEMA = "1.34"  # of Kubernetes
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCE = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What the command line makes of arguments; it refuses commands, options and values that are none."""
    name, *rest = arguments
    command = typer.main.get_command(app).commands[name]
    return {"command": name, **command.make_context(name, rest).params}


def settled(found: dict[str, Any], port: int) -> None:
    """A server that others reach needs keys, and listens where its neighbours look."""
    assert found["command"] == "serve"
    assert found["host"] == "0.0.0.0"
    assert found["port"] == port
    assert found["keys"] is not None


def paths() -> set[str]:
    """Those that the server answers beside the verbs."""
    return set(application(None, Keys(None), APIRouter()).openapi()["paths"])  # type: ignore[arg-type]


def known_variables(names: Iterator[str]) -> None:
    for name in names:
        assert not name.startswith("LOWERBOUND_") or f'"{name}"' in SOURCE, name


# ----------------------------------------------------------------------------------------------------- Kubernetes


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    """By kind."""
    found = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "lowerbound.yaml").read_text()))
    assert len({each["kind"] for each in found}) == len(found) == 5
    return {each["kind"]: each for each in found}


def test_manifests_are_valid(manifests: dict[str, dict[str, Any]]) -> None:
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, SCHEMA, strict=True)


@pytest.mark.parametrize("wrong", [{"replicas": "two"}, {"replica": 2}])
def test_the_schema_refuses_what_is_wrong(manifests: dict[str, dict[str, Any]], wrong: dict[str, Any]) -> None:
    planted = copy.deepcopy(manifests["Deployment"])
    planted["spec"] |= wrong
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(planted, SCHEMA, strict=True)


def test_the_pod_runs_a_command_that_is_one(manifests: dict[str, dict[str, Any]]) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (port,) = container["ports"]
    found = parsed(container["args"])
    settled(found, port["containerPort"])
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in paths()
        assert container[probe]["httpGet"]["port"] == port["name"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    known_variables(each["name"] for each in container["env"])
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert any(found["keys"].is_relative_to(mount) for mount in mounts.values())
    for each in container["env"]:
        if each.get("value", "").startswith("/"):
            assert each["value"] in mounts.values()
    assert "/tmp" in mounts.values(), "the root is read-only, and workers leave their metrics there"
    before_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > before_s + Options.drain_s
    assert container["image"] == f"lowerbound:{PROJECT['version']}"


def test_manifests_mean_one_another(manifests: dict[str, dict[str, Any]]) -> None:
    deployment = manifests["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert manifests["Service"]["spec"]["selector"] == labels
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    (port,) = manifests["Service"]["spec"]["ports"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert port["targetPort"] == container["ports"][0]["name"]
    scaler = manifests["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "lowerbound"}
    assert scaler["minReplicas"] > manifests["PodDisruptionBudget"]["spec"]["minAvailable"]
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in deployment["spec"]["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claims == [manifests["PersistentVolumeClaim"]["metadata"]["name"]]


# -------------------------------------------------------------------------------------------------------- compose


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_the_compose_file_is_valid_and_refused_when_it_is_not(compose: dict[str, Any]) -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    compose_spec.PyCompose.from_yaml(text).validate()
    for sound, wrong in (("read_only: true", "read_onyl: true"), ("      - operate.key", "      - operates.key")):
        assert sound in text
        with pytest.raises(ValueError):
            compose_spec.PyCompose.from_yaml(text.replace(sound, wrong)).validate()


def test_the_compose_file_runs_a_command_that_is_one(compose: dict[str, Any]) -> None:
    server = compose["services"]["server"]
    found = parsed(server["command"])
    settled(found, int(server["ports"][0].split(":")[1]))
    assert found["keys"].parent == Path("/run/secrets")
    assert found["keys"].name in server["secrets"]
    known_variables(iter(server["environment"]))
    mounts = {each.split(":")[1] for each in server["volumes"]}
    assert {value for value in server["environment"].values() if value.startswith("/")} == mounts
    assert int(server["stop_grace_period"].removesuffix("s")) > Options.drain_s
    build = server["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


def test_files_that_services_mount_are_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (DEPLOY / source).exists(), source


def test_prometheus_scrapes_the_server(compose: dict[str, Any]) -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    assert {job.get("metrics_path", "/metrics") for job in jobs} == {path for path in paths() if "metrics" in path}
    for job in jobs:
        (target,) = job["static_configs"][0]["targets"]
        name, port = target.split(":")
        assert int(port) == parsed(compose["services"][name]["command"])["port"]
        key = Path(job["authorization"]["credentials_file"])
        assert key.name in compose["services"]["prometheus"]["secrets"]


# ----------------------------------------------------------------------------------------------------- Dockerfile


def test_the_image_is_made_of_what_is_there_and_runs_a_command_that_is_one() -> None:
    parser = DockerfileParser(path=str(DEPLOY / "Dockerfile"))
    steps = [step for step in parser.structure if step["instruction"] != "COMMENT"]
    values: dict[str, list[str]] = {}
    for step in steps:
        values.setdefault(step["instruction"], []).append(step["value"])
    assert steps[0]["instruction"] == "FROM"
    for base in parser.parent_images:
        version = re.fullmatch(r"python:(3\.\d+)-slim", base)
        assert version, base
    kept = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    for copied in values["COPY"]:
        *sources, _ = [word for word in copied.split() if not word.startswith("--")]
        for source in sources:
            assert source.startswith("/") or ((ROOT / source).exists() and source in kept), source
    extras = next(value for value in values["ARG"] if value.startswith("EXTRAS=")).split('"')[1]
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    assert values["USER"] == ["10001"], "not the superuser"
    arguments = [*yaml.safe_load(values["ENTRYPOINT"][0]), *yaml.safe_load(values["CMD"][0])]
    assert arguments.pop(0) in PROJECT["scripts"]
    settled(parsed(arguments), int(values["EXPOSE"][0]))
    known_variables(iter(re.findall(r"(\w+)=", values["ENV"][0])))
    health = yaml.safe_load(values["HEALTHCHECK"][0].split("CMD ")[1])
    compile(health[2], "health", "exec")
    assert f":{values['EXPOSE'][0]}/healthz" in health[2]


# ------------------------------------------------------------------------------------------- Ray, and the page


def test_the_file_for_ray_is_valid() -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="Ray is not installed")
    found = schema.ServeDeploySchema.model_validate(yaml.safe_load((DEPLOY / "ray.yaml").read_text()))
    (made,) = found.applications
    assert made.import_path == "lowerbound.service.serving.on_ray:application"
    assert options_of(made.args).names == ("digits",)
    assert [each.name for each in made.deployments] == ["lowerbound"]


def test_commands_of_the_page_are_commands() -> None:
    lines = [line for block in blocks(page("docs/deploy.md"), "text") for line in block.splitlines()]
    ours = [re.match(r"lowerbound ([^>]*)", line) for line in lines]
    assert any(ours)
    for found in filter(None, ours):
        first, *rest = shlex.split(found[1])
        group = typer.main.get_command(app).commands[first]
        if hasattr(group, "commands"):
            group.commands[rest[0]].make_context(rest[0], rest[1:])
        else:
            parsed([first, *rest])
    for line in lines:
        for path in re.findall(r"deploy/[\w./-]+", line):
            assert (ROOT / path).exists() or path.endswith(("keys.jsonl", "operate.key")), path
