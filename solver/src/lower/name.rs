//! How people see a vertex: `[linux/arm64 build 2/5] RUN make`, as BuildKit names it.

use rbuild_image::Platform;
use rbuild_parser::Lookup;
use rbuild_parser::word::{Style, expand_text};

use super::Lowering;
use super::scope::Variables;
use super::stage::StageId;

/// How variables in a shown command are filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// As the instruction reads its words.
    Words,
    /// As a shell would get it: quotes and unset variables stay.
    Command,
}

impl Lowering<'_> {
    /// Names the next numbered vertex of a stage.
    pub(super) fn name_vertex(&mut self, stage: StageId, text: &str, is_trigger: bool) -> String {
        let several = self.goal.multi_platform || self.goal.platforms.len() > 1;
        let target = &self.target_platform;
        let stage = &mut self.stages[stage];
        if stage.numbered == 0 {
            return text.to_owned();
        }
        stage.number += 1;
        let mut prefix = String::from("[");
        if several {
            let platform = stage.platform.as_ref().unwrap_or(target);
            prefix.push_str(&format!("{platform}{} ", crossing(platform, &stage.state.variables)));
        }
        if !stage.shown.is_empty() {
            prefix.push_str(&stage.shown);
            prefix.push(' ');
        }
        let width = stage.numbered.to_string().len();
        let trigger = if is_trigger { "ONBUILD " } else { "" };
        format!("{prefix}{:>width$}/{}] {trigger}{text}", stage.number, stage.numbered)
    }

    /// An instruction's text with its keyword in capitals and its variables filled in.
    pub(super) fn shown_text(&self, text: &str, shown: Shown, variables: &dyn Lookup) -> String {
        let style = match shown {
            Shown::Words => Style::word(self.file.escape()),
            Shown::Command => Style::display(self.file.escape()),
        };
        let text = expand_text(text, &style, variables).map_or_else(|_| text.to_owned(), |expanded| expanded.text);
        match text.split_once(' ') {
            Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
            None => text.to_uppercase(),
        }
    }
}

/// `->arm64` where a stage that runs on one platform builds for another.
fn crossing(base: &Platform, variables: &Variables) -> String {
    let parsed = variables.get("TARGETPLATFORM").and_then(|text| text.parse::<Platform>().ok());
    let names = ["TARGETOS", "TARGETARCH", "TARGETVARIANT"].map(|name| variables.get(name));
    let target = parsed.or_else(|| {
        let [os, architecture, variant] = names;
        names
            .iter()
            .any(Option::is_some)
            .then(|| Platform::new(os.unwrap_or(&base.os), architecture.unwrap_or(&base.architecture), variant))
    });
    match target {
        Some(target) if target.os != base.os => format!("->{target}"),
        Some(target) if target.architecture != base.architecture => match &target.variant {
            Some(variant) => format!("->{}/{variant}", target.architecture),
            None => format!("->{}", target.architecture),
        },
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crossing_names_what_differs() {
        let base: Platform = "linux/amd64".parse().unwrap();
        let with = |pairs: &[&str]| {
            let mut variables = Variables::default();
            variables.set_all(&pairs.iter().map(|pair| (*pair).to_owned()).collect::<Vec<_>>());
            crossing(&base, &variables)
        };
        assert_eq!(with(&[]), "");
        assert_eq!(with(&["TARGETPLATFORM=linux/amd64"]), "");
        assert_eq!(with(&["TARGETPLATFORM=linux/arm/v6"]), "->arm/v6");
        assert_eq!(with(&["TARGETARCH=arm64"]), "->arm64");
        assert_eq!(with(&["TARGETOS=windows"]), "->windows/amd64");
    }
}
