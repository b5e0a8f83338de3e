//! What programs read, held against what `docs/rawjson.md` says of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::bench::Bench;

/// A field as the page has it: its type, and whether it is always there.
type Fields = BTreeMap<String, (String, bool)>;

/// The tables of the page, by their headings.
fn documented() -> BTreeMap<String, Fields> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rawjson.md")).unwrap();
    let mut tables: BTreeMap<String, Fields> = BTreeMap::new();
    let mut heading = String::new();
    for line in page.lines() {
        if let Some(text) = line.strip_prefix("### ") {
            heading = text.to_owned();
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", field, kind, there, _, ""] = cells.as_slice()
            && let Some(field) = field.strip_prefix('`').and_then(|field| field.strip_suffix('`'))
        {
            let fields = tables.entry(heading.clone()).or_default();
            fields.insert(field.to_owned(), ((*kind).to_owned(), *there == "always"));
        }
    }
    tables
}

/// Holds an object against a table; notes which fields were met.
fn check(tables: &BTreeMap<String, Fields>, table: &str, object: &Value, met: &mut BTreeSet<String>) {
    let fields = &tables[table];
    let object = object.as_object().unwrap_or_else(|| panic!("{table}: no object: {object}"));
    for (name, (_, always)) in fields {
        assert!(!always || object.contains_key(name), "{table}.{name} is not there: {object:?}");
    }
    for (name, value) in object {
        let Some((kind, _)) = fields.get(name) else { panic!("{table}.{name} is not documented: {object:?}") };
        met.insert(format!("{table}.{name}"));
        check_value(tables, kind, value, met);
    }
}

fn check_value(tables: &BTreeMap<String, Fields>, kind: &str, value: &Value, met: &mut BTreeSet<String>) {
    let text = || value.as_str().unwrap_or_else(|| panic!("{kind}: {value}"));
    match kind {
        "number" => assert!(value.is_number(), "{value}"),
        "bool" => assert!(value.is_boolean(), "{value}"),
        "string" => drop(text()),
        "time" => {
            let time = text();
            assert!(time.len() >= 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
        }
        "digest" => {
            let hex = text().strip_prefix("sha256:").unwrap_or_default();
            assert!(hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");
        }
        "base64" => {
            let alphabet = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
            assert!(text().len() % 4 == 0 && text().chars().all(alphabet), "{value}");
        }
        list => {
            let items = list.strip_prefix("list of ").unwrap_or_else(|| panic!("no type: {kind}"));
            for item in value.as_array().unwrap_or_else(|| panic!("no list: {value}")) {
                match tables.contains_key(items) {
                    true => check(tables, items, item, met),
                    false => check_value(tables, items, item, met),
                }
            }
        }
    }
}

#[test]
fn raw_json_is_as_documented() {
    let Some(bench) = Bench::with_busybox() else { return };
    let tables = documented();
    assert_eq!(tables.len(), 6, "{:?}", tables.keys());
    let text =
        "FROM busybox as base\nRUN echo out; echo err >&2\nRUN dd if=/dev/zero of=/big bs=1M count=30\nRUN rm /big\n";
    let context = bench.context("ctx", [("Dockerfile", text)]);
    let failing =
        bench.context("bad", [("Dockerfile", "FROM busybox as base\nRUN echo out; echo err >&2\nRUN exit 3\n")]);
    let first = bench.rbuild(["build", "--progress=rawjson", "--hints", "-t", "x"]).arg(&context).run().ok().stderr;
    let again = bench.rbuild(["build", "--progress=rawjson", "-t", "x"]).arg(&context).run().ok().stderr;
    let failed = bench.rbuild(["build", "--progress=rawjson"]).arg(&failing).run().fails(1).stderr;
    let replayed = bench.rbuild(["history", "logs", "--progress=rawjson"]).run().ok().stdout;
    let mut met = BTreeSet::new();
    for output in [&first, &again, &failed, &replayed] {
        let objects: Vec<Value> = output
            .lines()
            .take_while(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        assert!(objects.len() > 3, "{output}");
        assert_eq!(objects[0]["version"], 1, "{output}");
        assert!(objects[1..].iter().all(|object| object["version"].is_null()), "{output}");
        objects.iter().for_each(|object| check(&tables, "object", object, &mut met));
    }
    for field in [
        "object.hints",
        "object.warnings",
        "vertexes.cached",
        "vertexes.error",
        "vertexes.inputs",
        "logs.data",
        "statuses.completed",
    ] {
        assert!(met.contains(field), "{field} was never written: {met:?}");
    }
    assert!(
        failed.lines().last().is_some_and(|line| !line.starts_with('{')),
        "the error is behind the last object: {failed}"
    );
}
