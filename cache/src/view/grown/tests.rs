//! Views that have grown say the same as those that ask every layer.

use proptest::prelude::*;

use super::*;
use crate::view::{FileBytes, FileKind, Timestamp, Xattrs};

/// What a layer has at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    File,
    Link,
    Whiteout,
    Directory,
    Opaque,
}

/// A layer by paths, which have their parents.
#[derive(Clone, Debug)]
struct Fake {
    number: u64,
    things: BTreeMap<String, Thing>,
}

impl Fake {
    fn new(number: u64, things: &[(&str, Thing)]) -> Self {
        let mut fake = Self { number, things: BTreeMap::new() };
        things.iter().for_each(|(path, thing)| fake.put(path, *thing));
        fake
    }

    /// Puts something where nothing else is in the way.
    fn put(&mut self, path: &str, thing: Thing) {
        let parents: Vec<&str> = path.match_indices('/').map(|(cut, _)| &path[..cut]).collect();
        let is_directory = |thing: Option<&Thing>| thing.is_none_or(|t| matches!(t, Thing::Directory | Thing::Opaque));
        if self.things.contains_key(path) || !parents.iter().all(|parent| is_directory(self.things.get(*parent))) {
            return;
        }
        for parent in parents {
            self.things.entry(parent.to_owned()).or_insert(Thing::Directory);
        }
        self.things.insert(path.to_owned(), thing);
    }

    fn entry(&self, path: &str) -> Option<LayerEntry> {
        let kind = match self.things.get(path) {
            _ if path.is_empty() => FileKind::Directory,
            None => return None,
            Some(Thing::Whiteout) => return Some(LayerEntry::Whiteout),
            Some(Thing::File) => FileKind::File,
            Some(Thing::Link) => FileKind::Symlink,
            Some(Thing::Directory | Thing::Opaque) => FileKind::Directory,
        };
        let time = Timestamp::default();
        let (mode, uid, gid, links, blocks) = (0, 0, 0, 1, 0);
        let (mtime, ctime, inode) = (time, time, (0, 0));
        // Tells which layer it is of.
        let size = self.number;
        Some(LayerEntry::Present(Stat { kind, mode, uid, gid, size, mtime, ctime, inode, links, blocks }))
    }
}

impl LayerReader for Fake {
    fn lookup(&self, path: &[u8]) -> io::Result<Option<LayerEntry>> {
        let path = std::str::from_utf8(path).unwrap();
        let through = |cut: usize| matches!(self.things.get(&path[..cut]), Some(Thing::Link));
        assert!(!path.match_indices('/').any(|(cut, _)| through(cut)), "nothing is asked below a link: {path}");
        Ok(self.entry(path))
    }

    fn is_opaque(&self, path: &[u8]) -> io::Result<bool> {
        Ok(self.things.get(std::str::from_utf8(path).unwrap()) == Some(&Thing::Opaque))
    }

    fn list(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, LayerEntry)>> {
        let path = std::str::from_utf8(path).unwrap();
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let inside = |known: &&String| known.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/'));
        let names = self.things.keys().filter(inside);
        Ok(names.map(|known| (known.as_bytes()[prefix.len()..].to_vec(), self.entry(known).unwrap())).collect())
    }

    fn read_link(&self, _: &[u8]) -> io::Result<Vec<u8>> {
        Ok(self.number.to_string().into_bytes())
    }

    fn open(&self, _: &[u8]) -> io::Result<FileBytes> {
        Ok(FileBytes::of_bytes(self.number.to_string().into_bytes()))
    }

    fn xattrs(&self, _: &[u8]) -> io::Result<Xattrs> {
        Ok(Xattrs::new())
    }
}

/// How a layer is put on a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Named,
    Asked,
}

fn grow(view: &View, layer: &Fake, how: How) -> View {
    let names = (how == How::Named).then(|| Names::of(layer).unwrap().unwrap());
    view.grow(Arc::new(layer.clone()), names).unwrap()
}

/// A view that asks these layers, which are given lowest first.
fn plain(layers: &[Fake]) -> View {
    View::new(layers.iter().rev().map(|layer| Arc::new(layer.clone()) as Arc<dyn LayerReader>).collect())
}

const PATHS: [&str; 13] =
    ["", "a", "b", "a/a", "a/b", "b/a", "b/b", "a/a/a", "a/a/b", "a/b/a", "b/a/a", "b/a/b", "b/b/b"];

/// All that a view says.
fn told(view: &View) -> Vec<String> {
    let mut told = Vec::new();
    for path in PATHS {
        let path = ContainerPath::new(format!("/{path}"));
        let stat = view.lstat(&path).unwrap().map(|stat| (stat.kind, stat.size));
        let link = view.read_link(&path).map_err(|error| error.kind());
        let list = view.list(&path).map_err(|error| error.kind()).map(|entries| {
            let shown = |entry: DirEntry| format!("{:?} {:?} {}", entry.name, entry.stat.kind, entry.stat.size);
            entries.into_iter().map(shown).collect::<Vec<_>>()
        });
        told.push(format!("{path}: {stat:?} {link:?} {list:?}"));
    }
    told
}

fn layer(number: u64) -> impl Strategy<Value = Fake> {
    let thing = prop_oneof![
        3 => Just(Thing::File), 1 => Just(Thing::Link), 2 => Just(Thing::Whiteout),
        3 => Just(Thing::Directory), 1 => Just(Thing::Opaque),
    ];
    let put = (1..PATHS.len(), thing);
    proptest::collection::vec(put, 0..6).prop_map(move |puts| {
        let things: Vec<(&str, Thing)> = puts.into_iter().map(|(path, thing)| (PATHS[path], thing)).collect();
        Fake::new(number, &things)
    })
}

fn layers(most: u64) -> impl Strategy<Value = Vec<Fake>> {
    (0..=most).prop_flat_map(|count| (0..count).map(layer).collect::<Vec<_>>())
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![3 => Just(How::Named), 1 => Just(How::Asked)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_view_that_grew_says_what_one_of_all_layers_says(
        base in layers(3), on_top in layers(7), hows in proptest::collection::vec(how(), 7),
    ) {
        let mut all = base;
        let mut views = vec![(plain(&all), all.clone())];
        for (layer, how) in on_top.iter().zip(hows) {
            let grown = grow(&views.last().unwrap().0, layer, how);
            all.push(layer.clone());
            views.push((grown, all.clone()));
        }
        // Those that others grew from say what they did.
        for (view, layers) in &views {
            prop_assert_eq!(told(view), told(&plain(layers)));
        }
    }

    #[test]
    fn views_that_part_do_not_see_each_other(
        base in layers(2), stem in layers(3), left in layers(3), right in layers(3),
        hows in proptest::collection::vec(how(), 9),
    ) {
        let mut hows = hows.into_iter().cycle();
        let mut put = |from: (View, Vec<Fake>), layers: &[Fake]| {
            layers.iter().fold(from, |(view, mut all), layer| {
                all.push(layer.clone());
                (grow(&view, layer, hows.next().unwrap()), all)
            })
        };
        let stem = put((plain(&base), base.clone()), &stem);
        let left = put(stem.clone(), &left);
        let right = put(stem.clone(), &right);
        for (view, layers) in [stem, left, right] {
            prop_assert_eq!(told(&view), told(&plain(&layers)));
        }
    }
}

#[test]
fn what_hides_and_what_shows_through() {
    use Thing::{Directory, File, Link, Opaque, Whiteout};
    let base = Fake::new(0, &[("a/a", File), ("a/b", File), ("b/a/a", File)]);
    let one = Fake::new(1, &[("a", Opaque), ("a/a", File), ("b/a", Whiteout)]);
    let two = Fake::new(2, &[("a/b", Whiteout), ("b/a/b", File), ("a/a", Whiteout)]);
    let three = Fake::new(3, &[("a/a", Directory), ("b", Link)]);
    for how in [How::Named, How::Asked] {
        let mut view = plain(std::slice::from_ref(&base));
        let mut shown = Vec::new();
        for layer in [&one, &two, &three] {
            view = grow(&view, layer, how);
            let at = |path: &str| view.lstat(&ContainerPath::new(format!("/{path}"))).unwrap();
            let there = PATHS[1..].iter().filter_map(|path| Some((*path, at(path)?.size)));
            shown.push(format!("{:?}", there.collect::<Vec<_>>()));
        }
        assert_eq!(
            shown,
            [
                r#"[("a", 1), ("b", 1), ("a/a", 1)]"#,
                r#"[("a", 2), ("b", 2), ("b/a", 2), ("b/a/b", 2)]"#,
                r#"[("a", 3), ("b", 3), ("a/a", 3)]"#
            ],
            "{how:?}"
        );
    }
}

#[test]
fn layers_with_many_names_are_asked_and_tables_do_not_pile_up() {
    let many: Vec<String> = (0..=MOST_NAMES).map(|n| format!("f{n}")).collect();
    let many: Vec<(&str, Thing)> = many.iter().map(|path| (path.as_str(), Thing::File)).collect();
    assert!(Names::of(&Fake::new(0, &many)).unwrap().is_none());
    let few = Fake::new(0, &many[1..]);
    assert!(Names::of(&few).unwrap().is_some());
    // A table that is full has what comes asked.
    let mut view = View::empty();
    for _ in 0..MOST_TOGETHER / MOST_NAMES + 2 {
        view = grow(&view, &few, How::Named);
    }
    let levels = view.grown.as_ref().unwrap().table.read();
    assert!(levels.names <= MOST_TOGETHER && levels.asked.len() == 2, "{} {:?}", levels.names, levels.asked);
    drop(levels);
    // Each view grows twice, and it goes on from the second.
    let mut view = View::empty();
    let mut parted = 0;
    while let Some(first) = view.grow(Arc::new(few.clone()), None) {
        let Some(second) = view.grow(Arc::new(few.clone()), None) else { break };
        assert!(first.lstat(&ContainerPath::new("/f1")).unwrap().is_some());
        view = second;
        parted += 1;
        assert!(parted <= MOST_TABLES);
    }
    assert_eq!(parted, MOST_TABLES);
}
