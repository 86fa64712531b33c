//! HAProxy with the configuration that is shipped, at the addresses of a trial.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use loadgen::child::{Child, wait_for};
use loadgen::client::{Url, get};
use loadgen::port::free_addr;

/// Replicas in the shipped configuration.
pub(super) const REPLICAS: usize = 3;

/// The configuration that users get.
const SHIPPED: &str = include_str!("../../../../../configs/haproxy.cfg");

/// How long it may take to start, or to find a replica up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What HAProxy says about a replica.
struct Seen {
    is_up: bool,
    requests: u64,
}

/// A running HAProxy. Dropping it kills it.
pub(super) struct Balancer {
    child: Child,
    addr: SocketAddr,
    statistics: Url,
}

impl Balancer {
    /// Starts it in front of these replicas, and waits until it uses them all.
    pub(super) fn start(dir: &Path, replicas: &[SocketAddr]) -> anyhow::Result<Self> {
        let (addr, statistics) = (free_addr()?, free_addr()?);
        let file = dir.join("haproxy.cfg");
        fs::write(&file, configuration(addr, statistics, replicas)?)?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file);
        let child = Child::start(command, dir.join("haproxy.log"));
        let child = child.context("cannot start haproxy (Debian's package haproxy)")?;
        let statistics = format!("http://{statistics}/;csv").parse()?;
        let mut balancer = Self { child, addr, statistics };
        balancer.wait_until_all_are_up()?;
        Ok(balancer)
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn push_url(&self) -> anyhow::Result<Url> {
        Ok(format!("http://{}", self.addr).parse()?)
    }

    /// Requests that it has sent to each replica.
    pub(super) fn served(&self) -> anyhow::Result<[u64; REPLICAS]> {
        let requests: Vec<u64> = self.look()?.iter().map(|replica| replica.requests).collect();
        requests.try_into().ok().context("HAProxy knows another number of replicas")
    }

    pub(super) fn wait_until_all_are_up(&mut self) -> anyhow::Result<()> {
        let are_up = || self.look().is_ok_and(|all| all.len() == REPLICAS && all.iter().all(|it| it.is_up));
        let is_so = wait_for(PATIENCE, are_up);
        self.child.still_runs().map_err(anyhow::Error::msg)?;
        ensure!(is_so, "HAProxy does not find all replicas up{}", self.child.last_log_lines());
        Ok(())
    }

    /// What its statistics say, replica by replica.
    fn look(&self) -> anyhow::Result<Vec<Seen>> {
        let (_, page) = get(&self.statistics, PATIENCE).context("no statistics of HAProxy")?;
        let page = String::from_utf8_lossy(&page).into_owned();
        let mut lines = page.lines();
        let head: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
        let column = |name| head.iter().position(|column| *column == name).context("unknown statistics");
        let (server, status, total) = (column("svname")?, column("status")?, column("stot")?);
        let rows = lines.map(|line| line.split(',').collect::<Vec<_>>());
        let replicas = rows.filter(|row| row.get(server).is_some_and(|name| name.starts_with("tenantry-")));
        let seen = |row: Vec<&str>| {
            let requests = row.get(total).and_then(|count| count.parse().ok()).context("no count")?;
            // Until the first check, HAProxy takes a replica for being up: `UP` with a number of checks, or `no check`.
            Ok(Seen { is_up: row.get(status) == Some(&"UP"), requests })
        };
        replicas.map(seen).collect()
    }
}

/// The shipped configuration with other addresses, and a page of statistics.
fn configuration(
    addr: SocketAddr,
    statistics: SocketAddr,
    replicas: &[SocketAddr],
) -> anyhow::Result<String> {
    ensure!(replicas.len() == REPLICAS, "the shipped configuration has {REPLICAS} replicas");
    let mut text = SHIPPED.to_owned();
    let names = (1..).map(|number| format!("server tenantry-{number} "));
    let servers =
        names.zip(replicas).map(|(name, at)| (format!("{name}{}", "tenantry-"), format!("{name}{at} # ")));
    let places =
        std::iter::once(("    bind :8080\n".to_owned(), format!("    bind {addr}\n"))).chain(servers);
    for (shipped, here) in places {
        ensure!(text.matches(&shipped).count() == 1, "configs/haproxy.cfg has no `{shipped}`, or several");
        text = text.replacen(&shipped, &here, 1);
    }
    Ok(format!("{text}\nlisten statistics\n    bind {statistics}\n    stats enable\n    stats uri /\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn only_addresses_differ_from_what_is_shipped() {
        let text = configuration(at(1), at(2), &[at(3), at(4), at(5)]).unwrap();
        let (same, statistics) = text.split_once("\nlisten statistics\n").unwrap();
        assert!(statistics.contains("bind 127.0.0.1:2\n"));
        let differ = SHIPPED.lines().zip(same.lines()).filter(|(shipped, here)| shipped != here);
        let here: Vec<&str> = differ.map(|(_, here)| here.split(" # ").next().unwrap().trim()).collect();
        let servers = [3, 4, 5].map(|port| format!("server tenantry-{} 127.0.0.1:{port}", port - 2));
        assert_eq!(here[0], "bind 127.0.0.1:1");
        assert_eq!(here[1..], servers);
        assert!(configuration(at(1), at(2), &[at(3)]).is_err());
    }
}
