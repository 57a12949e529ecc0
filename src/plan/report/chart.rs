//! Small charts as inline SVG. Colours are classes of the page, so that light and dark are its business.

use std::fmt::Write as _;

/// The drawing, in units that are about a pixel on a phone.
const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;

/// How numbers lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    Linear,
    Logarithmic,
    /// For shares near one: as far from 0.9 to 0.99 as from there to 0.999, and no further than 0.9999.
    Nines,
}

/// One axis.
pub struct Axis {
    pub label: String,
    pub scale: Scale,
    pub from: f64,
    pub to: f64,
    /// Where lines are drawn, and what is written there.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Where a number lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let at = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(f64::MIN_POSITIVE).ln(),
            Scale::Nines => -(1.0 - value).max(1e-4).ln(),
        };
        let length = at(self.to) - at(self.from);
        if length.abs() < f64::EPSILON { 0.5 } else { ((at(value) - at(self.from)) / length).clamp(0.0, 1.0) }
    }
}

/// A point with the interval that it lies in.
pub struct Mark {
    pub x: f64,
    pub y: f64,
    pub low: f64,
    pub high: f64,
    pub label: String,
    /// Whether it is what the plan chose.
    pub chosen: bool,
}

/// A line through points.
pub struct Line {
    pub label: String,
    pub points: Vec<(f64, f64)>,
}

/// Lines and marks between two axes.
pub struct Plot {
    /// What it shows, for those who do not see it.
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
    pub marks: Vec<Mark>,
    /// A floor, as a value of `y`, and what it is.
    pub floor: Option<(f64, String)>,
}

impl Plot {
    pub fn svg(&self) -> String {
        let mut svg =
            format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escaped(&self.title));
        self.axes(&mut svg);
        if let Some((value, label)) = &self.floor {
            let (y, end) = (self.at_y(*value), WIDTH - RIGHT);
            let _ = write!(svg, "<path class=\"floor\" d=\"M{LEFT} {y:.1}H{end}\"/>");
            let label = escaped(label);
            let _ = write!(
                svg,
                "<text class=\"floor-label\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                end - 2.0,
                y + 12.0
            );
        }
        for (at, line) in self.lines.iter().enumerate() {
            let mut path = String::new();
            for (at, &(x, y)) in line.points.iter().enumerate() {
                let _ = write!(path, "{}{:.1} {:.1}", if at == 0 { 'M' } else { 'L' }, self.at_x(x), self.at_y(y));
            }
            let _ = write!(svg, "<path class=\"line s{}\" d=\"{path}\"/>", at + 1);
        }
        self.marks.iter().for_each(|mark| self.mark(&mut svg, mark));
        svg.push_str("</svg>");
        svg
    }

    fn axes(&self, svg: &mut String) {
        let (bottom, end) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (value, label) in &self.y.ticks {
            let (y, label) = (self.at_y(*value), escaped(label));
            let _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{end}\"/>");
            let _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 6.0, y + 3.5);
        }
        for (value, label) in &self.x.ticks {
            let (x, label) = (self.at_x(*value), escaped(label));
            let _ = write!(svg, "<path class=\"tick\" d=\"M{x:.1} {bottom}v4\"/>");
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", bottom + 16.0);
        }
        let _ = write!(svg, "<path class=\"axis\" d=\"M{LEFT} {bottom}H{end}\"/>");
        let middle = f64::midpoint(LEFT, end);
        let label = escaped(&self.x.label);
        let _ = write!(
            svg,
            "<text class=\"label\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            HEIGHT - 6.0
        );
    }

    fn mark(&self, svg: &mut String, mark: &Mark) {
        let (x, y) = (self.at_x(mark.x), self.at_y(mark.y));
        let class = if mark.chosen { "mark chosen" } else { "mark" };
        let _ = write!(svg, "<g class=\"{class}\">");
        if mark.high > mark.low {
            let _ = write!(svg, "<path d=\"M{x:.1} {:.1}V{:.1}\"/>", self.at_y(mark.low), self.at_y(mark.high));
        }
        let radius = if mark.chosen { 6.0 } else { 4.0 };
        let _ = write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>");
        // to the side with more room, and away from a neighbour
        let is_close = |other: &Mark| {
            let (right, below) = (self.at_x(other.x) - x, self.at_y(other.y) - y);
            right > 0.0 && right < 24.0 && below.abs() < 12.0
        };
        let is_left = x > WIDTH * 0.7 || self.marks.iter().any(is_close);
        let (dx, anchor) = if is_left { (-9.0, "end") } else { (9.0, "start") };
        // below a mark at the top and above one at the bottom, so that names stay in the drawing and off the axis
        let dy = if y < TOP + 14.0 {
            14.0
        } else if y > HEIGHT - BOTTOM - 10.0 {
            -6.0
        } else {
            4.0
        };
        let label = escaped(&mark.label);
        let _ =
            write!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{label}</text></g>", x + dx, y + dy);
    }

    fn at_x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn at_y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - BOTTOM - TOP)
    }
}

/// Bars of parts, one below the other, as wide as the page. Parts are coloured in the order of their names.
pub struct Bars<'a> {
    pub title: &'a str,
    /// Name of the bar, the number that it stands for, and its parts.
    pub rows: Vec<(String, String, Vec<f64>)>,
    /// A limit and its name.
    pub limit: Option<(f64, String)>,
}

impl Bars<'_> {
    pub fn svg(&self) -> String {
        let longest = self.rows.iter().map(|(_, _, parts)| parts.iter().sum::<f64>()).fold(0.0, f64::max);
        let whole = self.limit.as_ref().map_or(longest, |(limit, _)| limit.max(longest)) * 1.02;
        let percent = |value: f64| if whole > 0.0 { value / whole * 100.0 } else { 0.0 };
        let head = if self.limit.is_some() { 20 } else { 0 };
        let height = head + self.rows.len() * 54;
        let mut svg = format!(
            "<svg class=\"bars\" style=\"height:{height}px\" role=\"img\" aria-label=\"{}\">",
            escaped(self.title)
        );
        for (row, (name, number, parts)) in self.rows.iter().enumerate() {
            let top = head + row * 54;
            let (name, number) = (escaped(name), escaped(number));
            let _ = write!(
                svg,
                "<text class=\"name\" x=\"0\" y=\"{}\">{name} <tspan class=\"number\" dx=\"6\">{number}</tspan></text>",
                top + 13
            );
            let _ =
                write!(svg, "<rect class=\"track\" x=\"0\" y=\"{}\" width=\"100%\" height=\"24\" rx=\"3\"/>", top + 20);
            let mut from = 0.0;
            for (part, value) in parts.iter().enumerate() {
                let class = part + 1;
                let _ = write!(
                    svg,
                    "<rect class=\"p{class}\" x=\"{:.3}%\" y=\"{}\" width=\"{:.3}%\" height=\"24\"/>",
                    percent(from),
                    top + 20,
                    percent(*value)
                );
                from += value;
            }
        }
        if let Some((limit, name)) = &self.limit {
            let (x, name) = (percent(*limit), escaped(name));
            let _ =
                write!(svg, "<line class=\"limit\" x1=\"{x:.3}%\" x2=\"{x:.3}%\" y1=\"18\" y2=\"{}\"/>", height - 4);
            let anchor = if x > 50.0 { "end" } else { "start" };
            let _ = write!(
                svg,
                "<text class=\"limit-label\" x=\"{x:.3}%\" y=\"12\" text-anchor=\"{anchor}\">{name}</text>"
            );
        }
        svg.push_str("</svg>");
        svg
    }
}

/// Text that is safe between tags and in attributes.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lie_within_the_axis_whatever_the_number() {
        let axis = |scale, from, to| Axis { label: String::new(), scale, from, to, ticks: Vec::new() };
        assert_eq!(axis(Scale::Linear, 0.0, 4.0).place(1.0), 0.25);
        assert!((axis(Scale::Logarithmic, 1.0, 100.0).place(10.0) - 0.5).abs() < 1e-12);
        for scale in [Scale::Linear, Scale::Logarithmic, Scale::Nines] {
            for (from, to) in [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0)] {
                for value in [-1.0, 0.0, 1.0, f64::MAX] {
                    assert!((0.0..=1.0).contains(&axis(scale, from, to).place(value)), "{scale:?} {from} {to} {value}");
                }
            }
        }
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
