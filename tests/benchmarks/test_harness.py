"""The command, records, timing, pages and statistics that every benchmark shares."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from benchmarks.harness import command, pages, record, timing
from benchmarks.harness.command import Question
from benchmarks.harness.statistics import Interval, mean_interval, paired_difference
from optax_dtnh.finetune.errors import UsageError


def measure(options):
    (options.out / "beside").touch()
    return {"answer": 42, "rows": [{"x": 1.5}]}


QUESTION = Question("deep.thought", "What is it?", measure, lambda r: f"It is {r['answer']}.")


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clean clone with a folder of results, where commands are run."""
    (tmp_path / "results").mkdir()
    (tmp_path / ".gitignore").write_text("out\nresults\n")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]
    for arguments in (["init"], ["add", "."], ["commit", "-m", "start"]):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    return tmp_path


def refused(question, *argv):
    with pytest.raises(SystemExit) as exit_:
        command.command(question, argv)
    assert exit_.value.code == 2


def test_a_record_lies_with_the_results_and_other_files_do_not(clone):
    assert command.command(QUESTION, ["--record"]) == 0
    files = sorted(path.name for path in (clone / "results").iterdir())
    assert files == ["deep.thought.json", "deep.thought.md"]
    found = record.read(clone / "results/deep.thought.json")
    assert (found["answer"], found["rows"]) == (42, [{"x": 1.5}])
    assert (len(found["environment"]["commit"]), found["environment"]["dirty"]) == (40, False)
    assert str(clone) not in str(found)
    assert (clone / "results/deep.thought.md").read_text() == "It is 42.\n"
    assert (clone / "out/deep.thought/beside").exists()


def test_tables_are_redrawn_from_the_record_alone(clone):
    results = {"answer": 7, "seconds": 1.0}
    record.write(clone / "results/deep.thought.json", results)
    assert command.command(QUESTION._replace(measure=pytest.fail), ["--redraw"]) == 0
    assert (clone / "results/deep.thought.md").read_text() == "It is 7.\n"
    assert record.read(clone / "results/deep.thought.json") == results


def test_changes_in_the_working_tree_forbid_a_record_and_nothing_else(clone, capsys):
    (clone / "changed").touch()
    refused(QUESTION, "--record")
    assert "the working tree has changes" in capsys.readouterr().err
    assert list((clone / "results").iterdir()) == []
    assert command.command(QUESTION, ["--out", "here"]) == 0
    assert record.read(clone / "here/deep.thought.json")["environment"]["dirty"] is True


def test_a_claim_that_fails_is_recorded_and_the_exit_code(clone):
    wrong = QUESTION._replace(failures=lambda r: [f"{r['answer']} is not 41"])
    assert command.command(wrong, ["--out", "here"]) == 1
    assert record.read(clone / "here/deep.thought.json")["failures"] == ["42 is not 41"]


def test_what_the_user_can_mend_is_one_line_and_a_bug_is_not(clone, capsys):
    def failing(error):
        def measure(options):
            raise error

        return QUESTION._replace(measure=measure)

    refused(failing(UsageError("`x` should be 1,\ngot 2.")))
    err = "python -m benchmarks.deep.thought: error: `x` should be 1, got 2.\n"
    assert capsys.readouterr().err == err
    with pytest.raises(ValueError, match="a bug"):
        command.command(failing(ValueError("a bug")), [])


def test_a_run_that_is_not_in_a_record_is_an_error():
    run = {"cell": "rot90", "method": "L2-SP", "weight": 10, "accuracy": [80.0, None]}
    results = {"runs": [run], "seeds": [0, 1]}
    found = record.values(results, "rot90", "L2-SP", 10, "accuracy")
    np.testing.assert_array_equal(found, [80.0, np.nan])
    with pytest.raises(KeyError, match="no run of 'L2-SP' on 'rot90' at weight 1"):
        record.values(results, "rot90", "L2-SP", 1, "accuracy")


@pytest.mark.parametrize("module", ["harness.pages", "cost.accelerator.__main__"])
def test_it_needs_none_of_the_packages_of_other_benchmarks(module):
    absent = "flax matplotlib orbax safetensors scipy sklearn torch tqdm".split()
    script = f"import sys; sys.modules |= dict.fromkeys({absent}); import benchmarks.{module}"
    subprocess.run([sys.executable, "-c", script], cwd=record.ROOT, check=True)


def test_contenders_take_turns_in_both_orders_and_are_compared_round_by_round():
    calls = []

    def contender(name, seconds):
        return lambda: calls.append(name) or seconds.pop(0)

    runs = {"a": contender("a", [9, 2.0, 6.0]), "b": contender("b", [9, 1.0, 2.0])}
    times = timing.in_turns(runs, rounds=2)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert times == {"a": [2.0, 6.0], "b": [1.0, 2.0]}
    assert timing.paired(times, "a", "b") == (2.5, 2.25, 2.75)  # of 2 and 3, not 8 / 3


def test_a_marked_place_without_an_end_does_not_swallow_the_next():
    with pytest.raises(ValueError, match="got 2 markers and 1 closed ones"):
        pages.filled("<!--deep.thought:figure-->42 <!--deep.thought:figure-->42<!--/-->")


# Two methods that differ little, over seeds that differ much.
RNG = np.random.default_rng(0)
SEEDS = RNG.normal(80, 5, 20)
X, Y = SEEDS + RNG.normal(1, 0.5, 20), SEEDS + RNG.normal(0, 0.5, 20)


def test_the_paired_interval_is_that_of_scipys_paired_t_test_in_the_order_of_the_seeds():
    low, high = stats.ttest_rel(X, Y).confidence_interval(0.95)
    mean, half_width = paired_difference(X, Y)
    assert (mean - half_width, mean + half_width) == pytest.approx((low, high), rel=1e-12)
    assert paired_difference(X, Y[::-1]).half_width > 3 * half_width
    assert paired_difference(X, X) == Interval(0.0, 0.0)
    with pytest.raises(ValueError, match=r"`treatment` should have the shape of `control`, \(2,\)"):
        paired_difference([1.0], [1.0, 2.0])


def test_an_interval_excludes_zero_when_both_ends_exist_and_have_one_sign():
    assert paired_difference([1.5], [1.0]) == Interval(0.5, None)
    assert mean_interval([1.0, math.nan, 2.0]).half_width is None
    assert all(Interval(mean, 0.9).excludes_zero() for mean in (1.0, -1.0))
    others = Interval(1.0, 1.1), Interval(0.0, 0.0), Interval(0.5, None)
    assert not any(x.excludes_zero() for x in others)
