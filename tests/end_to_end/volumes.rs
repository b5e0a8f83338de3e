//! Volumes beside Docker's: options of the driver, and what `-v` says of a volume.

use crate::bench::Bench;

#[test]
fn a_directory_of_the_machine_is_a_volume() {
    let Some(bench) = Bench::with_busybox() else { return };
    let rbuild = |args: &[&str]| bench.rbuild(args).run();
    let source = bench.path("source");
    std::fs::create_dir(&source).expect("a new directory");
    std::fs::write(source.join("file"), "outside\n").expect("a file");
    let device = format!("device={}", source.display());
    let create =
        |name: &str, words: &str| rbuild(&["volume", "create", "-o", "type=none", "-o", words, "-o", &device, name]);
    let _made = create("both", "o=bind").ok();
    let _made = create("looks", "o=bind,ro").ok();
    let shell = |volume: &str, script: &str| {
        rbuild(&["run", "--rm", "--network=none", "-v", volume, "busybox", "sh", "-c", script])
    };
    assert_eq!(shell("both:/v", "cat /v/file; echo inside > /v/new").ok().stdout, "outside\n");
    assert_eq!(std::fs::read_to_string(source.join("new")).expect("written there"), "inside\n");
    let _refused = shell("looks:/v", "echo > /v/other").fails(1).says("Read-only file system");
    let options = rbuild(&["volume", "inspect", "-f", "{{json .Options}}", "looks"]).ok().stdout;
    assert_eq!(options, format!("{{\"device\":\"{}\",\"o\":\"bind,ro\",\"type\":\"none\"}}\n", source.display()));
    // A container that does not run is reached, too.
    let _made = rbuild(&["create", "--name", "still", "-v", "both:/v", "busybox", "true"]).ok();
    let copied = bench.path("copied");
    let _copied = rbuild(&["cp", "still:/v/file", copied.to_str().expect("a plain path")]).ok();
    assert_eq!(std::fs::read_to_string(&copied).expect("it is there"), "outside\n");
    let _used = rbuild(&["volume", "rm", "both"]).fails(1).says("volume is in use");
    // The directory is its owner's: it may go, and stays when the volume goes.
    let moved = bench.path("moved");
    std::fs::rename(&source, &moved).expect("nobody holds it");
    let said = format!("failed to mount local volume both: {} is no directory", source.display());
    let _gone = rbuild(&["start", "-a", "still"]).fails(125).says(&said);
    let _gone = shell("looks:/v", "true").fails(125).says("failed to mount local volume looks");
    let _removed = rbuild(&["rm", "still"]).ok();
    assert_eq!(rbuild(&["volume", "rm", "-f", "both", "looks", "nobody"]).ok().stdout, "both\nlooks\nnobody\n");
    assert!(moved.join("file").exists());
    let _refused = rbuild(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory"])
        .fails(1)
        .says("volumes of type tmpfs are not supported")
        .says("--tmpfs");
}
