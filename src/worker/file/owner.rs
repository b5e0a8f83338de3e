//! `--chown`: ids, and names as the image's own files have them.
//!
//! BuildKit's rules: an unknown user is 0:0, an unknown group leaves the user's own; a number alone is user and group.
//! Digits are never looked up as a name, and numbers end where ids do (rule S-23).

use std::io;

use rbuild_cache::view::View;
use rbuild_executor::users::{MAX_USER_FILE, UserError, find_group, find_user};

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Why an owner cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum OwnerError {
    /// The image's files cannot be read.
    #[error("cannot read {file} of the image")]
    Unreadable {
        /// Which.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A number that is no id.
    #[error(transparent)]
    Number(#[from] UserError),
}

/// What `text` (`user`, `user:group`, `:group`; names or numbers) is in `image`.
pub(super) fn find_owner(text: &str, image: &View) -> Result<Owner, OwnerError> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let mut owner = match number(user)? {
        Some(id) => Owner { uid: id, gid: id },
        None if user.is_empty() => Owner { uid: 0, gid: 0 },
        None => match find_user(&read(image, "/etc/passwd")?, user)? {
            Some(entry) => Owner { uid: entry.uid, gid: entry.gid },
            None => Owner { uid: 0, gid: 0 },
        },
    };
    if let Some(id) = number(group)? {
        owner.gid = id;
    } else if !group.is_empty() {
        match find_group(&read(image, "/etc/group")?, group) {
            Ok(gid) => owner.gid = gid,
            Err(UserError::UnknownGroup { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(owner)
}

fn number(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id != u32::MAX => Ok(Some(id)),
        _ => Err(UserError::OutOfRange { number: text.to_owned() }),
    }
}

/// A file of the image; one that is missing, no regular file or absurdly large has no entries (rule S-22).
fn read(image: &View, file: &'static str) -> Result<Vec<u8>, OwnerError> {
    let read = image.read_regular(file, MAX_USER_FILE).map_err(|source| OwnerError::Unreadable { file, source })?;
    Ok(read.unwrap_or_default())
}
