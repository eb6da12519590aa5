//! First loads and changes of one policy, as bars on a logarithmic scale.

use std::fmt::Write as _;
use std::time::Duration;

use weft_bench::table::{ms, number};

const WIDTH: f64 = 760.0;
/// The place of the bars' left end, and the width of a power of ten.
const LEFT: f64 = 300.0;
const POWER: f64 = 78.0;
const LINE: f64 = 26.0;
/// The shortest time that is drawn, as a power of ten of milliseconds.
const LEAST: f64 = -1.0;
const COLOURS: [&str; 2] = ["#0f766e", "#94a3b8"];

/// One contender's times.
pub(crate) struct Bars {
    pub(crate) name: String,
    pub(crate) load: Duration,
    pub(crate) change: Duration,
}

type Pick = fn(&Bars) -> Duration;

/// The drawing. The first contender stands out.
pub(crate) fn svg(contenders: &[Bars]) -> String {
    let groups: [(&str, Pick); 2] = [
        ("All policies, into an empty kernel", |bars| bars.load),
        ("A change of one policy", |bars| bars.change),
    ];
    let height = 70.0 + groups.len() as f64 * (contenders.len() as f64 + 1.6) * LINE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#334155\">\n\
         <title>Policies of 100 pods into the kernel</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"20\" y=\"28\" font-size=\"16\" font-weight=\"bold\">1,000 policies, 10,000 pods, 100 of them on the node</text>\n"
    );
    let mut y = 62.0;
    for (title, time) in groups {
        let _ = writeln!(svg, "<text x=\"20\" y=\"{y}\" font-weight=\"bold\">{title}</text>");
        for (place, bars) in contenders.iter().enumerate() {
            y += LINE;
            let (took, colour) = (ms(time(bars)), COLOURS[usize::from(place > 0)]);
            let width = ((took.log10() - LEAST) * POWER).max(2.0);
            let _ = writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{y}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{:.0}\" width=\"{width:.1}\" height=\"16\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{y}\">{}</text>",
                LEFT - 10.0,
                bars.name,
                y - 12.0,
                LEFT + width + 8.0,
                number(took, "ms")
            );
        }
        y += LINE * 1.6;
    }
    svg.push_str("</svg>\n");
    svg
}
