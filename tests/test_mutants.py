"""The faults of `tests.mutants` fit the code of today."""

from tests.mutants import MUTANTS, ROOT


def test_the_text_that_a_fault_replaces_occurs_once_and_its_tests_exist():
    for path, old, _, tests in MUTANTS:
        assert (ROOT / path).read_text().count(old) == 1, (path, old)
        assert all((ROOT / test).exists() for test in tests), tests
