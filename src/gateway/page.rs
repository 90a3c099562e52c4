//! The look of a page of ours: one frame for refusals, for the end of a login, and for whatever asks a person something.
//!
//! A page holds texts, links and forms, all escaped here, so nothing that came from outside can become markup. It loads nothing: its
//! style, and a script if it has one, stand in it and are allowed by their hash. Pages are for people who see little, use no mouse
//! or read at 400 %: one heading, one landmark, colours with contrast (a test computes it), a focus that is seen, nothing that moves.
//!
//! Not here: what a page says (`rejection::catalogue`, `own`).

use std::{borrow::Cow, fmt::Write, sync::LazyLock};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Response, StatusCode, header};

use super::forward::Body;

const STYLE: &str = include_str!("page/style.css");

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
    refresh: Option<u8>,
    script: Option<&'static str>,
    sends_forms: bool,
}

impl Page {
    /// A page with this heading, which is its title too.
    pub(crate) fn new(title: &str) -> Self {
        Self {
            title: escaped(title).into_owned(),
            parts: String::new(),
            refresh: None,
            script: None,
            sends_forms: false,
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

    /// What helps to find the request in a log.
    pub(crate) fn footnote(self, text: &str) -> Self {
        self.part(format_args!("<p class=\"footnote\">{}</p>", escaped(text)))
    }

    /// The page asks for itself again after so many seconds.
    pub(crate) fn refresh(mut self, seconds: u8) -> Self {
        self.refresh = Some(seconds);
        self
    }

    /// A script of ours, run when the page is there. The page must be whole without it.
    pub(crate) fn script(mut self, script: &'static str) -> Self {
        self.script = Some(script);
        self
    }

    /// The page as an answer. Whether it may be kept is the caller's to say.
    pub(crate) fn answer(self, status: StatusCode) -> Response<Body> {
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
        headers.insert(
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        );
        response
    }

    fn part(mut self, part: std::fmt::Arguments<'_>) -> Self {
        // Writing to a String cannot fail.
        let _ = writeln!(self.parts, "{part}");
        self
    }

    fn html(&self) -> String {
        let refresh = self.refresh.map_or_else(String::new, |seconds| {
            format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">\n")
        });
        let script = self
            .script
            .map_or_else(String::new, |script| format!("<script>{script}</script>\n"));
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
        let script = self.script.map_or_else(String::new, |script| {
            format!("script-src {}; ", source(script))
        });
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
