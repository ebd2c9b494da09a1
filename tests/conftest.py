"""What every test can take for granted."""

import signal


def pytest_configure() -> None:
    """Hear Ctrl-C: a shell that starts the suite in the background has it ignored, and tests that press it would hang."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
