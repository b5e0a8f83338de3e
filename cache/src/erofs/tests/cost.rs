//! What an index costs. Prints; `cargo test --release -p rbuild-cache erofs::tests::cost -- --ignored --nocapture`.

use std::io::{Read, Write};
use std::time::Instant;

use super::*;

/// A tar of `files` small files in directories of a hundred, as it would come from a pipe.
fn tar_of(files: u32, out: &mut dyn Write) {
    let mut writer = TarWriter::new(out);
    for n in 0..files {
        if n % 100 == 0 {
            writer.append(&dir(&format!("/src/module-{:05}", n / 100)).0, &mut io::empty()).unwrap();
        }
        let (entry, content) = file(&format!("/src/module-{:05}/source-file-{n:07}.rs", n / 100), &[b'x'; 1500]);
        writer.append(&entry, &mut content.as_slice()).unwrap();
    }
    writer.finish().unwrap();
}

fn peak_memory() -> u64 {
    let mut status = String::new();
    File::open("/proc/self/status").unwrap().read_to_string(&mut status).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
#[ignore = "prints times and memory"]
fn cost_of_fifty_thousand_and_of_a_million_files() {
    for files in [50_000, 1_000_000] {
        let (reader, writer) = io::pipe().unwrap();
        let producer = std::thread::spawn(move || tar_of(files, &mut io::BufWriter::with_capacity(1 << 20, writer)));
        let before = peak_memory();
        let mut side = SideBlob::new(tempfile::tempfile().unwrap());
        let mut reader = io::BufReader::with_capacity(1 << 20, reader);
        let builder = index_tar(&mut reader, Arc::new(View::empty()), &mut side).unwrap();
        producer.join().unwrap();
        let taken = peak_memory();
        let begun = Instant::now();
        let info = builder.finish(&[Device { bytes: 1 << 40, digest: None }], &mut io::sink()).unwrap();
        let written = begun.elapsed();
        let peak = peak_memory() - before;
        println!(
            "{files} files: written in {written:?}, {} bytes; peak {} bytes an entry while taking, {} in all",
            info.bytes,
            (taken - before) / u64::from(files),
            peak / u64::from(files)
        );
    }
    let mut tar = Vec::new();
    tar_of(50_000, &mut tar);
    let begun = Instant::now();
    let mut side = SideBlob::new(tempfile::tempfile().unwrap());
    let builder = index_tar(&mut tar.as_slice(), Arc::new(View::empty()), &mut side).unwrap();
    let devices = [Device { bytes: tar.len() as u64, digest: None }];
    let info = builder.finish(&devices, &mut tempfile::tempfile().unwrap()).unwrap();
    println!("50000 files of a tar in memory: {:?}, {} bytes of index", begun.elapsed(), info.bytes);
}
