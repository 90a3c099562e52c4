//! Steps on a page: a list with how long each took, and the last lines of a log. Every text is escaped here.
//!
//! Each says in words how far it is; marks and colours only repeat it.

use std::fmt::Write;

use super::escaped;

/// How far a step is; seconds and milliseconds are of its time, the last ones of what it takes as a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row<'a> {
    /// Not begun.
    Later(&'a str, Option<u64>),
    /// For so many seconds.
    Now(&'a str, u64, Option<u64>),
    /// In so many milliseconds.
    Done(&'a str, u64),
    /// After so many milliseconds.
    Failed(&'a str, u64),
}

/// The list, and the lines if there are any.
pub(crate) fn steps<'a>(rows: &[Row<'_>], lines: impl ExactSizeIterator<Item = &'a str>) -> String {
    let mut out = String::new();
    if !rows.is_empty() {
        out.push_str("<ol class=\"steps\">");
        rows.iter().for_each(|row| item(&mut out, *row));
        out.push_str("</ol>");
    }
    if lines.len() > 0 {
        out.push_str("<pre tabindex=\"0\" aria-label=\"Log\">");
        for line in lines {
            out.push_str(&escaped(line));
            out.push('\n');
        }
        out.push_str("</pre>");
    }
    out
}

fn item(out: &mut String, row: Row<'_>) {
    let (class, mark, words) = match row {
        Row::Later(words, _) => ("later", "○", words),
        Row::Now(words, ..) => ("now", "●", words),
        Row::Done(words, _) => ("done", "✓", words),
        Row::Failed(words, _) => ("failed", "✕", words),
    };
    let time = match row {
        Row::Later(_, None) => "<span>to come</span>".to_owned(),
        Row::Later(_, Some(usual)) => format!("<span>usually {}</span>", span(usual)),
        Row::Now(_, seconds, usual) => {
            let so_far = whole(seconds);
            let then = usual.map_or_else(String::new, |usual| format!(", usually {}", span(usual)));
            format!(
                "<span data-seconds=\"{seconds}\" data-then=\"{then}\">for {so_far}{then}</span>"
            )
        }
        Row::Done(_, millis) => format!("<span>done in {}</span>", span(millis)),
        Row::Failed(_, millis) => format!("<span>failed after {}</span>", span(millis)),
    };
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<li class=\"{class}\"><i aria-hidden=\"true\">{mark}</i><span>{}</span>{time}</li>",
        escaped(words)
    );
}

/// Seconds, as the page's script goes on with them.
fn whole(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// Milliseconds, in words.
pub(crate) fn span(millis: u64) -> String {
    match millis {
        0..10_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        _ => whole(millis / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_says_how_far_it_is() {
        let rows = [
            Row::Done("a <b>", 1_250),
            Row::Failed("c", 61_000),
            Row::Now("d", 3, None),
            Row::Now("d", 3, Some(5_200)),
            Row::Later("e", None),
            Row::Later("f", Some(12_345)),
        ];
        let html = steps(&rows, ["1 < 2"].into_iter());
        for part in [
            "<span>a &lt;b&gt;</span><span>done in 1.2 s</span>",
            "<span>failed after 1 min 1 s</span>",
            "<span data-seconds=\"3\" data-then=\"\">for 3 s</span>",
            "<span data-seconds=\"3\" data-then=\", usually 5.2 s\">for 3 s, usually 5.2 s</span>",
            "<span>e</span><span>to come</span>",
            "<span>f</span><span>usually 12 s</span>",
            "1 &lt; 2\n</pre>",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert_eq!(steps(&[], [].into_iter()), "");
    }
}
