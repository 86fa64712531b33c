//! The pages of the manual: tenantry(1) and tenantry.yml(5).
//!
//! The options come from the description that clap parses by, and the settings from the table of keys. So neither page
//! can lack one or have a stale default.
#![forbid(unsafe_code)]

use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::build::Build;
use crate::config::{self, Documented};

/// Returns tenantry(1) as roff. `described` has the options.
pub(super) fn program(described: clap::Command, build: Build) -> String {
    let mut page = title("tenantry", "1", "User Commands", build);
    page.control("SH", ["NAME"]);
    page.text([roman("tenantry - splits Prometheus remote write and Loki pushes by tenant")]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("tenantry"), roman(" [ "), bold("-c"), roman(" "), italic("FILE"), roman(" ]")]);
    page.control("br", []);
    page.text([
        bold("tenantry --check-config"),
        roman(" [ "),
        bold("-c"),
        roman(" "),
        italic("FILE"),
        roman(" ]"),
    ]);
    page.control("br", []);
    page.text([bold("tenantry --print-default-config")]);
    let commands = commands("tenantry", &described);
    for (name, command) in &commands {
        page.control("br", []);
        let mut line = vec![bold(name.as_str()), roman(" [ "), italic("OPTIONS"), roman(" ]")];
        for argument in command.get_positionals() {
            let (begin, end) = if argument.is_required_set() { (" ", "") } else { (" [ ", " ]") };
            let names = argument.get_value_names().unwrap_or_default().iter();
            let name = |name: &clap::builder::Str| [roman(begin), italic(name.as_str()), roman(end)];
            line.extend(names.flat_map(name));
        }
        page.text(line);
    }
    section(&mut page, "DESCRIPTION", DESCRIPTION);
    let mut text = page.render();
    text += &options(described);
    text += &Roff::new().control("SH", ["COMMANDS"]).render();
    commands.into_iter().for_each(|(name, command)| text += &subcommand(&name, command));
    let mut rest = Roff::new();
    list(&mut rest, "SIGNALS", SIGNALS);
    list(&mut rest, "EXIT STATUS", EXIT_STATUS);
    list(&mut rest, "ENVIRONMENT", ENVIRONMENT);
    list(&mut rest, "FILES", FILES);
    see_also(
        &mut rest,
        &[("tenantry.yml", "5"), ("prometheus", "1"), ("systemd.service", "5"), ("kill", "1")],
    );
    text + &rest.render()
}

/// Returns tenantry.yml(5) as roff, with every setting.
pub(super) fn configuration(build: Build) -> String {
    let mut page = title("tenantry.yml", "5", "File Formats", build);
    page.control("SH", ["NAME"]);
    page.text([roman("tenantry.yml - configuration of tenantry")]);
    section(&mut page, "DESCRIPTION", FORMAT);
    page.control("SH", ["SETTINGS"]);
    for (topic, keys) in config::documented() {
        page.control("SS", [topic]);
        keys.iter().for_each(|key| setting(&mut page, key));
    }
    list(&mut page, "FILES", FILES);
    section(&mut page, "EXAMPLES", EXAMPLES_LEAD);
    page.control("PP", []).control("EX", []);
    for line in EXAMPLE {
        page.text([roman(*line)]);
    }
    page.control("EE", []);
    see_also(&mut page, &[("tenantry", "1")]);
    page.render()
}

const DESCRIPTION: &[&str] = &[
    "Tenantry is a proxy. It takes requests that hold series of many tenants, reads each series' tenant from a label, \
     and sends one request per tenant, with that tenant's HTTP header, to Mimir, Cortex, Thanos Receive, \
     VictoriaMetrics or Loki. A 2xx means that the upstream accepted every part.",
    "Settings come from a YAML file, described in tenantry.yml(5), and from variables, which win over the file. \
     Without `--config` the file is not looked for anywhere: only variables and defaults apply.",
    "The arguments of cortex-tenant work, too: a long option may have one dash (`-config FILE`, `-config=FILE`). Of \
     several files the last one counts.",
];

const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGTERM, SIGINT",
        "Shut down in order. `/alive` answers 503 for `timeout_shutdown`, and every answer closes its connection. Then \
         the listener is closed and requests in flight are finished. At worst this takes `timeout_shutdown` + 7 times \
         `timeout` + 5 seconds.",
    ),
    (
        "a second SIGTERM or SIGINT",
        "End at once. Requests in flight get no answer, and their senders send them again.",
    ),
    (
        "SIGHUP",
        "Read the configuration again, with the files that it names. It applies as a whole. If it has a mistake, nothing \
         changes, and the log tells every mistake. The log also names the settings that wait for a restart.",
    ),
    (
        "others",
        "SIGUSR1, SIGUSR2, SIGALRM and others without a meaning are logged at `info`, and end nothing. SIGQUIT dumps core.",
    ),
];

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "The server was shut down in order, or the command is done."),
    (
        "1",
        "The server could not start, for example because another program has its port, or it failed. The last line of \
         the log says why. A restart can help. `explain` and `plan`: a captured request cannot be read. \
         `spool`: a file cannot be read, a segment is damaged, or a dead letter is left.",
    ),
    (
        "2",
        "`tenantry plan`: the new configuration moves series, or a running server would refuse to reload it.",
    ),
    (
        "64",
        "The command line or the configuration has mistakes. Each is told on standard error, with its line. Nothing was \
         opened, and a restart without a change does not help.",
    ),
    ("130, 143", "A second SIGINT or SIGTERM ended the process."),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "CT_…",
        "Every setting has a variable, such as `CT_TARGET` for `target`; tenantry.yml(5) names them. It wins over the \
         file. An empty variable counts as not set.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS, JOURNAL_STREAM",
        "Set by systemd: where it is told that the server is ready, reloads, stops and is alive; sockets to take over; \
         and whether the log goes to the journal, which has lines of a format of its own.",
    ),
    ("SSL_CERT_FILE, SSL_CERT_DIR", "The authorities to trust at `https` targets, in place of the system's."),
];

const FILES: &[(&str, &str)] = &[(
    "/etc/tenantry/tenantry.yml",
    "The configuration that the systemd unit names. The user of the service has to be able to read it, and the files \
     that it names.",
)];

const FORMAT: &[&str] = &[
    "The file is YAML. A key with dots below, such as `tenant.label`, is the key `label` in the section `tenant`. All keys \
     have defaults; an empty file is valid. An unknown key is a mistake. `tenantry --check-config -c FILE` tells every \
     mistake with its line.",
    "Each setting can also be given by the variable in brackets. The variable wins over the file. An empty variable \
     counts as not set.",
    "Durations are written like 10s, 1m30s, 1.5h or 500ms. Sizes are bytes, or have Ki, Mi or Gi behind them. Lists in \
     variables are written like a,b,c.",
    "SIGHUP has a running server read the file again.",
];

const EXAMPLES_LEAD: &[&str] = &["Tenants by the label `tenant`, for a Mimir:"];

const EXAMPLE: &[&str] = &[
    "listen: 0.0.0.0:8081",
    "listen_metrics_address: 127.0.0.1:9091",
    "target: http://mimir.example:8080/api/v1/push",
    "tenant:",
    "  label: tenant",
    "  default: shared",
];

fn title(name: &str, number: &str, manual: &str, build: Build) -> Roff {
    let mut page = Roff::new();
    // roff writes no quotes around an empty argument.
    let date = if build.date.is_empty() { "\"\"" } else { build.date };
    let source = format!("tenantry {}", env!("CARGO_PKG_VERSION"));
    page.control("TH", [&*name.to_uppercase(), number, date, &source, manual]);
    page
}

fn options(described: clap::Command) -> String {
    let mut text = Vec::new();
    // Writing to a Vec can't fail.
    let _ = Man::new(described).render_options_section(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The subcommands that do something, with their full names.
fn commands(name: &str, of: &clap::Command) -> Vec<(String, clap::Command)> {
    let mut all = Vec::new();
    for command in of.get_subcommands() {
        let name = format!("{name} {}", command.get_name());
        match command.has_subcommands() {
            true => all.extend(commands(&name, command)),
            false => all.push((name, command.clone())),
        }
    }
    all
}

/// The subsection of a subcommand: what it does, and its options.
fn subcommand(name: &str, command: clap::Command) -> String {
    let mut page = Roff::new();
    page.control("SS", [name]);
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string);
    paragraphs(&mut page, about.unwrap_or_default().split("\n\n"));
    let options = options(command);
    // They are part of the subsection.
    let (_, options) = options.split_once(".SH OPTIONS\n").unwrap_or_default();
    page.render() + options
}

/// A section of paragraphs.
fn section(page: &mut Roff, heading: &str, text: &[&str]) {
    page.control("SH", [heading]);
    paragraphs(page, text.iter().copied());
}

fn paragraphs<'a>(page: &mut Roff, text: impl Iterator<Item = &'a str>) {
    for (at, paragraph) in text.enumerate() {
        if at > 0 {
            page.control("PP", []);
        }
        page.text(prose(paragraph));
    }
}

/// A section of terms and what they mean.
fn list(page: &mut Roff, heading: &str, entries: &[(&str, &str)]) {
    page.control("SH", [heading]);
    for (term, text) in entries {
        page.control("TP", []).text([bold(*term)]).text(prose(text));
    }
}

fn see_also(page: &mut Roff, pages: &[(&str, &str)]) {
    page.control("SH", ["SEE ALSO"]);
    let mut line = Vec::new();
    for (name, number) in pages {
        let comma = if line.is_empty() { "" } else { ", " };
        line.extend([roman(comma), bold(*name), roman(format!("({number})"))]);
    }
    page.text(line);
}

fn setting(page: &mut Roff, key: &Documented) {
    page.control("TP", []).text([bold(key.path), roman(" ["), italic(key.variable.as_str()), roman("]")]);
    page.text(prose(&key.what));
    let mut default = vec![roman("Default: "), bold(key.default.as_str()), roman(".")];
    if !key.zero.is_empty() {
        default.push(roman("\n"));
        default.extend(prose(&key.zero));
    }
    page.control("IP", []).text(default);
    page.control("IP", []).text(prose(&key.who));
}

/// A text with `code` in bold, each sentence on a line of its own, as roff wants it.
fn prose(text: &str) -> Vec<Inline> {
    let text = text.replace(". ", ".\n").replace(": `", ":\n`");
    let parts = text.split('`').enumerate();
    parts
        .filter(|(_, part)| !part.is_empty())
        .map(|(at, part)| if at % 2 == 1 { bold(part) } else { roman(part) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::described;
    use crate::cli::output::{EXIT_CHANGES, EXIT_USAGE};
    use crate::config::KEYS;

    const BUILD: Build = Build { commit: "cc44a34", date: "2026-11-26" };

    /// The lines that roff reads as requests, by their names.
    fn requests(page: &str) -> Vec<&str> {
        let requests = page.lines().filter_map(|line| line.strip_prefix(['.', '\'']));
        requests.map(|request| request.split(' ').next().unwrap()).collect()
    }

    #[test]
    fn every_setting_is_in_the_page_with_variable_and_default() {
        let page = configuration(BUILD);
        for key in KEYS {
            let path = key.path.replace('-', "\\-");
            let head = format!("\\fB{path}\\fR [\\fI{}\\fR]\n", key.variable());
            assert_eq!(page.matches(&format!(".TP\n{head}")).count(), 1, "{head}");
        }
        assert_eq!(page.matches("\nDefault: \\fB").count(), KEYS.len());
        assert!(page.contains("\n.TH TENANTRY.YML 5 2026-11-26 \"tenantry "), "{page}");
    }

    #[test]
    fn every_option_is_in_the_page_but_those_for_packages() {
        let page = program(described(BUILD), BUILD);
        for option in ["config", "check\\-config", "print\\-default\\-config", "help", "version"] {
            assert!(page.contains(&format!("\\fB\\-\\-{option}\\fR")), "{option}\n{page}");
        }
        for command in ["explain", "plan", "spool ls", "spool cat", "spool verify", "spool replay"] {
            assert!(page.contains(&format!("\n.SS \"tenantry {command}\"\n")), "{command}\n{page}");
            assert!(page.contains(&format!("\\fBtenantry {command}\\fR [ ")), "{command}\n{page}");
        }
        assert!(page.contains("\\fB\\-\\-tenant\\-header\\fR"), "{page}");
        assert!(!page.contains("print\\-man") && !page.contains("print\\-completions"));
        for code in [EXIT_USAGE, EXIT_CHANGES, 0, 1] {
            assert!(page.contains(&format!(".TP\n\\fB{code}\\fR\n")), "{code}");
        }
    }

    #[test]
    fn no_text_is_taken_for_a_request() {
        for page in [program(described(BUILD), BUILD), configuration(Build::UNKNOWN)] {
            for request in requests(&page) {
                let known = ["TH", "SH", "SS", "TP", "IP", "PP", "br", "EX", "EE", "ie", "el"];
                assert!(known.contains(&request), "{request}");
            }
            assert_eq!(page.matches("\n.SH NAME\n").count(), 1);
            assert!(!page.contains('`'), "{page}");
        }
        let mut page = Roff::new();
        page.text(prose(".a `.b`. .c \\d 'e'. 'f"));
        let (_, text) =
            page.render().split_once("Aq '\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert_eq!(text, "\\&.a \\fB.b\\fR.\n\\&.c \\\\d \\*(Aqe\\*(Aq.\n\\*(Aqf\n");
    }
}
