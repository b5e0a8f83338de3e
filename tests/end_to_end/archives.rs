//! Archives: the same bytes wherever they go, and each layer written once.

use std::fs;
use std::path::{Path, PathBuf};

use crate::bench::Bench;
use crate::peers::has;
use crate::transfers::noise;

/// A context with two layers of a megabyte.
fn context(bench: &Bench) -> PathBuf {
    let context = bench.context("ctx", [("Dockerfile", "FROM scratch\nCOPY one /\nCOPY two /\nCOPY one /again\n")]);
    fs::write(context.join("one"), noise(1, 1 << 20)).unwrap();
    fs::write(context.join("two"), noise(2, 1 << 20)).unwrap();
    context
}

/// Files of the store that were made or read for a layer's blob, as a traced program opened them.
fn opened(trace: &Path) -> (usize, usize) {
    let text = fs::read_to_string(trace).unwrap();
    assert!(text.contains("meta.db"), "the trace shows what was opened");
    let made = text.lines().filter(|line| line.contains("/layer-") && line.contains("O_CREAT")).count();
    let read = text.lines().filter(|line| line.contains("/blobs/sha256/") && line.contains("O_RDONLY")).count();
    (made, read)
}

#[test]
fn files_streams_and_directories_get_the_same_blobs() {
    let Some(bench) = Bench::new() else { return };
    let context = context(&bench);
    let _built = bench.build("app", &context).ok();
    for (number, form) in
        ["type=oci", "type=oci,compression=zstd", "type=docker", "type=oci,compression=uncompressed"].iter().enumerate()
    {
        let file = bench.path(format!("{number}.tar"));
        let build = |dest: &str| {
            let output = format!("{form},dest={dest},name=docker.io/library/app:1");
            bench.rbuild(["build", "--progress=plain", "-o", &output]).arg(&context).run().ok()
        };
        let _file = build(file.to_str().unwrap());
        let stream = bench.path(format!("{number}.stream"));
        let pipe = bench.path(format!("{number}.pipe"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let script = format!("cat {} > {}", pipe.display(), stream.display());
        let mut reader = std::process::Command::new("sh").args(["-c", &script]).spawn().unwrap();
        let _streamed = build(pipe.to_str().unwrap());
        assert!(reader.wait().unwrap().success());
        assert!(fs::read(&file).unwrap() == fs::read(&stream).unwrap(), "{form}");
        if form.starts_with("type=oci") {
            let directory = bench.path(format!("{number}.layout"));
            let _layout = build(&format!("{},tar=false", directory.display()));
            let unpacked = bench.path(format!("{number}.unpacked"));
            fs::create_dir(&unpacked).unwrap();
            let tar = std::process::Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(&unpacked).status();
            assert!(tar.unwrap().success());
            let diff = std::process::Command::new("diff").arg("-r").arg(&unpacked).arg(&directory).output().unwrap();
            assert!(diff.status.success(), "{form}: {}", String::from_utf8_lossy(&diff.stdout));
        }
        // What was written comes back as the same image.
        let other = bench.path(format!("{number}.store"));
        let _loaded = bench.rbuild_at(&other, ["load", "-i", file.to_str().unwrap()]).run().ok();
        let id = |store: &Path| bench.rbuild_at(store, ["images", "-q", "--no-trunc", "app:1"]).run().ok().stdout;
        assert!(!id(&other).is_empty());
        let _verified = bench.rbuild_at(&other, ["cache", "verify"]).run().ok();
    }
}

#[test]
fn layers_are_compressed_where_they_are_to_lie() {
    let Some(bench) = Bench::new() else { return };
    if !has("strace") {
        return;
    }
    let context = context(&bench);
    let _built = bench.build("app", &context).ok();
    let export = |number: usize, args: &[&str]| {
        let trace = bench.path(format!("{number}.trace"));
        let by = ["strace", "-f", "-e", "trace=openat,open,creat", "-o", trace.to_str().unwrap()];
        let dest = bench.path(format!("{number}.tar"));
        let output = format!("type=oci,dest={}", dest.display());
        let _done = bench.through(by, ["build", "--progress=plain", "-o", &output]).args(args).arg(&context).run().ok();
        (opened(&trace), fs::read(dest).unwrap())
    };
    let ((made, _), first) = export(0, &[]);
    assert_eq!(made, 0, "no file beside the archive");
    let ((made, _), again) = export(1, &[]);
    assert!(made == 0 && again == first, "what is known to become the same is made in its place, too");
}
