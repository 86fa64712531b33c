//! The real binary, started with a configuration that the test gives.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::{Client, Response, push_head};
use super::tls::{Folder, client_config};

/// The driver of the runtime. Tests run with both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    IoUring,
    Epoll,
}

impl Driver {
    /// The drivers that work on this machine. Where io_uring is forbidden, the tests print that.
    pub fn all() -> Vec<Self> {
        let probe = tenantry::io::driver::Driver::probe(tenantry::config::DriverChoice::IoUring);
        match probe {
            Ok(_) => vec![Self::IoUring, Self::Epoll],
            Err(e) => {
                eprintln!("io_uring does not work here, testing epoll only: {e}");
                vec![Self::Epoll]
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// Runs a test on each ring.
pub fn on_both(test: impl Fn(Driver)) {
    for driver in Driver::all() {
        eprintln!("on {}", driver.name());
        test(driver);
    }
}

/// What senders speak to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Plain,
    Tls,
}

/// Runs a test on each ring and over each transport.
pub fn on_all(test: impl Fn(Driver, Transport)) {
    on_both(|driver| {
        for transport in [Transport::Plain, Transport::Tls] {
            eprintln!("over {transport:?}");
            test(driver, transport);
        }
    });
}

/// Runs a test on each driver at the same time, as it mostly waits.
pub fn on_both_at_once(test: impl Fn(Driver) + Sync) {
    std::thread::scope(|scope| {
        for driver in Driver::all() {
            let test = &test;
            scope.spawn(move || test(driver));
        }
    });
}

/// Sends requests over separate connections, so that they are in flight together.
pub fn send_together(server: &Server, bodies: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<Client> {
    let send = |body: &[u8]| {
        let mut client = server.client();
        client.send(&[push_head(body.len(), "").as_bytes(), body].concat());
        client
    };
    bodies.into_iter().map(|body| send(body.as_ref())).collect()
}

/// Posts a body over a connection of its own. `fields` are more header lines, each with its CRLF. The server may answer
/// and close before it has read the whole body.
pub fn post(server: &Server, path: &str, fields: &str, body: &[u8]) -> Response {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    let mut client = server.client();
    client.try_send(&[head.as_bytes(), body].concat());
    client.response()
}

/// A running server. Dropping it kills it.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    log: PathBuf,
    file: PathBuf,
    /// What its clients run by, if it speaks TLS.
    tls: Option<Arc<rustls::ClientConfig>>,
    _directory: tempfile::TempDir,
}

impl Server {
    /// Starts a server whose upstream is `target` (host and port). `extra` is more YAML.
    pub fn start(driver: Driver, target: impl std::fmt::Display, extra: &str) -> Self {
        let metrics = free_port();
        Self::start_with(&configuration(driver, target, extra, metrics), metrics, &[])
    }

    /// As [`start`](Self::start), for senders that speak `transport`, as its [`client`](Self::client)s then do.
    pub fn start_over(
        transport: Transport,
        driver: Driver,
        target: impl std::fmt::Display,
        extra: &str,
    ) -> Self {
        if transport == Transport::Plain {
            return Self::start(driver, target, extra);
        }
        let folder = Folder::new();
        let mut server = Self::start(driver, target, &format!("auth:\n{}{extra}", folder.ingress(&[])));
        server.tls = Some(client_config(&folder));
        server
    }

    /// As [`start`](Self::start), in a mount namespace in which `/etc/hosts` has these lines. `None` where that is
    /// forbidden.
    pub fn start_knowing(
        driver: Driver,
        hosts: &str,
        target: impl std::fmt::Display,
        extra: &str,
    ) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hosts");
        std::fs::write(&file, hosts).unwrap();
        let command = || {
            let mut command = Command::new("unshare");
            command
                .args(["-r", "-m", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""])
                .arg(&file);
            command
        };
        if !command().arg("true").status().is_ok_and(|status| status.success()) {
            eprintln!("no mount namespace here, so no name with several addresses");
            return None;
        }
        let metrics = free_port();
        let mut command = command();
        command.arg(env!("CARGO_BIN_EXE_tenantry"));
        Some(Self::run(command, directory, &configuration(driver, target, extra, metrics), metrics))
    }

    /// Starts a server with this configuration and environment.
    pub fn start_with(config: &str, metrics: SocketAddr, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        command.envs(env.iter().copied());
        Self::start_by(command, config, metrics)
    }

    /// Starts a server by `command`, to which `-config` and the file with this configuration are added.
    pub fn start_by(command: Command, config: &str, metrics: SocketAddr) -> Self {
        Self::run(command, tempfile::tempdir().unwrap(), config, metrics)
    }

    /// As [`start`](Self::start), with a pipe for its log, of which the reading end is returned.
    pub fn start_piped(driver: Driver, target: impl std::fmt::Display, extra: &str) -> (Self, ChildStderr) {
        let (address, metrics) = (free_port(), free_port());
        let config = configuration(driver, target, extra, metrics)
            .replace("listen: 127.0.0.1:0\n", &format!("listen: {address}\n"));
        let directory = tempfile::tempdir().unwrap();
        let (file, log) = (directory.path().join("tenantry.yml"), directory.path().join("server.log"));
        std::fs::write(&file, config).unwrap();
        std::fs::write(&log, "").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        let mut child = command.arg("-config").arg(&file).stderr(Stdio::piped()).spawn().unwrap();
        let pipe = child.stderr.take().unwrap();
        let server = Self { child, address, metrics, log, file, tls: None, _directory: directory };
        super::eventually("it listens", || TcpStream::connect(address).is_ok());
        (server, pipe)
    }

    fn run(mut command: Command, directory: tempfile::TempDir, config: &str, metrics: SocketAddr) -> Self {
        let file = directory.path().join("tenantry.yml");
        std::fs::write(&file, config).unwrap();
        // The log goes into a file, which never stalls and can be read while the server runs.
        let log = directory.path().join("server.log");
        let child = command.arg("-config").arg(&file).stderr(File::create(&log).unwrap()).spawn().unwrap();
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server =
            Self { child, address: unknown, metrics, log, file, tls: None, _directory: directory };
        server.address = server.wait_until_it_listens();
        server
    }

    fn wait_until_it_listens(&mut self) -> SocketAddr {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(address) = listens_at(&self.log()) {
                return address;
            }
            let exit = self.child.try_wait().unwrap();
            assert!(exit.is_none() && Instant::now() < until, "the server does not listen; exit: {exit:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client of the server's transport, over a new connection.
    pub fn client(&self) -> Client {
        match &self.tls {
            Some(config) => Client::connect_tls(self.address, config),
            None => Client::connect(self.address),
        }
    }

    /// A client that trusts the authority of `folder`, over a new connection.
    pub fn client_of(&self, folder: &Folder) -> Client {
        Client::connect_tls(self.address, &client_config(folder))
    }

    /// The text of /metrics.
    pub fn metrics_text(&self) -> String {
        let mut client = Client::connect(self.metrics);
        client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let response = client.response();
        assert_eq!(response.status, 200);
        response.text()
    }

    /// The value of a metric, summed over the label sets whose text contains `labels`. 0 when it is absent.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.metrics_text();
        let lines = text.lines().filter(|l| !l.starts_with('#'));
        lines
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let (found, set) = series.split_once('{').unwrap_or((series, ""));
                (found == name && set.contains(labels)).then(|| value.parse::<f64>().unwrap())
            })
            .sum()
    }

    /// Log lines that it has not written yet. 0 when it does not answer.
    fn log_lines_waiting(&self) -> usize {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.metrics)?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
            let mut page = String::new();
            stream.read_to_string(&mut page)?;
            Ok(page)
        };
        let page = ask().unwrap_or_default();
        let line = page.lines().find_map(|line| line.strip_prefix("tenantry_log_lines_waiting "));
        line.and_then(|count| count.parse().ok()).unwrap_or_default()
    }

    /// The file of its configuration.
    pub fn file(&self) -> &std::path::Path {
        &self.file
    }

    /// Changes `from` in its configuration to `to` and has it read again. Returns the lines that it logs about that.
    pub fn reload_with(&self, from: &str, to: &str) -> Vec<String> {
        let text = std::fs::read_to_string(&self.file).unwrap();
        assert!(text.contains(from), "{from}: {text}");
        std::fs::write(&self.file, text.replace(from, to)).unwrap();
        self.reload()
    }

    /// Has it read its files again. Returns the lines that it logs about that.
    pub fn reload(&self) -> Vec<String> {
        self.reload_after(|| ())
    }

    /// As [`reload`](Self::reload), once `change` has changed its files. Nothing that takes time comes between them:
    /// the server looks at files by itself, too.
    pub fn reload_after(&self, change: impl FnOnce()) -> Vec<String> {
        let before = self.log().len();
        let reloads = |what| self.metric("tenantry_config_reloads_total", what);
        let counted = reloads("done") + reloads("refused");
        change();
        self.signal("HUP");
        let over = |line: &String| line.contains("the configuration was read again");
        super::eventually("it has read its files", || self.log()[before..].iter().any(over));
        // It names what needs a restart after that line, and counts the reload last.
        super::eventually("the reload is counted", || reloads("done") + reloads("refused") > counted);
        self.log()[before..].to_vec()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// Waits until the server has ended.
    pub fn wait(&mut self, at_most: Duration) -> ExitStatus {
        let until = Instant::now() + at_most;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the server has not ended within {at_most:?}; its log: {:#?}", self.log());
    }

    /// A figure of `/proc/PID/status`, in KiB.
    pub fn status_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The user and system time that it has taken so far, in hundredths of a second.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Resets the peak of its memory, so that `VmHWM` is the peak from now on.
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The lines that it has logged so far. Once an answer is there, the lines that it logged before are among them.
    pub fn log(&self) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(5);
        while self.log_lines_waiting() > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        let text = std::fs::read(&self.log).unwrap();
        let text = String::from_utf8_lossy(&text);
        // The last line may be incomplete. Then it has no line end.
        text.rsplit_once('\n').map_or(Vec::new(), |(all, _)| all.lines().map(str::to_owned).collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log().join("\n"));
        }
    }
}

/// A configuration whose upstream is `target` (host and port). `extra` is more YAML.
pub fn configuration(
    driver: Driver,
    target: impl std::fmt::Display,
    extra: &str,
    metrics: SocketAddr,
) -> String {
    format!(
        "listen: 127.0.0.1:0\nlisten_metrics_address: {metrics}\ntarget: http://{target}/api/v1/push\n\
         log_level: info\ndriver: {}\n{}",
        driver.name(),
        if extra.lines().any(|l| l.starts_with("tenant:")) {
            extra.to_owned()
        } else {
            format!("tenant:\n  label: tenant\n{extra}")
        },
    )
}

/// Where the server says that it listens.
fn listens_at(lines: &[String]) -> Option<SocketAddr> {
    let line = lines.iter().find(|line| line.contains("listening"))?;
    let (_, rest) = line.split_once("address=").or_else(|| line.split_once("\"address\":\""))?;
    rest.split([' ', '"']).next()?.parse().ok()
}

/// An address on which no socket listens.
pub fn free_port() -> SocketAddr {
    testkit::port::free_addr().unwrap()
}
