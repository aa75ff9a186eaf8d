"""Complete runs whose config, index and weights are at addresses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_settings

from slowfast.cli.setup import load_config
from slowfast.cli.train import RUN_NET, main
from slowfast.config.defaults import get_cfg
from slowfast.config.parse import base_reference
from slowfast.engine.distillation import check_teacher_weights, load_teacher_config
from slowfast.errors import ConfigError, DamagedFileError, UserError
from slowfast.models import build_model
from slowfast.models.weights import read_file
from slowfast.utils.files import check_output_file, check_output_folder
from slowfast.utils.paths import local_path
from slowfast.utils.remote.address import as_address, join_path, sibling_path
from tests.utils.remote import servers
from tests.utils.remote.servers import FileServer, text_of_all

cache, server = servers.cache, servers.server  # fixtures
DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("https://host", "https://host/train.csv"),
        ("https://host/a/", "https://host/a/train.csv"),
        ("https://me:pw@host/a?x=y/z", "https://me:pw@host/a/train.csv?x=y/z"),
        ("s3://bucket", "s3://bucket/train.csv"),
        ("s3://bucket/a?b", "s3://bucket/a?b/train.csv"),
        ("hf://datasets/me/net", "hf://datasets/me/net/train.csv"),
        ("hf://me/net/lists@v1", "hf://me/net/lists/train.csv@v1"),
        ("hf://me/net@v1/lists", "hf://me/net@v1/lists/train.csv"),
        ("store://a", "store://a/train.csv"),
        ("HTTPS:/host/a", "https://host/a/train.csv"),
        ("a/b", "a/b/train.csv"),
        ("", "train.csv"),
    ],
)
def test_files_in_a_folder(folder: str, expected: str) -> None:
    assert str(join_path(folder, "train.csv")) == expected
    if folder:
        assert str(join_path(Path(folder), "train.csv")) == expected


@pytest.mark.parametrize(
    ("file", "name", "expected"),
    [
        ("https://host/a/run.yaml?x=1", "../base.yaml", "https://host/base.yaml?x=1"),
        ("https://host/run.yaml", "../../base.yaml", "https://host/base.yaml"),
        (f"https://host/a/run.yaml#sha256={DIGEST}", "base.yaml", "https://host/a/base.yaml"),
        ("s3://bucket/a/run.yaml", "b/base.yaml", "s3://bucket/a/b/base.yaml"),
        ("hf://me/net/run.yaml@v1", "base.yaml", "hf://me/net/base.yaml@v1"),
        ("https://host/run.yaml", "s3://bucket/base.yaml", "s3://bucket/base.yaml"),
        ("a/run.yaml", "../base.yaml", "a/../base.yaml"),
    ],
)
def test_files_beside_another(file: str, name: str, expected: str) -> None:
    assert str(sibling_path(file, name)) == expected


def test_what_exists_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        as_address("s3:/x") == "s3://x" and not as_address("C:/x") and not as_address("x") and not as_address("s3://")
    )
    (tmp_path / "s3:").mkdir()
    (tmp_path / "s3:" / "x").touch()
    assert not as_address("s3://x")


@pytest.fixture(scope="module")
def published(server: FileServer, kinetics_folder: Path) -> FileServer:
    """Config, base config, index and weights of the tiny network."""
    folder = server.folder / "net"
    folder.mkdir()
    cfg = get_cfg()
    cfg.merge_from_list([*tiny_settings(kinetics_folder, Path("unused")), "TRAIN.ENABLE", False])
    torch.manual_seed(3)
    torch.save({"model_state": build_model(cfg).state_dict()}, folder / "weights.pyth")
    (folder / "base.yaml").write_text(cfg.dump())
    (folder / "run.yaml").write_text("_BASE_: base.yaml\nTEST:\n  NUM_ENSEMBLE_VIEWS: 1\n")
    for name in ("train.csv", "val.csv", "test.csv", "categories.txt"):
        shutil.copy(kinetics_folder / name, folder / name)
    return server


def test_a_config_at_an_address_names_its_folder(server: FileServer, cache: Path) -> None:
    folder = server.folder / "here"
    folder.mkdir()
    (folder / "run.yaml").write_text(
        "DATA: {PATH_TO_DATA_DIR: '${CONFIG_DIR}'}\nMORPH: {PRETRAIN_PATH: '${CONFIG_DIR}/w.pth'}\n"
    )
    cfg, url = get_cfg(), f"{server.url}/files/here"
    cfg.merge_from_file(f"{url}/run.yaml?token=x")
    assert (cfg.DATA.PATH_TO_DATA_DIR, cfg.MORPH.PRETRAIN_PATH) == (f"{url}?token=x", f"{url}/w.pth?token=x")


@pytest.mark.slow
def test_a_test_by_addresses(
    published: FileServer, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url, secret = published.url + "/files/net", "?token=topsecret"
    digest = hashlib.sha256((published.folder / "net" / "weights.pyth").read_bytes()).hexdigest()
    words = [
        "--cfg",
        f"{url}/run.yaml{secret}",
        "DATA.PATH_TO_DATA_DIR",
        url + secret,
        "OUTPUT_DIR",
        str(tmp_path / "o"),
    ]
    words += ["TEST.CHECKPOINT_FILE_PATH", f"{url}/weights.pyth{secret}#sha256={digest}"]
    assert main(words, command=RUN_NET) == 0
    out, err = capfd.readouterr()
    assert f"Testing the weights in {url}/weights.pyth?token=***" in out and f"Downloading {url}/weights.pyth" in out
    results = json.loads((tmp_path / "o" / "test_results.json").read_text())
    assert results["videos"] == 8
    names = (published.folder / "net" / "categories.txt").read_text()
    assert (tmp_path / "o" / "predictions.csv").read_text().splitlines()[1].split(",")[3] in names
    assert "topsecret" not in out + err + text_of_all(tmp_path)

    # Secrets that the saved config hides must be given again.
    again = ["--cfg", str(tmp_path / "o" / "config.yaml"), "OUTPUT_DIR", str(tmp_path / "new")]
    assert main(again, command=RUN_NET) == 2
    assert "TEST.CHECKPOINT_FILE_PATH: " in (err := capfd.readouterr().err) and "is hidden (***). Give the whole" in err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("key", "name", "problem"),
    [
        (
            "TEST.CHECKPOINT_FILE_PATH",
            "none.pyth",
            "none.pyth?token=*** cannot be fetched: the server answered 404 Not",
        ),
        ("TEST.CHECKPOINT_FILE_PATH", "weights.pyth#sha256=1", "must be followed by 64 hexadecimal digits"),
        ("DATA.PATH_TO_DATA_DIR", "none", "none/test.csv?token=*** cannot be fetched: the server answered 404"),
        ("OUTPUT_DIR", "out", "OUTPUT_DIR {url}/out?token=*** is an address. Choose a local folder"),
        ("--cfg", "none.yaml", "config file {url}/none.yaml?token=*** cannot be fetched: the server answered 404"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    key: str,
    name: str,
    problem: str,
    published: FileServer,
    cache: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    url = published.url + "/files/net"
    name, mark, digest = name.partition("#")
    address = f"{url}/{name}?token=topsecret{mark}{digest}"
    config = address if key == "--cfg" else f"{url}/run.yaml"
    overrides = {"OUTPUT_DIR": str(tmp_path / "o"), "DATA.PATH_TO_DATA_DIR": url, "TEST.CHECKPOINT_FILE_PATH": ""}
    overrides |= {} if key == "--cfg" else {key: address}
    assert main(["--cfg", config, *(word for pair in overrides.items() for word in pair)], command=RUN_NET) == 2
    err = capfd.readouterr().err
    assert problem.format(url=url) in err and err.count("\n") == 1 and "topsecret" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["xdg"]


def test_a_teacher_by_address(published: FileServer, cache: Path, tmp_path: Path) -> None:
    url = published.url + "/files/net"
    teacher = ["DISTILL.ENABLE", True, "DISTILL.TEACHER_CFG", f"{url}/run.yaml"]
    cfg = get_cfg()
    cfg.merge_from_list([*teacher, "MODEL.NUM_CLASSES", 8, "DISTILL.TEACHER_CHECKPOINT", f"{url}/weights.pyth"])
    assert load_teacher_config(cfg).MODEL.NUM_CLASSES == 8
    check_teacher_weights(cfg)
    cfg.DISTILL.TEACHER_CHECKPOINT = f"{url}/none.pyth"
    with pytest.raises(ConfigError, match="DISTILL.TEACHER_CHECKPOINT: http.*404"):
        check_teacher_weights(cfg)


def test_weights_to_start_from(published: FileServer, cache: Path, kinetics_folder: Path, tmp_path: Path) -> None:
    settings = [*tiny_settings(kinetics_folder, tmp_path), "TRAIN.ENABLE", True, "MORPH.PRETRAIN_PATH"]
    address = f"{published.url}/files/net/weights.pyth?token=topsecret"
    load_config(f"{published.url}/files/net/run.yaml", [*settings, address])
    from slowfast.cli.validate import check_pretrain

    cfg = get_cfg()
    cfg.merge_from_list([*settings, f"{published.url}/files/net/none.pyth?token=topsecret"])
    with pytest.raises(ConfigError, match=r"none.pyth\?token=\*\*\* cannot be fetched: .*404.* Use another address"):
        check_pretrain(cfg, resuming=False)


def test_damaged_weights(published: FileServer, cache: Path) -> None:
    (published.folder / "net" / "damaged.pyth").write_bytes(b"PK\3\4")
    address = f"{published.url}/files/net/damaged.pyth"
    with pytest.raises(DamagedFileError) as caught:
        read_file(address, "pytorch")
    assert str(caught.value).endswith(f"Delete {local_path(address)} to download it again")


def test_a_config_that_builds_on_an_address(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").touch()
    assert base_reference(tmp_path / "base.yaml", tmp_path / "new") == os.path.join("..", "base.yaml")
    assert base_reference("s3:/bucket/base.yaml", tmp_path) == "s3://bucket/base.yaml"
    with pytest.raises(
        ConfigError, match=r"--cfg https://\*\*\*@host/base.yaml: the new config would contain the secret"
    ):
        base_reference("https://me:topsecret@host/base.yaml", tmp_path)


def test_results_are_written_to_local_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--out s3://bucket/x is an address. Choose a local folder"):
        check_output_folder(Path("s3://bucket/x"), "--out")
    with pytest.raises(UserError, match="is an address"):
        check_output_file(Path("s3://bucket/x.onnx"), "--out")


def test_the_handlers_import_nothing_heavy() -> None:
    code = "import sys; from slowfast.utils.paths import path_manager; path_manager(); print(sorted(sys.modules))"
    done = servers.run_python(code)
    imported = set(done.stdout.replace("'", "").strip("[]\n").split(", "))
    assert done.returncode == 0 and "iopath" in imported, done.stderr
    assert not imported & {"torch", "boto3", "botocore", "huggingface_hub", "safetensors", "requests", "httpx"}
