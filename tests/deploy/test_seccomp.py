"""The seccomp profile, around the real server."""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import deploy
import server
from programs import until

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


# Of `secret`.
HASH = "$2b$04$N6lmo4UxX8aCfiAhYb/nJeIE5o6tweWBeoU74UBidxWpW59Lzlaly"
PUSH = b'{"streams": [{"stream": {"tenant": "a"}, "values": [["1700000000000000000", "line"]]}]}'


@pytest.mark.parametrize("driver", ["io_uring", "epoll"])
def test_nor_does_it_with_passwords_changed_and_unreadable_files_and_name_lookups(tmp_path, driver):
    if driver == "io_uring" and not io_uring_works():
        pytest.skip("this machine forbids io_uring")
    users, token = tmp_path / "web.yml", tmp_path / "token"
    users.write_text(f"basic_auth_users: {{user: {HASH}}}\n")
    token.write_text("abc\n")
    more = f"""
target_loki: http://loki.invalid:3100/loki/api/v1/push
auth:
  ingress: {{web_config_file: {users}}}
  egress: {{bearer_token_file: {token}}}
"""

    def push(password):
        return running.post("/loki/api/v1/push", PUSH, "application/json", password)

    with server.running(tmp_path, driver, launcher=launcher("kill"), more=more) as running:
        assert running.driver() == driver
        assert push("wrong") == 401
        # No such host, which a name server says, or there is none.
        assert push("secret") in range(500, 505)
        token.write_text("changed\n")
        running.until_logged("the files of secrets have changed and were read again")
        users.write_text(f"basic_auth_users: {{user: {HASH}, other: {HASH}}}\n")
        running.until_logged("the files of TLS or authentication have changed and were read again")
        assert push("wrong") == 401
        token.write_text("changed once more\n")
        token.chmod(0)
        running.until_logged("the files of secrets have changed and have mistakes")
        assert f"chmod u+r {token}" in running.log.read_text()
        running.stop()


@pytest.mark.parametrize("driver", ["io_uring", "epoll"])
def test_nor_does_it_with_a_spool(tmp_path, driver):
    """All goes through it: it is written, made durable, read, and given back, and a second start finds the folder."""
    if driver == "io_uring" and not io_uring_works():
        pytest.skip("this machine forbids io_uring")
    more = f"spool: {{dir: {tmp_path}/a/spool, when: always, dead_letter: {tmp_path}/dead-letters}}\n"
    for _ in range(2):
        with server.running(tmp_path, driver, launcher=launcher("kill"), more=more) as running:
            running.send()
            until(lambda: re.search("^tenantry_spool_parts 0$", running.page("/metrics"), re.MULTILINE))
            assert re.search("^tenantry_spool_written_bytes_total [1-9]", running.page("/metrics"), re.MULTILINE)
            running.stop()


def test_at_its_start_an_unreadable_secret_is_a_mistake_under_the_profile(tmp_path):
    """The message names user and groups, which takes calls of its own."""
    token, config = tmp_path / "token", tmp_path / "tenantry.yml"
    token.write_text("abc\n")
    token.chmod(0)
    config.write_text(f"target: http://localhost:1/\nauth: {{egress: {{bearer_token_file: {token}}}}}\n")
    done = deploy.run(*launcher("kill"), deploy.TENANTRY, "--check-config", "--config", config)
    assert done.returncode == 64, (done.returncode, done.stderr)
    assert f"chmod u+r {token}" in done.stderr


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


# Calls that the profile refuses, and that this machine may refuse in any case.
REFUSED = {
    "unshare": "libc.unshare(0x10000000)",  # CLONE_NEWUSER
    "ptrace": "libc.ptrace(0, 0, 0, 0)",
    "mount": 'libc.mount(None, b"/mnt", None, 0, None)',
    "chroot": 'libc.chroot(b"/")',
    "bpf": "libc.syscall(321, 0, 0, 0)",
    "AF_ALG": "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)",
    "AF_PACKET": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
}
CALL = """
import ctypes, errno, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
try:
    print(errno.errorcode[ctypes.get_errno()] if CALL == -1 else "worked")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.mark.parametrize("name", REFUSED)
def test_the_profile_refuses_other_calls(name):
    command = [sys.executable, "-c", CALL.replace("CALL", REFUSED[name])]
    without = deploy.run(*command)
    assert without.returncode == 0, without.stderr
    if without.stdout == "EPERM\n":
        pytest.skip(f"this machine refuses {name} without the profile, too: the test would tell nothing")
    done = deploy.run(*launcher(), *command)
    assert done.stdout == "EPERM\n", done.stdout + done.stderr


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
