//! What stands between percent signs in the name of a result.

use chrono::{Datelike, NaiveDateTime, Timelike};
use flow_graph::Context;

/// What a prefix may say of the result: `%name%`, the workflow's name; `%year%`, `%month%`, `%day%`, `%hour%`, `%minute%`, `%second%`
/// and `%date:yyyy-MM-dd%`, the time on this machine's clock; and what is below. All but `%name%` are ComfyUI's.
pub struct Tokens<'a> {
    /// `%width%` and `%height%` in pixels, where the result has any.
    pub size: Option<(usize, usize)>,
    /// `%batch_num%`.
    pub frame: usize,
    /// The run.
    pub cx: &'a Context,
}

impl Tokens<'_> {
    /// The prefix with all that is known in its place; what is not known stays as it is.
    pub(super) fn fill(&self, prefix: &str, now: NaiveDateTime) -> String {
        let name = if self.cx.provenance.name.is_empty() { "flow" } else { &self.cx.provenance.name };
        let mut filled = dated(prefix, now);
        let mut put = |token: &str, value: &str| filled = filled.replace(token, value);
        put("%name%", name);
        put("%batch_num%", &self.frame.to_string());
        if let Some((width, height)) = self.size {
            put("%width%", &width.to_string());
            put("%height%", &height.to_string());
        }
        filled
    }
}

/// The text with the time in it.
fn dated(text: &str, now: NaiveDateTime) -> String {
    let mut filled = text.replace("%year%", &now.year().to_string());
    for (token, number) in [
        ("%month%", now.month()),
        ("%day%", now.day()),
        ("%hour%", now.hour()),
        ("%minute%", now.minute()),
        ("%second%", now.second()),
    ] {
        filled = filled.replace(token, &format!("{number:02}"));
    }
    const BEGIN: &str = "%date:";
    let mut done = String::new();
    let mut rest = filled.as_str();
    while let Some((before, (format, after))) =
        rest.split_once(BEGIN).and_then(|(before, after)| Some((before, after.split_once('%')?)))
    {
        done.push_str(before);
        done.push_str(&formatted(format, now));
        rest = after;
    }
    done + rest
}

/// A time as `yyyy-MM-dd hh:mm:ss` asks for it: one letter for a number as it is, two for two digits; other letters stay, and
/// those that no file name has become `_`.
fn formatted(format: &str, now: NaiveDateTime) -> String {
    let mut done = String::new();
    let mut rest = format;
    while let Some(letter) = rest.chars().next() {
        let run = rest.len() - rest.trim_start_matches(letter).len();
        let of_year = [4, 2].into_iter().find(|length| letter == 'y' && *length <= run);
        let number = match letter {
            'd' => Some(now.day()),
            'M' => Some(now.month()),
            'h' => Some(now.hour()),
            'm' => Some(now.minute()),
            's' => Some(now.second()),
            _ => None,
        };
        let taken = match (of_year, number) {
            (Some(length), _) => {
                let year = format!("{:04}", now.year());
                done.push_str(&year[year.len() - length..]);
                length
            }
            (None, Some(number)) => {
                let width = run.min(2);
                done.push_str(&format!("{number:0width$}"));
                width
            }
            (None, None) => {
                done.push(if letter.is_control() || "/?<>\\:*|\"".contains(letter) { '_' } else { letter });
                letter.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    done
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::dated;

    #[test]
    fn the_time_takes_its_places() {
        let now = NaiveDate::from_ymd_opt(2026, 3, 9).and_then(|day| day.and_hms_opt(7, 5, 42));
        for (text, wanted) in [
            ("%date:yyyy-MM-dd%/a", "2026-03-09/a"),
            ("%date:yyMMdd_hhmmss%", "260309_070542"),
            ("%date:d.M.%%date:h:m%", "9.3.7_5"),
            ("%year%-%month%-%day% %hour%%minute%%second%", "2026-03-09 070542"),
            ("%date:", "%date:"),
            ("%date%", "%date%"),
        ] {
            assert_eq!(now.map(|now| dated(text, now)).as_deref(), Some(wanted));
        }
    }
}
