use std::collections::HashMap;

use http_body_util::BodyExt;

use super::*;

/// The page and its policy.
async fn shown(page: Page) -> (String, String) {
    let response = page.answer(StatusCode::OK);
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap()
        .to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (String::from_utf8(body.to_vec()).unwrap(), policy)
}

/// What stands between the only tag of this name and its end.
fn within<'a>(html: &'a str, tag: &str) -> &'a str {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    assert_eq!(html.matches(&open).count(), 1, "{tag}: {html}");
    let begin = html.split_once(&open).unwrap().1;
    begin.split_once(&close).unwrap().0
}

#[tokio::test]
async fn a_page_has_one_heading_one_landmark_and_a_language() {
    let (html, _) = shown(Page::new("Words").text("More")).await;
    assert!(html.contains("<html lang=\"en\">"));
    assert_eq!(within(&html, "h1"), "Words");
    assert_eq!(within(&html, "title"), "Words");
    assert!(within(&html, "main").contains("<h1>"));
}

#[tokio::test]
async fn style_and_script_are_allowed_by_their_hash_and_nothing_else_is() {
    let page = Page::new("x").script("console.log(1)");
    let (html, policy) = shown(page).await;
    let hash = |text: &str| {
        let hash = digest(&SHA256, text.as_bytes());
        format!("'sha256-{}'", STANDARD.encode(hash))
    };
    let (style, script) = (hash(within(&html, "style")), hash(within(&html, "script")));
    assert_eq!(
        policy,
        format!(
            "default-src 'none'; style-src {style}; script-src {script}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    );
    let (_, policy) = shown(Page::new("x").form("/y", &[("a", "b")], "Go")).await;
    assert!(policy.contains("form-action 'self'") && !policy.contains("script-src"));
    assert!(!html.contains("style=") && !html.contains(" on"), "{html}");
}

#[tokio::test]
async fn nothing_from_outside_becomes_markup() {
    let bad = "<b a=\"1\" c='2'>&amp;";
    let page = Page::new(bad)
        .text(bad)
        .marked(Icon::Person, bad, bad)
        .links(&[(bad, bad)])
        .form(bad, &[(bad, bad)], bad)
        .identified(StatusCode::OK, bad, bad);
    let (html, _) = shown(page).await;
    assert!(!html.contains("<b "));
    let escaped = "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;amp;";
    assert_eq!(html.matches(escaped).count(), 13, "{html}");
}

/// The colours by name, in light and in dark.
fn colours() -> [HashMap<&'static str, [u8; 3]>; 2] {
    let (light, dark) = STYLE.split_once("(prefers-color-scheme: dark)").unwrap();
    [light, dark].map(|part| {
        let lines = part.lines().filter_map(|line| {
            let (name, value) = line.trim().strip_prefix("--")?.split_once(": #")?;
            let value = u32::from_str_radix(value.strip_suffix(';')?, 16).ok()?;
            let [_, colour @ ..] = value.to_be_bytes();
            Some((name, colour))
        });
        lines.collect()
    })
}

/// The contrast of two colours (WCAG 2.2, "contrast ratio").
fn contrast(one: [u8; 3], other: [u8; 3]) -> f64 {
    let linear = |part: u8| {
        let part = f64::from(part) / 255.0;
        match part <= 0.04045 {
            true => part / 12.92,
            false => ((part + 0.055) / 1.055).powf(2.4),
        }
    };
    let luminance = |colour: [u8; 3]| {
        let [red, green, blue] = colour.map(linear);
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    };
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

#[test]
fn texts_have_contrast_in_light_and_dark() {
    for (mode, colours) in ["light", "dark"].into_iter().zip(colours()) {
        assert_eq!(colours.len(), 6, "{mode}");
        for (text, ground) in [
            ("ink", "paper"),
            ("quiet", "paper"),
            ("ink", "panel"),
            ("accent", "panel"),
            ("accent", "paper"),
            ("on-accent", "accent"),
        ] {
            let found = contrast(colours[text], colours[ground]);
            assert!(found >= 4.5, "{mode}: {text} on {ground} is {found:.2}");
        }
    }
    assert!((contrast([0; 3], [255; 3]) - 21.0).abs() < 0.01);
}

#[test]
fn nothing_moves_and_nothing_is_loaded() {
    for word in ["animation", "transition", "url(", "@import", "http"] {
        assert!(!STYLE.contains(word), "{word}");
    }
}
