//! Which ids of this user namespace stand for which ids outside: what an ordinary user was given, and what is in force.
//!
//! `/etc/subuid` and `/etc/subgid` (`subuid(5)`) say which subordinate ids a user owns; `newuidmap` puts them in force.
//! `/proc/self/uid_map` (`user_namespaces(7)`) says what is in force. Pure text in, ranges out; who reads the files is
//! [`crate::user_namespace`].

use serde::{Deserialize, Serialize};

/// A run of ids: `count` ids from `inside` on are `outside` and the following ones in the parent namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id in this namespace.
    pub inside: u32,
    /// What it is outside.
    pub outside: u32,
    /// How many follow one another.
    pub count: u32,
}

/// User and group ids of a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// User ids.
    pub uids: Vec<IdRange>,
    /// Group ids.
    pub gids: Vec<IdRange>,
}

impl IdMap {
    /// Root inside is the caller, and 1 and above are its subordinate ids, one range after the other.
    pub fn for_caller(uid: u32, gid: u32, subordinate_uids: &[IdRange], subordinate_gids: &[IdRange]) -> Self {
        Self { uids: stacked(uid, subordinate_uids), gids: stacked(gid, subordinate_gids) }
    }

    /// Reads `/proc/PID/uid_map` and `gid_map`.
    pub fn parse(uid_map: &str, gid_map: &str) -> Self {
        Self { uids: parse_map(uid_map), gids: parse_map(gid_map) }
    }

    /// Whether every id means the same inside and outside, as in the initial namespace.
    pub fn is_identity(&self) -> bool {
        let whole = |ranges: &[IdRange]| matches!(ranges, [IdRange { inside: 0, outside: 0, count: u32::MAX }]);
        whole(&self.uids) && whole(&self.gids)
    }

    /// Whether there is but one user or one group: owners other than root cannot be told apart.
    pub fn is_single(&self) -> bool {
        let one = |ranges: &[IdRange]| ranges.iter().map(|range| u64::from(range.count)).sum::<u64>() <= 1;
        one(&self.uids) || one(&self.gids)
    }

    /// Whether a user of this number can exist inside.
    pub fn has_uid(&self, uid: u32) -> bool {
        contains(&self.uids, uid)
    }

    /// Whether a group of this number can exist inside.
    pub fn has_gid(&self, gid: u32) -> bool {
        contains(&self.gids, gid)
    }

    /// Who root inside is outside.
    pub fn root_outside(&self) -> Option<u32> {
        self.uids.iter().find(|range| range.inside == 0).map(|range| range.outside)
    }
}

/// The ranges that `/etc/subuid` or `/etc/subgid` give to a user, who may stand there by name or by number.
pub(crate) fn subordinate_ids(text: &str, user: Option<&str>, uid: u32) -> Vec<IdRange> {
    let number = uid.to_string();
    let owned = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (Some(owner) == user || owner == number).then_some((first, count))
    });
    let mut seen: Vec<IdRange> = Vec::new();
    for (outside, count) in owned.filter(|&(first, count): &(u32, u32)| count > 0 && first.checked_add(count).is_some())
    {
        // The same range by name and by number is one range.
        if !seen.iter().any(|range| outside < range.outside + range.count && range.outside < outside + count) {
            seen.push(IdRange { inside: 0, outside, count });
        }
    }
    seen
}

/// The user's name in `passwd(5)`.
pub(crate) fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

fn stacked(own: u32, subordinate: &[IdRange]) -> Vec<IdRange> {
    let mut ranges = vec![IdRange { inside: 0, outside: own, count: 1 }];
    let mut next = 1_u32;
    for range in subordinate {
        let count = range.count.min(u32::MAX - next);
        ranges.push(IdRange { inside: next, outside: range.outside, count });
        next += count;
    }
    ranges
}

fn parse_map(text: &str) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse().ok());
        Some(IdRange { inside: numbers.next()??, outside: numbers.next()??, count: numbers.next()?? })
    };
    text.lines().filter_map(range).collect()
}

fn contains(ranges: &[IdRange], id: u32) -> bool {
    ranges.iter().any(|range| id.checked_sub(range.inside).is_some_and(|offset| offset < range.count))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBUID: &str = "\
# comment
alice:100000:65536
1000:300000:10
bob:200000:65536
alice:100000:65536
alice:4294967290:100
alice:x:1
alice:7:0
";

    fn range(inside: u32, outside: u32, count: u32) -> IdRange {
        IdRange { inside, outside, count }
    }

    #[test]
    fn subordinate_ids_are_found_by_name_and_by_number() {
        assert_eq!(subordinate_ids(SUBUID, Some("alice"), 1000), [range(0, 100_000, 65_536), range(0, 300_000, 10)]);
        assert_eq!(subordinate_ids(SUBUID, None, 1000), [range(0, 300_000, 10)]);
        assert_eq!(subordinate_ids(SUBUID, Some("carol"), 1001), []);
        assert_eq!(name_of("root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n", 1000), Some("alice"));
        assert_eq!(name_of("broken\nalice:x:\n", 1000), None);
    }

    #[test]
    fn the_caller_is_root_and_its_ids_follow() {
        let map = IdMap::for_caller(1000, 100, &[range(0, 100_000, 65_536), range(0, 300_000, 10)], &[]);
        assert_eq!(map.uids, [range(0, 1000, 1), range(1, 100_000, 65_536), range(65_537, 300_000, 10)]);
        assert_eq!(map.gids, [range(0, 100, 1)]);
        assert!(map.is_single() && !map.is_identity());
        assert!(map.has_uid(0) && map.has_uid(65_546) && !map.has_uid(65_547) && map.has_gid(0) && !map.has_gid(1));
        assert_eq!(map.root_outside(), Some(1000));
        let huge = IdMap::for_caller(1, 1, &[range(0, 5, u32::MAX - 10), range(0, 2, 100)], &[range(0, 7, 7)]);
        assert_eq!(huge.uids[2], range(u32::MAX - 9, 2, 9));
        assert!(!huge.is_single());
    }

    #[test]
    fn what_is_in_force_is_read_from_proc() {
        let initial = "         0          0 4294967295\n";
        assert!(IdMap::parse(initial, initial).is_identity());
        let map = IdMap::parse("         0       1000          1\n         1     100000      65536\n", initial);
        assert!(!map.is_identity() && !map.is_single());
        assert_eq!(map.uids[1], range(1, 100_000, 65_536));
        assert_eq!(IdMap::parse("", "").uids, []);
    }
}
