//! Why a file may not be read. The kernel only says `Permission denied`; what has to change is in the attributes of the
//! file, or of a directory on the way to it.
#![forbid(unsafe_code)]

use std::fs::Metadata;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Groups that systemd makes for one run (`DynamicUser=`). The next run may have another.
const DYNAMIC_GROUPS: RangeInclusive<u32> = 61_184..=65_519;

/// Adds to a denied permission which file or directory denies it, to which process, and what helps. Leaves other errors
/// as they are.
pub(super) fn explained(path: &Path, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    io::Error::new(error.kind(), format!("{error}: {}", reason(path)))
}

fn reason(path: &Path) -> String {
    let process = Process::current();
    match std::fs::metadata(path) {
        Ok(file) => process.of_file(path, &file),
        // A directory may not be entered: the last one that can still be seen.
        Err(_) => {
            let seen = path.ancestors().skip(1).find_map(|directory| {
                // A relative path ends with an empty one.
                let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
                std::fs::metadata(directory).ok().map(|found| (directory, found))
            });
            match seen {
                Some((directory, found)) => process.of_directory(directory, &found),
                None => {
                    format!("the directories on its way are closed to this process, which runs as {process}")
                }
            }
        }
    }
}

/// The user and the group that a process runs as.
struct Process {
    user: u32,
    group: u32,
}

impl Process {
    fn current() -> Self {
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        Self { user: user.as_raw(), group: group.as_raw() }
    }

    fn of_file(&self, path: &Path, file: &Metadata) -> String {
        let (owned, path) = (owned(file), path.display());
        // Bits for "others" that allow it: something else forbids it.
        if file.mode() & 0o004 != 0 && file.uid() != self.user && file.gid() != self.group {
            return format!(
                "it belongs to {owned}, which would do for this process ({self}): AppArmor, SELinux or the service's \
                 sandbox forbids it"
            );
        }
        if file.uid() == self.user {
            return format!("it belongs to {owned}, the user of this process ({self}): chmod u+r {path}");
        }
        let remedy = self.remedy("give the file to a group of the process", &path, "0640", "o+r");
        format!("it belongs to {owned}, and this process runs as {self}: {remedy}")
    }

    fn of_directory(&self, path: &Path, directory: &Metadata) -> String {
        let (owned, path) = (owned(directory), path.display());
        let remedy = self.remedy("let a group of the process enter it", &path, "g+x", "o+x");
        format!("the directory {path} belongs to {owned}, and this process runs as {self}: {remedy}")
    }

    fn remedy(&self, what: &str, path: &std::path::Display<'_>, for_group: &str, for_all: &str) -> String {
        let group = self.group;
        if DYNAMIC_GROUPS.contains(&group) {
            return format!("run the service as a user of its own (User=), or: chmod {for_all} {path}");
        }
        format!("{what}, for example: chgrp {group} {path} && chmod {for_group} {path}")
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} and {}", named("user", self.user), named("group", self.group))
    }
}

/// Owner, group and mode.
fn owned(of: &Metadata) -> String {
    let (user, group) = (named("user", of.uid()), named("group", of.gid()));
    format!("{user} and {group} with mode {:04o}", of.mode() & 0o7777)
}

/// Only root has the same name everywhere. Other names are behind NSS, which may block.
fn named(kind: &str, id: u32) -> String {
    if id == 0 { format!("{kind} root") } else { format!("{kind} {id}") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_denied_permissions_are_explained() {
        let missing = std::fs::File::open("/none").unwrap_err();
        assert_eq!(
            explained(Path::new("/none"), missing).to_string(),
            "No such file or directory (os error 2)"
        );
    }

    #[test]
    fn the_remedy_fits_the_cause() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let told = |mode, user, group| {
            file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
            Process { user, group }.of_file(file.path(), &file.as_file().metadata().unwrap())
        };
        let path = file.path().display();
        let stable = told(0o600, 998, 997);
        assert!(stable.contains("runs as user 998 and group 997: "), "{stable}");
        assert!(stable.ends_with(&format!("chgrp 997 {path} && chmod 0640 {path}")), "{stable}");
        let dynamic = told(0o600, 62_000, 62_000);
        assert!(dynamic.ends_with(&format!("(User=), or: chmod o+r {path}")), "{dynamic}");
        let own = told(0o200, rustix::process::geteuid().as_raw(), 997);
        assert!(own.ends_with(&format!("chmod u+r {path}")), "{own}");
        // The mode would do.
        assert!(told(0o604, 998, 997).contains("SELinux"));
    }
}
