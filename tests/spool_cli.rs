//! `tenantry spool`, with the real program: beside a server that has the spool open, after it was killed, on a damaged
//! disk, and with dead letters that are sent again.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;
use support::upstream::Received;
use support::{Driver, Reply, Server, Upstream, body, eventually, on_both, series};
use tempfile::TempDir;

/// What a command has printed, and its exit code.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn spool(args: &[impl AsRef<OsStr>]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    let output = command.arg("spool").args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// A server with a spool, and an upstream that takes nothing of the tenants a and b.
fn full_spool(driver: Driver, folder: &Path) -> (Server, Upstream) {
    let upstream = Upstream::start(|_: &Received| Reply::new(503, "not now"));
    let extra = format!("timeout: 2s\nspool: {{dir: {}}}\n", folder.display());
    let server = Server::start(driver, upstream.address, &extra);
    let mut client = server.client();
    for value in 0..10 {
        let both = ["b", "a"].map(|tenant| series(tenant, "up", f64::from(value)));
        assert_eq!(client.push(&body(both.into())).status, 200);
    }
    (server, upstream)
}

/// The files of a folder and their bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn last_segment(folder: &Path) -> PathBuf {
    files(folder).into_keys().rfind(|path| path.to_string_lossy().contains("segment-")).unwrap()
}

/// What all commands say of a spool with ten parts of each tenant.
fn look(which: [&str; 2]) {
    let listed = spool(&[&["ls"][..], &which].concat());
    assert_eq!((listed.code, &*listed.err), (0, ""));
    let rows: Vec<Vec<_>> = listed.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1][..5], ["a", "main", "metrics", "10", "10"]);
    assert_eq!(rows[2][..5], ["b", "main", "metrics", "10", "10"]);
    assert_eq!(rows[3][..5], ["all", "2", "streams", "20", "20"]);

    let listed: Value = serde_json::from_str(&spool(&[&["ls", "--json"][..], &which].concat()).out).unwrap();
    assert_eq!(listed["totals"]["parts"], 20);
    assert_eq!(listed["totals"]["segments"], 1);
    assert!(listed["totals"]["disk_bytes"].as_u64() >= listed["totals"]["bytes"].as_u64());
    assert_eq!(listed["streams"][1]["tenant"], "b");
    assert!(listed["streams"][1]["oldest_seconds"].as_u64().unwrap() < 600);

    let verified = spool(&[&["verify"][..], &which].concat());
    assert_eq!((verified.code, &*verified.err), (0, ""));
    assert_eq!(verified.out, "1 segments, 20 records of parts, 0 of removals\n");

    let records = spool(&[&["cat", "--series"][..], &which].concat()).lines();
    let tenants: Vec<_> = records.iter().map(|record| record["tenant"].as_str().unwrap()).collect();
    assert_eq!(tenants, [["a"; 10], ["b"; 10]].concat());
    let sequences: Vec<_> = records[10..].iter().map(|record| record["sequence"].as_u64().unwrap()).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    for record in &records {
        assert_eq!(record["protocol"], "remote-write-1");
        assert_eq!((record["series"].as_u64(), record["samples"].as_u64()), (Some(1), Some(1)));
        let content = &record["content"][0];
        assert_eq!(content["samples"], 1);
        let shown = content["series"].as_str().unwrap();
        let tenant = record["tenant"].as_str().unwrap();
        assert!(shown.contains("__name__=\"up\"") && shown.contains(&format!("=\"{tenant}\"")), "{shown}");
    }
    let some = spool(&[&["cat", "--tenant", "b", "--limit", "3"][..], &which].concat());
    assert_eq!((some.code, some.lines().len()), (0, 3));
    assert!(some.lines().iter().all(|record| record["tenant"] == "b" && record.get("content").is_none()));
}

#[test]
fn a_spool_is_looked_at_beside_its_server_and_after_a_crash() {
    on_both(|driver| {
        let folder = tempfile::tempdir().unwrap();
        let (server, _upstream) = full_spool(driver, folder.path());
        let before = files(folder.path());
        look(["--config", server.file().to_str().unwrap()]);
        look(["--dir", folder.path().to_str().unwrap()]);
        assert_eq!(server.metric("tenantry_spool_parts", ""), 20.0);
        // It is killed.
        drop(server);
        look(["--dir", folder.path().to_str().unwrap()]);
        assert!(files(folder.path()) == before, "nothing was written");
    });
}

#[test]
fn a_torn_end_is_normal_and_a_flipped_byte_is_found() {
    let folder = tempfile::tempdir().unwrap();
    drop(full_spool(Driver::Epoll, folder.path()));
    let file = last_segment(folder.path());
    let whole = std::fs::read(&file).unwrap();
    let dir = folder.path().to_str().unwrap();

    std::fs::write(&file, &whole[..whole.len() - 3]).unwrap();
    let verified = spool(&["verify", "--dir", dir]);
    assert_eq!((verified.code, &*verified.err), (0, ""));
    assert!(verified.out.contains("ends early") && verified.out.contains(" 19 records"), "{}", verified.out);
    assert_eq!(spool(&["cat", "--dir", dir]).lines().len(), 19);

    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    std::fs::write(&file, &flipped).unwrap();
    let verified = spool(&["verify", "--dir", dir]);
    assert_eq!(verified.code, 1);
    assert!(verified.err.contains("damaged at byte") && verified.err.contains("readable ones behind"));
    assert!(verified.err.contains(file.file_name().unwrap().to_str().unwrap()), "{}", verified.err);
    // What a server would still find is shown, and that it is not all.
    for command in ["ls", "cat"] {
        let ran = spool(&[command, "--dir", dir]);
        assert!(ran.code == 1 && ran.err.contains("damaged") && ran.out.lines().count() > 1, "{}", ran.err);
    }
    assert!(std::fs::read(&file).unwrap() == flipped);
}

/// A server whose upstream has refused three parts out of the spool, in this order: `bad` and `worse` of the tenant t,
/// and `bad` of the tenant u. Their file.
fn dead_letters(folder: &Path) -> (Server, Upstream, PathBuf, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(500));
    let script = Arc::clone(&status);
    let upstream =
        Upstream::start(move |_: &Received| Reply::new(script.load(Ordering::SeqCst), "out of order"));
    let letters = folder.join("letters");
    let dir = folder.join("spool");
    let extra =
        format!("timeout: 2s\nspool: {{dir: {}, dead_letter: {}}}\n", dir.display(), letters.display());
    let server = Server::start(Driver::Epoll, upstream.address, &extra);
    let count = || std::fs::read_to_string(&letters).unwrap().lines().count();
    for (refused, (tenant, names)) in [("t", &["bad", "worse"][..]), ("u", &["bad"])].into_iter().enumerate()
    {
        status.store(500, Ordering::SeqCst);
        for name in names {
            assert_eq!(server.client().push(&body(vec![series(tenant, name, 1.0)])).status, 200);
        }
        status.store(400, Ordering::SeqCst);
        eventually("they are refused", || count() == 2 + refused);
    }
    (server, upstream, letters, status)
}

/// An upstream that answers `status` to requests with series of this name, and takes all others.
fn refusing(name: &'static str, status: u16) -> Upstream {
    Upstream::start(move |received: &Received| {
        let is_it = received.names().iter().any(|one| one == name);
        if is_it { Reply::new(status, "not this one") } else { Reply::ok() }
    })
}

fn replay(to: &str, more: &[&str], file: &Path) -> Ran {
    spool(&[&["replay", "--to", to][..], more, &[file.to_str().unwrap()]].concat())
}

#[test]
fn dead_letters_are_printed_and_sent_again_until_none_is_left() {
    let folder = TempDir::new().unwrap();
    let (server, _upstream, letters, _) = dead_letters(folder.path());
    let printed = spool(&["cat", letters.to_str().unwrap()]);
    assert_eq!((printed.code, &*printed.err), (0, ""));
    let lines = printed.lines();
    assert_eq!(
        lines.iter().map(|line| line["tenant"].as_str().unwrap()).collect::<Vec<_>>(),
        ["t", "t", "u"]
    );
    for line in &lines {
        assert_eq!(line["reason"], "400: out of order");
        assert!(line["refused_at"].as_u64() >= line["spooled_at"].as_u64() && line["series"] == 1);
    }
    assert_eq!(spool(&["cat", letters.to_str().unwrap(), "--tenant", "u"]).lines().len(), 1);

    // A refusal for good holds up nothing.
    let before = std::fs::read(&letters).unwrap();
    let other = refusing("worse", 400);
    let ran = replay(&format!("http://{}", other.address), &[], &letters);
    assert_eq!(ran.code, 1, "{}", ran.err);
    let told: Vec<_> = ran.out.lines().collect();
    let expected = [
        "line 1: t: 1 series, 1 samples: taken, with 200",
        "line 2: t: 1 series, 1 samples: left: 400 not this one",
        "line 3: u: 1 series, 1 samples: taken, with 200",
    ];
    assert_eq!(told, expected);
    let names: Vec<_> = other.received().iter().flat_map(Received::names).collect();
    assert_eq!(names, ["bad", "worse", "bad"]);
    for received in other.received() {
        assert_eq!((&*received.path, received.header("x-scope-orgid")), ("/api/v1/push", None));
        assert_eq!(received.header("content-encoding"), Some("snappy"));
    }
    assert!(std::fs::read(&letters).unwrap() == before);
    let left = folder.path().join("letters.left");
    let line = before.split_inclusive(|byte| *byte == b'\n').nth(1).unwrap();
    assert!(std::fs::read(&left).unwrap() == line);

    // What is left of an earlier replay is not overwritten.
    let again = replay(&format!("http://{}", other.address), &[], &letters);
    assert!(
        again.code == 1 && again.err.contains("letters.left is left of an earlier replay"),
        "{}",
        again.err
    );
    assert_eq!(other.received().len(), 3);

    // To an upstream itself, with the tenant's header and the headers of the format.
    let upstream = refusing("none", 400);
    let to = format!("http://{}/{{tenant}}/write", upstream.address);
    let ran = replay(&to, &["--tenant-header", "X-Scope-OrgID"], &left);
    assert_eq!((ran.code, ran.out.lines().last()), (0, Some("1 parts were taken, and none is left")));
    let received = upstream.of("t");
    assert_eq!((received.len(), &*received[0].path), (1, "/t/write"));
    assert_eq!(received[0].header("x-prometheus-remote-write-version"), Some("0.1.0"));
    assert!(!folder.path().join("letters.left.left").exists());
    drop(server);
}

#[test]
fn a_running_server_takes_them_by_their_label() {
    let folder = TempDir::new().unwrap();
    let (server, upstream, letters, status) = dead_letters(folder.path());
    status.store(200, Ordering::SeqCst);
    let before = upstream.received().len();
    let ran = replay(&format!("http://{}", server.address), &[], &letters);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let received = upstream.received();
    let sent: Vec<_> = received[before..].iter().map(|one| (one.tenant(), one.names().concat())).collect();
    assert_eq!(sent, [("t", "bad".into()), ("t", "worse".into()), ("u", "bad".into())]);
}

#[test]
fn after_a_failure_a_tenants_other_parts_wait_and_those_of_others_do_not() {
    let folder = TempDir::new().unwrap();
    let (_server, _upstream, letters, _) = dead_letters(folder.path());
    let left = folder.path().join("letters.left");
    let of_left = || std::fs::read_to_string(&left).unwrap().lines().count();
    let is_t = |received: &Received| received.path.starts_with("/t");
    let other = Upstream::start(
        move |received: &Received| {
            if is_t(received) { Reply::new(503, "") } else { Reply::ok() }
        },
    );
    let ran = replay(&format!("http://{}/{{tenant}}", other.address), &[], &letters);
    assert_eq!((ran.code, of_left()), (1, 2), "{}", ran.out);
    assert!(
        ran.out.contains("line 2: t: 1 series, 1 samples: left: not sent: a part before it"),
        "{}",
        ran.out
    );
    let paths: Vec<_> = other.received().into_iter().map(|received| received.path).collect();
    assert_eq!(paths, ["/t", "/u"]);

    // Nobody is there: all are left, also a line that is none.
    std::fs::remove_file(&left).unwrap();
    let text = std::fs::read_to_string(&letters).unwrap() + "{\"refused_at\":";
    std::fs::write(&letters, &text).unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = replay(&format!("http://{nobody}"), &[], &letters);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("line 4: left: it is not a dead letter"), "{}", ran.out);
    assert_eq!(std::fs::read_to_string(&left).unwrap(), text + "\n");
    let printed = spool(&["cat", letters.to_str().unwrap()]);
    assert_eq!((printed.code, printed.lines().len()), (1, 3));
    assert!(printed.err.contains("line 4"), "{}", printed.err);
}

#[test]
fn mistakes_have_their_exit_codes() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("c.yml");
    std::fs::write(&config, "tenant: {default: a}\n").unwrap();
    let config = config.to_str().unwrap();
    for (args, code, told) in [
        (&["ls", "--config", config][..], 64, "spool.dir is not set"),
        (&["verify", "--config", "/none"], 64, "/none"),
        (&["ls", "--dir", "/none"], 1, "/none"),
        (&["cat", "/none"], 1, "/none"),
        (&["replay", "--to", "https://h", "/none"], 64, "https is not supported"),
        (&["replay", "--to", "http://h", "/none"], 1, "/none"),
        (&["replay", "/none"], 64, "--to"),
    ] {
        let ran = spool(args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.err);
        assert!(ran.err.contains(told) && ran.out.is_empty(), "{args:?}: {}", ran.err);
    }
}
