//! Directories as their blocks hold them: records first, names behind them, all in byte order of the names.

use super::format::{DIRENT, Dirent, file_type};
use super::tree::{Children, Kind, NodeId, Tree};

/// One name with the inode it leads to.
pub(super) struct Name<'t> {
    pub(super) name: &'t [u8],
    pub(super) inode: NodeId,
}

/// The names of a directory, `.` and `..` included, in byte order.
pub(super) fn names<'t>(tree: &'t Tree, children: &Children, directory: NodeId) -> Vec<Name<'t>> {
    let ids = children.of(directory);
    let mut names = Vec::with_capacity(ids.len() + 2);
    let dots = [(&b"."[..], directory), (b"..", tree.node(directory).parent)];
    let mut dots = dots.map(|(name, inode)| Name { name, inode }).into_iter().peekable();
    for id in ids {
        let node = tree.node(*id);
        let name = tree.name(*id);
        while let Some(dot) = dots.next_if(|dot| dot.name < name) {
            names.push(dot);
        }
        names.push(Name { name, inode: if node.kind == Kind::Link { node.word } else { *id } });
    }
    names.extend(dots);
    names
}

/// Divides names into what one block holds each.
pub(super) fn blocks<'n, 't>(names: &'n [Name<'t>], block: usize) -> impl Iterator<Item = &'n [Name<'t>]> {
    let mut rest = names;
    std::iter::from_fn(move || {
        let mut used = 0;
        let mut count = 0;
        for name in rest {
            used += DIRENT + name.name.len();
            if used > block {
                break;
            }
            count += 1;
        }
        let (here, after) = rest.split_at(count);
        rest = after;
        (!here.is_empty()).then_some(here)
    })
}

/// How many bytes the names of one block take.
pub(super) fn length(names: &[Name<'_>]) -> usize {
    names.iter().map(|name| DIRENT + name.name.len()).sum()
}

/// One block, not filled up; `describe` says the number and the mode of an inode.
pub(super) fn encode(names: &[Name<'_>], describe: impl Fn(NodeId) -> (u64, u16)) -> Vec<u8> {
    let mut out = Vec::with_capacity(length(names));
    let mut name_offset = DIRENT * names.len();
    for name in names {
        let (inode, mode) = describe(name.inode);
        // Inside a block, whose size is a 12-bit number at most.
        let dirent = Dirent { inode, name_offset: name_offset as u16, file_type: file_type(mode) };
        out.extend(dirent.encode());
        name_offset += name.name.len();
    }
    for name in names {
        out.extend_from_slice(name.name);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tree::{Attributes, Node, ROOT};
    use super::*;

    #[test]
    fn dots_stand_in_byte_order() {
        let mut tree = Tree::new(Attributes::default());
        for name in ["z", "-", "...", ".-", "a", ".a"] {
            tree.add(ROOT, name.as_bytes(), Node::new(Kind::Fifo)).unwrap();
        }
        let children = tree.children();
        let names = names(&tree, &children, ROOT);
        let text: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name.name)).collect();
        assert_eq!(text, ["-", ".", ".-", "..", "...", ".a", "a", "z"]);
        assert_eq!(blocks(&names, 30).map(<[_]>::len).collect::<Vec<_>>(), [2, 2, 2, 2]);
    }
}
