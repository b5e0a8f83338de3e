//! Users and groups of an image: its own `/etc/passwd` and `/etc/group`, never the host's name service.
//!
//! The rules are those of Docker and BuildKit (`moby/sys/user`): a name must be found, a number need not be; without a
//! group the primary group is the user's and every group that lists the user is added; with a group only that one counts.
//! Stricter where it protects (S-22, S-23): only regular files of at most 8 MiB inside the root are read, numbers end at
//! 2³²−2, a user of digits is never a name, and an entry with a malformed number is no entry.

use std::io;

use rbuild_image::ContainerPath;

use crate::root_dir::RootDir;
use crate::spec::Ids;

/// Larger files are refused.
pub const MAX_USER_FILE: u64 = 8 << 20;

/// A user or group that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The image has no such user.
    #[error("unable to find user {name}: no matching entries in passwd file")]
    UnknownUser {
        /// What was asked for.
        name: String,
    },
    /// The image has no such group.
    #[error("unable to find group {name}: no matching entries in group file")]
    UnknownGroup {
        /// What was asked for.
        name: String,
    },
    /// A number that is no id.
    #[error("id {number} is out of range: ids are 0 to 4294967294")]
    OutOfRange {
        /// What was asked for.
        number: String,
    },
    /// The file exists and cannot be read.
    #[error("cannot read {file} of the image")]
    Unreadable {
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A user as the image describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Numeric ids.
    pub ids: Ids,
    /// The name, when the image has the user.
    pub name: Option<String>,
    /// The home directory; `/` when the image does not have the user, as in Docker.
    pub home: String,
}

/// Looks up `USER`-like text (`user`, `uid`, `user:group`, …) in the image below `root`.
pub fn lookup(root: &RootDir, user: &str) -> Result<User, UserError> {
    lookup_with(|path| root.read_regular(path, MAX_USER_FILE), user)
}

/// Looks up `USER`-like text in files that `read` delivers. It must not follow symlinks out of the image, nor block.
pub fn lookup_with(mut read: impl FnMut(&ContainerPath) -> io::Result<Vec<u8>>, user: &str) -> Result<User, UserError> {
    let passwd = read_user_file(&mut read, "/etc/passwd");
    let group = read_user_file(&mut read, "/etc/group");
    // A file that is damaged or hostile only matters when the answer depends on it.
    let found = resolve(passwd.as_deref().unwrap_or_default(), group.as_deref().unwrap_or_default(), user);
    match (found, passwd, group) {
        (Err(UserError::UnknownUser { .. }), Err(error), _) | (Err(UserError::UnknownGroup { .. }), _, Err(error)) => {
            Err(error)
        }
        (found, _, _) => found,
    }
}

/// Looks up `USER`-like text in the bytes of the two files.
pub fn resolve(passwd: &[u8], group: &[u8], user: &str) -> Result<User, UserError> {
    let (user, wanted_group) = user.split_once(':').unwrap_or((user, ""));
    let found = find_user(passwd, user)?;
    let uid = match (&found, number(user)?) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) if user.is_empty() => 0,
        (None, None) => return Err(UserError::UnknownUser { name: user.to_owned() }),
    };
    let mut gid = found.as_ref().map_or(0, |entry| entry.gid);
    let mut more = Vec::new();
    if wanted_group.is_empty() {
        if let Some(entry) = &found {
            more = groups(group).filter(|g| g.members.contains(&entry.name)).map(|g| g.gid).collect();
        }
    } else {
        gid = find_group(group, wanted_group)?;
    }
    more.retain(|g| *g != gid);
    more.sort_unstable();
    more.dedup();
    more.insert(0, gid);
    Ok(User {
        ids: Ids { uid, gid, groups: more },
        home: found.as_ref().map(|e| e.home.clone()).filter(|h| !h.is_empty()).unwrap_or_else(|| "/".to_owned()),
        name: found.map(|entry| entry.name),
    })
}

/// The id of a group given by number or name; a number need not exist.
pub fn find_group(group: &[u8], wanted: &str) -> Result<u32, UserError> {
    if let Some(gid) = number(wanted)? {
        return Ok(gid);
    }
    let found = groups(group).find(|g| g.name == wanted).map(|g| g.gid);
    found.ok_or_else(|| UserError::UnknownGroup { name: wanted.to_owned() })
}

/// One line of a passwd file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswdEntry {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
}

/// The first entry for a name or a number; empty text means uid 0.
pub fn find_user(passwd: &[u8], wanted: &str) -> Result<Option<PasswdEntry>, UserError> {
    let uid = if wanted.is_empty() { Some(0) } else { number(wanted)? };
    Ok(users(passwd).find(|entry| match uid {
        Some(uid) => entry.uid == uid,
        None => entry.name == wanted,
    }))
}

struct GroupEntry {
    name: String,
    gid: u32,
    members: Vec<String>,
}

fn users(passwd: &[u8]) -> impl Iterator<Item = PasswdEntry> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default().to_owned();
        Some(PasswdEntry { name, uid, gid, home })
    })
}

fn groups(group: &[u8]) -> impl Iterator<Item = GroupEntry> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let gid = id(fields.nth(1)?)?;
        let members = fields.next().unwrap_or_default();
        let members = members.split(',').map(str::trim).filter(|m| !m.is_empty()).map(str::to_owned).collect();
        Some(GroupEntry { name, gid, members })
    })
}

fn lines(file: &[u8]) -> impl Iterator<Item = String> {
    file.split(|b| *b == b'\n')
        .map(|line| String::from_utf8_lossy(line).trim().to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// An id in a file: malformed ones are not taken for 0.
fn id(text: &str) -> Option<u32> {
    number(text.trim()).ok().flatten()
}

/// `None` when the text is not a number, an error when it is one and no id.
fn number(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    // u32::MAX is "no id" to the kernel.
    match text.parse::<u32>() {
        Ok(id) if id != u32::MAX => Ok(Some(id)),
        _ => Err(UserError::OutOfRange { number: text.to_owned() }),
    }
}

fn read_user_file(
    read: &mut impl FnMut(&ContainerPath) -> io::Result<Vec<u8>>,
    file: &'static str,
) -> Result<Vec<u8>, UserError> {
    match read(&ContainerPath::new(file)) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        other => other.map_err(|source| UserError::Unreadable { file, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# comment\ndaemon:x:1:1::/:\napp:x:1000:1000::/home/app:/bin/sh\nweb:x:1001:50::/srv:\nbad:x:oops:0::/:\nhuge:x:4294967296:0::/:\n4242:x:7:7::/:\n\nshort:x\n";
    const GROUP: &[u8] = b"root:x:0:\nstaff:x:50:app,web\nextra:x:990: web , app\napp:x:1000:\nnone:x:nan:app\n";

    fn ids(user: &str) -> (u32, u32, Vec<u32>) {
        let ids = resolve(PASSWD, GROUP, user).unwrap().ids;
        (ids.uid, ids.gid, ids.groups)
    }

    #[test]
    fn every_form_of_user_gives_what_buildkit_gives() {
        for (user, want) in [
            ("", (0, 0, vec![0])),
            ("root", (0, 0, vec![0])),
            ("app", (1000, 1000, vec![1000, 50, 990])),
            ("app:staff", (1000, 50, vec![50])),
            ("1001", (1001, 50, vec![50, 990])),
            ("1001:990", (1001, 990, vec![990])),
            ("4242", (4242, 0, vec![0])),
            (":50", (0, 50, vec![50])),
            ("web:4242", (1001, 4242, vec![4242])),
            ("4294967294:4294967294", (u32::MAX - 1, u32::MAX - 1, vec![u32::MAX - 1])),
        ] {
            assert_eq!(ids(user), want, "{user:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_an_error_and_nothing_wraps_to_root() {
        for user in ["ghost", "bad", "huge", "short", "-1", "+0", "0x0", "1 "] {
            assert!(matches!(resolve(PASSWD, GROUP, user), Err(UserError::UnknownUser { .. })), "{user:?}");
        }
        for user in ["4294967295", "4294967296", "18446744073709551616", "app:4294967296"] {
            assert!(matches!(resolve(PASSWD, GROUP, user), Err(UserError::OutOfRange { .. })), "{user:?}");
        }
        for user in ["app:ghost", "0:none", ":-5"] {
            assert!(matches!(resolve(PASSWD, GROUP, user), Err(UserError::UnknownGroup { .. })), "{user:?}");
        }
        for (user, words) in [
            ("ghost", "unable to find user ghost: no matching entries in passwd file"),
            ("app:ghost", "unable to find group ghost: no matching entries in group file"),
            ("4294967295", "id 4294967295 is out of range: ids are 0 to 4294967294"),
        ] {
            assert_eq!(resolve(PASSWD, GROUP, user).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn home_comes_from_the_image() {
        assert_eq!(resolve(PASSWD, GROUP, "app").unwrap().home, "/home/app");
        assert_eq!(resolve(PASSWD, GROUP, "4243").unwrap().home, "/");
        assert_eq!(
            resolve(b"", b"", "").unwrap(),
            User { ids: Ids { uid: 0, gid: 0, groups: vec![0] }, name: None, home: "/".into() }
        );
    }

    #[test]
    fn a_hostile_file_only_matters_when_the_answer_depends_on_it() {
        let read = |_: &ContainerPath| Err(io::Error::other("pipe"));
        assert_eq!(lookup_with(read, "12:34").unwrap().ids, Ids { uid: 12, gid: 34, groups: vec![34] });
        assert!(matches!(lookup_with(read, "app"), Err(UserError::Unreadable { file: "/etc/passwd", .. })));
    }

    proptest::proptest! {
        #[test]
        fn any_files_and_any_user_get_an_answer(
            passwd in "([a-z0-9#:,\n +-]|[0-9]{1,12}){0,60}",
            group in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
            user in "[a-z0-9:+-]{0,12}|.{0,8}",
            number in 0..u32::MAX,
        ) {
            drop(resolve(passwd.as_bytes(), &group, &user));
            drop(resolve(&group, passwd.as_bytes(), &user));
            // A number is that id, whatever the files say.
            proptest::prop_assert_eq!(resolve(passwd.as_bytes(), &group, &number.to_string()).unwrap().ids.uid, number);
        }
    }
}
