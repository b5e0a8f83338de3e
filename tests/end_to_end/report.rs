//! The report of a build: its size, its trace, and the page in a real browser (needs chromium).

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::bench::Bench;

/// A browser without a window, driven through its debugging pipe.
struct Browser {
    process: Child,
    commands: File,
    answers: BufReader<File>,
    session: Option<String>,
    sent: u64,
    /// Exceptions, and what scripts and the browser complain of.
    complaints: Vec<String>,
}

impl Browser {
    fn start(bench: &Bench, page: &Path) -> Self {
        let (to, from) = (bench.path("to-browser"), bench.path("from-browser"));
        for pipe in [&to, &from] {
            assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
        }
        let process = Command::new("sh")
            .args([
                "-c",
                "exec chromium --headless --no-sandbox --disable-gpu --remote-debugging-pipe \
                --user-data-dir=\"$3\" about:blank 3<>\"$1\" 4<>\"$2\"",
                "sh",
            ])
            .args([&to, &from, &bench.path("browser")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium is installed");
        let pipe = |path: &Path| File::options().read(true).write(true).open(path).unwrap();
        let answers = BufReader::new(pipe(&from));
        let mut browser =
            Self { process, commands: pipe(&to), answers, session: None, sent: 0, complaints: Vec::new() };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached =
            browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            browser.call(domain, json!({}));
        }
        browser.call("Page.navigate", json!({ "url": format!("file://{}", page.display()) }));
        for _ in 0..600 {
            if browser.ask("document.readyState + (document.querySelector('#detail h3') ? ' drawn' : '')")
                == "complete drawn"
            {
                return browser;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("the page is never drawn: {:?}", browser.complaints);
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.commands.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut raw = Vec::new();
            self.answers.read_until(0, &mut raw).unwrap();
            raw.pop();
            let answer: Value = serde_json::from_slice(&raw).unwrap();
            match answer["method"].as_str() {
                Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded") => {
                    self.complaints.push(answer["params"].to_string());
                }
                _ if answer["id"] == self.sent => {
                    assert!(answer["error"].is_null(), "{method}: {answer}");
                    return answer["result"].clone();
                }
                _ => {}
            }
        }
    }

    /// The value of an expression in the page.
    fn ask(&mut self, expression: &str) -> Value {
        let result = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}

const DOCKERFILE: &str = "FROM busybox AS a\nRUN echo '</script><b>bold</b>' && seq 20000 > /numbers\n\
    FROM busybox AS b\nRUN echo b > /b && sleep 0.3\nFROM busybox\nCOPY --from=a /numbers /\nCOPY --from=b /b /\n";

#[test]
fn a_page_shows_a_build_and_answers_to_clicks() {
    let Some(bench) = Bench::with_busybox() else { return };
    let context = bench.context("ctx", [("Dockerfile", DOCKERFILE)]);
    let _first = bench.build("app", &context).ok();
    std::fs::write(context.join("Dockerfile"), DOCKERFILE.replace("sleep 0.3", "sleep 0.4")).unwrap();
    let _second = bench.build("app", &context).ok();
    let page = bench.path("report.html");
    let _written = bench.rbuild(["report", "^0", "--with", "^1", "-o"]).arg(&page).run().ok();
    let mut browser = Browser::start(&bench, &page);
    assert_eq!(browser.ask("document.querySelectorAll('#steps tbody tr').length"), 5);
    assert_eq!(browser.ask("document.querySelectorAll('#timeline .bar').length"), 5);
    assert_eq!(browser.ask("document.querySelectorAll('.graph .node').length"), 5);
    let phases = browser.ask("document.querySelector('#phases table').textContent");
    for phase in ["open the store", "plan the steps", "run the steps", "export"] {
        assert!(phases.as_str().unwrap().contains(phase), "{phase}: {phases}");
    }
    assert_eq!(browser.ask("document.querySelector('#phases .slowest th').textContent"), "run the steps");
    assert_eq!(browser.ask("document.querySelector('#phases .within th').textContent"), "resolve sources");
    let shown = "document.querySelector('#detail h3').textContent";
    assert!(browser.ask(shown).as_str().unwrap().contains("sleep 0.4"), "the longest step is shown first");
    browser.ask("document.querySelectorAll('#steps tbody tr')[4].click()");
    assert!(browser.ask(shown).as_str().unwrap().contains("COPY --from=b"));
    browser
        .ask("document.querySelectorAll('.graph .node')[1].dispatchEvent(new MouseEvent('click', { bubbles: true }))");
    assert!(browser.ask(shown).as_str().unwrap().contains("seq 20000"));
    // What was written anew stands beside what it was before.
    let rows = "[...document.querySelectorAll('#compare tbody tr')].map((row) => row.textContent)";
    let compared = browser.ask(rows);
    let compared: Vec<&str> = compared.as_array().unwrap().iter().map(|row| row.as_str().unwrap()).collect();
    assert_eq!(compared.len(), 5, "{compared:#?}");
    let anew = compared.iter().find(|row| row.contains("sleep 0.4")).unwrap();
    assert!(anew.contains("before: [b 2/2] RUN echo b > /b && sleep 0.3"), "{anew}");
    assert!(!compared.iter().any(|row| row.contains("not there")), "{compared:#?}");
    browser.ask("document.querySelectorAll('#steps th button')[3].click()");
    let sorted = browser.ask("document.querySelector('#steps tbody tr').textContent");
    assert!(sorted.as_str().unwrap().contains("sleep 0.4"), "{sorted}");
    // The first build has the hostile output: it is text, and nothing else.
    let page = bench.path("first.html");
    let _written = bench.rbuild(["report", "^1", "-o"]).arg(&page).run().ok();
    browser.call("Page.navigate", json!({ "url": format!("file://{}#step-2", page.display()) }));
    let log = loop {
        let log = browser.ask("document.querySelector('#detail pre')?.textContent || ''");
        if log != "" {
            break log;
        }
    };
    assert_eq!(log, "</script><b>bold</b>");
    assert_eq!(browser.ask("document.querySelectorAll('#detail b').length"), 0);
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn a_page_of_a_hundred_steps_is_small_and_a_trace_is_well_formed() {
    let Some(bench) = Bench::with_busybox() else { return };
    let steps: String = (0..99).map(|n| format!("RUN echo {n}; seq 3000\n")).collect();
    let context = bench.context("ctx", [("Dockerfile", format!("FROM busybox\n{steps}").as_str())]);
    let _built = bench.rbuild(["build", "-q", "--network=none"]).arg(&context).run().ok();
    let page = bench.rbuild(["report"]).run().ok().stdout;
    assert!(page.len() < 300_000, "{} bytes", page.len());
    assert!(page.starts_with("<!doctype html>") && page.contains("earlier lines are left out"));
    let trace: Value = serde_json::from_str(&bench.rbuild(["report", "--format=trace"]).run().ok().stdout).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let steps = |event: &&Value| event["ph"] == "X" && event["cat"] != "phase";
    assert_eq!(events.iter().filter(steps).count(), 100);
    let mut lasting = events.iter().filter(|event| event["ph"] == "X");
    assert!(lasting.all(|event| event["dur"].as_i64() > Some(0) && event["ts"].is_i64()));
    let _refused = bench.rbuild(["report", "--format=trace", "--with", "^0"]).run().fails(2).says("one build");
    let _unknown = bench.rbuild(["report", "nope"]).run().fails(1);
}

/// Texts that stand out from what is behind them by less than 4.5, as the page is drawn now.
const PALE_TEXTS: &str = "(() => {
const lum = (c) => { const f = c.slice(0, 3).map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4); }); return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
const parse = (text) => { const all = text.match(/[\\d.]+/g).map(Number); return all.length < 4 ? [...all, 1] : all; };
const over = (a, b) => [0, 1, 2].map((at) => a[at] * a[3] + b[at] * (1 - a[3])).concat(1);
const behind = (element) => { const all = []; for (let at = element; at; at = at.parentElement) all.push(parse(getComputedStyle(at).backgroundColor)); return all.reverse().reduce((below, one) => over(one, below), [255, 255, 255, 1]); };
const pale = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let seen = 0;
for (let text; (text = texts.nextNode());) {
  const element = text.parentElement;
  if (!text.textContent.trim() || ['SCRIPT', 'STYLE', 'NOSCRIPT', 'title'].includes(element.tagName) || !element.getClientRects().length) continue;
  const style = getComputedStyle(element), drawn = element.ownerSVGElement;
  const box = drawn && element.closest('.node')?.querySelector('rect');
  const paper = box ? over(parse(getComputedStyle(box).fill), behind(element)) : behind(element);
  const [more, less] = [lum(over(parse(drawn ? style.fill : style.color), paper)), lum(paper)].sort((a, b) => b - a);
  seen++;
  if ((more + 0.05) / (less + 0.05) < 4.5) pale.push(element.className + ': ' + text.textContent.trim().slice(0, 40));
}
return { seen, pale };
})()";

#[test]
fn a_page_can_be_read_and_used_by_everybody() {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = format!("{DOCKERFILE}RUN echo broken; exit 3\n");
    let context = bench.context("ctx", [("Dockerfile", DOCKERFILE)]);
    let _first = bench.build("app", &context).ok();
    std::fs::write(context.join("Dockerfile"), text).unwrap();
    let _failed = bench.build("app", &context).fails(1);
    let page = bench.path("report.html");
    let _written = bench.rbuild(["report", "^0", "--with", "^1", "-o"]).arg(&page).run().ok();
    let mut browser = Browser::start(&bench, &page);
    for colours in ["light", "dark"] {
        browser.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": [{ "name": "prefers-color-scheme", "value": colours }] }),
        );
        for width in [420, 1280] {
            browser.call(
                "Emulation.setDeviceMetricsOverride",
                json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false }),
            );
            let found = browser.ask(PALE_TEXTS);
            assert!(found["seen"].as_u64() > Some(60), "{found}");
            assert_eq!(found["pale"], json!([]), "{colours}, {width}");
            assert_eq!(browser.ask("document.documentElement.scrollWidth <= innerWidth"), true, "{colours}, {width}");
        }
    }
    // All that can be reached by the keyboard has a role and a name, and so have tables.
    browser.call("Accessibility.enable", json!({}));
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let mut named = 0;
    for node in tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] != true) {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        let properties = node["properties"].as_array().into_iter().flatten();
        let reached = properties.clone().any(|one| one["name"] == "focusable" && one["value"]["value"] == true);
        if (reached && role != "RootWebArea") || role == "table" {
            let name = node["name"]["value"].as_str().unwrap_or_default();
            assert!(!name.is_empty() && ["button", "group", "table"].contains(&role), "{node}");
            named += 1;
        }
    }
    assert!(named > 20, "{named}");
    // Tab goes from one to the next, Enter and Space choose, and the one that is shown says so.
    let press = |browser: &mut Browser, key: &str, text: &str| {
        for kind in ["keyDown", "keyUp"] {
            browser.call("Input.dispatchKeyEvent", json!({ "type": kind, "key": key, "code": key, "text": text }));
        }
    };
    browser.ask("document.querySelector('#steps tbody button').focus()");
    let shown = "document.querySelector('#detail h3').textContent";
    let current = "document.querySelector('#steps [aria-current]').textContent";
    for (key, text) in [("Enter", "\r"), (" ", " ")] {
        let focused = browser.ask("document.activeElement.textContent");
        press(&mut browser, key, text);
        assert_eq!(browser.ask(shown), focused, "{key}");
        assert_eq!(browser.ask(current), focused, "{key}");
        let code = json!({ "type": "keyDown", "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9 });
        browser.call("Input.dispatchKeyEvent", code);
        assert_ne!(browser.ask("document.activeElement.textContent"), focused);
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
}
