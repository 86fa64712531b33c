//! What is compared: the YAML as written, and what it resolves to.
//!
//! All that can be checked before the first run is checked here (names, numbers, placeholders, templates), so that a
//! typo does not cost a quarter of an hour.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use itertools::iproduct;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

use super::template::{PLACEHOLDERS, unknown};
use crate::client::Url;
use crate::duration;
use crate::fleet::Format;

/// Longest phase of a run, in seconds.
const SECONDS_MAX: f64 = 3600.0;

/// Labels of a series, and consecutive series of a tenant, where nothing else is said.
const LABELS: u32 = 9;
const RUN_LENGTH: u32 = 20;

/// The value of `ready` for a contender that is ready when it takes connections.
pub(super) const TCP: &str = "tcp";

/// A comparison, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the results are called: the name of the file.
    pub name: String,
    /// Whether a comparison in which a contender failed is still a success.
    pub allow_failure: bool,
    /// The contenders; the first is what the others are compared with.
    pub contenders: Vec<Contender>,
    /// What they are put through, one after the other.
    pub scenarios: Vec<Scenario>,
}

/// A server, and how to deal with it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Contender {
    /// What it is called.
    pub name: String,
    /// What a reader of the figures should know.
    pub note: String,
    /// Program and arguments, with placeholders.
    pub command: Vec<String>,
    /// Environment variables besides ours, with placeholders.
    pub environment: BTreeMap<String, String>,
    /// Prints the version: program and arguments. Empty for none.
    pub version: Vec<String>,
    /// Files to write into its directory: the name there and the text, with placeholders. In the YAML it is the path of
    /// a template, relative to the configuration.
    pub files: BTreeMap<String, String>,
    /// How one sees that it is ready: `tcp` if it takes connections at `{listen}`, else a URL, with placeholders, that
    /// answers 2xx.
    pub ready: String,
    /// How long it may take until it is.
    #[serde(rename = "ready_seconds", deserialize_with = "duration::deserialize")]
    pub ready_within: Duration,
    /// Whether it speaks TLS to senders.
    pub tls_in: bool,
    /// Whether it speaks TLS to its upstream.
    pub tls_out: bool,
    /// The contender that is the same without TLS. What TLS costs is measured against that one.
    pub plain: Option<String>,
    /// Whether it is left out where its program is not installed.
    pub optional: bool,
    /// Path to push series to.
    pub push: String,
    /// Path to push logs to.
    pub push_loki: String,
    /// What stands before OTLP's own paths, such as `/v1/logs`; nothing if not given.
    pub push_otlp: String,
    /// What it can be sent; scenarios in other formats leave it out.
    pub formats: Vec<Format>,
    /// Headers for it besides those of remote write.
    pub headers: BTreeMap<String, String>,
    /// Whether it sends each tenant's series under that tenant's header.
    pub splits: bool,
    /// When it answers.
    pub acknowledges: Acknowledges,
    /// How long it may take to deliver what it has acknowledged.
    #[serde(rename = "drain_seconds", deserialize_with = "duration::deserialize")]
    pub drain_within: Duration,
}

impl Default for Contender {
    fn default() -> Self {
        Self {
            name: String::new(),
            note: String::new(),
            command: Vec::new(),
            environment: BTreeMap::new(),
            version: Vec::new(),
            files: BTreeMap::new(),
            ready: TCP.to_owned(),
            ready_within: Duration::from_secs(10),
            tls_in: false,
            tls_out: false,
            plain: None,
            optional: false,
            push: "/push".to_owned(),
            push_loki: "/loki/api/v1/push".to_owned(),
            push_otlp: String::new(),
            formats: vec![Format::default()],
            headers: BTreeMap::new(),
            splits: true,
            acknowledges: Acknowledges::default(),
            drain_within: Duration::from_secs(30),
        }
    }
}

/// When a contender answers a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acknowledges {
    /// When its upstream has answered: what is acknowledged is delivered.
    #[default]
    AfterDelivery,
    /// When it has taken it: one has to wait until all has arrived.
    BeforeDelivery,
}

/// One load that all contenders are put through.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// What is sent. For logs, series are streams and samples entries.
    #[serde(default)]
    pub format: Format,
    /// Tenants, of equal weight.
    pub tenants: u32,
    /// Series in a request.
    pub series: u32,
    /// Senders, each with a connection and one request in flight.
    pub senders: u32,
    /// Labels of a series.
    pub labels: u32,
    /// Consecutive series that share a tenant.
    pub run_length: u32,
    /// How long the upstream takes to answer.
    #[serde(default)]
    pub upstream_latency_ms: u32,
    /// Requests per second of all senders together; 0 if each sends the next as soon as the last is answered.
    #[serde(default)]
    pub rate: u32,
    /// How long it is measured.
    pub seconds: f64,
    /// How long it is loaded before that.
    pub warm_up_seconds: f64,
    /// How often each contender is measured.
    pub rounds: u32,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenants = if self.tenants == 1 { "tenant" } else { "tenants" };
        write!(f, "{} {tenants}, {}", self.tenants, self.besides_tenants())
    }
}

impl Scenario {
    fn check(&self) -> Result<(), String> {
        // Senders are threads here, and tenants counts in memory.
        for (name, number, least, most) in [
            ("tenants", self.tenants, 1, 100_000),
            ("series", self.series, 1, 1_000_000),
            ("senders", self.senders, 1, 1024),
            ("labels", self.labels, 4, 1000),
            ("run_length", self.run_length, 1, 1_000_000),
            ("upstream_latency_ms", self.upstream_latency_ms, 0, 10_000),
            ("rate", self.rate, 0, 1_000_000),
            ("rounds", self.rounds, 1, 1000),
        ] {
            if !(least..=most).contains(&number) {
                return Err(format!("{name}: {number} is not from {least} to {most}"));
            }
        }
        let (seconds, warm_up) = (self.seconds, self.warm_up_seconds);
        if !(seconds > 0.0 && seconds <= SECONDS_MAX) {
            return Err(format!("seconds: {seconds} is not above 0 and up to {SECONDS_MAX}"));
        }
        if !(0.0..=SECONDS_MAX).contains(&warm_up) {
            return Err(format!("warm_up_seconds: {warm_up} is not from 0 to {SECONDS_MAX}"));
        }
        Ok(())
    }

    /// As a text, without its tenants.
    pub fn besides_tenants(&self) -> String {
        let senders = if self.senders == 1 { "sender" } else { "senders" };
        let mut text = format!("{} series a request, {} {senders}", self.series, self.senders);
        if self.format != Format::default() {
            text += &format!(", {}", self.format);
        }
        if self.labels != LABELS {
            text += &format!(", {} labels", self.labels);
        }
        if self.run_length != RUN_LENGTH {
            text += &format!(", runs of {}", self.run_length);
        }
        if self.upstream_latency_ms > 0 {
            text += &format!(", an upstream of {} ms", self.upstream_latency_ms);
        }
        if self.rate > 0 {
            text += &format!(", {} requests/s", self.rate);
        }
        text
    }
}

/// Why there is nothing to compare: a file that cannot be read, is not the YAML expected (then the text has the place),
/// or says what cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{}: {text}", path.display())]
pub struct ConfigError {
    /// The configuration, or a template that it names.
    pub path: PathBuf,
    /// What is wrong.
    pub text: String,
}

/// The file as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    seconds: f64,
    warm_up_seconds: Option<f64>,
    rounds: Option<u32>,
    allow_failure: bool,
    contenders: Vec<Contender>,
    /// Another comparison, whose contenders take part in this one.
    contenders_of: Option<PathBuf>,
    scenarios: Vec<Matrix>,
}

/// Every combination is a scenario.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Matrix {
    #[serde(default = "formats")]
    formats: Vec<Format>,
    #[serde(deserialize_with = "numbers")]
    tenants: Vec<u32>,
    #[serde(deserialize_with = "numbers")]
    series: Vec<u32>,
    #[serde(deserialize_with = "numbers")]
    senders: Vec<u32>,
    #[serde(default = "labels", deserialize_with = "numbers")]
    labels: Vec<u32>,
    #[serde(default = "run_length", deserialize_with = "numbers")]
    run_length: Vec<u32>,
    #[serde(default = "at_once", deserialize_with = "numbers")]
    upstream_latency_ms: Vec<u32>,
    #[serde(default = "unpaced", deserialize_with = "numbers")]
    rate: Vec<u32>,
    seconds: Option<f64>,
    warm_up_seconds: Option<f64>,
    rounds: Option<u32>,
}

fn formats() -> Vec<Format> {
    vec![Format::default()]
}

fn labels() -> Vec<u32> {
    vec![LABELS]
}

fn run_length() -> Vec<u32> {
    vec![RUN_LENGTH]
}

fn unpaced() -> Vec<u32> {
    vec![0]
}

fn at_once() -> Vec<u32> {
    vec![0]
}

/// Reads `5` or `[5, 10]`.
fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "neither a number from 0 nor a list of numbers")]
    enum Numbers {
        One(u32),
        Many(Vec<u32>),
    }
    match Numbers::deserialize(from)? {
        Numbers::One(number) => Ok(vec![number]),
        Numbers::Many(numbers) if numbers.is_empty() => Err(D::Error::custom("no list may be empty")),
        Numbers::Many(numbers) => Ok(numbers),
    }
}

impl Config {
    /// Reads and checks a configuration and the templates that it names.
    ///
    /// # Errors
    /// When a file cannot be read, is not the YAML expected, or says what cannot be meant.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let written = Written::read(path)?;
        let wrong = |text| wrong(path, text);
        let scenarios = written.scenarios().map_err(&wrong)?;
        let mut contenders = match &written.contenders_of {
            Some(other) => Written::read(&dir_of(path).join(other))?.contenders,
            None => Vec::new(),
        };
        contenders.extend(written.contenders);
        if contenders.is_empty() {
            return Err(wrong("contenders: there must be at least one".to_owned()));
        }
        for (index, contender) in contenders.iter().enumerate() {
            if contenders.iter().take(index).any(|other| other.name == contender.name) {
                return Err(wrong(format!("contenders: two are called `{}`", contender.name)));
            }
            if let Some(plain) =
                contender.plain.as_ref().filter(|plain| contenders.iter().all(|c| c.name != **plain))
            {
                return Err(wrong(format!("contender `{}`: plain: there is no `{plain}`", contender.name)));
            }
        }
        Ok(Self {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            allow_failure: written.allow_failure,
            contenders,
            scenarios,
        })
    }
}

impl Written {
    /// Reads it; its contenders are checked and have their files.
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let yaml = serde_saphyr::from_str(&read(path)?);
        let mut written: Self = yaml.map_err(|error| wrong(path, error.to_string()))?;
        for contender in &mut written.contenders {
            for template in contender.files.values_mut() {
                *template = read(&dir_of(path).join(&*template))?;
            }
            let named = |text| wrong(path, format!("contender `{}`: {text}", contender.name));
            contender.check().map_err(named)?;
        }
        Ok(written)
    }

    /// Every combination, in the order in which it is run.
    fn scenarios(&self) -> Result<Vec<Scenario>, String> {
        let scenarios: Vec<Scenario> =
            self.scenarios.iter().flat_map(|matrix| self.combinations(matrix)).collect();
        if scenarios.is_empty() {
            return Err("scenarios: there must be at least one".to_owned());
        }
        scenarios.iter().try_for_each(Scenario::check)?;
        Ok(scenarios)
    }

    fn combinations(&self, of: &Matrix) -> impl Iterator<Item = Scenario> {
        let seconds = of.seconds.unwrap_or(self.seconds);
        let warm_up_seconds = of.warm_up_seconds.or(self.warm_up_seconds).unwrap_or(1.0);
        let rounds = of.rounds.or(self.rounds).unwrap_or(3);
        let all = iproduct!(
            &of.formats,
            &of.series,
            &of.senders,
            &of.upstream_latency_ms,
            &of.rate,
            &of.tenants,
            &of.labels,
            &of.run_length
        );
        all.map(move |(&format, &series, &senders, &latency, &rate, &tenants, &labels, &run_length)| {
            Scenario {
                format,
                tenants,
                series,
                senders,
                labels,
                run_length,
                upstream_latency_ms: latency,
                rate,
                seconds,
                warm_up_seconds,
                rounds,
            }
        })
    }
}

impl Contender {
    /// Whether its program is where its command says.
    pub fn is_installed(&self) -> bool {
        let Some(program) = self.command.first() else { return false };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs =
            if program.contains('/') { vec![PathBuf::new()] } else { std::env::split_paths(&path).collect() };
        program.contains('{') || dirs.iter().any(|dir| dir.join(program).is_file())
    }

    /// What its fields say together, beyond what each may say.
    fn check(&self) -> Result<(), String> {
        if self.name.trim().is_empty() {
            return Err("it needs a name".to_owned());
        }
        if self.command.first().is_none_or(String::is_empty) {
            return Err("command: it must begin with a program".to_owned());
        }
        let is_bare = |file: &String| Path::new(file).file_name().is_some_and(|name| name == file.as_str());
        if let Some(file) = self.files.keys().find(|file| !is_bare(file)) {
            return Err(format!("files: `{file}` is not the bare name of a file"));
        }
        let paths = [self.push.as_str(), &self.push_loki, &format!("{}/", self.push_otlp)];
        if let Some(path) = paths.into_iter().find(|path| !path.starts_with('/')) {
            return Err(format!("`{path}` is no path"));
        }
        // A placeholder may stand where an address will.
        let ready = self.ready.replace("{listen}", "h:1").replace("{metrics}", "h:1");
        if ready != TCP
            && let Err(error) = ready.parse::<Url>()
        {
            return Err(format!("ready: `{ready}` is neither `{TCP}` nor a URL: {error}"));
        }
        let texts = self.command.iter().chain(&self.version).chain(self.environment.values());
        if let Some(unknown) =
            texts.chain(self.files.values()).chain([&self.ready]).find_map(|text| unknown(text))
        {
            let known = PLACEHOLDERS.map(|name| format!("{{{name}}}")).join(", ");
            return Err(format!("there is no placeholder {{{unknown}}}, only {known}"));
        }
        Ok(())
    }
}

/// What the paths in a file are relative to.
fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn wrong(path: &Path, text: String) -> ConfigError {
    ConfigError { path: path.to_owned(), text }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|error| wrong(path, format!("cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
seconds: 2
contenders:
  - name: a
    command: [a, --listen, '{listen}']
    files: { a.conf: a.template }
    ready: http://{metrics}/ready
    acknowledges: before_delivery
  - name: b
    command: [b]
    splits: false
scenarios:
  - tenants: [1, 10]
    series: 100
    senders: [8, 64]
  - { tenants: 5, series: 5, senders: 5, seconds: 0.5, rounds: 1, labels: 12, upstream_latency_ms: 10, rate: 50 }
";

    fn load(yaml: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.template"), "sink {sink}").unwrap();
        let path = dir.path().join("try.yml");
        fs::write(&path, yaml).unwrap();
        Config::load(&path)
    }

    #[test]
    fn a_matrix_gives_every_combination() {
        let config = load(GOOD).unwrap();
        let seen: Vec<_> =
            config.scenarios.iter().map(|s| (s.tenants, s.series, s.senders, s.seconds)).collect();
        assert_eq!(
            seen,
            [(1, 100, 8, 2.0), (10, 100, 8, 2.0), (1, 100, 64, 2.0), (10, 100, 64, 2.0), (5, 5, 5, 0.5)]
        );
        assert_eq!(config.scenarios.iter().map(|s| s.rounds).collect::<Vec<_>>(), [3, 3, 3, 3, 1]);
        assert_eq!(
            config.scenarios[4].to_string(),
            "5 tenants, 5 series a request, 5 senders, 12 labels, an upstream of 10 ms, 50 requests/s"
        );
        assert_eq!(config.name, "try");
        let [a, b] = &config.contenders[..] else { panic!("two contenders") };
        assert_eq!(a.files["a.conf"], "sink {sink}");
        assert_eq!(a.ready, "http://{metrics}/ready");
        assert_eq!((a.acknowledges, a.splits), (Acknowledges::BeforeDelivery, true));
        assert_eq!((b.acknowledges, b.splits, b.ready.as_str()), (Acknowledges::AfterDelivery, false, TCP));
    }

    #[test]
    fn every_format_goes_through_the_whole_matrix() {
        let yaml = GOOD.replace("labels: 12", "formats: [remote-write-2, loki]");
        let config = load(&yaml.replace("command: [b]", "command: [b]\n    formats: [loki]")).unwrap();
        let formats: Vec<_> = config.scenarios.iter().skip(3).map(|scenario| scenario.format).collect();
        assert_eq!(formats, [Format::RemoteWrite1, Format::RemoteWrite2, Format::Loki]);
        assert_eq!(
            config.scenarios[5].to_string(),
            "5 tenants, 5 series a request, 5 senders, loki, an upstream of 10 ms, 50 requests/s"
        );
        assert_eq!(config.contenders[0].formats, [Format::RemoteWrite1]);
        assert_eq!(config.contenders[1].formats, [Format::Loki]);
    }

    #[test]
    fn contenders_can_be_those_of_another_comparison() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("a.template"), "sink {sink}").unwrap();
        fs::write(dir.path().join("full.yml"), GOOD).unwrap();
        let path = dir.path().join("sub/quick.yml");
        let quick =
            "seconds: 1\ncontenders_of: ../full.yml\nscenarios: [{ tenants: 1, series: 1, senders: 1 }]\n";
        let names = |yaml: &str| {
            fs::write(&path, yaml).unwrap();
            let config = Config::load(&path);
            config.map(|config| {
                config.contenders.into_iter().map(|contender| contender.name).collect::<Vec<_>>()
            })
        };
        assert_eq!(names(quick).unwrap(), ["a", "b"]);
        let more = format!("{quick}contenders: [{{ name: c, command: [c] }}]");
        assert_eq!(names(&more).unwrap(), ["a", "b", "c"]);
        assert!(names(&more.replace("name: c", "name: b")).is_err());
        assert!(names(&quick.replace("contenders_of: ../full.yml", "")).is_err());
        assert!(names(&quick.replace("full", "none")).unwrap_err().to_string().contains("none.yml"));
    }

    #[test]
    fn a_program_is_looked_for_in_path_or_where_it_is_said_to_be() {
        let contender =
            |program: &str| Contender { command: vec![program.to_owned()], ..Contender::default() };
        assert!(["sh", "/bin/sh", "{loadgen}"].map(contender).iter().all(Contender::is_installed));
        assert!(!["no-such-program", "/nowhere/sh"].map(contender).iter().any(Contender::is_installed));
    }

    #[test]
    fn mistakes_are_told_before_anything_runs() {
        for (from, to, fault) in [
            ("seconds: 2", "second: 2", "second"),
            ("seconds: 2", "seconds: 0", "seconds: 0 is not above 0"),
            ("seconds: 2", "seconds: .nan", "seconds: NaN is not above 0"),
            ("series: 100", "series: 0", "series: 0 is not from 1"),
            (
                "series: 100",
                "series: many",
                "line 14 column 13: neither a number from 0 nor a list of numbers",
            ),
            ("series: 100", "series: -1", "neither a number from 0 nor a list of numbers"),
            ("splits: false", "drain_seconds: soon", "`soon` is no duration"),
            ("series: 100", "series: []", "no list may be empty"),
            ("rounds: 1, labels: 12", "rounds: 1, formats: [loki, lok]", "unknown variant `lok`"),
            ("labels: 12", "labels: 3", "labels: 3 is not from 4"),
            (
                "'{listen}'",
                "'{listn}'",
                "contender `a`: there is no placeholder {listn}, only {listen}, {metrics}",
            ),
            ("name: b", "name: a", "two are called `a`"),
            ("a.template", "b.template", "b.template"),
            ("a.conf", "../a.conf", "not the bare name"),
            ("command: [b]", "command: []", "contender `b`: command: it must begin with a program"),
            ("http://{metrics}/ready", "metrics", "neither `tcp` nor a URL"),
            ("before_delivery", "sometime", "sometime"),
            ("splits: false", "push: push", "`push` is no path"),
            ("splits: false", "plain: c", "contender `b`: plain: there is no `c`"),
        ] {
            let error = load(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(fault), "{to}: {error}");
        }
    }
}
