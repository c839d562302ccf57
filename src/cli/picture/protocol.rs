//! Which way of drawing a terminal knows, told by its environment.

use anyhow::{Result, bail};

/// A way of drawing pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// kitty's graphics protocol.
    Kitty,
    /// iTerm2's inline images.
    Iterm,
    /// Sixel.
    Sixel,
    /// Half blocks.
    Blocks {
        /// In 24-bit colours; else in 256.
        truecolor: bool,
    },
    /// None.
    Off,
}

impl Protocol {
    /// What `FLOW_PREVIEW` says, else what the terminal is known to do. `var` gives environment variables.
    ///
    /// # Errors
    /// When `FLOW_PREVIEW` says none of the known words.
    pub fn detect(var: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let is = |name: &str, values: &[&str]| var(name).is_some_and(|value| values.contains(&&*value));
        let blocks = Self::Blocks { truecolor: is("COLORTERM", &["truecolor", "24bit"]) };
        match var("FLOW_PREVIEW").as_deref() {
            None => {}
            Some("kitty") => return Ok(Self::Kitty),
            Some("iterm") => return Ok(Self::Iterm),
            Some("sixel") => return Ok(Self::Sixel),
            Some("blocks") => return Ok(blocks),
            Some("off") => return Ok(Self::Off),
            Some(other) => bail!("FLOW_PREVIEW is `{other}`; write kitty, iterm, sixel, blocks or off"),
        }
        let term = var("TERM").unwrap_or_default();
        let begins = |names: &[&str]| names.iter().any(|name| term.starts_with(name));
        Ok(if term == "dumb" || var("NO_COLOR").is_some() {
            Self::Off
        } else if var("TMUX").is_some() || begins(&["tmux", "screen"]) {
            // A multiplexer passes text on, and graphics only if it is told to.
            blocks
        } else if var("KITTY_WINDOW_ID").is_some()
            || begins(&["xterm-kitty", "xterm-ghostty"])
            || is("TERM_PROGRAM", &["ghostty"])
        {
            Self::Kitty
        } else if is("TERM_PROGRAM", &["iTerm.app", "WezTerm", "mintty"]) || is("LC_TERMINAL", &["iTerm2"]) {
            Self::Iterm
        } else if begins(&["foot", "mlterm", "contour"]) || term.contains("sixel") {
            Self::Sixel
        } else {
            blocks
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(vars: &[(&str, &str)]) -> Protocol {
        let var =
            |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Protocol::detect(var).unwrap()
    }

    #[test]
    fn terminals_are_known_by_their_variables() {
        for (vars, expected) in [
            (&[("TERM", "xterm-kitty")][..], Protocol::Kitty),
            (&[("TERM", "xterm-256color"), ("KITTY_WINDOW_ID", "1")], Protocol::Kitty),
            (&[("TERM_PROGRAM", "ghostty")], Protocol::Kitty),
            (&[("TERM_PROGRAM", "iTerm.app")], Protocol::Iterm),
            (&[("TERM_PROGRAM", "WezTerm")], Protocol::Iterm),
            (&[("LC_TERMINAL", "iTerm2"), ("TERM", "xterm")], Protocol::Iterm),
            (&[("TERM", "foot-extra")], Protocol::Sixel),
            (&[("TERM", "xterm-256color"), ("COLORTERM", "truecolor")], Protocol::Blocks { truecolor: true }),
            (&[("TERM", "xterm-256color")], Protocol::Blocks { truecolor: false }),
            (&[("TERM", "dumb")], Protocol::Off),
            (&[("TERM", "xterm-kitty"), ("NO_COLOR", "1")], Protocol::Off),
            (&[("TERM", "screen"), ("KITTY_WINDOW_ID", "1")], Protocol::Blocks { truecolor: false }),
            (&[("TERM", "xterm-kitty"), ("TMUX", "/tmp/x")], Protocol::Blocks { truecolor: false }),
        ] {
            assert_eq!(detected(vars), expected, "{vars:?}");
        }
    }

    #[test]
    fn a_wish_wins_over_what_is_known() {
        for (wish, expected) in [
            ("kitty", Protocol::Kitty),
            ("iterm", Protocol::Iterm),
            ("sixel", Protocol::Sixel),
            ("blocks", Protocol::Blocks { truecolor: false }),
            ("off", Protocol::Off),
        ] {
            assert_eq!(detected(&[("TERM", "xterm-kitty"), ("FLOW_PREVIEW", wish)]), expected);
        }
        let wrong = Protocol::detect(|name| (name == "FLOW_PREVIEW").then(|| "ascii".to_owned()));
        assert!(wrong.unwrap_err().to_string().contains("`ascii`"));
    }
}
