//! What errors of caches elsewhere say.

use std::io;
use std::path::PathBuf;

use rbuild_image::{DescriptorMismatch, DiffId, Digest, DocumentError};

use crate::remote::local::LocalCacheError;
use crate::remote::{BringError, CacheConfigError, OpenCacheError};

#[test]
fn errors_name_the_cache_and_what_is_wrong_with_it() {
    let digest = Digest::sha256("a");
    let directory = || PathBuf::from("/c");
    let document = || DocumentError::TooManyLayers { count: 1000 };
    let errors: [Box<dyn std::error::Error>; 15] = [
        Box::new(LocalCacheError::File {
            action: "read",
            path: "/c/index.json".into(),
            source: io::ErrorKind::PermissionDenied.into(),
        }),
        Box::new(LocalCacheError::NoTag { directory: directory(), tag: "main".to_owned() }),
        Box::new(LocalCacheError::Document { directory: directory(), source: document() }),
        Box::new(LocalCacheError::Damaged {
            directory: directory(),
            source: DescriptorMismatch::Size { digest, want: 1, got: 2 },
        }),
        Box::new(LocalCacheError::TooLarge { digest, size: 20, limit: 10 }),
        Box::new(OpenCacheError::Image(document())),
        Box::new(OpenCacheError::NoCache),
        Box::new(BringError::Nowhere { diff_id: DiffId::new(digest) }),
        Box::new(BringError::Read(io::ErrorKind::UnexpectedEof.into())),
        Box::new(CacheConfigError::TooLarge { size: 20_000_000 }),
        Box::new(CacheConfigError::Json(serde_json::from_str::<u8>("x").unwrap_err())),
        Box::new(CacheConfigError::TooMany { what: "records", count: 11, limit: 10 }),
        Box::new(CacheConfigError::Index { what: "record", at: 3, to: "layer", index: -2 }),
        Box::new(CacheConfigError::Loop { what: "record", at: 3 }),
        Box::new(CacheConfigError::Depth { at: 3 }),
    ];
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(words.join("\n"), @r#"
    cannot read /c/index.json
    /c has no cache "main"
    /c has an unreadable manifest
    /c has a damaged blob
    blob sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb has 20 bytes, the limit is 10
    invalid image
    it is an image that carries no cache
    layer sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb is not in the store, and none of the caches has it
    cannot read a layer
    the cache config has 20000000 bytes, the limit is 16777216
    invalid cache config
    the cache config has 11 records, the limit is 10
    record 3 of the cache config refers to layer -2, which does not exist
    record 3 of the cache config leads to itself
    layer 3 of the cache config has more than 512 layers below it
    "#);
}
