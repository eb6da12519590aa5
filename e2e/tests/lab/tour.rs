//! `weft-lab tour` in a lab that runs: each of its commands shows what the words beside it say.

use weft_lab::tour::STEPS;

use crate::lab::{Lab, Outcome, holds, poll};

pub(crate) fn every_step_shows_what_it_says(lab: &Lab) -> Outcome {
    let text = lab.run(&["tour"])?;
    for (number, step) in STEPS.iter().enumerate() {
        holds("the tour", &text, &format!("## {}. {}", number + 1, step.title))?;
    }
    holds("the tour", &text, "denied: isolated by NetworkPolicy tour/servers")?;
    let api = lab.api()?;
    poll("the tour's namespace gone", || match api.get("/api/v1/namespaces/tour") {
        Err(_) => Ok(()),
        Ok(namespace) => Err(namespace.to_string()),
    })
}
