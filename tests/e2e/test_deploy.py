"""Files that put a server somewhere: images, a systemd unit, a Kubernetes manifest. No container engine is needed."""

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.support.clean_env import clean_env, needed
from tests.support.http_server import wait_for
from tools.house.source import ROOT
from vllm.config.cli import FlexibleArgumentParser
from vllm.entrypoints.cli import serve

DOCKERFILES = (ROOT / "Dockerfile", ROOT / "docker" / "Dockerfile.cpu")


def serve_arguments(words: list[str]):
    parser = FlexibleArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(words)


def entrypoint(dockerfile: Path) -> list[str]:
    return json.loads(re.search(r"^ENTRYPOINT (\[.*\])$", dockerfile.read_text(), re.MULTILINE)[1])


@pytest.mark.slow  # the linter comes with the e2e extra
@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfile_lints(dockerfile: Path) -> None:
    done = subprocess.run([needed("hadolint"), dockerfile], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_an_image_copies_is_sent(dockerfile: Path) -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(\S+) ", dockerfile.read_text(), re.MULTILINE)
    assert copied and all(name == "." or name in sent for name in copied)
    needs = {"vllm", "pyproject.toml", "README.md", "LICENSE"}
    assert needs <= sent and all((ROOT / name).exists() for name in sent if "*" not in name)


@pytest.mark.slow
def test_the_steps_of_an_image(tmp_path: Path) -> None:
    """docker/install.sh and the entry point, in a clean environment in place of a container."""
    env = clean_env(tmp_path / "env")
    (env.prefix / "bin" / "sh").symlink_to("/bin/sh")
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path / "wheels", ROOT]
    subprocess.run(wheel, check=True, capture_output=True)
    said = env.run("sh", ROOT / "docker" / "install.sh", tmp_path / "wheels", cwd=tmp_path)
    assert "Ready." in said
    size = sum(file.stat().st_size for file in (env.site / "vllm").rglob("*") if file.is_file())
    assert size < 60e6, f"the package takes {size / 1e6:.0f} MB"
    command = [*entrypoint(DOCKERFILES[1]), "--port", "0"]
    command[0] = str(env.prefix / "bin" / command[0])
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: "Ready: " in log.read_text() or process.poll() is not None, 60, "readiness")
        port = re.search(r"http://0\.0\.0\.0:(\d+)", log.read_text())[1]
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=4).status == 200
    finally:
        process.terminate()
        assert process.wait(40) == 0, log.read_text()


def test_systemd_unit(tmp_path: Path) -> None:
    unit = ROOT / "deploy" / "vllm.service"
    text = unit.read_text()
    start = re.search(r"^ExecStart=(\S+) (.*)$", text, re.MULTILINE)
    assert start[2] == "serve $VLLM_ARGS"
    example = re.search(r"^#\s+VLLM_ARGS=(.*)$", text, re.MULTILINE)[1].split()
    grace = int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[1])
    assert grace > serve_arguments(example).shutdown_timeout
    if analyze := shutil.which("systemd-analyze"):
        # why: it looks for the program; here any program will do, and the file is otherwise as it is.
        copy = tmp_path / unit.name
        copy.write_text(text.replace(start[1], sys.executable).replace("User=vllm", "User=root"))
        done = subprocess.run([analyze, "verify", copy], capture_output=True, text=True)
        assert "vllm.service" not in done.stderr, done.stderr


def test_kubernetes_manifest() -> None:
    documents = {item["kind"]: item for item in yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())}
    pod = documents["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    arguments = serve_arguments(container["args"])
    sleeps = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["spec"]["terminationGracePeriodSeconds"] > arguments.shutdown_timeout + sleeps
    assert [container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")] == [
        "/health",
        "/health",
        "/ping",
    ]
    assert pod["metadata"]["annotations"]["prometheus.io/path"] == "/metrics"
    service = documents["Service"]["spec"]
    assert service["selector"] == pod["metadata"]["labels"]
    assert service["ports"][0]["targetPort"] == container["ports"][0]["name"]
    claimed = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == claimed
    claim = pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert claim == documents["PersistentVolumeClaim"]["metadata"]["name"]
    assert container["envFrom"][0]["secretRef"]["name"] == documents["Secret"]["metadata"]["name"]
