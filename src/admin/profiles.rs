//! The pages of `listen_pprof`. Only its own listener has them: a profile tells much, and costs a little.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use monoio::io::AsyncReadRent;
use monoio::net::UnixStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Server;
use super::pages::Page;
use crate::http::head::Method;
use crate::io::deadline::Cut;
use crate::io::stream::Stream;
use crate::limits::{PROFILE_SECS, PROFILE_SECS_MAX, PROFILE_SYMBOLS_SECS};
use crate::profile::{self, Failure, Format, Turn};

const TEXT: &str = "text/plain; charset=utf-8";

const INDEX: &str = "\
Profiles of this process. Take one at a time.

/debug/pprof/profile?seconds=30             CPU profile for `go tool pprof`, 1 to 300 seconds
/debug/pprof/profile?seconds=30&format=svg  the same as a flame graph, for a browser
/debug/pprof/cmdline                        the command line; arguments end with a NUL
/debug/pprof/allocator                      the allocator's figures about memory
/debug/threads                              the CPU time of each thread

  go tool pprof -http : http://HOST:PORT/debug/pprof/profile?seconds=10
";

/// Said about profiles on the port for metrics.
const ELSEWHERE: &str = "profiles are served on the address of the setting listen_pprof; /debug/threads tells the CPU \
    time of each thread\n";

/// Said about what only Go's runtime has.
const NOT_GO: &str = "this is not a Go program: it has no goroutines, no garbage collector and no profile of its \
    heap. There are /debug/pprof/profile, /debug/pprof/cmdline, /debug/pprof/allocator and /debug/threads\n";

/// Header lines of a flame graph. Its own script may run and nothing else.
const SVG_LINES: &str = "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src \
    'unsafe-inline'\r\n";

/// Header lines of a profile.
const FILE_LINES: &str = "Content-Disposition: attachment; filename=\"profile.pb.gz\"\r\n";

/// Whether `path` is of these pages.
pub(super) fn has(path: &[u8]) -> bool {
    path == b"/debug/pprof" || path.starts_with(b"/debug/pprof/")
}

/// The answer on a listener that is not for profiles.
pub(super) fn elsewhere() -> Page {
    Page::text(404, ELSEWHERE)
}

impl Server {
    /// Answers a request for one of these pages. A profile is taken by a thread of its own meanwhile.
    pub(super) async fn profiles(&self, method: Method, path: &[u8], query: &str, stream: &Stream) -> Page {
        let name = path.strip_prefix(b"/debug/pprof").unwrap_or_default();
        match name.strip_prefix(b"/").unwrap_or_default() {
            b"" => Page::text(200, INDEX),
            b"cmdline" => Page::of(200, TEXT, cmdline()),
            b"allocator" => Page::text(200, profile::allocator()),
            b"profile" if method == Method::Head => Page::text(405, "a profile is for GET\n"),
            b"profile" => match order(query) {
                Ok((seconds, format)) => self.take_profile(seconds, format, stream).await,
                Err(mistake) => Page::text(400, format!("{mistake}\n")),
            },
            _ => Page::text(404, NOT_GO),
        }
    }

    async fn take_profile(&self, seconds: u64, format: Format, stream: &Stream) -> Page {
        let length = Duration::from_secs(seconds);
        let symbols = Duration::from_secs(PROFILE_SYMBOLS_SECS);
        stream.set_deadline(Instant::now() + length + symbols, Cut::Both);
        let taken = match Turn::take() {
            Some(turn) => match stream.duplicate() {
                Ok(client) => taken_apart(turn, length, format, client).await,
                Err(error) => Err(Failure::Write(error)),
            },
            None => Err(Failure::Busy),
        };
        let taken = taken.map(Bytes::from);
        let failed = |status, error: Failure| Page::text(status, format!("{error}\n"));
        match (taken, format) {
            (Ok(body), Format::Svg) => Page::of(200, "image/svg+xml", body).with_lines(SVG_LINES),
            (Ok(body), Format::Pprof) => {
                Page::of(200, "application/octet-stream", body).with_lines(FILE_LINES)
            }
            (Err(error @ Failure::Busy), _) => failed(409, error),
            (Err(error @ Failure::Refused(_)), _) => failed(501, error),
            (Err(error @ (Failure::Cancelled | Failure::Write(_))), _) => failed(503, error),
        }
    }
}

/// Takes a profile on a thread of its own, until `client` leaves.
async fn taken_apart(
    turn: Turn,
    length: Duration,
    format: Format,
    client: OwnedFd,
) -> Result<Vec<u8>, Failure> {
    let result = Arc::new(Mutex::new(Err(Failure::Cancelled)));
    let given = Arc::clone(&result);
    // The thread's end of the pair is closed when it ends, whatever happens.
    let (here, there) = StdUnixStream::pair().map_err(Failure::Write)?;
    here.set_nonblocking(true).map_err(Failure::Write)?;
    let mut ended = UnixStream::from_std(here).map_err(Failure::Write)?;
    let thread = std::thread::Builder::new().name("profile".into()).spawn(move || {
        let taken = profile::take(turn, length, format, &|| has_left(&client));
        *given.lock().unwrap_or_else(PoisonError::into_inner) = taken;
        drop(there);
    });
    thread.map_err(Failure::Write)?;
    let _ = ended.read(vec![0; 1]).await;
    let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::replace(&mut *result, Err(Failure::Cancelled))
}

/// Whether the client has closed its connection, or the server has cut it.
fn has_left(client: &OwnedFd) -> bool {
    let mut sockets = [PollFd::new(client, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut sockets, Some(&now)), Ok(1..))
}

/// What a query asks for.
fn order(query: &str) -> Result<(u64, Format), String> {
    let (mut seconds, mut format) = (PROFILE_SECS, Format::Pprof);
    for pair in query.split('&') {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("seconds", value) => {
                let read = value.parse().ok().filter(|seconds| (1..=PROFILE_SECS_MAX).contains(seconds));
                seconds = read.ok_or_else(|| {
                    format!(
                        "seconds must be a number from 1 to {PROFILE_SECS_MAX}; the default is {PROFILE_SECS}"
                    )
                })?;
            }
            ("format", "svg") => format = Format::Svg,
            ("format", "pprof" | "") => format = Format::Pprof,
            ("format", _) => return Err("format must be pprof or svg; the default is pprof".into()),
            _ => {}
        }
    }
    Ok((seconds, format))
}

/// The command line as Go writes it: with a NUL between arguments.
fn cmdline() -> Bytes {
    let mut line = fs::read("/proc/self/cmdline").unwrap_or_default();
    let _ = line.pop_if(|last| *last == 0);
    Bytes::from(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_limits_and_defaults() {
        assert_eq!(order(""), Ok((30, Format::Pprof)));
        assert_eq!(order("seconds=1&format=svg&debug=1"), Ok((1, Format::Svg)));
        assert_eq!(order("format=pprof&seconds=300"), Ok((300, Format::Pprof)));
        for wrong in ["seconds=0", "seconds=301", "seconds=", "seconds=1.5", "seconds=-1", "seconds"] {
            assert!(order(wrong).unwrap_err().contains("from 1 to 300"), "{wrong}");
        }
        assert!(order("format=png").unwrap_err().contains("pprof or svg"));
    }
}
