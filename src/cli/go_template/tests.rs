//! Templates as Docker's client fills them; what it says is recorded in `testdata/go_templates` (`record.py`).

use serde::Deserialize;

use super::*;
use crate::exit_code::Exit;

/// What Docker's client made of a template.
#[derive(Debug, Deserialize)]
struct Case {
    template: String,
    output: Option<String>,
    error: Option<String>,
    code: Option<u8>,
}

#[derive(Debug, Deserialize)]
struct Recorded {
    document: Json,
    cases: Vec<Case>,
}

/// Docker knows this much of the recorded document; the rest it reads as it is.
const DECLARED: Shape = Shape::Struct("image.InspectResponse", &[Field::new("Id", Shape::Text)]);

fn inspect(template: &str, document: &Json) -> Result<String, Failure> {
    Template::for_inspect(template)?.render_shaped(document, &DECLARED)
}

#[test]
fn templates_give_what_docker_gives() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/go_templates/cases.json")).unwrap();
    let recorded: Recorded = serde_json::from_str(&text).unwrap();
    assert!(recorded.cases.len() > 150, "the record is cut");
    let mut wrong = Vec::new();
    for case in &recorded.cases {
        let ours = inspect(&case.template, &recorded.document);
        let same = match (&ours, &case.output, &case.error) {
            (Ok(ours), Some(theirs), None) => ours == theirs,
            (Err(ours), None, Some(theirs)) => {
                let code = if case.code == Some(64) { Exit::Container(64) } else { Exit::Failure };
                ours.message() == theirs && ours.exit() == code
            }
            _ => false,
        };
        if !same {
            let ours = ours.map_err(|failure| failure.message().to_owned());
            wrong.push(format!("{}\n  ours   {ours:?}\n  theirs {:?} {:?}", case.template, case.output, case.error));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), recorded.cases.len(), wrong.join("\n"));
}

#[test]
fn durations_are_gos() {
    for (nanoseconds, shown) in [
        (0, "0s"),
        (7, "7ns"),
        (1_500, "1.5µs"),
        (20_000_000, "20ms"),
        (3_000_000_000, "3s"),
        (1_050_000_000, "1.05s"),
        (90_000_000_000, "1m30s"),
        (3_603_000_000_000, "1h0m3s"),
        (-3_000_000_000, "-3s"),
    ] {
        assert_eq!(printf::duration(nanoseconds), shown);
    }
}

/// Docker's `join` refuses lists that it knows no type of; there is no reason to.
#[test]
fn join_takes_any_list() {
    let document = serde_json::json!({"List": ["a", 1, true]});
    assert_eq!(Template::parse("{{join .List \"-\"}}").unwrap().render(&document).unwrap(), "a-1-true");
}

#[test]
fn declared_fields_have_zero_values() {
    const SHAPE: Shape = Shape::Struct(
        "container.Summary",
        &[
            Field::new("Cmd", Shape::List(&Shape::Text)),
            Field::optional("Labels", Shape::Map(&Shape::Text)),
            Field::new("Pid", Shape::Integer),
            Field::new("Running", Shape::Bool),
            Field::new(
                "Health",
                Shape::Pointer("*Health", &Shape::Struct("Health", &[Field::new("Status", Shape::Text)])),
            ),
            Field::new("Name", Shape::Text),
        ],
    );
    let empty = serde_json::json!({});
    let full = serde_json::json!({"Cmd": ["a"], "Labels": {"k": "v"}, "Pid": 7, "Running": true,
                                  "Health": {"Status": "fine"}, "Name": "n", "More": {"x": [1]}});
    let shown = |template: &str, document: &Json| {
        Template::parse(template).and_then(|template| template.render_shaped(document, &SHAPE))
    };
    for (template, of_empty, of_full) in [
        ("{{.Cmd}} {{.Labels}} {{.Pid}} {{.Running}} {{.Name}}", "[] map[] 0 false ", "[a] map[k:v] 7 true n"),
        (
            "{{json .}}",
            r#"{"Cmd":null,"Pid":0,"Running":false,"Health":null,"Name":""}"#,
            r#"{"Cmd":["a"],"Labels":{"k":"v"},"Pid":7,"Running":true,"Health":{"Status":"fine"},"Name":"n"}"#,
        ),
        ("{{.Health}}", "<nil>", "{fine}"),
        ("{{index .Labels \"k\"}}|{{.Labels.nope}}", "|<no value>", "v|<no value>"),
        ("{{if gt .Pid 1}}up{{else}}down{{end}}", "down", "up"),
        ("{{if .Health}}{{.Health.Status}}{{end}}", "", "fine"),
    ] {
        assert_eq!(shown(template, &empty).unwrap(), of_empty, "{template}");
        assert_eq!(shown(template, &full).unwrap(), of_full, "{template}");
    }
    // What is not declared is read from the document as it is.
    assert_eq!(shown("{{index .More.x 0}}", &full).unwrap(), "1");
    let error = shown("{{.Health.Status}}", &empty).unwrap_err();
    assert_eq!(
        error.message(),
        "template parsing error: template: :1:9: executing \"\" at <.Health.Status>: map has no entry for key \"Health\""
    );
}

#[test]
fn fields_have_gos_names_and_those_of_json() {
    const PART: Shape = Shape::Struct("Part", &[Field::new("OS", Shape::Text).keyed("os")]);
    const SHAPE: Shape = Shape::Struct(
        "Whole",
        &[
            Field::new("ID", Shape::Text).keyed("Id"),
            Field::new("When", Shape::Time),
            Field::new("Part", Shape::Pointer("*Part", &PART)),
        ],
    );
    let document = serde_json::json!({"Id": "x", "When": "2026-01-02T03:04:05.5Z", "Part": {"os": "linux"},
                                      "HostConfig": {"NanoCpus": 5, "Dns": ["a"]}});
    for (template, shown) in [
        ("{{.ID}} {{.Id}} {{.Part.OS}} {{.Part.os}}", "x x linux linux"),
        ("{{.When}}", "2026-01-02 03:04:05.5 +0000 UTC"),
        ("{{json .}}", r#"{"Id":"x","When":"2026-01-02T03:04:05.5Z","Part":{"os":"linux"}}"#),
        (r#"{{printf "%+v" .Part}} {{printf "%v" .Part}}"#, "{OS:linux} {linux}"),
        // Nothing of this is declared.
        ("{{.ID}} {{.HostConfig.NanoCPUs}} {{.HostConfig.DNS}}", "x 5 [a]"),
    ] {
        assert_eq!(Template::parse(template).unwrap().render_shaped(&document, &SHAPE).unwrap(), shown, "{template}");
    }
    assert_eq!(Template::parse("{{.ID}}").unwrap().render(&document).unwrap(), "x");
    let time = serde_json::json!({});
    let shown = Template::parse("{{.When}}").unwrap().render_shaped(&time, &SHAPE).unwrap();
    assert_eq!(shown, "0001-01-01 00:00:00 +0000 UTC");
}

#[test]
fn a_template_that_never_ends_is_stopped() {
    let forever = Template::parse("{{define \"t\"}}{{template \"t\"}}{{end}}{{template \"t\"}}").unwrap();
    assert!(forever.render(&Json::Null).unwrap_err().message().ends_with("exceeded maximum template depth"));
    let deep = format!("{}1{}", "{{if true}}".repeat(5000), "{{end}}".repeat(5000));
    assert!(Template::parse(&deep).unwrap_err().message().ends_with("nested too deep"));
    let parens = format!("{{{{{}1{}}}}}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(Template::parse(&parens).unwrap_err().message().ends_with("nested too deep"));
    let endless = Template::parse("{{range $i := 100000000}}{{printf \"%4096d\" $i}}{{end}}").unwrap();
    assert!(endless.render(&Json::Null).unwrap_err().message().ends_with("the output is too long"));
}
