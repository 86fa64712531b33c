//! The arguments of the command line.
//!
//! Unit files and manifests for cortex-tenant use Go's single dash (`-config FILE`), and must keep working. So long
//! options with one dash get a second one before clap parses them.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{CommandFactory, Parser};

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
    /// Print every key with its default, and exit.
    PrintDefaultConfig,
}

/// Takes Prometheus remote write, finds out which tenant each series belongs to, and forwards one request for
/// each tenant with that tenant's header.
#[derive(Debug, Parser)]
#[command(name = "tenantry", version)]
struct Args {
    /// Read settings from this YAML file (`-config FILE` works, too); CT_ environment variables win over it
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Check file and environment, print every mistake, and exit: 0 when all is well, 64 when not
    #[arg(long, conflicts_with = "print_default_config")]
    check_config: bool,

    /// Print a commented configuration with every key and its default, and exit
    #[arg(long)]
    print_default_config: bool,
}

/// Parses the arguments, program name first. The error is clap's: a mistake, or a request for help or the version.
/// [`clap::Error::use_stderr`] tells which, and `print` prints it to the right stream.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let args = Args::try_parse_from(double_dashes(args))?;
    Ok(if args.print_default_config {
        Command::PrintDefaultConfig
    } else if args.check_config {
        Command::CheckConfig { config: args.config }
    } else {
        Command::Run { config: args.config }
    })
}

/// Adds the second dash to `-config`, `-config=FILE` and the other long options in the style of Go's flag package. The
/// argument after an option that takes a value is always that value.
fn double_dashes(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let long_options: Vec<String> = Args::command()
        .get_arguments()
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .chain(["help".into(), "version".into()])
        .collect();
    let mut rewritten: Vec<OsString> = Vec::new();
    let mut options_over = false;
    let mut value_next = false;
    for (at, arg) in args.into_iter().enumerate() {
        let single = arg.to_str().filter(|_| at > 0 && !options_over && !value_next).and_then(|text| {
            let name = text.strip_prefix('-').filter(|name| !name.starts_with('-'))?;
            let word = name.split_once('=').map_or(name, |(word, _)| word);
            long_options.iter().any(|option| option == word).then(|| OsString::from(format!("--{name}")))
        });
        let arg = single.unwrap_or(arg);
        options_over |= !value_next && arg == OsStr::new("--");
        value_next = !value_next && !options_over && (arg == "--config" || arg == "-c");
        rewritten.push(arg);
    }
    rewritten
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(args: &[&str]) -> Result<Command, clap::Error> {
        parse(std::iter::once("tenantry").chain(args.iter().copied()).map(OsString::from))
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
    fn mistakes_go_to_stderr() {
        for args in [
            &["-confg", "a.yml"][..],
            &["--config"],
            &["a.yml"],
            &["--check-config", "--print-default-config"],
        ] {
            assert!(command(args).unwrap_err().use_stderr(), "{args:?}");
        }
    }
}
