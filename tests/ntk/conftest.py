"""Scripts that make reference values need other packages than the tests."""

collect_ignore_glob = ["make_*.py"]
