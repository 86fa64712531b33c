//! Resolves the upstream's name at intervals.
//!
//! `getaddrinfo` blocks, so it has a thread of its own. The cores read the latest answer through an [`ArcSwap`],
//! without a lock. A name that does not resolve neither keeps the server from starting nor takes away the addresses
//! that are known: in a cluster both the name and the resolver come and go.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender};

use crate::limits::UNRESOLVED_RETRY_MILLIS;

/// The latest answer for the upstream's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Its addresses, sorted; empty while it has never resolved.
    pub addresses: Vec<SocketAddr>,
    /// Why the latest attempt failed, if it did.
    pub error: Option<String>,
}

/// The cores' view of the latest [`Resolution`].
pub type Addresses = Arc<ArcSwap<Resolution>>;

/// What to resolve, and how often.
#[derive(Clone, Debug)]
pub struct Question {
    /// A name or an address.
    pub host: String,
    /// The upstream's port.
    pub port: u16,
    /// Whether IPv6 addresses are used, too. A literal IPv6 address always works.
    pub ipv6: bool,
    /// The interval between two queries.
    pub interval: Duration,
}

/// The resolver's thread, if the host is a name. Dropping this ends it.
#[derive(Debug)]
pub struct Resolver {
    addresses: Addresses,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
    first_answer: Receiver<()>,
}

impl Resolver {
    /// Starts resolving. [`Self::wait`] waits for the first answer.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(question: Question) -> std::io::Result<Self> {
        let addresses = Addresses::default();
        if let Ok(ip) = question.host.trim_matches(['[', ']']).parse::<IpAddr>() {
            let known = vec![SocketAddr::new(ip, question.port)];
            addresses.store(Arc::new(Resolution { addresses: known, error: None }));
            return Ok(Self { addresses, thread: None, first_answer: crossbeam_channel::never() });
        }
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let (answered, first_answer) = crossbeam_channel::bounded(1);
        let shared = Arc::clone(&addresses);
        let thread = std::thread::Builder::new()
            .name("resolver".into())
            .spawn(move || keep_asking(&question, &shared, &answered, &stopped))?;
        Ok(Self { addresses, thread: Some((stop, thread)), first_answer })
    }

    /// Waits for the first answer, until `deadline`.
    pub fn wait(&self, deadline: Instant) {
        if self.thread.is_some() {
            let _ = self.first_answer.recv_deadline(deadline);
        }
    }

    /// Returns the place where the cores read the answers.
    pub fn addresses(&self) -> Addresses {
        Arc::clone(&self.addresses)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // The thread is not joined: a pending `getaddrinfo` may take many seconds, and its answer is not needed.
        if let Some((stop, _thread)) = self.thread.take() {
            let _ = stop.try_send(());
        }
    }
}

fn keep_asking(question: &Question, addresses: &Addresses, answered: &Sender<()>, stopped: &Receiver<()>) {
    loop {
        let resolution = refresh(&addresses.load(), ask(question));
        if resolution != **addresses.load() {
            report(question, &resolution);
            addresses.store(Arc::new(resolution));
        }
        let _ = answered.try_send(());
        let unresolved = addresses.load().addresses.is_empty();
        let retry = Duration::from_millis(UNRESOLVED_RETRY_MILLIS);
        let pause = if unresolved { retry.min(question.interval) } else { question.interval };
        if stopped.recv_timeout(pause) != Err(crossbeam_channel::RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Makes the new resolution. A failure keeps the known addresses.
fn refresh(known: &Resolution, answer: Result<Vec<SocketAddr>, String>) -> Resolution {
    match answer {
        Ok(addresses) => Resolution { addresses, error: None },
        Err(error) => Resolution { addresses: known.addresses.clone(), error: Some(error) },
    }
}

fn ask(question: &Question) -> Result<Vec<SocketAddr>, String> {
    let answer = (question.host.as_str(), question.port).to_socket_addrs().map_err(|e| e.to_string())?;
    let addresses = usable(answer, question.ipv6);
    if addresses.is_empty() {
        Err("it has no usable address (see `enable_ipv6`)".into())
    } else {
        Ok(addresses)
    }
}

/// Sorted, so that an answer in another order is no change.
fn usable(answer: impl Iterator<Item = SocketAddr>, ipv6: bool) -> Vec<SocketAddr> {
    let mut addresses: Vec<_> = answer.filter(|a| ipv6 || a.is_ipv4()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn report(question: &Question, resolution: &Resolution) {
    let host = &question.host;
    match &resolution.error {
        Some(error) => {
            tracing::warn!(%host, %error, known = resolution.addresses.len(), "upstream's name did not resolve")
        }
        None => tracing::info!(%host, addresses = ?resolution.addresses, "upstream's name resolved"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(host: &str) -> Question {
        Question { host: host.into(), port: 9, ipv6: false, interval: Duration::from_secs(60) }
    }

    #[test]
    fn an_address_needs_no_asking() {
        for (host, address) in [("127.0.0.1", "127.0.0.1:9"), ("[::1]", "[::1]:9"), ("::1", "[::1]:9")] {
            let resolver = Resolver::start(question(host)).unwrap();
            assert_eq!(resolver.addresses().load().addresses, [address.parse().unwrap()]);
        }
    }

    #[test]
    fn localhost_resolves_before_the_start_is_over() {
        let resolver = Resolver::start(question("localhost")).unwrap();
        resolver.wait(Instant::now() + Duration::from_secs(3));
        assert_eq!(resolver.addresses().load().addresses, ["127.0.0.1:9".parse().unwrap()]);
    }

    #[test]
    fn a_failure_keeps_the_addresses_that_were_known() {
        let known = Resolution { addresses: vec!["127.0.0.1:9".parse().unwrap()], error: None };
        let after = refresh(&known, Err("resolver is away".into()));
        assert_eq!(after.addresses, known.addresses);
        assert_eq!(after.error.as_deref(), Some("resolver is away"));
        assert_eq!(refresh(&after, Ok(vec![])).addresses, []);
    }

    #[test]
    fn answers_are_sorted_unique_and_of_the_wanted_family() {
        let answer = ["10.0.0.2:9", "[::1]:9", "10.0.0.1:9", "10.0.0.2:9"].map(|a| a.parse().unwrap());
        assert_eq!(usable(answer.into_iter(), false), [answer[2], answer[0]]);
        assert_eq!(usable(answer.into_iter(), true).len(), 3);
    }
}
