//! Bringing in one blob, alone and in company.

use std::io::{Read, Write};

use rbuild_image::{BlobSink, BlobSource, Descriptor, Digest, MediaType};

use super::assert_sound;
use crate::lock::wait_silently;
use crate::testing::{TestChild, TestStore};

/// Bytes of the blob that these tests use.
pub(super) const SIZE: usize = 1_000_000;

/// Its bytes: no two blocks are equal.
pub(super) fn content() -> Vec<u8> {
    (0..SIZE / 4).flat_map(|word| u32::try_from(word).unwrap().to_le_bytes()).collect()
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new(MediaType::OciLayerGzip, Digest::sha256(bytes), bytes.len() as u64)
}

#[test]
fn a_blob_is_invisible_until_it_is_whole() {
    let home = TestStore::new();
    let lease = home.lease();
    let sink = home.store.blobs_for(&lease, &wait_silently);
    let (bytes, want) = (content(), descriptor(&content()));
    assert!(!sink.contains(&want.digest).unwrap());
    let mut writer = sink.begin(&want).unwrap();
    writer.write_all(&bytes).unwrap();
    assert!(!sink.contains(&want.digest).unwrap());
    assert!(home.store.blobs().open(&want.digest).is_err());
    writer.commit().unwrap();
    assert!(sink.contains(&want.digest).unwrap());
    let mut read = Vec::new();
    home.reopen().blobs().open(&want.digest).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read, bytes);
    assert_eq!(home.store.blobs().size(&want.digest).unwrap(), SIZE as u64);
    assert_sound(&home.store);
}

#[test]
fn a_whole_file_without_a_name_need_not_come_again() {
    let home = TestStore::new();
    let lease = home.lease();
    let sink = home.store.blobs_for(&lease, &wait_silently);
    let (bytes, want) = (content(), descriptor(&content()));
    let file = home.store.layout().blob(&want.digest);
    for (there, offset) in [(&bytes[..], SIZE as u64), (&b"torn"[..], 4)] {
        std::fs::write(&file, there).unwrap();
        assert!(!sink.contains(&want.digest).unwrap());
        let writer = sink.begin(&want).unwrap();
        assert_eq!(writer.resume_offset(), offset);
        assert_eq!(writer.commit().is_ok(), there == bytes, "it counts for nothing until it was read again");
        assert_eq!(sink.contains(&want.digest).unwrap(), there == bytes);
        home.store.db().write(crate::db::Durability::Lazy, |tx| tx.execute("DELETE FROM blobs", [])).unwrap();
    }
}

#[test]
fn wrong_content_is_thrown_away_and_short_content_is_kept_for_the_next_attempt() {
    let home = TestStore::new();
    let lease = home.lease();
    let sink = home.store.blobs_for(&lease, &wait_silently);
    let (bytes, want) = (content(), descriptor(&content()));
    let mut wrong = bytes.clone();
    wrong[10] ^= 1;
    let mut writer = sink.begin(&want).unwrap();
    writer.write_all(&wrong).unwrap();
    let error = writer.commit().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(error.to_string().starts_with("content does not match its digest"), "{error}");

    let mut writer = sink.begin(&want).unwrap();
    assert_eq!(writer.resume_offset(), 0, "nobody can tell which byte was wrong");
    writer.write_all(&bytes[..1000]).unwrap();
    let error = writer.commit().unwrap_err();
    assert!(error.to_string().ends_with("should have 1000000 bytes, got 1000"), "{error}");

    let mut writer = sink.begin(&want).unwrap();
    assert_eq!(writer.resume_offset(), 1000);
    drop(writer.write_all(&bytes[1000..]));
    let error = writer.write_all(b"more").and_then(|()| writer.write_all(b"and more")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "a liar cannot fill the disk");
    writer.commit().unwrap_err();
    assert!(!sink.contains(&want.digest).unwrap());
    assert_sound(&home.store);
}

#[test]
fn the_second_process_waits_and_finds_the_blob() {
    let home = TestStore::new();
    let root = home.root().to_str().unwrap();
    let mut first = TestChild::start(&["ingest-half", root]);
    first.expect("half");
    let mut second = TestChild::start(&["ingest", root]);
    second.expect(&format!("waiting for {}", first.pid()));
    // The first one gives up; the second goes on where it stopped.
    first.kill();
    second.expect(&format!("resumes at {}", SIZE / 2));
    assert!(second.ended_well());
    let mut third = TestChild::start(&["ingest", root]);
    third.expect(&format!("resumes at {SIZE}"));
    assert!(third.ended_well());
    assert_eq!(home.store.blobs().read(&Digest::sha256(content()), SIZE as u64).unwrap(), content());
    assert_eq!(std::fs::read_dir(home.store.layout().ingest()).unwrap().count(), 0);
    assert_sound(&home.store);
}

#[test]
fn documents_are_put_together_and_once() {
    let home = TestStore::new();
    let lease = home.lease();
    let sink = home.store.blobs_for(&lease, &wait_silently);
    let digests = sink.put_all(&[b"b", b"a", b"b"]).unwrap();
    assert_eq!(digests, [Digest::sha256("b"), Digest::sha256("a"), Digest::sha256("b")]);
    assert_eq!(sink.put(b"a").unwrap(), digests[1]);
    let listed: Vec<u64> = home.store.blobs().list().unwrap().iter().map(|info| info.size).collect();
    assert_eq!(listed, [1, 1]);
    let error = home.store.blobs().read(&digests[0], 0).unwrap_err();
    assert!(error.to_string().ends_with("has 1 bytes, more than the 0 allowed here"));
    assert_sound(&home.store);
}
