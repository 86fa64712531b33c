//! The sockets that the admin thread serves, by what their clients may see.

use std::io;
use std::net::TcpListener;

/// The sockets that the admin thread serves.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Those for metrics and the status page.
    pub pages: Vec<TcpListener>,
    /// Those that have profiles as well.
    pub profiles: Vec<TcpListener>,
}

impl Listeners {
    /// All of them, each with whether it has profiles.
    pub(super) fn all(self) -> impl Iterator<Item = (TcpListener, bool)> {
        let with = |has: bool| move |listener| (listener, has);
        self.pages.into_iter().map(with(false)).chain(self.profiles.into_iter().map(with(true)))
    }

    /// Prepares the sockets for the thread's runtime.
    ///
    /// # Errors
    /// If a socket is broken.
    pub(super) fn prepare(&self, send_buffer_bytes: usize) -> io::Result<()> {
        for listener in self.pages.iter().chain(&self.profiles) {
            listener.set_nonblocking(true)?;
            // Accepted sockets inherit it.
            socket2::SockRef::from(listener).set_send_buffer_size(send_buffer_bytes)?;
        }
        Ok(())
    }
}
