//! What an operator looks at: /metrics, a status page, the threads' CPU time.
//!
//! Design constraints:
//! - It must answer when the cores don't: so it has threads of its own, blocking ones, and shares nothing with the
//!   cores but numbers that it reads.
//! - It must not be wedged by a client that sends nothing, or sends or reads a byte now and then: a connection carries
//!   one request, and has a deadline for all of it, not for each read.
//!
//! Each listener has a few threads that accept and answer in turn. While all are busy, which their deadlines keep
//! short, clients wait in the kernel's backlog: a scrape comes late then, and does not fail.

mod exposition;
mod pages;
mod process;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use pages::{Page, Pages};

use crate::http::head::{Framing, Method, RequestHead};
use crate::limits::{
    ADMIN_BYTES_PER_SEC_MIN, ADMIN_HEAD_BYTES_MAX, ADMIN_THREADS, ADMIN_TIMEOUT_MILLIS, FAREWELL_BYTES_MAX,
    FAREWELL_MILLIS,
};

/// A listener for operators, and its threads.
#[derive(Debug)]
pub struct Admin {
    desk: Arc<Desk>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads of a listener share.
#[derive(Debug)]
struct Desk {
    listener: TcpListener,
    pages: Arc<Pages>,
    stopping: AtomicBool,
    /// The connection that each thread serves, so that it can be cut at the end.
    serving: [Mutex<Option<Arc<TcpStream>>>; ADMIN_THREADS],
}

impl Admin {
    /// Answers on `listener` from now on.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(listener: TcpListener, pages: Arc<Pages>) -> io::Result<Self> {
        let serving = [const { Mutex::new(None) }; ADMIN_THREADS];
        let desk = Arc::new(Desk { listener, pages, stopping: AtomicBool::new(false), serving });
        let mut admin = Self { desk, threads: Vec::with_capacity(ADMIN_THREADS) };
        for seat in 0..ADMIN_THREADS {
            let desk = Arc::clone(&admin.desk);
            match std::thread::Builder::new().name("admin".into()).spawn(move || desk.work(seat)) {
                Ok(thread) => admin.threads.push(thread),
                Err(error) => {
                    admin.stop();
                    return Err(error);
                }
            }
        }
        Ok(admin)
    }

    /// Stops answering, at once: whoever is being answered is cut off.
    pub fn stop(self) {
        self.desk.stopping.store(true, Ordering::SeqCst);
        // Ends the `accept` that threads are in, and every later one.
        let _ = rustix::net::shutdown(&self.desk.listener, rustix::net::Shutdown::Both);
        for serving in &self.desk.serving {
            if let Some(stream) = &*serving.lock().unwrap_or_else(PoisonError::into_inner) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        for thread in self.threads {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Desk {
    fn work(&self, seat: usize) {
        while !self.stopping.load(Ordering::SeqCst) {
            match self.listener.accept() {
                Ok((stream, _)) => self.attend(seat, stream),
                Err(_) if self.stopping.load(Ordering::SeqCst) => return,
                Err(error) => {
                    tracing::warn!(%error, "can't accept connections for operators");
                    std::thread::park_timeout(Duration::from_millis(ADMIN_TIMEOUT_MILLIS));
                }
            }
        }
    }

    fn attend(&self, seat: usize, stream: TcpStream) {
        let stream = Arc::new(stream);
        let show = |stream| {
            if let Some(serving) = self.serving.get(seat) {
                *serving.lock().unwrap_or_else(PoisonError::into_inner) = stream;
            }
        };
        show(Some(Arc::clone(&stream)));
        // Shown first and asked then: one that comes as we stop is either seen by `stop` or not served.
        if !self.stopping.load(Ordering::SeqCst) {
            // A client that went away or dawdled is its own trouble.
            let _ = serve(&stream, &self.pages);
        }
        show(None);
    }
}

/// One request and its answer.
fn serve(stream: &TcpStream, pages: &Pages) -> io::Result<()> {
    let timeout = Duration::from_millis(ADMIN_TIMEOUT_MILLIS);
    let (page, head_only, all_read) = match read_head(stream, Instant::now() + timeout)? {
        Some((head, path)) => {
            let readable = matches!(head.method, Method::Get | Method::Head);
            let page =
                if readable { pages.page(&path) } else { Page::text(405, "this page is for GET and HEAD\n") };
            (page, head.method == Method::Head, matches!(head.framing, Framing::None | Framing::Length(0)))
        }
        None => (Page::text(400, "bad request\n"), false, false),
    };
    let response = page.response(head_only);
    let for_its_size = Duration::from_secs((response.len() / ADMIN_BYTES_PER_SEC_MIN) as u64);
    write_all(stream, &response, Instant::now() + timeout + for_its_size)?;
    stream.shutdown(Shutdown::Write)?;
    if all_read { Ok(()) } else { swallow(stream, Instant::now() + Duration::from_millis(FAREWELL_MILLIS)) }
}

/// The head and its path; None when it is none, or too long.
fn read_head(stream: &TcpStream, until: Instant) -> io::Result<Option<(RequestHead, Vec<u8>)>> {
    let mut buffer = Vec::with_capacity(ADMIN_HEAD_BYTES_MAX);
    let mut chunk = [0u8; 1024];
    while buffer.len() < ADMIN_HEAD_BYTES_MAX {
        let n = read(stream, &mut chunk, until)?;
        buffer.extend_from_slice(chunk.get(..n).unwrap_or_default());
        match RequestHead::parse(&buffer, "") {
            Ok(Some((head, _))) => {
                let path = buffer.get(head.path.clone()).unwrap_or_default().to_vec();
                return Ok(Some((head, path)));
            }
            Ok(None) if n > 0 => {}
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Reads on what the client has yet to send, for a while: closed on unread bytes, a socket sends a reset, and the
/// client might never see its answer.
fn swallow(stream: &TcpStream, until: Instant) -> io::Result<()> {
    let mut chunk = [0u8; 8192];
    let mut swallowed = 0;
    while swallowed < FAREWELL_BYTES_MAX {
        match read(stream, &mut chunk, until)? {
            0 => break,
            n => swallowed += n,
        }
    }
    Ok(())
}

fn read(mut stream: &TcpStream, chunk: &mut [u8], until: Instant) -> io::Result<usize> {
    stream.set_read_timeout(Some(left(until)?))?;
    stream.read(chunk)
}

/// Writes all of `bytes` before `until`, however few of them the client takes at a time.
fn write_all(mut stream: &TcpStream, mut bytes: &[u8], until: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(until)?))?;
        match stream.write(bytes)? {
            0 => return Err(ErrorKind::WriteZero.into()),
            n => bytes = bytes.get(n..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// The time left until `until`: what a socket's timeout may be, which is more than nothing.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::metrics::Metrics;
    use crate::queue::commons::Commons;

    fn start() -> (Admin, SocketAddr, Arc<Commons>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let commons = Commons::new(2, 100, 10, 10);
        let metrics = Arc::new(Metrics::new(2, 10, true));
        let plan = crate::config::parse("", "listen: 127.0.0.1:1", []).unwrap();
        let plan = Arc::new(arc_swap::ArcSwap::from_pointee(plan));
        let pages = Pages::new(metrics, Arc::clone(&commons), "epoll", plan);
        (Admin::start(listener, Arc::new(pages)).unwrap(), address, commons)
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(address: SocketAddr, path: &str) -> String {
        ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    #[test]
    fn the_pages_are_there_and_nothing_else() {
        let (admin, address, commons) = start();
        assert!(get(address, "/metrics?x=y").contains("\ncortex_tenant_timeseries_batches_received 0\n"));
        assert!(get(address, "/").contains("listen=127.0.0.1:1"));
        assert!(get(address, "/debug/threads").contains("admin"));
        let profile = get(address, "/debug/pprof/profile?seconds=5");
        assert!(profile.starts_with("HTTP/1.1 404") && profile.contains("perf record"));
        assert!(get(address, "/alive").starts_with("HTTP/1.1 200"));
        commons.leave();
        assert!(get(address, "/alive").starts_with("HTTP/1.1 503"));
        assert!(get(address, "/nothing").starts_with("HTTP/1.1 404"));
        assert!(ask(address, "POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(ask(address, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
        let head = ask(address, "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"));
        admin.stop();
    }

    /// How long a request waits while all threads have to do with clients such as these.
    fn wait_behind(clients: impl FnOnce(SocketAddr)) -> Duration {
        let (admin, address, _) = start();
        clients(address);
        let begun = Instant::now();
        assert!(get(address, "/metrics").starts_with("HTTP/1.1 200"));
        let waited = begun.elapsed();
        admin.stop();
        waited
    }

    const A_BIT_LATE: Duration = Duration::from_millis(ADMIN_TIMEOUT_MILLIS + 1_500);

    #[test]
    fn a_few_silent_clients_hold_up_nobody_and_more_not_for_long() {
        let silent = |address, n| (0..n).map(|_| TcpStream::connect(address).unwrap()).collect::<Vec<_>>();
        let mut kept = Vec::new();
        let few = wait_behind(|address| kept = silent(address, ADMIN_THREADS - 1));
        assert!(few < Duration::from_millis(ADMIN_TIMEOUT_MILLIS / 2), "{few:?}");
        let many = wait_behind(|address| kept = silent(address, ADMIN_THREADS));
        assert!(many < A_BIT_LATE, "{many:?}");
    }

    #[test]
    fn clients_that_send_a_byte_now_and_then_are_cut_off_like_silent_ones() {
        let waited = wait_behind(|address| {
            let mut clients: Vec<_> =
                (0..ADMIN_THREADS).map(|_| TcpStream::connect(address).unwrap()).collect();
            clients.iter_mut().for_each(|c| c.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX: ").unwrap());
            std::thread::spawn(move || {
                for _ in 0..100 {
                    clients.iter_mut().for_each(|c| _ = c.write_all(b"x"));
                    std::thread::park_timeout(Duration::from_millis(100));
                }
            });
        });
        assert!(waited < A_BIT_LATE, "{waited:?}");
    }

    #[test]
    fn a_client_that_reads_a_byte_now_and_then_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        std::thread::spawn(move || {
            let mut some = [0; 100_000];
            while client.read(&mut some).is_ok_and(|n| n > 0) {
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        let begun = Instant::now();
        let page = vec![b'x'; 200 << 20];
        let result = write_all(&ours, &page, begun + Duration::from_millis(300));
        assert!(
            matches!(result.unwrap_err().kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
                && begun.elapsed() < Duration::from_secs(1)
        );
    }

    #[test]
    fn a_refused_request_with_a_body_still_gets_its_answer() {
        let (admin, address, _) = start();
        // More than the kernel buffers: a client that can't send all of it may not look for an answer.
        let body = "x".repeat(FAREWELL_BYTES_MAX - (1 << 20));
        let request = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert!(ask(address, &request).contains("for GET and HEAD"));
        let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {body}\r\n\r\n");
        assert!(ask(address, &long).starts_with("HTTP/1.1 400"));
        admin.stop();
    }

    #[test]
    fn stopping_cuts_clients_off_ends_the_threads_and_frees_the_port() {
        let (admin, address, _) = start();
        let _silent: Vec<_> = (0..ADMIN_THREADS + 1).map(|_| TcpStream::connect(address).unwrap()).collect();
        while admin.desk.serving.iter().any(|s| s.lock().unwrap().is_none()) {
            std::thread::yield_now();
        }
        let desk = Arc::downgrade(&admin.desk);
        let begun = Instant::now();
        admin.stop();
        assert!(begun.elapsed() < Duration::from_millis(ADMIN_TIMEOUT_MILLIS / 2));
        assert!(desk.upgrade().is_none(), "all threads have let go of it");
        assert!(TcpStream::connect(address).is_err());
    }
}
