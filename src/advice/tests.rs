//! Rules on histories that are made up.

use super::*;
use crate::build_record::StepDetail;

pub(super) fn step(name: &str, line: u32, stage: &str) -> RecordedStep {
    RecordedStep {
        name: name.to_owned(),
        state: StepState::Done,
        started: None,
        duration: None,
        key: None,
        result: None,
        detail: StepDetail { number: line as usize, line, stage: stage.to_owned(), ..StepDetail::default() },
    }
}

/// A history from names, how often they were there, how often they ran, and seconds of all runs.
fn history(known: &[(&RecordedStep, u32, u32, u64)]) -> BTreeMap<String, History> {
    let one = |(step, builds, ran, took): &(&RecordedStep, u32, u32, u64)| {
        (step.name.clone(), History { builds: *builds, ran: *ran, took: Duration::from_secs(*took) })
    };
    known.iter().map(one).collect()
}

fn told(steps: &[RecordedStep], history: &BTreeMap<String, History>) -> String {
    advise(steps, history).iter().map(|hint| format!("{hint}\n")).collect()
}

#[test]
fn dependencies_after_the_whole_context_are_named_with_what_they_cost() {
    let steps = [
        step("[app 1/4] FROM node", 1, "app"),
        step("[app 2/4] COPY . .", 2, "app"),
        step("[app 3/4] RUN npm ci", 3, "app"),
        step("[app 4/4] RUN npm run build", 4, "app"),
    ];
    let history = history(&[(&steps[1], 10, 9, 1), (&steps[2], 10, 8, 160), (&steps[3], 10, 9, 36)]);
    insta::assert_snapshot!(told(&steps, &history), @r"
    line 3: RUN npm ci runs again whenever any file of the context changes, because of line 2: COPY . .: copy only the files that list the dependencies before it, and the rest after it (about 20.0s)
    line 3: RUN npm ci fetches the same files whenever it runs: RUN --mount=type=cache,target=/root/.npm keeps them between runs (about 10.0s)
    ");
}

#[test]
fn what_is_done_well_is_left_alone() {
    let good = [
        step("[app 2/5] COPY package.json package-lock.json ./", 2, "app"),
        step("[app 3/5] RUN --mount=type=cache,target=/root/.npm npm ci", 3, "app"),
        step("[app 4/5] COPY . .", 4, "app"),
        step("[app 5/5] RUN npm run build", 5, "app"),
    ];
    let known = history(&[(&good[1], 10, 2, 40), (&good[3], 10, 9, 9)]);
    assert_eq!(told(&good, &known), "");
    let quick = [step("[1/2] COPY . .", 1, "0"), step("[2/2] RUN pip install -r requirements.txt", 2, "0")];
    assert_eq!(told(&quick, &history(&[(&quick[1], 10, 10, 10)])), "", "a second is not worth a word");
    assert_eq!(told(&quick, &history(&[(&quick[1], 1, 1, 60)])), "", "it ran once: nothing is known");
    let elsewhere = [step("[a 1/1] COPY . .", 1, "a"), step("[b 1/1] RUN go mod download", 2, "b")];
    let told = told(&elsewhere, &history(&[(&elsewhere[1], 2, 2, 20)]));
    assert!(!told.contains("COPY"), "another stage is none of its business: {told}");
}

#[test]
fn package_lists_in_a_large_layer_are_named() {
    let mut large = step("[1/1] RUN apt-get update && apt-get install -y build-essential", 3, "0");
    large.detail.size = Some(300_000_000);
    insta::assert_snapshot!(told(&[large], &BTreeMap::new()), @"line 3: RUN apt-get update && apt-get install -y build-essential leaves package lists in its layer: end it with `&& rm -rf /var/lib/apt/lists/*`, or mount a cache there (about 40MB)");
}

#[test]
fn a_step_that_costs_most_is_named_when_nothing_better_is_known() {
    let steps = [step("[1/2] RUN ./slow", 2, "0"), step("[2/2] RUN ./quick", 3, "0")];
    let history = history(&[(&steps[0], 10, 5, 60), (&steps[1], 10, 9, 9)]);
    insta::assert_snapshot!(told(&steps, &history), @"line 2: RUN ./slow ran in 5 of 10 builds and took more than half of their time: put what changes often after it, or split it; `rbuild cache why 2` says what made it run (about 12.0s)");
}
