//! The full loads as a drawing: time against the number of Services, both on logarithmic scales.

use std::fmt::Write as _;

use crate::report::{Load, Outcome};
use weft_bench::table::thousands;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// The edges of the plot within the drawing: left, top, right, bottom.
const PLOT: [f64; 4] = [80.0, 56.0, 560.0, 360.0];
const COLOURS: [&str; 4] = ["#0f766e", "#b45309", "#6d28d9", "#64748b"];

/// A scale from powers of ten to places in the drawing.
#[derive(Clone, Copy)]
struct Scale {
    /// The exponents at both ends.
    powers: [i32; 2],
    /// The places of both ends.
    ends: [f64; 2],
}

impl Scale {
    /// A scale that holds all those values.
    fn new(values: impl Iterator<Item = f64> + Clone, ends: [f64; 2]) -> Scale {
        let (low, high) = (values.clone().fold(f64::INFINITY, f64::min), values.fold(0.0, f64::max));
        let (low, high) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        Scale { powers: [low, high.max(low + 1)], ends }
    }

    fn place(self, value: f64) -> f64 {
        let [low, high] = self.powers.map(f64::from);
        self.ends[0] + (value.log10() - low) / (high - low) * (self.ends[1] - self.ends[0])
    }

    fn ticks(self) -> impl Iterator<Item = f64> {
        (self.powers[0]..=self.powers[1]).map(|power| 10f64.powi(power))
    }
}

/// The drawing of those loads that ended, of two endpoints for each Service.
pub(crate) fn svg(loads: &[Load]) -> String {
    let points: Vec<(&str, f64, f64)> = loads.iter().filter_map(point).collect();
    if points.is_empty() {
        return String::new();
    }
    let [left, top, right, bottom] = PLOT;
    let x = Scale::new(points.iter().map(|point| point.1), [left, right]);
    let y = Scale::new(points.iter().map(|point| point.2), [bottom, top]);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#334155\">\n\
         <title>Time until the kernel holds all Services</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{left}\" y=\"28\" font-size=\"16\" font-weight=\"bold\">Time until the kernel holds all Services, two endpoints each</text>\n"
    );
    axes(&mut svg, x, y);
    let mut contenders: Vec<&str> = Vec::new();
    points.iter().for_each(|(contender, ..)| {
        if !contenders.contains(contender) {
            contenders.push(contender);
        }
    });
    for (contender, colour) in contenders.iter().zip(COLOURS) {
        let own = points.iter().filter(|point| point.0 == *contender);
        line(
            &mut svg,
            contender,
            colour,
            &own.map(|point| (x.place(point.1), y.place(point.2))).collect::<Vec<_>>(),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn point(load: &Load) -> Option<(&'static str, f64, f64)> {
    match load.outcome {
        Outcome::Took(time) if load.endpoints == 2 => {
            Some((load.contender, load.services as f64, time.as_secs_f64()))
        }
        _ => None,
    }
}

fn axes(svg: &mut String, x: Scale, y: Scale) {
    let [left, top, right, bottom] = PLOT;
    for tick in y.ticks() {
        let place = y.place(tick);
        let label = if tick < 1.0 { format!("{} ms", tick * 1e3) } else { format!("{tick} s") };
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" y1=\"{place:.1}\" x2=\"{right}\" y2=\"{place:.1}\" stroke=\"#e2e8f0\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            left - 10.0,
            place + 4.0
        );
    }
    for tick in x.ticks() {
        let place = x.place(tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{place:.1}\" y1=\"{top}\" x2=\"{place:.1}\" y2=\"{bottom}\" stroke=\"#e2e8f0\"/>\
             <text x=\"{place:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 22.0,
            thousands(tick as usize)
        );
    }
    let middle = f64::midpoint(left, right);
    let _ =
        writeln!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">Services</text>", bottom + 46.0);
}

/// A line through those places, with the contender's name at its end.
fn line(svg: &mut String, contender: &str, colour: &str, places: &[(f64, f64)]) {
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\"/>",
        path.join(" ")
    );
    for (x, y) in places {
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
    }
    if let Some((x, y)) = places.last() {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{contender}</text>",
            x + 10.0,
            y + 4.0
        );
    }
}
