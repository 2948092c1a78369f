"""What lies below are distributions of their own: ``tests/packaging/test_third_party.py`` installs and tests them."""

collect_ignore_glob = ["*"]
