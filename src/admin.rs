//! What an operator looks at: /metrics, a status page, the threads' CPU time.
//!
//! Design constraints:
//! - It must answer when the cores don't: so it has threads of its own, blocking ones, and shares nothing with the
//!   cores but numbers that it reads.
//! - It must not be wedged by a client that sends nothing: every connection has a deadline and carries one request,
//!   and there are few at a time.

mod exposition;
mod pages;
mod process;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub use pages::{Page, Pages};

use crate::http::head::{Method, RequestHead};
use crate::limits::{ADMIN_CONNECTIONS_MAX, ADMIN_HEAD_BYTES_MAX, ADMIN_TIMEOUT_MILLIS};

/// A listener for operators, and its thread.
#[derive(Debug)]
pub struct Admin {
    listener: Arc<TcpListener>,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Answers on `listener` from now on.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(listener: TcpListener, pages: Arc<Pages>) -> io::Result<Self> {
        let listener = Arc::new(listener);
        let stopping = Arc::new(AtomicBool::new(false));
        let (accepting, stopped) = (Arc::clone(&listener), Arc::clone(&stopping));
        let thread = std::thread::Builder::new()
            .name("admin".into())
            .spawn(move || accept(&accepting, &pages, &stopped))?;
        Ok(Self { listener, stopping, thread })
    }

    /// Stops answering, at once.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Ends the `accept` that the thread is in.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        let _ = self.thread.join();
    }
}

fn accept(listener: &TcpListener, pages: &Arc<Pages>, stopping: &AtomicBool) {
    let open = Arc::new(AtomicUsize::new(0));
    while !stopping.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) if open.fetch_add(1, Ordering::Relaxed) < ADMIN_CONNECTIONS_MAX => {
                let (pages, open_here) = (Arc::clone(pages), Arc::clone(&open));
                let serving = std::thread::Builder::new().name("admin-page".into()).spawn(move || {
                    // A client that went away or dawdled is its own trouble.
                    let _ = serve(stream, &pages);
                    open_here.fetch_sub(1, Ordering::Relaxed);
                });
                if serving.is_err() {
                    open.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Ok(_) => _ = open.fetch_sub(1, Ordering::Relaxed),
            Err(_) if stopping.load(Ordering::Relaxed) => return,
            Err(error) => {
                tracing::warn!(%error, "can't accept connections for operators");
                pause();
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own, which has nothing else to do")]
fn pause() {
    std::thread::sleep(Duration::from_millis(ADMIN_TIMEOUT_MILLIS));
}

/// One request and its answer.
fn serve(mut stream: TcpStream, pages: &Pages) -> io::Result<()> {
    let timeout = Some(Duration::from_millis(ADMIN_TIMEOUT_MILLIS));
    stream.set_read_timeout(timeout)?;
    stream.set_write_timeout(timeout)?;
    let (page, head_only) = match read_head(&mut stream)? {
        Some((head, target)) => {
            let path = target.split(|&b| b == b'?').next().unwrap_or_default();
            let readable = matches!(head.method, Method::Get | Method::Head);
            let page =
                if readable { pages.page(path) } else { Page::text(405, "this page is for GET and HEAD") };
            (page, head.method == Method::Head)
        }
        None => (Page::text(400, "bad request"), false),
    };
    stream.write_all(&page.response(head_only))?;
    stream.shutdown(std::net::Shutdown::Write)
}

/// The head and its target; None when it is none, or too long.
fn read_head(stream: &mut TcpStream) -> io::Result<Option<(RequestHead, Vec<u8>)>> {
    let mut buffer = Vec::with_capacity(ADMIN_HEAD_BYTES_MAX);
    let mut chunk = [0u8; 1024];
    while buffer.len() < ADMIN_HEAD_BYTES_MAX {
        let n = stream.read(&mut chunk)?;
        buffer.extend_from_slice(chunk.get(..n).unwrap_or_default());
        match RequestHead::parse(&buffer, "") {
            Ok(Some((head, _))) => {
                let target = buffer.get(head.path.clone()).unwrap_or_default().to_vec();
                return Ok(Some((head, target)));
            }
            Ok(None) if n > 0 => {}
            _ => return Ok(None),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::metrics::Metrics;
    use crate::queue::commons::Commons;

    fn start() -> (Admin, std::net::SocketAddr, Arc<Commons>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let commons = Commons::new(2, 100, 10, 10);
        let metrics = Arc::new(Metrics::new(2, 10, true));
        let pages = Pages::new(metrics, Arc::clone(&commons), "epoll", "listen=127.0.0.1:1".into());
        (Admin::start(listener, Arc::new(pages)).unwrap(), address, commons)
    }

    fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(address: std::net::SocketAddr, path: &str) -> String {
        ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    #[test]
    fn the_pages_are_there_and_nothing_else() {
        let (admin, address, commons) = start();
        assert!(get(address, "/metrics?x=y").contains("\ncortex_tenant_timeseries_batches_received 0\n"));
        assert!(get(address, "/").contains("listen=127.0.0.1:1"));
        assert!(get(address, "/debug/threads").contains("admin"));
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

    #[test]
    fn a_client_that_sends_nothing_holds_up_nobody() {
        let (admin, address, _) = start();
        let _silent: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let begun = Instant::now();
        assert!(get(address, "/metrics").starts_with("HTTP/1.1 200"));
        assert!(begun.elapsed() < Duration::from_millis(ADMIN_TIMEOUT_MILLIS));
        admin.stop();
    }

    #[test]
    fn stopping_ends_the_thread_and_frees_the_port() {
        let (admin, address, _) = start();
        let begun = Instant::now();
        admin.stop();
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert!(TcpStream::connect(address).is_err());
    }
}
