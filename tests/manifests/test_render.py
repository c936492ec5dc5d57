"""jobs/ is up to date with k8s/, and the options of `adainf render` take effect."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from adainf.errors import BadInput
from adainf.kubernetes.render import K8S, render
from k8s.refresh import files
from tests.manifests.objects import COMPONENTS, JOB_FILES, JOBS, OVERLAYS, PAIRS, pods, rendered
from tests.tiny import adainf

DIGEST = "sha256:" + 64 * "a"


def test_jobs_are_up_to_date() -> None:
    assert {path.name: path.read_text() for path in JOBS.glob("*.yaml")} == files(), "run `make render`"


@pytest.mark.parametrize("name", JOB_FILES)
def test_header_has_instructions(name: str) -> None:
    header = "".join(line for line in (JOBS / name).read_text().splitlines(keepends=True) if line.startswith("#"))
    for what in ("Apply:", "Check:", "Logs:", "Resume:", "Delete:", f"kubectl apply -f jobs/{name}"):
        assert what in header


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("components", [*((name,) for name in COMPONENTS), *PAIRS], ids="+".join)
def test_components_render_on_base_and_overlays(overlay: str | None, components: tuple[str, ...], tmp_path: Path) -> None:
    root = K8S
    if "static-secret" in components:  # its file is created by the user
        root = shutil.copytree(K8S, tmp_path / "k8s")
        secret = root / "components" / "static-secret"
        (secret / "s3.env.example").rename(secret / "s3.env")
    assert rendered(overlay, components, root) != rendered(overlay)


def test_kueue_labels_the_jobs_of_the_controller() -> None:
    templates = [each for each in rendered(components=("kueue",)) if each["kind"] == "CronJob"]
    assert {each["spec"]["jobTemplate"]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] for each in templates} == {"adainf"}


def test_volcano_schedules_complete_gangs() -> None:
    for each in pods(rendered(components=("volcano",))):
        if each.spec.get("schedulerName") == "volcano":
            assert each.template["metadata"]["annotations"]["scheduling.volcano.sh/group-min-member"] == each.env(
                "ADAINF_NNODES"
            )


def test_the_command_sets_images_and_run() -> None:
    train = f"registry:5000/train:2@{DIGEST}"
    done = adainf("render", "--image", f"train={train}", "--image", "controller=other", "--run", "s3://bucket/mine")
    assert done.returncode == 0, done.stderr
    objects = list(yaml.safe_load_all(done.stdout))
    images = {each.owner["metadata"]["name"]: each.spec["containers"][0]["image"] for each in pods(objects)}
    assert images["adainf-pretrain"] == train
    assert images["adainf"] == "other:0.1.0"
    (store,) = (each for each in objects if each["metadata"]["name"] == "adainf-store")
    assert store["data"]["ADAINF_RUN"] == "s3://bucket/mine"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--component", "kueu"], "no component 'kueu': choose one of"),
        (["--overlay", "gpu"], "no overlay 'gpu': choose one of cpu"),
        (["--image", "cuda=a:1"], "image 'cuda' does not exist: choose one of"),
        (["--image", "train"], "TARGET=REPO"),
        (["--image", "train=a b"], "invalid image reference 'a b'"),
        (["--overlay", "cpu", "--image", "train=a:1"], "no pod of these manifests uses image 'train'"),
        (["--run", "runs/mine"], "s3://BUCKET/PREFIX"),
        (["--k8s", "nowhere"], "--k8s FOLDER"),
        (["--component", "static-secret"], "static-secret/s3.env does not exist: copy s3.env.example"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], sentence: str) -> None:
    done = adainf("render", *arguments)
    assert done.returncode == 64
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_kubectl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(BadInput, match="neither kubectl nor kustomize"):
        render()
