"""Child processes: shielded from interrupts while they start, ended with their parent, running a command for it.

A command that uses Ray runs in a child: when a cluster ends, Ray ends every process connected to it, silently. The child
does everything, from joining the cluster to writing the table. Its parent needs no torch, passes Ctrl-C on and outlives it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from popstats.errors import BAD_INPUT, STOPPED, RunFolderError

# Exit statuses of a child that Ray did not end: done, an error with a sentence, stopped, an error without one.
STATUSES = (0, BAD_INPUT, STOPPED, os.EX_SOFTWARE)
# After a signal to a whole job, the cluster may be gone before this process has handled its own.
SIGNAL_SECONDS = 1.0
# Ctrl-C more often than this does not wait for Ray any more.
PATIENT_INTERRUPTS = 2


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C from a process started in this block, even while it imports; this process receives it afterwards."""
    # Started by the first process otherwise, and in doing so lets interrupts through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this process as soon as its parent ends, however that happens."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()


def in_own_process(command: Callable[[Any], int], options: Any, path: Path) -> int:
    """Run a command that fills the folder at `path` in a child process; return its exit status."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_body, args=(command, options), name="popstats Ray driver")
    with interrupts_held():
        process.start()
    interrupts = 0
    try:
        while process.exitcode is None:
            try:
                process.join()
            except KeyboardInterrupt:
                interrupts += 1
                if interrupts > PATIENT_INTERRUPTS:
                    raise
                os.kill(process.pid or 0, signal.SIGINT)
    finally:
        process.kill()
        process.join()
    if process.exitcode in STATUSES:
        return process.exitcode
    from generate.run.folder import Claims, RunFolder

    folder = RunFolder(path)
    if folder.read_original() is not None:  # the table of what is finished
        with contextlib.closing(Claims(folder)) as claims, claims.preparation():
            folder.compact()
    if interrupts:
        print("Ray ended before the trainings in progress did; they are dropped.", file=sys.stderr)
        raise KeyboardInterrupt
    time.sleep(SIGNAL_SECONDS)
    raise RunFolderError(
        "--executor ray: the Ray cluster ended under this run (was Ray stopped on this node, or on the first one? did "
        "this node run out of memory?). Finished trainings are saved: start Ray again and rerun the command to resume."
    )


def _body(command: Callable[[Any], int], options: Any) -> None:
    """Body of the child: it receives Ctrl-C from its parent alone."""
    os.setsid()
    # A scheduler may send its signal to every process. Not ignored, which the processes that Ray starts would inherit.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    end_with_parent()
    try:
        sys.exit(command(options))
    except Exception:
        traceback.print_exc()
        sys.exit(os.EX_SOFTWARE)


@contextlib.contextmanager
def first_interrupt_noted() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed; pressed again, it raises as usual."""
    pressed: list[int] = []

    def press(number: int, frame: object) -> None:
        pressed.append(number)
        if len(pressed) > 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
