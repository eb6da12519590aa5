//! `weft-lab demo`: a lab, the application, the checks, and all of it gone again.

use std::time::Instant;

use super::{CommandContext, up};
use crate::demo::{self, Check, ProbeOrigin, verdict};
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::teardown;

/// Runs the demo. Without `keep`, and after a failure or Ctrl-C, nothing of it stays.
pub(super) async fn run(context: &CommandContext, shape: Shape, keep: bool) -> Result<()> {
    let started = Instant::now();
    println!("weft-lab demo: {} nodes, a three-tier application, and what its network does", shape.nodes);
    up::start(context, shape).await?;
    println!("  cluster up after {:.1} s", started.elapsed().as_secs_f32());
    let checks = up::until_interrupted(check(context)).await;
    match &checks {
        Ok(checks) => println!("{}", verdict::table(checks)),
        Err(_) if keep => {
            println!(
                "  the lab is kept: see `{} status` and {}",
                context.invocation(),
                context.dir.log().display()
            )
        }
        Err(_) => {}
    }
    println!("  done after {:.1} s", started.elapsed().as_secs_f32());
    // Kept to be looked at, after a failed check too; but not after Ctrl-C.
    if keep && !matches!(checks, Err(Error::Interrupted)) {
        println!("{}", next(context));
    } else {
        println!("  {}", teardown::remove(&context.name, &context.dir)?.to_string().replace('\n', "\n  "));
        if checks.is_ok() {
            println!("  to look around in it: {} demo --keep", context.invocation());
        }
    }
    judge(&checks?)
}

async fn check(context: &CommandContext) -> Result<Vec<Check>> {
    let probe_origin = ProbeOrigin {
        name: context.name.clone(),
        dir: context.dir.clone(),
        lab_program: context.lab_program.clone(),
        weft_program: context.programs()?.path("weft"),
    };
    let spinner = up::spinner();
    let checks = demo::run(context.client()?, probe_origin, &spinner).await;
    spinner.finish_and_clear();
    checks
}

fn judge(checks: &[Check]) -> Result<()> {
    match checks.iter().filter(|check| !check.passed).count() {
        0 => Ok(()),
        failed => Err(Error::ChecksFailed { failed, total: checks.len() }),
    }
}

fn next(context: &CommandContext) -> String {
    let node = context.name.node("node1");
    let lab = context.invocation();
    format!(
        "what to try next:\n  \
         {lab} status\n  \
         {lab} exec -n shop frontend -- getent hosts backend\n  \
         {lab} exec -n shop frontend -- ip route\n  \
         {lab} kubectl get pods,services,endpointslices -A -o wide\n  \
         {lab} kubectl -n shop scale deployment backend --replicas 5\n  \
         ip netns exec {node} nft list ruleset\n  \
         ip netns exec {node} ip route\n  \
         {lab} down"
    )
}
