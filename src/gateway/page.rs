//! The look of a page of ours: one frame for refusals, for the end of a login, and for whatever asks a person something.
//!
//! A page holds texts, links and forms, all escaped here, so nothing that came from outside can become markup. It loads nothing: its
//! style, and a script if it has one, stand in it and are allowed by their hash. Pages are for people who see little, use no mouse
//! or read at 400 %: one heading, one landmark, colours with contrast (a test computes it), a focus that is seen, nothing that moves.
//!
//! Not here: what a page says (`rejection::catalogue`, `own`, `visit`, `wake`).

mod steps;
mod support;

use std::{borrow::Cow, fmt::Write, sync::LazyLock};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Response, StatusCode, header};

use super::forward::Body;

pub(crate) use steps::{Row, span, steps};
pub(crate) use support::Support;

const STYLE: &str = include_str!("page/style.css");
const WAITING: &str = include_str!("page/waiting.js");

static STYLE_SOURCE: LazyLock<String> = LazyLock::new(|| source(STYLE));

/// A picture beside a text. It says nothing that the text does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Icon {
    /// A person.
    Person,
    /// What a gitspace is drawn as: a window with a prompt.
    Gitspace,
    /// What the gateway is drawn as: a gate.
    Gateway,
}

impl Icon {
    /// What is drawn, in a square of 24.
    fn path(self) -> &'static str {
        match self {
            Self::Person => "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM4 20c1-4 4-5 8-5s7 1 8 5",
            Self::Gitspace => "M3 5h18v14H3zM7 9l3 3-3 3M12 15h4",
            Self::Gateway => "M4 21V9c0-3 3-6 8-6s8 3 8 6v12M2 21h20M9 21v-9M15 21v-9",
        }
    }
}

/// A page that is being written, part by part, in the order in which it is read.
#[derive(Debug)]
pub(crate) struct Page {
    title: String,
    parts: String,
    script: Option<&'static str>,
    waits: Option<Waits>,
    sends_forms: bool,
    support: Option<Support>,
}

/// What a page waits for.
#[derive(Debug)]
struct Waits {
    reason: &'static str,
    refresh: Option<u8>,
    follows: bool,
}

impl Page {
    /// A page with this heading, which is its title too.
    pub(crate) fn new(title: &str) -> Self {
        Self {
            title: escaped(title).into_owned(),
            parts: String::new(),
            script: None,
            waits: None,
            sends_forms: false,
            support: None,
        }
    }

    /// A paragraph.
    pub(crate) fn text(self, text: &str) -> Self {
        self.part(format_args!("<p>{}</p>", escaped(text)))
    }

    /// A paragraph with a picture; what comes first is said with weight.
    pub(crate) fn marked(self, icon: Icon, first: &str, text: &str) -> Self {
        self.part(format_args!(
            "<p class=\"marked\"><svg viewBox=\"0 0 24 24\" aria-hidden=\"true\"><path d=\"{}\"/></svg><span><strong>{}</strong> {}</span></p>",
            icon.path(),
            escaped(first),
            escaped(text)
        ))
    }

    /// What a person can do: links, by target and text. The target "" is the page itself, asked for again.
    pub(crate) fn links(self, links: &[(&str, &str)]) -> Self {
        if links.is_empty() {
            return self;
        }
        let links = links.iter().fold(String::new(), |mut out, (to, text)| {
            // Writing to a String cannot fail.
            let _ = write!(out, "<a href=\"{}\">{}</a>", escaped(to), escaped(text));
            out
        });
        self.part(format_args!("<p class=\"actions\">{links}</p>"))
    }

    /// A button that sends these fields by POST, to this host and nowhere else.
    pub(crate) fn form(mut self, action: &str, fields: &[(&str, &str)], button: &str) -> Self {
        self.sends_forms = true;
        let fields = fields.iter().fold(String::new(), |mut out, (name, value)| {
            // Writing to a String cannot fail.
            let _ = write!(
                out,
                "<input type=\"hidden\" name=\"{}\" value=\"{}\">",
                escaped(name),
                escaped(value)
            );
            out
        });
        self.part(format_args!(
            "<form class=\"actions\" method=\"post\" action=\"{}\">{fields}<button>{}</button></form>",
            escaped(action),
            escaped(button)
        ))
    }

    /// A button beside the way on.
    pub(crate) fn aside(mut self, action: &str, button: &str) -> Self {
        self.sends_forms = true;
        self.part(format_args!(
            "<form class=\"actions aside\" method=\"post\" action=\"{}\"><button>{}</button></form>",
            escaped(action),
            escaped(button)
        ))
    }

    /// What whoever helps wants to know; stands at the end, with the request.
    pub(crate) fn support(mut self, support: Support) -> Self {
        self.support = Some(support);
        self
    }

    /// What helps to find the request in a log.
    pub(crate) fn identified(mut self, status: StatusCode, reason: &str, request: &str) -> Self {
        if let Some(support) = self.support.take() {
            let text = support.text(reason, request);
            self = self.part(format_args!("{}", support::markup(&text)));
        }
        let text = format!("{} · {reason} · {request}", status.as_u16());
        self.part(format_args!("<p class=\"footnote\">{}</p>", escaped(&text)))
    }

    /// Steps and lines, as [`steps`] made them.
    pub(crate) fn steps(self, steps: &str) -> Self {
        self.part(format_args!("<div id=\"steps\">{steps}</div>"))
    }

    /// The same while they change, with what is being done now: said aloud when it changes.
    pub(crate) fn progress(self, says: &str, steps: &str) -> Self {
        let says = escaped(says);
        self.part(format_args!("<p id=\"says\" role=\"status\">{says}</p>"))
            .steps(steps)
    }

    /// The page asks again by itself, and is loaded again as soon as its address is not answered with this reason any more. Without
    /// script it is loaded again after `refresh` seconds. `follows`: it is told how a start goes.
    pub(crate) fn waits(
        mut self,
        reason: &'static str,
        refresh: Option<u8>,
        follows: bool,
    ) -> Self {
        self.waits = Some(Waits {
            reason,
            refresh,
            follows,
        });
        self
    }

    /// A script of ours, run when the page is there. The page must be whole without it.
    pub(crate) fn script(mut self, script: &'static str) -> Self {
        self.script = Some(script);
        self
    }

    /// The page as an answer. Whether it may be kept is the caller's to say.
    pub(crate) fn answer(&self, status: StatusCode) -> Response<Body> {
        let policy = self.policy();
        let mut response = Response::new(Body::full(self.html().into_bytes()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        // With `no-referrer` a button's request would not say from which origin it is.
        let referrer = match self.sends_forms {
            true => "same-origin",
            false => "no-referrer",
        };
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static(referrer));
        response
    }

    fn part(mut self, part: std::fmt::Arguments<'_>) -> Self {
        // Writing to a String cannot fail.
        let _ = writeln!(self.parts, "{part}");
        self
    }

    fn html(&self) -> String {
        let refresh = self.waits.as_ref().and_then(|waits| waits.refresh);
        let refresh = refresh.map_or_else(String::new, |seconds| {
            format!("<noscript><meta http-equiv=\"refresh\" content=\"{seconds}\"></noscript>\n")
        });
        let script = match (&self.waits, self.script) {
            (Some(waits), _) => {
                let follows = if waits.follows { " data-follows" } else { "" };
                let reason = waits.reason;
                format!("<script data-reason=\"{reason}\"{follows}>{WAITING}</script>\n")
            }
            (None, Some(script)) => format!("<script>{script}</script>\n"),
            (None, None) => String::new(),
        };
        format!(
            include_str!("page/frame.html"),
            refresh = refresh,
            title = self.title,
            style = STYLE,
            parts = self.parts,
            script = script,
        )
    }

    /// Nothing from elsewhere, and never in a frame: what a page asks must not be clicked for somebody else's purpose, and whether one
    /// is shown must not be told by what surrounds it. A preview inside another page shows the browser's own words instead.
    fn policy(&self) -> HeaderValue {
        let style = &*STYLE_SOURCE;
        let script = match (&self.waits, self.script) {
            (Some(_), _) => format!("script-src {}; connect-src 'self'; ", source(WAITING)),
            (None, Some(script)) => format!("script-src {}; ", source(script)),
            (None, None) => String::new(),
        };
        let forms = if self.sends_forms { "'self'" } else { "'none'" };
        let policy = format!(
            "default-src 'none'; style-src {style}; {script}base-uri 'none'; form-action {forms}; frame-ancestors 'none'"
        );
        // Base64 and the words above.
        HeaderValue::try_from(policy)
            .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
    }
}

/// How a policy names a text that stands in the page (Content Security Policy Level 3 §6.7.2.3).
fn source(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    format!("'sha256-{}'", STANDARD.encode(hash))
}

/// A text as it may stand between tags and in quoted attributes.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out.into()
}

#[cfg(test)]
mod tests;
