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

/// The documents that have a version, as the page names them: how they are written, and which version.
fn versioned() -> Vec<(String, String)> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rawjson.md")).unwrap();
    let (_, table) = page.split_once("| written by | form | version |\n").expect("the page has the table");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", command, _, version, ""] = cells.as_slice() else { panic!("three cells: {line}") };
        version.parse::<u32>().ok().map(|_| (command.trim_matches('`').to_owned(), (*version).to_owned()))
    };
    rows.filter_map(row).collect()
}

#[test]
fn documents_of_rbuild_s_own_begin_with_the_version_that_the_page_has() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\nRUN echo one > /f\n")]);
    let _built = bench.rbuild(["build", "-q", "-t", "x"]).arg(&context).run().ok();
    let step = bench.rbuild(["cache", "ls", "-q"]).run().ok().stdout;
    let documents = versioned();
    assert!(documents.len() >= 11, "{documents:?}");
    for (command, version) in documents {
        let words: Vec<&str> =
            command.split(' ').map(|word| if word == "STEP" { step.lines().next().unwrap() } else { word }).collect();
        let said = match command.as_str() {
            "history export" => {
                let tar = bench.path("history.tar");
                let _written = bench.rbuild(["history", "export", "-o"]).arg(&tar).run().ok();
                crate::peers::run(std::process::Command::new("tar").arg("-xOf").arg(&tar).arg("rbuild-history.json"))
            }
            "report" => {
                let page = bench.rbuild(["report"]).run().ok().stdout;
                let (_, data) = page.split_once("id=\"data\">").unwrap();
                data.split_once("</script>").unwrap().0.to_owned()
            }
            "cache prune --format json" => bench.rbuild(words).arg("--dry-run").run().ok().stdout,
            _ => bench.rbuild(words).run().ok().stdout,
        };
        let mut values = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
        let first = values.next().unwrap_or_else(|| panic!("{command}: nothing was written")).unwrap();
        let object = first.get(0).unwrap_or(&first);
        assert_eq!(object["version"].to_string(), version, "{command}: {object}");
        let text = said.trim_start_matches(['[', '{', ' ', '\n']);
        assert!(text.starts_with("\"version\":"), "{command}: the version is not first: {text}");
    }
}

#[test]
fn documents_in_words_of_others_have_no_field_of_ours() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", "FROM busybox\n")]);
    let _built = bench.rbuild(["build", "-q", "-t", "x", "--metadata-file=meta.json"]).arg(&context).run().ok();
    let meta: BTreeMap<String, Value> =
        serde_json::from_str(&std::fs::read_to_string(bench.path("meta.json")).unwrap()).unwrap();
    let keys: Vec<&str> = meta.keys().map(String::as_str).collect();
    let known = ["buildx.build.ref", "containerimage.config.digest", "containerimage.digest", "image.name"];
    assert_eq!(keys, known);
    for list in ["images", "ps -a", "history ls", "system df", "network ls"] {
        let said = bench.rbuild(list.split(' ')).arg("--format=json").run().ok().stdout;
        for line in said.lines() {
            let object: Value = serde_json::from_str(line).unwrap();
            assert!(object["version"].is_null(), "{list}: {object}");
        }
    }
}
