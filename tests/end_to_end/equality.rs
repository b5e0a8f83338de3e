//! Random Dockerfiles and random edits: an incremental build gives what a build from scratch gives, and repeats nothing
//! that is before the edit. The same is checked with many more graphs, and without files, in the solver's own tests.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::bench::Bench;
use crate::hits::steps_that_ran;

/// A small generator, so that a failure can be repeated by its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// A stage's instructions, and what the context's files hold.
#[derive(Clone)]
struct Project {
    stages: [Vec<String>; 2],
    files: BTreeMap<String, usize>,
}

impl Project {
    fn random(dice: &mut Dice) -> Self {
        let files = (0..3).map(|file| (format!("f{file}"), 0)).collect();
        let mut stage = |length: usize| (0..length).map(|_| instruction(dice)).collect();
        Self { stages: [stage(4), stage(3)], files }
    }

    fn edit(&mut self, dice: &mut Dice) {
        let stage = &mut self.stages[dice.below(2)];
        match dice.below(4) {
            0 => *self.files.get_mut(&format!("f{}", dice.below(3))).unwrap() += 1,
            1 => stage.insert(dice.below(stage.len() + 1), instruction(dice)),
            2 if stage.len() > 1 => drop(stage.remove(dice.below(stage.len()))),
            _ => {
                let at = dice.below(stage.len());
                stage[at] = instruction(dice);
            }
        }
    }

    fn text(&self) -> String {
        let [one, two] = &self.stages;
        let (one, two) = (one.join("\n"), two.join("\n"));
        format!("FROM busybox AS one\n{one}\nFROM busybox\nRUN echo > /x\nCOPY --from=one /x /from\n{two}\n").replacen(
            "AS one\n",
            "AS one\nRUN echo > /x\n",
            1,
        )
    }

    fn write(&self, bench: &Bench) -> std::path::PathBuf {
        let context = bench.context("ctx", [("Dockerfile", &self.text())]);
        for (name, content) in &self.files {
            fs::write(context.join(name), format!("{content}\n")).unwrap();
        }
        context
    }

    /// What the first steps of the first stage are made of, for as long as they can be steps.
    fn first_steps(&self) -> Vec<(String, Option<usize>)> {
        let read = |text: &String| {
            self.files.iter().find(|(name, _)| text.starts_with(&format!("COPY {name} "))).map(|(_, n)| *n)
        };
        self.stages[0].iter().map(|text| (text.clone(), read(text))).collect()
    }
}

fn instruction(dice: &mut Dice) -> String {
    let number = dice.below(5);
    match dice.below(6) {
        0 => format!("RUN echo {number} >> /x"),
        1 => format!("RUN cat /x /in* 2>/dev/null | md5sum > /sum{number}"),
        2 => format!("COPY f{} /in{number}", number % 3),
        3 => format!("ENV E{number}={number}"),
        4 => format!("WORKDIR /w{number}"),
        _ => "RUN env | grep ^E | sort >> /x; rm -f /in0".to_owned(),
    }
}

/// Mode, owner and content by path.
type Tree = BTreeMap<String, (u32, u32, Vec<u8>)>;

/// Everything of a tree that is not a time.
fn tree(root: &Path) -> Tree {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            let content = match about.file_type() {
                kind if kind.is_dir() => Vec::new(),
                kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                _ => fs::read(&path).unwrap(),
            };
            if about.is_dir() {
                open.push(path.clone());
            }
            let name = path.strip_prefix(root).unwrap().display().to_string();
            found.insert(name, (about.mode(), about.uid(), content));
        }
    }
    found
}

/// Builds in a store; gives the files, the image's configuration without its times, and the steps that ran.
fn build(bench: &Bench, store: &Path, context: &Path) -> (Tree, String, usize) {
    let out = bench.path("out");
    drop(fs::remove_dir_all(&out));
    let ran = bench.rbuild_at(store, ["build", "--progress=plain", "-t", "x"]).arg(context).run().ok();
    let exported = bench.rbuild_at(store, ["build", "-q", "-o"]).arg(&out).arg(context).run().ok();
    assert!(exported.stderr.is_empty(), "{}", exported.stderr);
    let shown: serde_json::Value =
        serde_json::from_str(&bench.rbuild_at(store, ["inspect", "x"]).run().ok().stdout).unwrap();
    (tree(&out), shown[0]["Config"].to_string(), steps_that_ran(&ran).len())
}

#[test]
fn an_incremental_build_equals_one_from_scratch() {
    let Some(bench) = Bench::with_busybox() else { return };
    let base = bench.path("base.tar");
    let _saved = bench.rbuild(["save", "-o"]).arg(&base).arg("busybox").run().ok();
    for seed in 0..4 {
        let mut dice = Dice(seed);
        let mut project = Project::random(&mut dice);
        let mut before = Vec::new();
        for round in 0..4 {
            let context = project.write(&bench);
            let scratch = bench.path("scratch");
            let _loaded = bench.rbuild_at(&scratch, ["load", "-q", "-i"]).arg(&base).run().ok();
            let about = format!("seed {seed}, round {round}:\n{}", project.text());
            let (files, config, ran) = build(&bench, &bench.store(), &context);
            let (expected, expected_config, most) = build(&bench, &scratch, &context);
            let differ: Vec<_> = expected.iter().filter(|(name, entry)| files.get(*name) != Some(entry)).collect();
            assert!(differ.is_empty() && files.len() == expected.len(), "{about}\n{differ:?}");
            assert_eq!(config, expected_config, "{about}");
            let now = project.first_steps();
            let is_step = |(text, _): &&(String, Option<usize>)| !text.starts_with("ENV");
            let same = now.iter().zip(&before).take_while(|(now, before)| now == before).map(|(now, _)| now);
            let hits = same.filter(is_step).count();
            assert!(ran + hits <= most, "{ran} of {most} steps ran, {hits} are as before\n{about}");
            let (_, _, again) = build(&bench, &bench.store(), &context);
            assert_eq!(again, 0, "{about}");
            before = now;
            fs::remove_dir_all(&scratch).unwrap();
            project.edit(&mut dice);
        }
    }
}
