//! Why a file may not be read. The kernel only says `Permission denied`; what has to change is in the attributes of the
//! file, or of a directory on the way to it.
#![forbid(unsafe_code)]

use std::fs::Metadata;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Groups that systemd makes for one run (`DynamicUser=`). The next run may have another.
const DYNAMIC_GROUPS: RangeInclusive<u32> = 61_184..=65_519;

/// How an owner is shown who does not exist in the process's user namespace (`PrivateUsers=`).
const UNSEEN: u32 = 65_534;

/// Links to links that are followed.
const LINKS_MAX: usize = 8;

const READ: u32 = 0o4;
const ENTER: u32 = 0o1;

/// Adds to a denied permission which file or directory denies it, to which process, and what helps. Leaves other errors
/// as they are.
pub(super) fn explained(path: &Path, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    io::Error::new(error.kind(), format!("{error}: {}", reason(&behind_links(path))))
}

/// The file that a link leads to, as far as that can be seen.
fn behind_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match (std::fs::read_link(&path), path.parent()) {
            (Ok(target), Some(folder)) => path = folder.join(target),
            _ => break,
        }
    }
    path
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

/// The user and the groups that a process runs as.
struct Process {
    user: u32,
    group: u32,
    /// Further groups.
    groups: Vec<u32>,
}

impl Process {
    fn current() -> Self {
        let groups = rustix::process::getgroups().unwrap_or_default();
        Self {
            user: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
            groups: groups.into_iter().map(rustix::process::Gid::as_raw).collect(),
        }
    }

    /// Whether the mode grants it: the owner's bits count for the owner alone, and the group's for its members.
    fn may(&self, bit: u32, of: &Metadata) -> bool {
        let is_member = of.gid() == self.group || self.groups.contains(&of.gid());
        let shift = match of.uid() == self.user {
            true => 6,
            false if is_member => 3,
            false => 0,
        };
        of.mode() >> shift & bit != 0
    }

    fn of_file(&self, path: &Path, file: &Metadata) -> String {
        let owned = owned(file);
        if self.may(READ, file) {
            return format!("it belongs to {owned}, {}", self.allowed());
        }
        if file.uid() == self.user {
            return format!(
                "it belongs to {owned}, the user of this process ({self}): chmod u+r {}",
                path.display()
            );
        }
        let remedy = self.remedy(READ, path, file, "0640", "o+r");
        format!("it belongs to {owned}, and this process runs as {self}: {remedy}")
    }

    fn of_directory(&self, path: &Path, directory: &Metadata) -> String {
        let (owned, shown) = (owned(directory), path.display());
        if self.may(ENTER, directory) {
            return format!("the directory {shown} belongs to {owned}, {}", self.allowed());
        }
        let remedy = self.remedy(ENTER, path, directory, "g+x", "o+x");
        format!("the directory {shown} belongs to {owned}, and this process runs as {self}: {remedy}")
    }

    fn allowed(&self) -> String {
        format!(
            "which would do for this process ({self}): AppArmor, SELinux or the service's sandbox forbids it"
        )
    }

    /// What helps. A group that exists for this purpose keeps the file, and the process joins it.
    fn remedy(&self, bit: u32, path: &Path, of: &Metadata, for_group: &str, for_all: &str) -> String {
        let (group, path) = (self.group, path.display());
        if of.gid() != 0 && of.gid() != UNSEEN && of.mode() >> 3 & bit != 0 {
            return format!("let the process join that group, in its unit: SupplementaryGroups={}", of.gid());
        }
        if DYNAMIC_GROUPS.contains(&group) {
            return format!("run the service as a user of its own (User=), or: chmod {for_all} {path}");
        }
        format!(
            "give it to a group of the process, for example: chgrp {group} {path} && chmod {for_group} {path}"
        )
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} and {}", named("user", self.user), named("group", self.group))
    }
}

/// Owner, group and mode.
fn owned(of: &Metadata) -> String {
    let named = |kind, id| match id {
        UNSEEN => format!("a {kind} that this process cannot see (PrivateUsers=)"),
        id => named(kind, id),
    };
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
        let told = |mode, user, group, groups: &[u32]| {
            file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
            let process = Process { user, group, groups: groups.into() };
            process.of_file(file.path(), &file.as_file().metadata().unwrap())
        };
        let path = file.path().display();
        let stable = told(0o600, 998, 997, &[]);
        assert!(stable.contains("runs as user 998 and group 997: "), "{stable}");
        assert!(stable.ends_with(&format!("chgrp 997 {path} && chmod 0640 {path}")), "{stable}");
        let dynamic = told(0o600, 62_000, 62_000, &[]);
        assert!(dynamic.ends_with(&format!("(User=), or: chmod o+r {path}")), "{dynamic}");
        let own = told(0o200, rustix::process::geteuid().as_raw(), 997, &[]);
        assert!(own.ends_with(&format!("chmod u+r {path}")), "{own}");
        // The mode would do.
        let group = file.as_file().metadata().unwrap().gid();
        assert!(told(0o604, 998, 997, &[]).contains("SELinux"));
        assert!(told(0o640, 998, group, &[]).contains("SELinux"));
        assert!(told(0o640, 998, 997, &[group]).contains("SELinux"));
        // The group's bits count for its members, although those of all others would do.
        assert!(!told(0o604, 998, 997, &[group]).contains("SELinux"));
    }

    #[test]
    fn a_group_that_may_read_the_file_keeps_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o640)).unwrap();
        // Only root may give a file to another group.
        if std::os::unix::fs::chown(file.path(), None, Some(4_711)).is_err() {
            return eprintln!("this test needs root");
        }
        let process = Process { user: 998, group: 997, groups: Vec::new() };
        let told = process.of_file(file.path(), &file.as_file().metadata().unwrap());
        assert!(told.ends_with("SupplementaryGroups=4711"), "{told}");
    }

    #[test]
    fn a_link_is_explained_by_what_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name| folder.path().join(name);
        std::fs::create_dir_all(at("live")).unwrap();
        std::os::unix::fs::symlink("../archive/key.pem", at("live/key.pem")).unwrap();
        std::os::unix::fs::symlink("live/key.pem", at("key.pem")).unwrap();
        assert_eq!(behind_links(&at("key.pem")), at("live/../archive/key.pem"));
        std::os::unix::fs::symlink("circle", at("circle")).unwrap();
        assert_eq!(behind_links(&at("circle")), at("circle"));
    }
}
