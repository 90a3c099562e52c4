//! What is copied for whoever helps: a text that stands on the page, with a button where there is a script. Nothing secret is in it.

use std::fmt::Write;

use super::escaped;

/// What is known beside the request.
#[derive(Debug)]
pub(crate) struct Support {
    /// What each thing is called, and what it is.
    pub(crate) known: Vec<(&'static str, String)>,
    /// When it was looked at, RFC 3339.
    pub(crate) time: String,
}

impl Support {
    /// A line for each thing.
    pub(super) fn text(&self, reason: &str, request: &str) -> String {
        let known = self.known.iter().map(|(name, value)| (*name, &**value));
        let request = [
            ("Reason", reason),
            ("Request", request),
            ("Time", &self.time),
        ];
        known
            .chain(request)
            .fold(String::new(), |mut text, (name, value)| {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{name}: {value}");
                text
            })
    }
}

/// The button is not there without a script; the text can be chosen by hand.
pub(super) fn markup(text: &str) -> String {
    format!(
        "<div class=\"support\"><details><summary>For support</summary>\
         <pre id=\"support\" tabindex=\"0\" aria-label=\"For support\">{}</pre></details>\
         <button type=\"button\" data-copies=\"support\" hidden>Copy for support</button></div>",
        escaped(text)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_has_its_line_and_none_becomes_markup() {
        let support = Support {
            known: vec![("Gitspace", "api-k3x9q2".into()), ("Said", "1 < 2".into())],
            time: "2026-01-01T00:00:09Z".into(),
        };
        let text = support.text("gitspace-stopped", "0123-1");
        assert_eq!(
            text,
            "Gitspace: api-k3x9q2\nSaid: 1 < 2\nReason: gitspace-stopped\nRequest: 0123-1\nTime: 2026-01-01T00:00:09Z\n"
        );
        assert!(markup(&text).contains("Said: 1 &lt; 2\n"));
    }
}
