"""`compare RUN RUN`: finished runs side by side, paired where they can be."""

import json
import shutil

import numpy as np
import pytest

from tests.finetune.runs import printed_error, run

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.fixture(scope="module")
def runs(arguments, tmp_path_factory):
    """Two runs on the same images, and one with another draw."""
    root = tmp_path_factory.mktemp("runs")
    changes = {"a": (), "b": ("--method", "finetune", "--steps", "30"), "c": ("--seed", "1")}
    for name, extra in changes.items():
        run(*arguments, *extra, out=root / name)
    return [root / name for name in changes]


def test_runs_on_the_same_images_are_paired(runs, tmp_path):
    shown = run(*runs, out=tmp_path / "out", command="compare")
    a, b, c = json.loads((tmp_path / "out" / "comparison.json").read_text())["runs"]
    assert (a["difference"], c["difference"]) == (None, None)
    assert shown.count("is tested on other images") == 1
    right = []
    for folder in runs[:2]:
        summary = json.loads((folder / "summary.json").read_text())
        right.append(summary["test_accuracy"])
    np.testing.assert_allclose(b["difference"]["mean"], right[1] - right[0], atol=1e-9)
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    run(*runs, out=tmp_path / "out", command="compare")  # again, into the same folder


def test_what_is_unfit_costs_one_line(runs, digits, tmp_path):
    out = ["--out", tmp_path / "out"]
    for argv, expected in (
        (runs[:1], "`RUN` should be two or more folders of runs"),
        ([runs[0], runs[0]], "`RUN` should be two or more folders of runs"),
        ([*runs, "--steps", "3"], "`--steps` should come without folders of finished runs"),
        ([*runs, "--source", "x"], "`--source` should come without folders of finished runs"),
        ([runs[0], tmp_path], "`RUN` should be the folder of a finished run"),
    ):
        assert expected in printed_error(*argv, *out, command="compare")
    line = printed_error(*runs, "--out", digits / "out", command="compare")
    assert "`--out` should be a folder outside of the data" in line
    summary = shutil.copytree(runs[0], tmp_path / "old") / "summary.json"
    found = json.loads(summary.read_text())
    found["found"]["data_sha256"] = "that of other data"
    summary.write_text(json.dumps(found))
    line = printed_error(runs[0], summary.parent, *out, command="compare")
    assert "`RUN` should be a run whose data are as they were" in line
    (tmp_path / "thesis.txt").touch()
    assert "which holds old, thesis.txt" in printed_error(
        *runs, "--out", tmp_path, command="compare"
    )
