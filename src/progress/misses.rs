//! Why steps ran, told when the build has ended (`--explain`): in the order of the plan, whatever the view.

use rbuild_solver::{MissReason, VertexReport};

use super::View;
use crate::cli::report::printable;

/// All of it as text.
pub(crate) fn told(view: &View, reports: &[VertexReport]) -> String {
    let mut text = String::new();
    for report in reports {
        let Some(miss) = report.miss.as_ref().filter(|miss| **miss != MissReason::ImageStore) else { continue };
        if let Some(step) = view.step(report.vertex) {
            text.push_str(&format!("#{} {}\n", step.number, printable(&step.name.replace('\n', " "))));
        }
        for line in miss.lines() {
            text.push_str(&format!("   {}\n", printable(&line)));
        }
    }
    if text.is_empty() { "No step had to run.\n".to_owned() } else { format!("Why steps ran:\n{text}") }
}
