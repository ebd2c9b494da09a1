"""Workers as their parent sees them."""

import multiprocessing
import os

from generate.executors import Event, _next_event


def test_a_worker_that_dies_in_the_middle_of_a_message_has_said_nothing():
    ours, theirs = multiprocessing.Pipe()
    theirs.send(Event("done", 3, 90.0))
    # The length of what would follow, and a part of it.
    os.write(theirs.fileno(), (1000).to_bytes(4, "big") + b"half")
    theirs.close()
    assert _next_event(ours) == Event("done", 3, 90.0)
    assert _next_event(ours) is None
    ours.close()


def test_a_worker_with_nothing_to_say():
    ours, theirs = multiprocessing.Pipe()
    assert _next_event(ours) is None
    theirs.close()
    assert _next_event(ours) is None
    ours.close()
