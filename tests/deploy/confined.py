"""confined.py PROFILE DEFAULT WITHOUT PROGRAM ARGUMENT…: runs a program under a seccomp profile, as a container runtime
does: with no_new_privs, and a filter made by libseccomp. DEFAULT is what happens to calls that the profile does not
name: `errno`, as it says itself, or `kill`. WITHOUT is a prefix of calls that are left out, or empty."""

import ctypes
import json
import os
import sys

import pyseccomp

COMPARE = {"SCMP_CMP_EQ": pyseccomp.EQ, "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ}


def action(rule):
    if rule["action"] == "SCMP_ACT_ERRNO":
        return pyseccomp.ERRNO(rule["errnoRet"])
    assert rule["action"] == "SCMP_ACT_ALLOW", rule["action"]
    return pyseccomp.ALLOW


def load(profile, default, without):
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    refuse = pyseccomp.KILL_PROCESS if default == "kill" else pyseccomp.ERRNO(profile["defaultErrnoRet"])
    rules = pyseccomp.SyscallFilter(refuse)
    for rule in profile["syscalls"]:
        arguments = [
            pyseccomp.Arg(a["index"], COMPARE[a["op"]], a["value"], a.get("valueTwo", 0)) for a in rule.get("args", [])
        ]
        for name in rule["names"]:
            is_left_out = without and name.startswith(without)
            # Other machines have calls that this one lacks. libseccomp gives these numbers below zero.
            is_here = pyseccomp.resolve_syscall(pyseccomp.system_arch(), name) >= 0
            if is_here and not is_left_out:
                rules.add_rule(action(rule), name, *arguments)
    rules.load()


if __name__ == "__main__":
    _, path, default, without, *command = sys.argv
    with open(path) as file:
        profile = json.load(file)
    # PR_SET_NO_NEW_PRIVS
    assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0
    # Root reads every file by CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH. As in a container without capabilities, it
    # should not: PR_CAPBSET_DROP. Other users lack these, and the call fails.
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
    load(profile, default, without)
    os.execv(command[0], command)
