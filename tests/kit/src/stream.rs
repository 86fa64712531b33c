//! A connection as one stream, plain or with TLS, for threads that block.
//!
//! rustls reads 4 KiB at a time, which would be five system calls for each record. So under TLS the socket is read
//! through a buffer.

use std::io::{self, BufReader, IoSlice, Read, Write};
use std::net::TcpStream;
use std::ops::DerefMut;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, ServerConfig, ServerConnection, SideData, StreamOwned,
};

/// How much is read from a socket at once.
const READ_BYTES: usize = 64 << 10;

/// Bytes in both directions.
pub trait Duplex: Read + Write + Send {
    /// Says that nothing more will be sent. Without this, the peer of a TLS session has to take the end for an attack.
    fn finish(&mut self);
}

/// A connection, plain or with TLS.
pub type Stream = Box<dyn Duplex>;

impl Duplex for TcpStream {
    fn finish(&mut self) {}
}

impl<C, S> Duplex for StreamOwned<C, Wire>
where
    C: DerefMut<Target = ConnectionCommon<S>> + Send,
    S: SideData,
{
    fn finish(&mut self) {
        self.conn.send_close_notify();
        let _ = self.flush();
    }
}

/// A socket under TLS.
struct Wire(BufReader<TcpStream>);

impl Read for Wire {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_mut().write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shakes hands with a server, whose certificate has to be for `name`.
///
/// # Errors
/// When the handshake fails.
pub fn connect(tcp: TcpStream, config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Stream> {
    secure(tcp, ClientConnection::new(config, name).map_err(io::Error::other)?)
}

/// Shakes hands with a client.
///
/// # Errors
/// When the handshake fails.
pub fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Stream> {
    secure(tcp, ServerConnection::new(config).map_err(io::Error::other)?)
}

fn secure<C, S>(tcp: TcpStream, mut session: C) -> io::Result<Stream>
where
    C: DerefMut<Target = ConnectionCommon<S>> + Send + 'static,
    S: SideData + 'static,
{
    // A message is one write, however long it is.
    session.set_buffer_limit(None);
    let mut stream = StreamOwned::new(session, Wire(BufReader::with_capacity(READ_BYTES, tcp)));
    stream.conn.complete_io(&mut stream.sock)?;
    Ok(Box::new(stream))
}
