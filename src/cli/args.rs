//! The arguments of the command line.
//!
//! Unit files and manifests for cortex-tenant use Go's single dash (`-config FILE`), and must keep working. So long
//! options with one dash get a second one before clap parses them.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::build::Build;
use super::explain::ExplainArgs;
use super::plan::PlanArgs;
use super::spool::SpoolCommand;

/// The command to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Run the server.
    Run {
        /// The configuration file. Without one, only the environment and the defaults apply.
        config: Option<PathBuf>,
    },
    /// Check the configuration, print all mistakes, and exit.
    CheckConfig {
        /// As in [`Command::Run`].
        config: Option<PathBuf>,
    },
    /// Explain where a series goes.
    Explain(ExplainArgs),
    /// Compare two configurations.
    Plan(PlanArgs),
    /// Look at a spool, or send dead letters again.
    Spool(SpoolCommand),
    /// Print every key with its default, and exit.
    PrintDefaultConfig,
    /// Print a page of the manual, and exit.
    PrintMan(Page),
    /// Print a shell's rules for completing the arguments, and exit.
    PrintCompletions(Shell),
}

/// A page of the manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Page {
    /// The program.
    #[value(name = "tenantry.1")]
    Program,
    /// The configuration file.
    #[value(name = "tenantry.yml.5")]
    Configuration,
}

/// A shell that can complete the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Takes Prometheus remote write, finds out which tenant each series belongs to, and forwards one request for
/// each tenant with that tenant's header.
#[derive(Debug, Parser)]
#[command(name = "tenantry", version)]
#[command(disable_help_subcommand = true, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    offline: Option<Offline>,

    /// Read settings from this YAML file (-config FILE works, too); CT_ environment variables win over it
    // As in Go's flag package, the last one counts, and an empty name is none.
    #[arg(short, long, value_name = "FILE", overrides_with = "config")]
    config: Option<OsString>,

    /// Check file and environment, print every mistake, and exit: 0 when all is well, 64 when not
    #[arg(long, group = "instead")]
    check_config: bool,

    /// Print a commented configuration with every key and its default, and exit
    #[arg(long, group = "instead")]
    print_default_config: bool,

    /// Print a page of the manual as roff, and exit
    // For packages, like the next one.
    #[arg(long, value_name = "PAGE", group = "instead", hide = true)]
    print_man: Option<Page>,

    /// Print a shell's rules for completing the arguments, and exit
    #[arg(long, value_name = "SHELL", group = "instead", hide = true)]
    print_completions: Option<Shell>,
}

/// A command that reads files and prints. Without one, the server runs.
#[derive(Debug, Subcommand)]
enum Offline {
    /// Tell where a series goes and why, or the parts of a captured request
    ///
    /// Nothing is sent. The configuration is read as the server reads it, with CT_ variables.
    Explain(ExplainArgs),

    /// Tell which series of captured requests a new configuration moves, and whether a server accepts it as a reload
    ///
    /// Nothing is sent. Exits with 0 if no series moves and a server accepts the reload, with 2 otherwise, with 1 if
    /// captured requests cannot be read, and with 64 for mistakes in a configuration. Both configurations are read as
    /// the server reads them, with CT_ variables.
    Plan(PlanArgs),

    /// Look at a spool, or send again what an upstream has refused
    #[command(subcommand, disable_help_subcommand = true)]
    Spool(SpoolCommand),
}

/// The arguments as clap knows them.
pub(super) fn described(build: Build) -> clap::Command {
    Args::command().long_version(build.long_version())
}

/// Parses the arguments, program name first. The error is clap's: a mistake, or a request for help or the version.
/// [`clap::Error::use_stderr`] tells which, and `print` prints it to the right stream.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>, build: Build) -> Result<Command, clap::Error> {
    let matches = described(build).try_get_matches_from(double_dashes(args))?;
    let args = Args::from_arg_matches(&matches)?;
    let config = args.config.filter(|name| !name.is_empty()).map(PathBuf::from);
    Ok(match args {
        Args { offline: Some(Offline::Explain(args)), .. } => Command::Explain(args),
        Args { offline: Some(Offline::Plan(args)), .. } => Command::Plan(args),
        Args { offline: Some(Offline::Spool(command)), .. } => Command::Spool(command),
        Args { print_default_config: true, .. } => Command::PrintDefaultConfig,
        Args { print_man: Some(page), .. } => Command::PrintMan(page),
        Args { print_completions: Some(shell), .. } => Command::PrintCompletions(shell),
        Args { check_config: true, .. } => Command::CheckConfig { config },
        _ => Command::Run { config },
    })
}

/// The options of a command, with their dashes.
struct Options {
    long: Vec<String>,
    with_value: Vec<String>,
}

impl Options {
    fn of(command: &clap::Command) -> Self {
        let long = command.get_arguments().filter_map(clap::Arg::get_long).chain(["help", "version"]);
        let takes_value = |argument: &&clap::Arg| argument.get_action().takes_values();
        let names = |argument: &clap::Arg| {
            let short = argument.get_short().map(|short| format!("-{short}"));
            argument.get_long().map(|long| format!("--{long}")).into_iter().chain(short)
        };
        Self {
            long: long.map(str::to_owned).collect(),
            with_value: command.get_arguments().filter(takes_value).flat_map(names).collect(),
        }
    }

    /// The option with two dashes, if the argument is one with one.
    fn doubled(&self, argument: &str) -> Option<OsString> {
        let name = argument.strip_prefix('-').filter(|name| !name.starts_with('-'))?;
        let word = name.split_once('=').map_or(name, |(word, _)| word);
        self.long.iter().any(|long| long == word).then(|| OsString::from(format!("--{name}")))
    }
}

/// Adds the second dash to `-config`, `-config=FILE` and the other long options in the style of Go's flag package. The
/// argument after an option that takes a value is always that value. After the name of a subcommand, or of one of its
/// own, its options count.
fn double_dashes(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let command = Args::command();
    let mut options = Options::of(&command);
    let mut rewritten: Vec<OsString> = Vec::new();
    let (mut options_over, mut value_next) = (false, false);
    let mut of = &command;
    for (at, arg) in args.into_iter().enumerate() {
        let may_be_option = at > 0 && !options_over && !value_next;
        if let Some(subcommand) = of.find_subcommand(&arg).filter(|_| may_be_option) {
            options = Options::of(subcommand);
            of = subcommand;
        }
        let single = arg.to_str().filter(|_| may_be_option).and_then(|text| options.doubled(text));
        let arg = single.unwrap_or(arg);
        options_over |= !value_next && arg == OsStr::new("--");
        value_next = !value_next && !options_over && options.with_value.iter().any(|option| arg == **option);
        rewritten.push(arg);
    }
    rewritten
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(args: &[&str]) -> Result<Command, clap::Error> {
        parse(std::iter::once("tenantry").chain(args.iter().copied()).map(OsString::from), Build::UNKNOWN)
    }

    fn run(file: &str) -> Command {
        Command::Run { config: Some(file.into()) }
    }

    #[test]
    fn a_file_can_be_named_in_every_usual_way() {
        for args in [
            &["--config", "a.yml"][..],
            &["--config=a.yml"],
            &["-c", "a.yml"],
            &["-ca.yml"],
            &["-config", "a.yml"],
            &["-config=a.yml"],
        ] {
            assert_eq!(command(args).unwrap(), run("a.yml"), "{args:?}");
        }
        assert_eq!(command(&[]).unwrap(), Command::Run { config: None });
    }

    #[test]
    fn a_file_is_named_again_or_not_at_all_as_in_go() {
        assert_eq!(command(&["-config", "a.yml", "-config=b.yml"]).unwrap(), run("b.yml"));
        for args in [&["-config="][..], &["-config", ""], &["--config", "a.yml", "--config="]] {
            assert_eq!(command(args).unwrap(), Command::Run { config: None }, "{args:?}");
        }
    }

    #[test]
    fn pages_and_completions_are_asked_for_with_one_dash_or_two() {
        for page in ["-print-man", "--print-man"] {
            assert_eq!(command(&[page, "tenantry.1"]).unwrap(), Command::PrintMan(Page::Program));
        }
        assert_eq!(command(&["-print-man=tenantry.yml.5"]).unwrap(), Command::PrintMan(Page::Configuration));
        assert_eq!(command(&["-print-completions", "fish"]).unwrap(), Command::PrintCompletions(Shell::Fish));
        // Packages use them; users have the pages.
        assert!(!Args::command().render_long_help().to_string().contains("print-man"));
    }

    #[test]
    fn other_long_options_take_one_dash_too() {
        let check = Command::CheckConfig { config: Some("a.yml".into()) };
        assert_eq!(command(&["-check-config", "-config", "a.yml"]).unwrap(), check);
        assert_eq!(command(&["--check-config", "--config", "a.yml"]).unwrap(), check);
        assert_eq!(command(&["-print-default-config"]).unwrap(), Command::PrintDefaultConfig);
        for version in ["-version", "--version", "-V"] {
            let asked = command(&[version]).unwrap_err();
            assert_eq!(asked.kind(), clap::error::ErrorKind::DisplayVersion, "{version}");
            assert!(!asked.use_stderr());
        }
        assert_eq!(command(&["-help"]).unwrap_err().kind(), clap::error::ErrorKind::DisplayHelp);
    }

    #[test]
    fn a_value_is_never_taken_for_an_option() {
        // A file of that name keeps its dash if given with `=`. Nothing is rewritten after `--`.
        assert_eq!(command(&["--config=-config"]).unwrap(), run("-config"));
        assert_eq!(double_dashes(["t", "--config", "-version"].map(OsString::from))[2], "-version");
        assert_eq!(double_dashes(["t", "--", "-version"].map(OsString::from))[2], "-version");
        assert_eq!(double_dashes(["-config", "-version"].map(OsString::from)), ["-config", "--version"]);
    }

    #[test]
    fn subcommands_take_one_dash_too() {
        let series = "{a=\"-config\"}";
        let same = [
            ["explain", "-config", "a.yml", "-json", "-source=x", series],
            ["explain", "--config", "a.yml", "--json", "--source=x", series],
        ];
        let parsed = same.map(|args| command(&args).unwrap());
        assert!(matches!(&parsed[0], Command::Explain(_)));
        assert_eq!(parsed[0], parsed[1]);
        let plan = command(&["plan", "-old", "a", "-new=b", "-examples", "9", "dir"]).unwrap();
        assert_eq!(command(&["plan", "--old=a", "--new", "b", "--examples=9", "dir"]).unwrap(), plan);
        let ls = command(&["spool", "ls", "-dir", "spool", "-json"]).unwrap();
        assert_eq!(command(&["spool", "ls", "--dir=spool", "--json"]).unwrap(), ls);
        assert_eq!(double_dashes(["t", "spool", "-dir"].map(OsString::from))[2], "-dir");
        // A value is no subcommand, and a subcommand's options are not the server's.
        assert_eq!(command(&["-config", "explain"]).unwrap(), run("explain"));
        assert_eq!(
            double_dashes(["t", "-old", "explain", "-old"].map(OsString::from)),
            ["t", "-old", "explain", "-old"]
        );
        assert_eq!(double_dashes(["t", "plan", "-old", "explain"].map(OsString::from))[2], "--old");
        Args::command().debug_assert();
    }

    #[test]
    fn mistakes_go_to_stderr() {
        for args in [
            &["-confg", "a.yml"][..],
            &["--config"],
            &["a.yml"],
            &["--check-config", "--print-default-config"],
            &["--check-config", "--print-man", "tenantry.1"],
            &["--print-man", "tenantry.2"],
            &["--print-completions", "csh"],
            &["explain"],
            &["explain", "up", "--destination", "traces"],
            &["explain", "--user", "a", "--token", "b", "up"],
            &["plan", "--old", "a", "dir"],
            &["--config", "a.yml", "explain", "up"],
            &["spool"],
            &["spool", "help"],
            &["spool", "ls", "--config", "a.yml", "--dir", "b"],
            &["spool", "cat", "--dir", "b", "letters"],
            &["spool", "cat", "--limit", "x"],
            &["spool", "replay", "letters"],
            &["help"],
        ] {
            assert!(command(args).unwrap_err().use_stderr(), "{args:?}");
        }
    }
}
