"""The seccomp profile, around the real server."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import deploy
import server

PROFILE = deploy.KUSTOMIZE / "seccomp/tenantry.json"
CONFINED = Path(__file__).parent / "confined.py"


def launcher(default="errno", without=""):
    return [sys.executable, CONFINED, PROFILE, default, without]


def io_uring_works():
    """Whether this machine allows io_uring. CI may run where it does not."""
    # io_uring_setup, which fills in the parameters.
    ring = ctypes.CDLL(None).syscall(425, 1, ctypes.create_string_buffer(120))
    if ring >= 0:
        os.close(ring)
    return ring >= 0


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("driver", ["io_uring", "epoll"])
def test_the_server_makes_no_call_that_the_profile_does_not_name(tmp_path, driver, tls):
    """A call beyond the profile would kill it. So the list is not too short, for errors that are passed over, too."""
    if driver == "io_uring" and not io_uring_works():
        pytest.skip("this machine forbids io_uring")
    with server.running(tmp_path, driver, tls, launcher("kill")) as running:
        assert running.driver() == driver
        running.send()
        assert "tenantry_requests_total 20" in running.page("/metrics")
        assert "admin" in running.page("/debug/threads")
        running.reload()
        running.send()
        running.stop()


def test_such_a_call_does_kill():
    command = [*launcher("kill", "getrandom"), deploy.TENANTRY, "--check-config"]
    assert subprocess.run(command, stderr=subprocess.DEVNULL, timeout=30).returncode == -signal.SIGSYS


def test_under_the_profile_the_server_runs_on_io_uring(tmp_path):
    if not io_uring_works():
        pytest.skip("this machine forbids io_uring")
    with server.running(tmp_path, "auto", launcher=launcher()) as running:
        assert running.driver() == "io_uring"
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        assert "NoNewPrivs:\t1\n" in status and "Seccomp:\t2\n" in status
        running.send()
        running.stop()


def test_without_the_calls_of_io_uring_it_falls_back_to_epoll(tmp_path):
    with server.running(tmp_path, "auto", launcher=launcher(without="io_uring")) as running:
        assert running.driver() == "epoll"
        assert "io_uring does not work here: using epoll" in running.log.read_text()
        running.send()
        running.stop()


# Calls that succeed, or fail otherwise, without the profile: in CI this runs as root.
REFUSED = """
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
for call in (
    lambda: libc.unshare(0x10000000),  # CLONE_NEWUSER
    lambda: libc.ptrace(0, 0, 0, 0),
    lambda: libc.mount(None, b"/mnt", None, 0, None),
    lambda: libc.chroot(b"/"),
    lambda: libc.syscall(321, 0, 0, 0),  # bpf
    lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET),
    lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
):
    try:
        print(errno.errorcode[ctypes.get_errno()] if call() == -1 else "worked")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def test_the_profile_refuses_other_calls():
    done = deploy.run(*launcher(), sys.executable, "-c", REFUSED)
    assert done.stdout == "EPERM\n" * 7, done.stdout + done.stderr


def test_the_profile_is_one_that_runtimes_read():
    """containerd and CRI-O take the runtime specification's fields, and a comment beside them."""
    profile = json.loads(PROFILE.read_text())
    assert set(profile) == {"defaultAction", "defaultErrnoRet", "architectures", "syscalls"}
    names = []
    for rule in profile["syscalls"]:
        assert set(rule) <= {"comment", "names", "action", "errnoRet", "args"}
        names += rule["names"]
    assert {"io_uring_setup", "io_uring_enter", "io_uring_register"} <= set(names)
    doubled = {name for name in names if names.count(name) > 1}
    assert doubled == {"socket"}
