//! What a query costs each server, as a drawing: bars of user and system time, at the largest size.

use std::fmt::Write as _;

use weft_bench::table::thousands;

use crate::Row;
use crate::client::Kind;

const WIDTH: f64 = 760.0;
/// Where bars begin, and the room that the longest has.
const LEFT: f64 = 190.0;
const ROOM: f64 = 440.0;
const BAR: f64 = 20.0;
const STEP: f64 = 28.0;
const TITLE: f64 = 64.0;
const GROUP: f64 = 34.0;
/// Of weft-dns, and of the others: user time, system time.
const OWN: [&str; 2] = ["#0f766e", "#5eead4"];
const OTHERS: [&str; 2] = ["#475569", "#cbd5e1"];

pub(crate) fn svg(rows: &[Row]) -> String {
    let services = rows.iter().map(|row| row.size.services).max().unwrap_or_default();
    let shown: Vec<&Row> = rows.iter().filter(|row| row.size.services == services).collect();
    let longest = shown.iter().map(|row| row.cost.total()).fold(0.0, f64::max);
    let (mut body, mut y) = (String::new(), TITLE);
    for kind in Kind::ALL {
        let _ = writeln!(
            body,
            "<text x=\"20\" y=\"{:.1}\" font-weight=\"bold\">{}</text>",
            y + 14.0,
            kind.name()
        );
        y += GROUP - BAR / 2.0;
        for row in shown.iter().filter(|row| row.kind == kind) {
            bar(&mut body, row, y, ROOM / longest);
            y += STEP;
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {:.0}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#334155\">\n\
         <title>Processor time per query</title>\n<rect width=\"{WIDTH}\" height=\"{:.0}\" fill=\"#ffffff\"/>\n\
         <text x=\"20\" y=\"28\" font-size=\"16\" font-weight=\"bold\">Processor time per query, {} Services, one core</text>\n\
         <text x=\"20\" y=\"48\">microseconds: user time (dark) and system time (light)</text>\n{body}</svg>\n",
        y + 16.0,
        y + 16.0,
        thousands(services)
    )
}

fn bar(svg: &mut String, row: &Row, y: f64, scale: f64) {
    let [dark, light] = if row.contender.name() == "weft-dns" { OWN } else { OTHERS };
    let (user, system) = (row.cost.user * scale, row.cost.system * scale);
    let (middle, end) = (LEFT + user, LEFT + user + system);
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
         <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{user:.1}\" height=\"{BAR}\" fill=\"{dark}\"/>\
         <rect x=\"{middle:.1}\" y=\"{y:.1}\" width=\"{system:.1}\" height=\"{BAR}\" fill=\"{light}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{:.2} + {:.2}</text>",
        LEFT - 10.0,
        y + 15.0,
        row.contender.name(),
        end + 8.0,
        y + 15.0,
        row.cost.user,
        row.cost.system,
    );
}
