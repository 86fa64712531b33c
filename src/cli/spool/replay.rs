//! `tenantry spool replay`: sends dead letters again.
//!
//! The file is read up to where it ended at the start: a server may add to it what is sent to it now.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::folder::fail;
use super::lines::{Line, Lines, read_line};
use super::post::{Answer, PostError, post};
use crate::cli::capture::shown;
use crate::cli::output::{EXIT_USAGE, print, print_error};
use crate::config::{Target, TenantHeader};
use crate::format::destination_of;
use crate::http::Passed;
use crate::model::{Destination, Fate, Part};
use crate::split::body_of;
use crate::spool::{Spooled, Stream};
use crate::text::escaped;
use crate::wire::otlp::answer::{PartialSuccess, read_partial_success, read_status};

/// Bytes of what is left that are copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// The arguments of `tenantry spool replay`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct ReplayArgs {
    /// Where to send it: http://HOST:PORT of a running Tenantry, which finds the tenant by the label
    ///
    /// Without a path, metrics go to /api/v1/push, logs to /loki/api/v1/push, and what came by OTLP to /v1/metrics,
    /// /v1/logs and /v1/traces. A URL with a path takes one of these; the rest is left. {tenant} in it stands for the
    /// tenant. https is not supported.
    #[arg(long, value_name = "URL")]
    to: String,

    /// Add this header with the tenant, for an upstream, as tenant.header does
    ///
    /// Needed if the series no longer have the label that names their tenant (tenant.label_remove): then send to the
    /// upstream itself.
    #[arg(long, value_name = "NAME")]
    tenant_header: Option<String>,

    /// A file of dead letters (spool.dead_letter)
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs the command.
pub(super) fn run(args: &ReplayArgs) -> Result<ExitCode, ExitCode> {
    let mut replay = Replay::new(args).map_err(|mistake| {
        print_error(&escaped(&mistake));
        ExitCode::from(EXIT_USAGE)
    })?;
    let left_file = beside(&args.file, ".left");
    if left_file.exists() {
        let left = shown(&left_file);
        return Err(fail(&format_args!(
            "{left} is left of an earlier replay: send it, or move it away, before this one"
        )));
    }
    let cannot = |error: io::Error| fail(&format_args!("{}: cannot be read: {error}", shown(&args.file)));
    let file = File::open(&args.file).map_err(cannot)?;
    let length = file.metadata().map_err(cannot)?.len();
    let (mut left, mut taken, mut read) = (Vec::new(), 0_u64, 0);
    for (line, number) in Lines::new(BufReader::new((&file).take(length))).zip(1_u64..) {
        let Line { text, place } = match line {
            Ok(line) => line,
            Err(error) => {
                print_error(&format_args!("{}: cannot be read: {error}", shown(&args.file)));
                // What is behind it was not sent.
                left.push(read..length);
                break;
            }
        };
        read = place.end;
        match replay.line(&text, number) {
            true => taken += 1,
            false => left.push(place),
        }
    }
    if left.is_empty() {
        print(&format!("{taken} parts were taken, and none is left\n"));
        return Ok(ExitCode::SUCCESS);
    }
    leave(&file, &left, &left_file)
        .map_err(|error| fail(&format_args!("{}: cannot be written: {error}", shown(&left_file))))?;
    let count = left.len();
    Ok(fail(&format_args!("{taken} parts were taken, and {count} are left in {}", shown(&left_file))))
}

/// A file of the same name with more behind it.
fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(more);
    name.into()
}

/// Writes what is left. The file is there as a whole, or not at all.
fn leave(from: &File, places: &[Range<u64>], to: &Path) -> io::Result<()> {
    let unfinished = beside(to, ".new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    let mut bytes = Vec::new();
    for place in places {
        let mut at = place.start;
        while at < place.end {
            bytes.resize(COPY_BYTES.min(usize::try_from(place.end - at).unwrap_or(COPY_BYTES)), 0);
            from.read_exact_at(&mut bytes, at)?;
            file.write_all(&bytes)?;
            at += bytes.len() as u64;
        }
        if bytes.last() != Some(&b'\n') {
            file.write_all(b"\n")?;
        }
    }
    file.sync_all()?;
    std::fs::rename(&unfinished, to)?;
    let folder = to.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Sends parts.
struct Replay {
    target: Target,
    tenant_header: Option<TenantHeader>,
    /// What the URL takes; `None`: each goes to its own path, or the first part decides.
    destination: Option<Destination>,
    has_path: bool,
    /// Streams with a part that may be taken later. What follows waits for it.
    held: HashSet<Stream>,
    /// Why nothing more is sent.
    ended: Option<String>,
}

impl Replay {
    /// The error is a mistake in the arguments.
    fn new(args: &ReplayArgs) -> Result<Self, String> {
        let target = Target::parse(&args.to).map_err(|mistake| format!("--to: {mistake}"))?;
        if target.tls {
            return Err(
                "--to: https is not supported: name a port that takes plain HTTP, such as one of a proxy on \
                        this host"
                    .into(),
            );
        }
        let tenant_header = args.tenant_header.as_deref().map(TenantHeader::parse).transpose();
        let tenant_header = tenant_header.map_err(|mistake| format!("--tenant-header: {mistake}"))?;
        let url = args.to.split_once("://").map_or(&*args.to, |(_, rest)| rest);
        let path = url.find(['/', '?']).and_then(|at| url.get(at..)).unwrap_or_default();
        Ok(Self {
            target,
            tenant_header,
            destination: destination_of(path.as_bytes()),
            has_path: !matches!(path, "" | "/"),
            held: HashSet::new(),
            ended: None,
        })
    }

    /// Sends the part in a line, and prints what has come of it. Returns whether it was taken.
    fn line(&mut self, text: &[u8], number: u64) -> bool {
        let spooled = match read_line(text) {
            Ok((_, spooled)) => spooled,
            Err(error) => {
                print(&format!("line {number}: left: {}\n", escaped(&error)));
                return false;
            }
        };
        let part = &spooled.part;
        let what = format!("{}: {} series, {} samples", part.tenant, part.series, part.samples);
        let sent = self.send(&spooled);
        let (is_taken, told) = match sent {
            Ok(status) => (true, format!("taken, with {status}")),
            Err(why) => (false, format!("left: {why}")),
        };
        print(&format!("line {number}: {}\n", escaped(&format!("{what}: {told}"))));
        is_taken
    }

    /// Sends a part. Returns the status if it was taken, or why it is left.
    fn send(&mut self, spooled: &Spooled) -> Result<u16, String> {
        let stream = spooled.stream();
        if let Some(why) = &self.ended {
            return Err(format!("not sent: {why}"));
        }
        if self.held.contains(&stream) {
            return Err("not sent: a part before it may still be taken".into());
        }
        if self.has_path && *self.destination.get_or_insert(stream.destination) != stream.destination {
            return Err(format!("not sent: this URL does not take {}", stream.destination.name()));
        }
        let body = body_of(&spooled.part);
        match post(&self.target, &self.head(spooled, body.len()), &body) {
            Ok(answer) => {
                if Fate::of(answer.status) >= Fate::Throttled {
                    self.held.insert(stream);
                }
                taken(&spooled.part, &answer)
            }
            Err(error) => {
                if matches!(error, PostError::Connect(_)) {
                    self.ended = Some(error.to_string());
                }
                self.held.insert(stream);
                Err(error.to_string())
            }
        }
    }

    fn head(&self, spooled: &Spooled, body_bytes: usize) -> Vec<u8> {
        let part = &spooled.part;
        let mut head = b"POST ".to_vec();
        match (self.has_path, part.protocol.destination()) {
            (true, _) => self.target.path_for(&part.tenant, &mut head),
            (false, Destination::Metrics) => head.extend_from_slice(b"/api/v1/push"),
            (false, Destination::Logs) => head.extend_from_slice(b"/loki/api/v1/push"),
            (false, Destination::OtlpMetrics) => head.extend_from_slice(b"/v1/metrics"),
            (false, Destination::OtlpLogs) => head.extend_from_slice(b"/v1/logs"),
            (false, Destination::OtlpTraces) => head.extend_from_slice(b"/v1/traces"),
        }
        let lines = format!(
            " HTTP/1.1\r\nHost: {}\r\nUser-Agent: tenantry/{}\r\nConnection: close\r\n{}{}",
            self.target.host_header,
            env!("CARGO_PKG_VERSION"),
            part.coding.now.content_field(),
            part.protocol.content_fields(),
        );
        head.extend_from_slice(lines.as_bytes());
        if let Some(header) = &self.tenant_header {
            header.write(&part.tenant, &mut head);
        }
        head.extend_from_slice(Passed::deciding(spooled.passed.as_ref()));
        head.extend_from_slice(format!("Content-Length: {body_bytes}\r\n\r\n").as_bytes());
        head
    }
}

/// Whether a part was taken with this answer: its status, or why it is left. A partial success in OTLP does not say
/// what was rejected, so the part is left as a whole.
fn taken(part: &Part, answer: &Answer) -> Result<u16, String> {
    let status = answer.status;
    let is_otlp = part.protocol.export().is_some();
    if Fate::of(status) != Fate::Delivered {
        let told = is_otlp.then(|| read_status(&answer.content)).flatten();
        return Err(format!("{status} {}", told.unwrap_or_else(|| answer.text())));
    }
    let partial = is_otlp.then(|| read_partial_success(&answer.content)).flatten();
    match partial.filter(|partial| partial.rejected > 0) {
        Some(PartialSuccess { rejected, message }) => {
            Err(format!("{status}, but {rejected} of its items were rejected: {message}"))
        }
        None => Ok(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Coding, Compression, MergeKey, Notation, Protocol, Signal};
    use crate::tenant::{IdRules, TenantId};
    use crate::wire::otlp::answer::{write_status, write_success};

    #[test]
    fn a_part_of_which_some_was_rejected_is_left() {
        let part = |protocol| Part {
            tenant: TenantId::new("a", IdRules::Mimir).unwrap(),
            protocol,
            elements: bytes::Bytes::new(),
            coding: Coding::of(Compression::Identity),
            inflated_bytes: 0,
            series: 1,
            samples: 5,
            histograms: 0,
            exemplars: 0,
            merge: MergeKey::Ha(None),
        };
        for notation in [Notation::Protobuf, Notation::Json] {
            let told = |rejected, message: &str| {
                let partial = PartialSuccess { rejected, message: message.into() };
                let content = write_success(notation, Signal::Logs, &partial);
                taken(&part(Protocol::Otlp(Signal::Logs)), &Answer { status: 200, content })
            };
            assert_eq!(told(2, "old").unwrap_err(), "200, but 2 of its items were rejected: old");
            assert_eq!(told(0, "a warning"), Ok(200));
            assert_eq!(told(0, ""), Ok(200));
            let content = write_status(notation, 400, "never");
            let refused = taken(&part(Protocol::Otlp(Signal::Logs)), &Answer { status: 400, content });
            assert_eq!(refused.unwrap_err(), "400 never");
        }
        let other = Answer { status: 200, content: b"{\"partialSuccess\":{\"rejectedSpans\":1}}".to_vec() };
        assert_eq!(taken(&part(Protocol::Loki), &other), Ok(200));
    }

    fn replay(to: &str, tenant_header: Option<&str>) -> Result<Replay, String> {
        let (to, tenant_header) = (to.to_owned(), tenant_header.map(str::to_owned));
        Replay::new(&ReplayArgs { to, tenant_header, file: "f".into() })
    }

    #[test]
    fn a_url_tells_what_it_takes() {
        for (to, has_path, destination) in [
            ("http://h:1", false, None),
            ("h:1", false, None),
            ("http://h:1/", false, None),
            ("http://h:1/push", true, Some(Destination::Metrics)),
            ("http://h:1/loki/api/v1/push?x=y", true, Some(Destination::Logs)),
            ("http://h:1/insert/{tenant}/prometheus", true, None),
            ("http://h:1?x", true, None),
        ] {
            let replay = replay(to, None).unwrap();
            assert_eq!((replay.has_path, replay.destination), (has_path, destination), "{to}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        let mistake = |to, header| replay(to, header).err().unwrap();
        assert!(mistake("https://h/", None).starts_with("--to: https is not supported"));
        assert!(mistake("http://h:x/", None).starts_with("--to: "));
        assert!(mistake("http://h/", Some("Content-Length")).starts_with("--tenant-header: "));
    }

    #[test]
    fn what_is_left_is_copied_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("f"), folder.path().join("f.left"));
        std::fs::write(&from, "one\ntwo\nthree").unwrap();
        leave(&File::open(&from).unwrap(), &[0..4, 8..13], &to).unwrap();
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "one\nthree\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
