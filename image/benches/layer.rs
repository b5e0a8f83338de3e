//! Layers as bytes: tars written and read, digested and compressed. `./dev bench-micro layer`.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use std::io::{self, Read, Write};

use divan::Bencher;
use divan::counter::BytesCount;
use rbuild_image::layer::{EncodeOptions, Encoder, Entry, EntryKind, LayerWriter, TarReader, TarWriter};
use rbuild_image::{Compression, ContainerPath, Digest};

fn main() {
    divan::main();
}

/// Bytes that compress about as well as programs do: words of a small vocabulary with noise between them.
fn content(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(bytes + 16);
    while out.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = state >> 56;
        out.extend_from_slice(&(word * 0x0101_0101).to_le_bytes());
        out.extend_from_slice(&(state >> 40).to_le_bytes()[..3]);
    }
    out.truncate(bytes);
    out
}

fn file(number: usize, size: usize) -> Entry {
    let path = ContainerPath::new(format!("/usr/lib/package-{}/file-{number}", number / 50));
    Entry::new(path, EntryKind::file(size as u64), 0o644)
}

fn tar(files: usize, bytes: &[u8]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for number in 0..files {
        writer.append(&file(number, bytes.len()), &mut &*bytes).unwrap();
    }
    writer.finish().unwrap()
}

const FILE: usize = 4096;

#[divan::bench(args = [100, 10_000])]
fn tar_written(bencher: Bencher<'_, '_>, files: usize) {
    let bytes = content(FILE);
    bencher.counter(BytesCount::new(files * FILE)).bench(|| {
        let mut writer = TarWriter::new(io::sink());
        for number in 0..files {
            writer.append(&file(number, FILE), &mut bytes.as_slice()).unwrap();
        }
        writer.finish().unwrap()
    });
}

/// A tar with its diff_id and its content digest, as a layer is made.
#[divan::bench(args = [100, 10_000])]
fn layer_written(bencher: Bencher<'_, '_>, files: usize) {
    let bytes = content(FILE);
    bencher.counter(BytesCount::new(files * FILE)).bench(|| {
        let mut writer = LayerWriter::new(io::sink());
        for number in 0..files {
            writer.append(&file(number, FILE), &mut bytes.as_slice()).unwrap();
        }
        writer.finish().unwrap()
    });
}

#[divan::bench(args = [100, 10_000])]
fn tar_read(bencher: Bencher<'_, '_>, files: usize) {
    let archive = tar(files, &content(FILE));
    bencher.counter(BytesCount::new(archive.len())).bench(|| {
        let mut reader = TarReader::new(archive.as_slice());
        let mut count = 0;
        while reader.next_entry().unwrap().is_some() {
            io::copy(&mut reader.by_ref(), &mut io::sink()).unwrap();
            count += 1;
        }
        assert_eq!(count, files);
    });
}

const LARGE: usize = 32 << 20;

#[divan::bench]
fn sha256(bencher: Bencher<'_, '_>) {
    let bytes = content(LARGE);
    bencher.counter(BytesCount::new(LARGE)).bench(|| Digest::sha256(divan::black_box(&bytes)));
}

#[divan::bench(args = [1, 2, 6, 9], sample_count = 10)]
fn gzip(bencher: Bencher<'_, '_>, level: i32) {
    compress(bencher, Compression::Gzip, level);
}

#[divan::bench(args = [1, 3], sample_count = 10)]
fn zstd(bencher: Bencher<'_, '_>, level: i32) {
    compress(bencher, Compression::Zstd, level);
}

fn compress(bencher: Bencher<'_, '_>, compression: Compression, level: i32) {
    let bytes = content(LARGE);
    let options = EncodeOptions { compression, level: Some(level) };
    bencher.counter(BytesCount::new(LARGE)).bench(|| {
        let mut writer = Encoder::new(io::sink(), options).unwrap();
        writer.write_all(&bytes).unwrap();
        writer.finish().unwrap()
    });
}
