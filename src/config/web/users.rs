//! `basic_auth_users`.
#![forbid(unsafe_code)]

use super::reader::Reader;
use crate::auth::password::{PasswordHash, Users};
use crate::config::yaml::Node;
use crate::limits::CREDENTIAL_NAME_BYTES_MAX;

const SECTION: &str = "basic_auth_users";

/// The users. Names that no client can send (RFC 7617 section 2) are mistakes.
pub(super) fn read(reader: &mut Reader<'_>, node: Node) -> Users {
    let mut users = Users::new();
    for (name, node) in reader.section(SECTION, node) {
        let key = super::reader::path(SECTION, &name.text);
        if let Err(text) = check_name(&name.text) {
            reader.mistake(name.line, &key, text);
            continue;
        }
        let Some(text) = reader.text(&key, &node) else {
            reader.mistake(name.line, &key, "the hash of the password is missing");
            continue;
        };
        match PasswordHash::parse(&text) {
            Ok(hash) => drop(users.insert(name.text.into(), hash)),
            Err(fault) => reader.mistake(node.line, &key, fault.to_string()),
        }
    }
    users
}

/// Checks a user's name.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the user's name is empty".into());
    }
    if name.len() > CREDENTIAL_NAME_BYTES_MAX {
        return Err(format!("the user's name has more than {CREDENTIAL_NAME_BYTES_MAX} bytes"));
    }
    if name.contains(':') {
        return Err("a user's name cannot contain a colon (RFC 7617): no client can send it".into());
    }
    if name.chars().any(char::is_control) {
        return Err("a user's name cannot contain a control character (RFC 7617)".into());
    }
    Ok(())
}
