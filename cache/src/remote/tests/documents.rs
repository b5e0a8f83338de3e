//! Documents of others: BuildKit's, and those of people who mean no good.

use rbuild_image::Digest;

use super::key;
use crate::remote::CacheDraft;
use crate::remote::format::{CacheConfig, MAX_CACHE_CONFIG_BYTES, Stack};

fn parse(text: &str) -> Result<CacheConfig, String> {
    CacheConfig::parse(text.as_bytes()).map_err(|error| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

/// As BuildKit's exporter writes it (`TestSimpleMarshal` of its `cache/remotecache/v1`): Go leaves out a parent of 0.
fn buildkit() -> String {
    format!(
        r#"{{"layers":[{{"blob":"{d0}","parent":-1}},{{"blob":"{d1}"}}],
            "records":[
              {{"layers":[{{"layer":1,"createdAt":"2024-05-01T10:00:00.123456789Z"}}],"digest":"{baz}",
                "inputs":[[{{"link":1}}],[{{"selector":"sel0","link":2}}]]}},
              {{"digest":"{foo}"}},{{"digest":"{bar}"}},
              {{"digest":"random:abc","chains":[{{"layers":[0,1],"createdAt":"0001-01-01T00:00:00Z"}}]}}]}}"#,
        d0 = key("d0"),
        d1 = key("d1"),
        baz = key("baz"),
        foo = key("foo"),
        bar = key("bar"),
    )
}

#[test]
fn what_buildkit_writes_is_read() {
    let config = parse(&buildkit()).unwrap();
    assert_eq!((config.layers[0].parent, config.layers[1].parent), (None, Some(0)));
    let baz = &config.records[0];
    assert_eq!((baz.key, baz.inputs.len(), baz.inputs[1][0].selector.as_str()), (Some(key("baz")), 2, "sel0"));
    assert_eq!(config.stack(&baz.results[0].layers), [0, 1]);
    assert_eq!(baz.results[0].created_at.unwrap().to_string(), "2024-05-01T10:00:00.123456789Z");
    let random = &config.records[3];
    assert_eq!(
        (random.key, &random.results[0].layers, random.results[0].created_at),
        (None, &Stack::Each(vec![0, 1]), None)
    );
    assert_eq!(parse(&String::from_utf8(config.to_json()).unwrap()).unwrap().layers, config.layers);
    for empty in ["{}", r#"{"layers":null,"records":null}"#, r#"{"records":[{"digest":"sha256:x","inputs":[null]}]}"#] {
        assert!(parse(empty).is_ok(), "{empty}");
    }
}

/// Records that the BuildKit of Docker 20.10 put into an image of three layers (`BUILDKIT_INLINE_CACHE=1`).
const OF_DOCKER: &str = r#"[{"layers":[{"layer":1,"createdAt":"2026-11-21T14:23:44.243310941Z"}],"digest":"sha256:01e8d026f6dc588299dad7751e2983e23b80e54838589bdd8c13f35933e0d159","inputs":[[{"link":1}]]},{"layers":[{"layer":0,"createdAt":"2026-11-21T14:23:43.634848587Z"}],"digest":"sha256:0d19a26f7a82eb20e686122db54851b4d78e3513b61ab3175e9cb37921dbc029","inputs":[[{"link":3}]]},{"layers":[{"layer":2,"createdAt":"2026-11-21T14:23:44.65402649Z"}],"digest":"sha256:c2f14693e99d84e2d42fac300109a533d8a753ef7a9ee29ae2f8cddf0d6e75a1","inputs":[[{"link":0}]]},{"digest":"sha256:cedd8b84b63b14199e3f97507f052c956d51e86c235759cf7d62ee79671b41a9"}]"#;

#[test]
fn the_cache_in_an_image_of_docker_is_read_and_answers_nothing() {
    let image = ["eb7cf7ef", "85bd0868", "203ce2f2"].map(key);
    let config = CacheConfig::parse_inline(OF_DOCKER.as_bytes(), &image).unwrap();
    let stacks: Vec<Vec<usize>> =
        config.records.iter().flat_map(|record| &record.results).map(|outcome| config.stack(&outcome.layers)).collect();
    assert_eq!(stacks, [vec![0, 1], vec![0], vec![0, 1, 2]]);
    assert_eq!(config.records[0].inputs[0][0].record, 1);
    // Fewer layers than the records name: refused.
    assert!(CacheConfig::parse_inline(OF_DOCKER.as_bytes(), &image[..2]).is_err());
    let mut carrier = rbuild_image::ImageConfig::new(&rbuild_image::Platform::host());
    carrier.rootfs.diff_ids = image.map(rbuild_image::DiffId::new).to_vec();
    crate::remote::embed(&mut carrier, OF_DOCKER.as_bytes());
    let cache = crate::remote::RemoteCache::of_stored_image(&carrier).unwrap();
    assert_eq!((cache.records(), cache.answers()), (4, 0));
}

#[test]
fn hostile_documents_are_refused() {
    let blob = key("blob");
    let layer = |parent: i64| format!(r#"{{"blob":"{blob}","parent":{parent}}}"#);
    let layers = |parents: &[i64]| {
        let layers: Vec<String> = parents.iter().map(|parent| layer(*parent)).collect();
        format!(r#"{{"layers":[{}]}}"#, layers.join(","))
    };
    let linked = |link: i64| format!(r#"{{"records":[{{"digest":"{blob}","inputs":[[{{"link":{link}}}]]}}]}}"#);
    let deep: Vec<i64> = (-1..600).collect();
    let long = format!(r#"{{"layers":[{}]}}"#, vec![layer(-1); 20_001].join(","));
    for (text, want) in [
        ("".to_owned(), "EOF"),
        ("7".to_owned(), "invalid type"),
        (layers(&[1]), "layer 1, which does not exist"),
        (layers(&[-2]), "layer -2, which does not exist"),
        (layers(&[0]), "leads to itself"),
        (layers(&[1, 2, 0]), "leads to itself"),
        (layers(&deep), "more than 512 layers"),
        (long, "20001 layers"),
        (linked(7), "record 7, which does not exist"),
        (linked(-1), "record -1, which does not exist"),
        (linked(0), "leads to itself"),
        (r#"{"records":[{"digest":"x","layers":[{"layer":0}]}]}"#.to_owned(), "layer 0, which does not exist"),
        (r#"{"records":[{"digest":"x","layers":[{"layer":-1}]}]}"#.to_owned(), "layer -1, which does not exist"),
        (r#"{"records":[{"digest":"x","layers":[{"layer":1e3}]}]}"#.to_owned(), "invalid type"),
        (r#"{"records":[{"digest":"x","layers":[{"layer":99999999999999999999}]}]}"#.to_owned(), "invalid"),
        (r#"{"records":[{"digest":7}]}"#.to_owned(), "invalid type"),
        (r#"{"layers":[{"blob":"sha256:../../etc/passwd","parent":-1}]}"#.to_owned(), "invalid digest"),
        (r#"{"layers":[{"parent":-1}]}"#.to_owned(), "missing field `blob`"),
        (format!("{}{}", "[".repeat(400), "]".repeat(400)), "invalid"),
        (format!("{}x", buildkit()), "trailing"),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.contains(want), "{}: {error}", text.chars().take(120).collect::<String>());
    }
    let large = vec![b' '; usize::try_from(MAX_CACHE_CONFIG_BYTES).unwrap() + 1];
    assert!(CacheConfig::parse(&large).unwrap_err().to_string().contains("limit"));
}

#[test]
fn circles_of_any_length_end() {
    let records = |count: usize| {
        let record = |at: usize| format!(r#"{{"digest":"x","inputs":[[{{"link":{}}}]]}}"#, (at + 1) % count);
        format!(r#"{{"records":[{}]}}"#, (0..count).map(record).collect::<Vec<_>>().join(","))
    };
    assert!(parse(&records(50_000)).unwrap_err().contains("leads to itself"));
    // Many ways to the same record are no circle.
    let record = |at: usize| match at {
        0 => r#"{"digest":"x"}"#.to_owned(),
        at => format!(r#"{{"digest":"x","inputs":[[{{"link":{below}}},{{"link":{below}}}]]}}"#, below = at - 1),
    };
    let ladder = format!(r#"{{"records":[{}]}}"#, (0..5_000).map(record).collect::<Vec<_>>().join(","));
    assert!(parse(&ladder).is_ok());
}

#[test]
fn a_cache_of_ours_has_buildkits_shape() {
    use crate::remote::{DraftLayer, DraftRecord};
    use rbuild_image::{Descriptor, DiffId, MediaType};
    let layer = |name: &str| DraftLayer {
        blob: Descriptor::new(MediaType::OciLayerGzip, key(name), 5),
        diff_id: DiffId::new(key(&format!("{name} unpacked"))),
        created_at: Some("2024-05-01T10:00:00Z".parse().unwrap()),
    };
    let record = |name: &str, inputs: &[&str], layers: Option<Vec<DraftLayer>>| DraftRecord {
        key: key(name),
        also: Vec::new(),
        step: None,
        took: None,
        created_at: Some("2024-05-01T10:00:00Z".parse().unwrap()),
        content: None,
        inputs: inputs.iter().map(|input| key(input)).collect::<Vec<Digest>>(),
        layers,
    };
    let mut draft = CacheDraft::default();
    draft.add(&record("foo", &[], None));
    draft.add(&record("bar", &["foo", "unknown"], Some(vec![layer("d0")])));
    draft.add(&record("baz", &["bar", "foo"], Some(vec![layer("d0"), layer("d1")])));
    let (config, descriptors) = draft.finish();
    let config = String::from_utf8(config).unwrap();
    for (name, text) in [("d0", "D0"), ("d1", "D1"), ("foo", "FOO"), ("bar", "BAR"), ("baz", "BAZ")] {
        assert!(config.contains(&key(name).to_string()), "{name}");
        assert!(!config.contains(text));
    }
    let named = ["d0", "d1", "foo", "bar", "baz"]
        .iter()
        .fold(config, |config, name| config.replace(&key(name).to_string(), name));
    // Sorted by digest: foo 2c26…, baz baa5…, bar fcde…; d1 is below d0. No input list is empty, a parent of 0 is left out.
    insta::assert_snapshot!(named, @r#"{"layers":[{"blob":"d0","parent":-1},{"blob":"d1"}],"records":[{"digest":"foo"},{"layers":[{"layer":1,"createdAt":"2024-05-01T10:00:00Z"}],"digest":"baz","inputs":[[{"link":2}],[{"link":0}]],"rbuild":{}},{"layers":[{"layer":0,"createdAt":"2024-05-01T10:00:00Z"}],"digest":"bar","inputs":[[{"link":0}]],"rbuild":{}}]}"#);
    assert_eq!(descriptors.len(), 2);
    assert_eq!(descriptors[0].annotations["buildkit/createdat"], "2024-05-01T10:00:00Z");
    let unpacked: Vec<&String> =
        descriptors.iter().map(|descriptor| &descriptor.annotations["containerd.io/uncompressed"]).collect();
    assert!(unpacked.contains(&&key("d0 unpacked").to_string()) && unpacked.contains(&&key("d1 unpacked").to_string()));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(0u8.., 0..60), at in 0usize..600) {
        let mut text = buildkit().into_bytes();
        let at = at % text.len();
        let end = (at + bytes.len() / 2).min(text.len());
        text.splice(at..end, bytes);
        if let Ok(config) = CacheConfig::parse(&text) {
            for outcome in config.records.iter().flat_map(|record| &record.results) {
                assert!(!config.stack(&outcome.layers).is_empty());
            }
        }
    }
}
