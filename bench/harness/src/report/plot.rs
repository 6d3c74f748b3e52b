//! Plots: a dot for each server's median, a bar for its middle half, one panel for each cell.
//!
//! Every file is one SVG without anything outside it, which follows the reader's choice of light or
//! dark.

use std::fmt::Write as _;

use super::model::{CellResult, RunResult};
use super::modes;
use super::table::number;
use crate::measure::{allocations, instructions, memory, stats, syscalls};
use crate::roster::{self, COPY};

/// The plots of a result that have something to show: file names and contents.
pub(crate) fn all(result: &RunResult) -> Vec<(String, String)> {
    let mut plots = Vec::new();
    let mut add = |name: &str, panels: Vec<Panel>| {
        if !panels.is_empty() {
            let foot = format!(
                "{} · commit {} · {} · Linux {}{}",
                result.started,
                result.tree.label(),
                result.machine.cpu,
                result.machine.kernel,
                if result.protocol.quick { " · quick run, coarse" } else { "" }
            );
            plots.push((format!("{name}.svg"), draw(caption(name), &panels, &foot)));
        }
    };
    let of = |wanted: &dyn Fn(&str) -> bool| {
        result.cells.iter().filter(|cell| wanted(&cell.id)).filter_map(ratios).collect::<Vec<_>>()
    };
    let echo = |id: &str| id.starts_with("echo-");
    let http = |id: &str| id.starts_with("http-") || id.starts_with("axum-");
    add("echo", of(&echo));
    add("http", of(&http));
    let modes = |id: &str| id.starts_with("modes-");
    add("connections", of(&|id| !echo(id) && !http(id) && !modes(id)));
    add("modes", of(&modes));
    add("counts", counts(result));
    plots
}

pub(crate) fn caption(name: &str) -> &'static str {
    match name.trim_end_matches(".svg") {
        "echo" => "TCP echo: processor time per request",
        "http" => "HTTP/1.1: processor time per request",
        "connections" => "Connections, fixed rates and batching: processor time per request",
        "modes" => "Where a continuation runs: processor time per request",
        _ => "Counted, per request and per connection",
    }
}

struct Panel {
    title: String,
    axis: String,
    rows: Vec<Dot>,
    scale: Scale,
}

struct Dot {
    label: String,
    low: f64,
    middle: f64,
    high: f64,
    class: &'static str,
}

enum Scale {
    /// Ratios, and how far the copy of the reference strays from 1.
    Ratio { band: f64 },
    /// Counts, over powers of ten.
    Log,
}

fn ratios(cell: &CellResult) -> Option<Panel> {
    let mut rows: Vec<Dot> = cell
        .rows
        .iter()
        .filter(|row| row.server != COPY && row.server != cell.reference)
        .filter_map(|row| {
            let ratio = row.ratio?;
            Some(Dot {
                label: row.server.clone(),
                low: ratio.p25,
                middle: ratio.median,
                high: ratio.p75,
                class: class(&row.server),
            })
        })
        .collect();
    rows.sort_by(|a, b| a.middle.total_cmp(&b.middle));
    let copy = cell.row(COPY).and_then(|row| row.ratio);
    let mark = if cell.settled { "" } else { " (control off)" };
    (!rows.is_empty()).then(|| Panel {
        title: format!("{}{mark}", cell.title),
        axis: format!("processor time per {}, {} = 1; less is better", cell.unit, cell.reference),
        rows,
        scale: Scale::Ratio { band: stats::band(copy) },
    })
}

fn counts(result: &RunResult) -> Vec<Panel> {
    const ECHO: bool = false;
    const HTTP: bool = true;
    let wanted = [
        (instructions::METRIC, 64, ECHO, "User instructions per echo", "instructions"),
        (instructions::METRIC, 64, HTTP, "User instructions per HTTP request", "instructions"),
        (syscalls::SATURATED, 64, ECHO, "System calls per echo, 64 connections", "calls"),
        (syscalls::SATURATED, 1, ECHO, "System calls per echo, 1 connection", "calls"),
        (memory::METRIC, 0, ECHO, "Resident memory per idle connection, echo", "bytes"),
        (memory::METRIC, 0, HTTP, "Resident memory per idle connection, HTTP", "bytes"),
        (allocations::METRIC, 64, ECHO, "Allocations per echo", "allocations"),
        (allocations::METRIC, 64, HTTP, "Allocations per HTTP request", "allocations"),
    ];
    let panel = |(metric, connections, http, title, unit): (&str, usize, bool, &str, &str)| {
        let mut rows: Vec<Dot> = result
            .counts
            .iter()
            .filter(|c| c.metric == metric && (connections == 0 || c.connections == connections))
            .filter(|c| roster::is_http(&c.server) == http && c.value.is_finite())
            .filter(|c| !modes::is_extra(c))
            .map(|c| Dot {
                label: c.server.clone(),
                low: c.value,
                middle: c.value,
                high: c.value,
                class: class(&c.server),
            })
            .collect();
        rows.sort_by(|a, b| a.middle.total_cmp(&b.middle));
        (!rows.is_empty()).then(|| Panel {
            title: title.to_owned(),
            axis: format!("{unit}, powers of ten; less is better"),
            rows,
            scale: Scale::Log,
        })
    };
    wanted.into_iter().filter_map(panel).collect()
}

fn class(server: &str) -> &'static str {
    if roster::is_pelton(server) {
        "own"
    } else if roster::is_raw(server) {
        "raw"
    } else {
        "peer"
    }
}

const PANEL: f64 = 510.0;
const GAP: f64 = 36.0;
const MARGIN: f64 = 28.0;
const LABEL: f64 = 166.0;
const VALUE: f64 = 64.0;
const ROW: f64 = 21.0;
const HEAD: f64 = 44.0;
const FOOT: f64 = 40.0;

const STYLE: &str = "
text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:#1f2430}
.back{fill:#fff}.title{font-size:20px;font-weight:650}.head{font-size:14px;font-weight:600}
.small{font-size:11px;fill:#6b7280}.value{font-variant-numeric:tabular-nums}
.grid{stroke:#e7e9ee}.one{stroke:#6b7280;stroke-width:1.5}.band{fill:#eef1f6}
.own{fill:#d9480f;stroke:#d9480f}.peer{fill:#51607a;stroke:#51607a}.raw{fill:#fff;stroke:#51607a}
text.own{font-weight:650;stroke:none}text.peer,text.raw{fill:#1f2430;stroke:none}
line.own,line.peer,line.raw{stroke-width:4;stroke-linecap:round;opacity:.38}line.raw{stroke:#51607a}
circle{stroke-width:2}
@media (prefers-color-scheme:dark){
text{fill:#e6e9ef}.back{fill:#0f131a}.small{fill:#8d96a5}.grid{stroke:#232a35}.one{stroke:#8d96a5}
.band{fill:#19202b}.own{fill:#ff8a4c;stroke:#ff8a4c}.peer{fill:#9fb0cb;stroke:#9fb0cb}
.raw{fill:#0f131a;stroke:#9fb0cb}line.raw{stroke:#9fb0cb}text.peer,text.raw{fill:#e6e9ef}}
";

fn draw(title: &str, panels: &[Panel], foot: &str) -> String {
    let columns = panels.len().min(2);
    let width = 2.0 * MARGIN + columns as f64 * PANEL + (columns - 1) as f64 * GAP;
    let mut body = String::new();
    let mut top = MARGIN + 44.0;
    for pair in panels.chunks(2) {
        let height = pair.iter().map(Panel::height).fold(0.0, f64::max);
        for (column, panel) in pair.iter().enumerate() {
            panel.draw(MARGIN + column as f64 * (PANEL + GAP), top, &mut body);
        }
        top += height + 26.0;
    }
    let height = top + 18.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<rect class=\"back\" width=\"100%\" height=\"100%\" rx=\"10\"/>\n",
        title = escape(title)
    );
    text(&mut out, MARGIN, MARGIN + 16.0, "title", "start", title);
    out.push_str(&body);
    text(&mut out, MARGIN, height - 16.0, "small", "start", foot);
    out.push_str("</svg>\n");
    out
}

impl Panel {
    fn height(&self) -> f64 {
        HEAD + self.rows.len() as f64 * ROW + FOOT
    }

    fn draw(&self, left: f64, top: f64, out: &mut String) {
        let axis = Axis::of(self, left + LABEL, left + PANEL - VALUE);
        let (first, last) = (top + HEAD - 8.0, top + HEAD + self.rows.len() as f64 * ROW + 2.0);
        text(out, left, top + 14.0, "head", "start", &self.title);
        if let Scale::Ratio { band } = self.scale {
            let (from, to) = (axis.x(1.0 / band), axis.x(band));
            let _ = writeln!(
                out,
                "<rect class=\"band\" x=\"{from:.1}\" y=\"{first:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                (to - from).max(0.0),
                last - first
            );
        }
        for tick in axis.ticks() {
            let x = axis.x(tick);
            let one = matches!(self.scale, Scale::Ratio { .. }) && (tick - 1.0).abs() < 1e-9;
            line(out, if one { "one" } else { "grid" }, x, first, x, last);
            text(out, x, last + 15.0, "small", "middle", &axis.name(tick));
        }
        for (index, row) in self.rows.iter().enumerate() {
            let y = top + HEAD + (index as f64 + 0.5) * ROW - 2.0;
            text(out, left + LABEL - 12.0, y + 4.5, row.class, "end", &row.label);
            line(out, row.class, axis.x(row.low), y, axis.x(row.high), y);
            let _ = writeln!(
                out,
                "<circle class=\"{}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>",
                row.class,
                axis.x(row.middle)
            );
            let beyond = if row.middle > axis.high { " →" } else { "" };
            let shown = match self.scale {
                Scale::Ratio { .. } => format!("{:.2}{beyond}", row.middle),
                Scale::Log => number(row.middle),
            };
            text(out, left + PANEL, y + 4.5, "value", "end", &shown);
        }
        text(out, left + LABEL, last + 31.0, "small", "start", &self.axis);
    }
}

/// From values to places.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

/// A ratio above this is drawn at the edge, lest it press all others together.
const LARGEST_RATIO: f64 = 1.8;

/// Less than this is nothing, with a rounding error.
const LEAST_COUNT: f64 = 0.001;

impl Axis {
    fn of(panel: &Panel, from: f64, to: f64) -> Self {
        // Nothing has no place among powers of ten, and is drawn at the edge.
        let lows = panel.rows.iter().map(|row| row.low).filter(|low| *low >= LEAST_COUNT);
        let low = lows.fold(f64::INFINITY, f64::min);
        let high = panel.rows.iter().map(|row| row.high).fold(0.0, f64::max);
        match panel.scale {
            Scale::Ratio { band } => Self {
                low: ((low.min(0.95).min(1.0 / band)) * 20.0).floor() / 20.0,
                high: (high.clamp(1.05, LARGEST_RATIO).max(band) * 20.0).ceil() / 20.0,
                from,
                to,
                log: false,
            },
            Scale::Log => {
                let (low, high) = if low.is_finite() { (low, high) } else { (0.1, 1.0) };
                Self {
                    low: 10f64.powf(low.log10().floor()),
                    high: 10f64.powf((high * 1.0001).log10().ceil()),
                    from,
                    to,
                    log: true,
                }
            }
        }
    }

    fn x(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let share = if self.log {
            (value / self.low).log10() / (self.high / self.low).log10().max(1e-9)
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let (first, last) = (self.low.log10().round() as i32, self.high.log10().round() as i32);
            return (first..=last).map(|power| 10f64.powi(power)).collect();
        }
        let step = [0.05, 0.1, 0.2, 0.25, 0.5]
            .into_iter()
            .find(|step| (self.high - self.low) / step <= 6.0)
            .unwrap_or(0.5);
        // Counted from 1, which is always among them.
        let (first, last) = ((self.low - 1.0) / step - 1e-9, (self.high - 1.0) / step + 1e-9);
        (first.ceil() as i32..=last.floor() as i32).map(|n| 1.0 + f64::from(n) * step).collect()
    }

    fn name(&self, tick: f64) -> String {
        if self.log && tick < 1.0 {
            format!("{tick}")
        } else if self.log {
            number(tick).trim_end_matches(".00").trim_end_matches(".0").to_owned()
        } else {
            format!("{tick:.2}")
        }
    }
}

fn text(out: &mut String, x: f64, y: f64, class: &str, anchor: &str, what: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{}</text>",
        escape(what)
    );
}

fn line(out: &mut String, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) {
    let _ = writeln!(
        out,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(rows: &[(f64, f64, f64)], scale: Scale) -> Panel {
        let rows = rows
            .iter()
            .map(|&(low, middle, high)| Dot {
                label: "<x>".into(),
                low,
                middle,
                high,
                class: "peer",
            })
            .collect();
        Panel { title: "a & b".into(), axis: String::new(), rows, scale }
    }

    #[test]
    fn one_is_a_tick_and_extremes_stay_inside() {
        let panel = panel(&[(0.5, 0.6, 0.7), (3.0, 4.0, 9.0)], Scale::Ratio { band: 1.02 });
        let axis = Axis::of(&panel, 100.0, 200.0);
        assert!(axis.ticks().iter().any(|tick| (tick - 1.0).abs() < 1e-9));
        assert_eq!((axis.x(0.0), axis.x(99.0)), (100.0, 200.0));
        assert!(axis.ticks().iter().all(|&t| t >= axis.low - 1e-6 && t <= axis.high + 1e-6));
    }

    #[test]
    fn counts_span_powers_of_ten() {
        let axis =
            Axis::of(&panel(&[(75.0, 75.0, 75.0), (3480.0, 3480.0, 3480.0)], Scale::Log), 0.0, 3.0);
        assert_eq!(axis.ticks(), [10.0, 100.0, 1000.0, 10_000.0]);
        assert!((axis.x(100.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_single_value_has_an_axis() {
        let axis = Axis::of(&panel(&[(1.0, 1.0, 1.0)], Scale::Log), 0.0, 1.0);
        assert!(axis.x(1.0).is_finite() && axis.ticks().len() >= 2);
        let axis = Axis::of(&panel(&[(0.0, 0.0, 0.0)], Scale::Log), 5.0, 6.0);
        assert_eq!(axis.x(0.0), 5.0);
    }

    #[test]
    fn text_is_escaped() {
        let svg = draw("a & b", &[panel(&[(1.0, 1.0, 1.0)], Scale::Ratio { band: 1.0 })], "");
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;x&gt;") && !svg.contains("<x>"));
        assert!(!svg.contains("NaN"));
    }
}
