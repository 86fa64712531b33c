//! A short bad day, with the real server on each driver; and a thief among the honest, who must be found.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod support;

use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use loadgen::chaos::Plan;
use loadgen::fleet::numbered_tenants;
use serde_json::Value;
use support::{loadgen, refuses, text};

const MINUTES: &str = "0.15";

fn chaos(args: &[&str]) -> (Output, String, Value) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = loadgen(&[&["chaos", "--json", file.path().to_str().unwrap()], args].concat());
    let json = serde_json::from_slice(&std::fs::read(file.path()).unwrap());
    let text = text(&output);
    let json = json.unwrap_or_else(|error| panic!("{error}: {text}"));
    (output, text, json)
}

/// The command's plan for a run of [`MINUTES`].
fn plan(seed: u64) -> Plan {
    let tenants: Vec<String> = numbered_tenants(6).into_iter().map(|(name, _)| name).collect();
    Plan::new(seed, Duration::from_secs(9), &tenants)
}

/// A seed whose short plan has it all: the server killed, handed over, reloaded well and badly, the upstream restarted.
fn eventful_seed() -> u64 {
    let has = |plan: &Plan, wanted: &str| plan.events.iter().any(|planned| planned.event.name() == wanted);
    let wanted = ["kill", "handover", "reload", "bad reload", "upstream down"];
    (0..).find(|&seed| wanted.iter().all(|event| has(&plan(seed), event))).unwrap()
}

/// io_uring may be forbidden, and then this says so.
fn drivers() -> Vec<&'static str> {
    match tenantry::io::driver::Driver::probe(tenantry::config::DriverChoice::IoUring) {
        Ok(_) => vec!["io_uring", "epoll"],
        Err(error) => {
            eprintln!("io_uring does not work here, testing epoll only: {error}");
            vec!["epoll"]
        }
    }
}

#[test]
fn what_is_acknowledged_survives_a_bad_day() {
    let seed = eventful_seed();
    let planned: Vec<&str> = plan(seed).events.iter().map(|planned| planned.event.name()).collect();
    thread::scope(|scope| {
        for driver in drivers() {
            let planned = &planned;
            scope.spawn(move || {
                let seed = seed.to_string();
                let (output, text, json) =
                    chaos(&["--seed", &seed, "--minutes", MINUTES, "--driver", driver]);
                assert_eq!(output.status.code(), Some(0), "{text}");
                assert!(text.contains("all that was acknowledged survived, once, in order"), "{text}");
                let happened = json["events"].as_array().unwrap();
                let happened: Vec<&str> =
                    happened.iter().map(|event| event["event"].as_str().unwrap()).collect();
                assert_eq!(&happened, planned, "{text}");
                for (of, what) in
                    [("requests", "acknowledged"), ("samples", "stored"), ("events_by_kind", "kill")]
                {
                    assert!(json[of][what].as_u64() > Some(0), "no {of} {what}: {text}");
                }
                let liveness = &json["liveness"];
                assert_eq!(liveness["starved"].as_array().map(Vec::len), Some(0), "{text}");
                // That nobody waited for a tenth of a second would be no fault: what counts is that it was looked at.
                assert!(liveness["watched_beats"].as_u64() > Some(0), "nothing was watched: {text}");
                // Storms did meet requests.
                assert!(
                    json["requests"]["attempts"].as_u64() > json["requests"]["settled"].as_u64(),
                    "{text}"
                );
            });
        }
    });
}

/// Neither strace nor a namespace is to be had everywhere, and then this says so.
fn has_disks() -> bool {
    let works = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let has = works(Command::new("strace").args(["-D", "-f", "--seccomp-bpf", "-o", "/dev/null", "true"]))
        && works(Command::new("unshare").args(["-r", "-m", "true"]));
    if !has {
        eprintln!("neither slow nor small disks here");
    }
    has
}

#[test]
fn what_is_acknowledged_survives_a_slow_disk_that_is_full_now_and_then() {
    if !has_disks() {
        return;
    }
    let seed = eventful_seed().to_string();
    thread::scope(|scope| {
        for driver in drivers() {
            let seed = &seed;
            scope.spawn(move || {
                let disk = ["--spool", "--slow-disk", "50ms", "--disk-bytes", "128Ki"];
                let run = ["--seed", seed, "--minutes", MINUTES, "--driver", driver];
                let (output, text, json) = chaos(&[&disk[..], &run].concat());
                assert_eq!(output.status.code(), Some(0), "{text}");
                let used = &json["spool"];
                assert!(used["parts"].as_u64() > Some(0), "{text}");
                // How much comes is up to the machine: the disk has no room, or the spool expects that it has none.
                let full = ["commits_failed", "refused"].map(|key| used[key].as_u64().unwrap());
                assert!(full.iter().any(|&times| times > 0), "it was never full: {text}");
                let commits = used["commits"].as_u64().unwrap();
                // Those that failed, and those of removals, wait for nothing.
                let slow = used["commit_seconds"].as_f64().unwrap() / 0.05;
                assert!(slow > 3.0 && slow < 5.0 * commits as f64, "{slow} slow ones of {commits}: {text}");
            });
        }
    });
}

#[test]
fn a_disk_that_cannot_be_made_is_refused_with_the_reason() {
    for (option, value, why) in
        [("--slow-disk", "1ms", "strace is needed"), ("--disk-bytes", "1Mi", "unshare is needed")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        let output = command.args(["chaos", "--spool", option, value]).env("PATH", "/nowhere").output();
        let text = text(&output.unwrap());
        assert!(text.contains(option) && text.contains(why), "{text}");
    }
}

#[test]
fn a_thief_is_found_and_what_tells_of_him_is_kept() {
    for (theft, found) in [("lose", "lost"), ("duplicate", "duplicated"), ("misplace", "misplaced")] {
        let (output, text, json) = chaos(&["--seed", "1", "--minutes", "0.03", "--steal", theft]);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(json["audit"][found]["samples"].as_u64() > Some(0), "{text}");
        assert!(text.contains(&format!("--seed 1 --minutes 0.03 --steal {theft}")), "{text}");
        let kept = text.lines().find_map(|line| line.strip_prefix("kept")).unwrap();
        let dir = kept.trim().split(':').next().unwrap();
        let log = std::fs::read_to_string(format!("{dir}/server.log")).unwrap();
        assert!(log.contains("listening"), "{log}");
        std::fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn who_starves_while_the_plan_calls_him_well_is_found() {
    let (output, text, json) = chaos(&["--seed", "1", "--minutes", "0.03", "--steal", "starve"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let starved = json["liveness"]["starved"].as_array().unwrap();
    assert!(starved.iter().all(|found| found["tenant"] == "team-000") && !starved.is_empty(), "{text}");
    assert!(text.contains("failed     team-000 got nowhere at remote write for"), "{text}");
    assert_eq!(json["audit"]["lost"]["samples"], 0, "{text}");
    assert_eq!(
        json["complaints"].as_array().map(Vec::len),
        Some(starved.len()),
        "nothing else is wrong: {text}"
    );
    let kept = text.lines().find_map(|line| line.strip_prefix("kept")).unwrap();
    std::fs::remove_dir_all(kept.trim().split(':').next().unwrap()).unwrap();
}

#[test]
fn chaos_says_what_is_wrong_with_its_arguments() {
    refuses(&[
        (&["chaos", "--minutes", "0"], "no number above 0"),
        (&["chaos", "--minutes", "31"], "no number above 0 and up to 30"),
        (&["chaos", "--driver", "poll"], "io_uring"),
        (&["chaos", "--slow-disk", "1ms"], "--spool"),
        (&["chaos", "--spool", "--slow-disk", "1m"], "--slow-disk: at most 10 s"),
        (&["chaos", "--spool", "--disk-bytes", "64Ki"], "no size such as 4Mi of at least 131072 bytes"),
        (&["chaos", "--server", "/nowhere", "--minutes", "0.01"], "cannot start the server"),
    ]);
}
