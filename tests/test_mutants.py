"""The table of silent faults keeps up with the code."""

from mutants import ROOT, faults, find_tests


def test_what_every_fault_would_change_is_there_once():
    gone = [
        what
        for what, file, old, new, tests in faults("")
        if (ROOT / "realiz3d_jax" / file).read_text().count(old) != 1
        or old == new
        or len(find_tests(ROOT, tests.split()[0])) != 1
    ]
    assert not gone
