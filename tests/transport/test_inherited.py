"""The connection across a fork: one end each, and nobody else has one."""

from __future__ import annotations

import os
import resource

from actorpool.transport import inherited


def test_a_forked_child_takes_the_other_end_once() -> None:
    with inherited.across_fork() as ours:
        assert ours is not None
        pid = os.fork()
        if not pid:
            theirs = inherited.take()
            again = inherited.take()
            assert theirs is not None
            os.write(theirs.fileno(), b"once" if again is None else b"twice")
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert ours.recv(10) == b"once"
    assert ours.recv(10) == b"", "no copy of the other end is left, not even here"
    ours.close()


def test_who_was_not_forked_for_it_has_none() -> None:
    assert inherited.take() is None
    with inherited.across_fork() as ours:
        assert ours is not None
    assert inherited.take() is None
    ours.close()


def test_without_descriptors_there_is_no_connection() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with inherited.across_fork() as ours:
            assert ours is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
