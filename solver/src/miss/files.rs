//! Which files differ between two selections.

use std::collections::BTreeMap;

use rbuild_cache::{ListedFile, Listing};

use super::{FileChange, FileFacts, MOST_TOLD};

/// The files that differ, by path, and how many more there are.
pub(super) fn changes(before: &Listing, after: &Listing) -> (Vec<FileChange>, usize) {
    let by_path = |listing: &'_ Listing| -> BTreeMap<Vec<u8>, ListedFile> {
        listing.files.iter().map(|file| (file.path.clone(), file.clone())).collect()
    };
    let (mut old, new) = (by_path(before), by_path(after));
    let mut found = Vec::new();
    for (path, file) in &new {
        match old.remove(path) {
            Some(same) if same == *file => {}
            // A cut listing knows nothing of what it lacks.
            None if before.is_cut => {}
            earlier => found.push((path.clone(), earlier, Some(file.clone()))),
        }
    }
    if !after.is_cut {
        found.extend(old.into_iter().map(|(path, file)| (path, Some(file), None)));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let more = found.len().saturating_sub(MOST_TOLD);
    let told = found.into_iter().take(MOST_TOLD).map(|(path, before, after)| change(&path, before, after));
    (told.collect(), more)
}

fn change(path: &[u8], before: Option<ListedFile>, after: Option<ListedFile>) -> FileChange {
    let differs = |what: fn(&ListedFile, &ListedFile) -> bool| match (&before, &after) {
        (Some(before), Some(after)) => what(before, after),
        _ => false,
    };
    let path = String::from_utf8_lossy(path);
    FileChange {
        path: if path.is_empty() { ".".to_owned() } else { path.into_owned() },
        content: differs(|a, b| (a.kind, a.size, a.mark) != (b.kind, b.size, b.mark)),
        attributes: differs(|a, b| a.attributes != b.attributes),
        before: before.as_ref().map(facts),
        after: after.as_ref().map(facts),
    }
}

fn facts(file: &ListedFile) -> FileFacts {
    FileFacts {
        kind: match file.kind {
            b'd' => "directory",
            b'l' => "link",
            b'c' | b'b' => "device",
            b'p' => "pipe",
            _ => "file",
        }
        .to_owned(),
        mode: format!("{:04o}", file.mode & 0o7777),
        owner: format!("{}:{}", file.uid, file.gid),
        size: file.size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, kind: u8, mode: u32, size: u64, mark: u8) -> ListedFile {
        let path = path.as_bytes().to_vec();
        ListedFile { path, kind, mode, uid: 0, gid: 0, size, mark: [mark; 8], attributes: [0; 8] }
    }

    fn told(before: Vec<ListedFile>, after: Vec<ListedFile>) -> Vec<String> {
        let listing = |files| Listing { files, is_cut: false };
        let (files, more) = changes(&listing(before), &listing(after));
        assert_eq!(more, 0);
        files.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_kind_of_difference_has_words() {
        let base = || file("a", b'f', 0o100_644, 5, 1);
        for (after, text) in [
            (Some(file("a", b'f', 0o100_644, 5, 2)), "a: content (5 bytes)"),
            (Some(file("a", b'f', 0o100_644, 7, 2)), "a: content (5 → 7 bytes)"),
            (Some(file("a", b'f', 0o100_755, 5, 1)), "a: mode 0644 → 0755"),
            (Some(ListedFile { uid: 7, ..base() }), "a: owner 0:0 → 7:0"),
            (Some(ListedFile { attributes: [1; 8], ..base() }), "a: extended attributes"),
            (Some(file("a", b'l', 0o120_777, 3, 1)), "a: file → link, mode 0644 → 0777"),
            (None, "a: removed"),
        ] {
            assert_eq!(told(vec![base()], after.into_iter().collect()), [text]);
        }
        assert_eq!(told(vec![], vec![base()]), ["a: added (5 bytes)"]);
        assert_eq!(told(vec![], vec![file("d", b'd', 0o40_755, 4096, 0)]), ["d: added (directory)"]);
    }

    #[test]
    fn what_a_cut_listing_lacks_is_no_change() {
        let cut = Listing { files: vec![], is_cut: true };
        let whole = Listing { files: vec![file("a", b'f', 0o100_644, 5, 1)], is_cut: false };
        assert_eq!(changes(&cut, &whole), (vec![], 0));
        assert_eq!(changes(&whole, &cut), (vec![], 0));
    }

    #[test]
    fn many_files_are_counted() {
        let many: Vec<_> = (0..250).map(|at| file(&format!("{at}"), b'f', 0o100_644, 1, 1)).collect();
        let (told, more) = changes(&Listing::default(), &Listing { files: many, is_cut: false });
        assert_eq!((told.len(), more), (100, 150));
    }
}
